"""Functions that the host calls once per step, in float64 (`@rule(prepare=...)`).

Each has its text in JavaScript too; see `language.javascript`.
"""

from __future__ import annotations

import math
from functools import lru_cache

NEGLIGIBLE = 2.0**-60
"""1 minus a smaller product is 1 in float64."""


def momentum_product(beta1: float, momentum_decay: float, t: int) -> float:
    """Return mu_1 ... mu_t of Dozat's schedule, mu_i = beta1 (1 - 0.5 0.96^(i momentum_decay))."""
    products = _products(beta1, momentum_decay)
    # Threads that meet here write the same numbers.
    for i in range(len(products), t + 1):
        if products[i - 1] < NEGLIGIBLE:
            return products[i - 1]
        products[i] = products[i - 1] * beta1 * (1 - 0.5 * 0.96 ** (i * momentum_decay))
    return products[t]


_MOMENTUM_PRODUCT = """
function (beta1, momentum_decay, t) {
    let product = 1;
    for (let i = 1; i <= t && product >= 2 ** -60; ++i) {
        product = product * beta1 * (1 - 0.5 * 0.96 ** (i * momentum_decay));
    }
    return product;
}
"""
momentum_product.javascript = _MOMENTUM_PRODUCT  # type: ignore[attr-defined]


@lru_cache(maxsize=16)
def _products(beta1: float, momentum_decay: float) -> dict[int, float]:
    """Return the products by number of steps, filled in on demand."""
    return {0: 1.0}


def rectification(beta2: float, threshold: float, inclusive: float, t: int) -> float:
    """Return r_t of Liu et al. 2020; 0 if the length of the average is not above the threshold.

    The formula needs a length above 4, whatever the threshold.
    """
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    if length <= 4 or not (length > threshold or (inclusive and length == threshold)):
        return 0.0
    above = (length - 4) * (length - 2) * longest
    return math.sqrt(above / ((longest - 4) * (longest - 2) * length))


_RECTIFICATION = """
function (beta2, threshold, inclusive, t) {
    const longest = 2 / (1 - beta2) - 1, power = beta2 ** t;
    const length = longest - 2 * t * power / (1 - power);
    if (length <= 4 || !(length > threshold || (inclusive && length === threshold))) {
        return 0;
    }
    const above = (length - 4) * (length - 2) * longest;
    return Math.sqrt(above / ((longest - 4) * (longest - 2) * length));
}
"""
rectification.javascript = _RECTIFICATION  # type: ignore[attr-defined]


def averaged_models(t: int, start: float, every: float) -> float:
    """Return the number of parameters in an equal average after update t, from 1.

    The first is that after update ``start + 1``, then one after every ``every`` updates. 1 up to
    the first; 0 if update t adds none.
    """
    if t <= start:
        return 1.0
    count, rest = divmod(t - start - 1, every)
    return 0.0 if rest else count + 1.0


def is_due(t: int, every: float) -> float:
    """Return 1 if update t, from 1, is a multiple of ``every``, otherwise 0."""
    return float(t % every == 0)


_AVERAGED_MODELS = """
function (t, start, every) {
    if (t <= start) {
        return 1;
    }
    const since = t - start - 1;
    return since % every ? 0 : since / every + 1;
}
"""
averaged_models.javascript = _AVERAGED_MODELS  # type: ignore[attr-defined]
is_due.javascript = "function (t, every) { return t % every ? 0 : 1; }"  # type: ignore[attr-defined]
