"""The named methods: each class has a formula, its defaults, and the rule that computes it.

Every class also takes the keywords of `Optimizer` (`gpuadapt.common_options.CommonOptions`):
``weight_decay``, ``decay``, ``maximize``, ``rowwise``, ``max_row_norm``, ``check``, ``initial``,
``state_dtype``, ``master``, ``rounding``, ``seed``, ``sparse``, ``exactness``, ``average``.
"""

from functools import partial

from .adagrad import FTRL, Adagrad
from .adam import Adam, AdamW
from .adam_family import Adamax, Lion, NAdam, RAdam
from .rmsprop import Adadelta, RMSprop
from .sgd import SGD

__all__ = [
    "FTRL",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "RAdam",
    "RMSprop",
]

__dir__ = partial(sorted, __all__)
