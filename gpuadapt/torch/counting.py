"""The scalars of a step on tensors: how often a parameter has been updated, and coefficients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gpuadapt.kernels.array_types import HostArray
from gpuadapt.kernels.commit import Call
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.numerics.scalar_layout import FIRST, RANDOM_PERIOD

from .. import launch
from ..group import coefficients
from .binding import Binding
from .recipes import MU_PRODUCT, Recipe, number_of, values_of
from .slots import Slot

LARGEST = float(np.finfo(np.float32).max)


class Counts(NamedTuple):
    """The numbers that parameters have beside their states, as a step will leave them."""

    steps: HostArray
    """float64, shape (parameters,): number of the update, from 1; NaN where there is none."""
    products: HostArray | None
    """As `steps`, the "mu_product" of NAdam."""
    alike: bool
    """Whether all parameters that are updated have the same numbers."""


def counts_after(
    recipe: Recipe,
    binding: Binding,
    state: Mapping[Tensor, Any],
    groups: Sequence[Mapping[str, Any]],
    used: HostArray,
) -> Counts:
    """Return the numbers that parameters will have after a step.

    Parameters
    ----------
    recipe : Recipe
    binding : Binding
    state : mapping
        ``optimizer.state``.
    groups : sequence of dict
        ``optimizer.param_groups``.
    used : ndarray of bool, shape (parameters,)
        True for those that are updated.
    """
    steps, alike = np.empty(len(used)), True
    if "step" in binding.scalars:
        # float32 stops at 2^24, as torch's count does.
        alike = launch.numbers_at().successors(*binding.scalars["step"], used, steps)
    if recipe.count_is_int:
        for k in np.flatnonzero(used).tolist():
            steps[k] = int((state.get(binding.params[k]) or {}).get("step", 0)) + 1
        alike = False
    if not recipe.counts:
        # Torch does not count: a parameter with a buffer has had its first gradient.
        if "step" not in binding.scalars:
            steps.fill(np.nan)
        later = np.array([slot is not None and not slot.is_new for slot in binding.slots], bool)
        steps = np.where(used, np.fmax(steps, 1.0 + later), np.nan)
        alike = False
    products = None
    if MU_PRODUCT in binding.scalars:
        products, same = _products(binding, groups, used, steps)
        alike = alike and same
    return Counts(steps, products, alike)


def _products(
    binding: Binding, groups: Sequence[Mapping[str, Any]], used: HostArray, steps: HostArray
) -> tuple[HostArray, bool]:
    """The products mu_1 ... mu_t of NAdam, in the float type in which torch keeps them."""
    addresses, wide = binding.scalars[MU_PRODUCT]
    products = np.empty(len(used))
    same = launch.numbers_at().read_numbers(addresses, wide, used, products)
    for number, group in enumerate(groups):
        there = binding.group_numbers == number
        beta1, decay = number_of("beta1", group), number_of("momentum_decay", group)
        mu = beta1 * (1 - 0.5 * 0.96 ** (steps[there] * decay))
        single = (products[there].astype(np.float32) * mu.astype(np.float32)).astype(np.float64)
        products[there] = np.where(wide[there], products[there] * mu, single)
    return products, bool(same)


def count_calls(
    recipe: Recipe, binding: Binding, entries: Mapping[int, Any], used: HostArray, counts: Counts
) -> list[Call]:
    """The calls that write the numbers of parameters that are updated.

    Parameters
    ----------
    recipe : Recipe
    binding : Binding
    entries : mapping of int to dict
        The states of parameters, by their place among all.
    used : ndarray of bool, shape (parameters,)
    counts : Counts
    """
    write = launch.numbers_at().write_numbers
    calls: list[Call] = []
    for name, found in (("step", counts.steps), (MU_PRODUCT, counts.products)):
        if name in binding.scalars and found is not None:
            addresses, wide = binding.scalars[name]
            calls.append((write, addresses, wide, used, found))
    if recipe.count_is_int:
        for k in np.flatnonzero(used).tolist():
            calls.append((entries[k].__setitem__, "step", int(counts.steps[k])))
    if not recipe.counts:
        for k in np.flatnonzero(used).tolist():
            if binding.slots[k].is_new:  # type: ignore[union-attr]
                calls.append((setattr, binding.slots[k], "is_new", False))
    return calls


def coefficients_of(
    rule: Rule, group: Mapping[str, Any], extra: Mapping[str, float], t: int, compute: str
) -> tuple[float, ...]:
    """Return a rule's coefficients at the update ``t`` of a group's parameters.

    Parameters
    ----------
    rule : Rule
    group : mapping
    extra : mapping of str to float
        Hyperparameters that are not the group's.
    t : int
        From 1.
    compute : {"float32", "float64"}

    Raises
    ------
    HyperparameterError
        A coefficient does not fit in the compute type.
    """
    values = values_of(rule, group) | dict(extra)
    return coefficients(rule, values, t, LARGEST if compute == "float32" else np.inf)


class Scalars:
    """The scalars of one round of a step, see `kernels.numerics.scalar_layout`.

    Parameters
    ----------
    groups : sequence of dict
        ``optimizer.param_groups``.
    counts : Counts
    extra : mapping of str to float
        The hyperparameters that the step adds to those of groups.
    """

    def __init__(
        self, groups: Sequence[Mapping[str, Any]], counts: Counts, extra: Mapping[str, float]
    ) -> None:
        self.numbers = [0.0, extra.get("grad_scale", 1.0)]
        assert len(self.numbers) == FIRST, "the first coefficient follows"
        self.clip_places: list[int] = []
        """The scalars that are the clip factor."""
        self._groups, self._counts, self._extra = groups, counts, extra
        self._known: dict[Any, int] = {}

    def offset(self, slot: Slot, history: Any = None) -> int:
        """Return where the coefficients of a parameter begin; they are computed when needed.

        Parameters
        ----------
        slot : Slot
        history : StepHistory, optional
            Of a table whose rows catch up.
        """
        t, product = self._of(slot)
        rule = slot.storage.rule
        key = slot.group, rule, t, product, history
        start = self._known.get(key)
        if start is None:
            start = self._known[key] = len(self.numbers)
            group, compute = self._groups[slot.group], slot.storage.formats.compute
            extra = dict(self._extra) if product is None else {**self._extra, MU_PRODUCT: product}
            self.numbers += coefficients_of(rule, group, extra, t, compute)
            names = enumerate(rule.coefficients)
            self.clip_places += [start + k for k, name in names if name == "h_clip_factor"]
            self.numbers.append(float(t % RANDOM_PERIOD))
            if history is not None and history.plan is not None:
                plan = history.plan
                if plan.displacement is not None:
                    self.numbers += coefficients_of(plan.displacement, group, extra, t, compute)
                self.numbers += plan.history_scalars(values_of(rule, group) | extra, t)
        return start

    def _of(self, slot: Slot) -> tuple[int, float | None]:
        """The number of a parameter's update, and its product."""
        products = self._counts.products
        product = None if products is None else float(products[slot.index])
        return int(self._counts.steps[slot.index]), product

    def offsets(self, binding: Binding, used: HostArray) -> HostArray:
        """Return where the coefficients of all parameters begin; int64, shape (parameters,)."""
        if self._counts.alike and used is binding.everywhere:
            starts = tuple(self.offset(members[0]) for members, _ in binding.kinds)
            if starts == binding.offsets[0]:
                return binding.offsets[1]
        offsets = np.zeros(len(used), np.int64)
        if self._counts.alike:
            for members, indices in binding.kinds:
                slot = next((one for one in members if used[one.index]), None)
                if slot is not None:
                    offsets[indices] = self.offset(slot)
            if used is binding.everywhere:
                binding.offsets = starts, offsets
            return offsets
        for k in np.flatnonzero(used).tolist():
            slot = binding.slots[k]
            assert slot is not None, "what is updated has states"
            offsets[k] = self.offset(slot)
        return offsets
