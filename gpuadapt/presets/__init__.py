"""Other frameworks' optimizers: their names, defaults and exact formulas, on our kernels.

>>> import numpy as np, gpuadapt as ga
>>> optimizer = ga.presets.keras.RMSprop(np.zeros(3), learning_rate=1e-3, momentum=0.9)

The first argument is what is to be updated, as everywhere in gpuadapt; the others are the
framework's own. Left out are what has no influence on the formula (``foreach``, ``name``, ...),
what is not an update (clipping, averaging, masks), and forms that there are no rules for, such as
powers other than -1/2 in FTRL: to give them is a TypeError. Keywords of `Optimizer`, such as
``rowwise``, may follow; hyperparameters in groups and `param_groups` have gpuadapt's names.
Results agree to rounding: frameworks round differently.
"""

from functools import partial

from . import chainer, keras, optax, tensorflow, torch

__all__ = ["chainer", "keras", "optax", "tensorflow", "torch"]

__dir__ = partial(sorted, __all__)
