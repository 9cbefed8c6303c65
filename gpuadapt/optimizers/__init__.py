"""The named methods: defaults, the formula, and which rule.

Every class takes the keywords of `Optimizer` as well: ``weight_decay``, ``decay``,
``maximize``, ``rowwise``, ``max_row_norm``, ``check``, ``sparse``, ``exactness``.
"""

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
