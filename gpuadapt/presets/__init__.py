"""Other frameworks' optimizers: their names, defaults and exact formulas, on our kernels.

>>> import numpy as np, gpuadapt as ga
>>> optimizer = ga.presets.keras.RMSprop(np.zeros(3), learning_rate=1e-3, momentum=0.9)

The first argument is what is to be updated, as everywhere in gpuadapt; the others are the
framework's own. What has no influence on the formula (``foreach``, ``name``, ...) is left
out, and so is what is not an update (clipping, averaging). Keywords of `Optimizer`, such as
``rowwise``, may follow; hyperparameters in groups and `param_groups` have gpuadapt's names.
Results agree to rounding: frameworks round differently.
"""

from . import chainer, keras, optax, tensorflow, torch

__all__ = ["chainer", "keras", "optax", "tensorflow", "torch"]
