"""States of other frameworks' optimizers, brought into gpuadapt's and back.

>>> import numpy as np, gpuadapt as ga
>>> w = np.zeros(2, np.float32)
>>> optimizer = ga.presets.tensorflow.MomentumOptimizer({"w": w}, 0.1, 0.9)
>>> checkpoint = {"w": w, "w/Momentum": np.ones(2, np.float32)}
>>> ga.convert.from_tensorflow(checkpoint, optimizer, steps=100)
>>> optimizer.state["w"]["b"], optimizer.step_count
(array([1., 1.], dtype=float32), 100)

The optimizer is made by the preset of the framework's method (`gpuadapt.presets`) and takes over
states and counts. All checks come before any change.
"""

from functools import partial

from .keras import from_keras
from .optax import from_optax, to_optax
from .tensorflow import from_tensorflow
from .torch import from_torch, to_torch

__all__ = ["from_keras", "from_optax", "from_tensorflow", "from_torch", "to_optax", "to_torch"]

__dir__ = partial(sorted, __all__)
