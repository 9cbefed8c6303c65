"""What can be seen of an optimizer: counts, rows, states, rates, what a step did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gpuadapt.kernels.rule import Rule

from .building import shown
from .errors import ParameterError, RuleError
from .group import Group
from .hyperparameters import number
from .request import Last
from .slot import Slot
from .stats import Stats
from .steps import Steps
from .structure import numbers_of, row_numbers


class Params(dict[str, Any]):
    """Arrays by name, to be read: what is put there instead of an array would not be updated."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise ParameterError(
            "params: it shows which arrays are updated, and cannot be changed. Write into an array "
            "(params[name][...] = new); for more parameters there is `add`, for more rows `grow`"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class View:
    """The part of `Optimizer` that takes no steps."""

    rule: Rule
    _slots: dict[str, Slot]
    _groups: list[Group]
    _steps: Steps
    _stats: dict[str, Stats]

    @property
    def step_count(self) -> int:
        """Steps taken, without those that were skipped; may wait for a GPU that skips some."""
        return self._steps.count

    @property
    def last(self) -> Last | None:
        """What became of the last step; waits for a GPU. None before the first.

        Returns
        -------
        Last or None
            (grad_norm, clip_factor, skipped): the norm of all gradients, unscaled, as a
            float64 number that does not depend on threads, backend or the parameters' order,
            or None if the step had no use for it; what ``max_norm`` made the gradients be
            multiplied by, 1 for nothing; whether ``skip_nonfinite`` left everything as it was.
        """
        return self._steps.last

    @property
    def skipped_rows(self) -> int:
        """Rows of gradients that were not in their tables and were left out (``check="skip"``).

        Counts every occurrence since the optimizer was made. Waits for the GPU.
        """
        return sum(slot.skipped for slot in self._slots.values())

    @property
    def params(self) -> Params:
        """The arrays that are updated, by name: those that were given, or a copy's own.

        Arrays and their optimizer stay together if they are copied or pickled together:
        ``copy.deepcopy((arrays, optimizer))``. A copy of the optimizer alone has copies of the
        arrays, which are found here.
        """
        return Params({name: slot.given for name, slot in self._slots.items()})

    @property
    def param_groups(self) -> tuple[dict[str, Any], ...]:
        return tuple(group.settings for group in self._groups)

    @property
    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """The state arrays themselves, by parameter and by the rule's letters; read-only maps."""
        return MappingProxyType(
            {name: MappingProxyType(slot.kept) for name, slot in self._slots.items()}
        )

    def read(self, name: str, rows: Any) -> Any:
        """Rows of a table, up to date: with ``sparse="exact"`` they take what they have missed.

        Parameters
        ----------
        name : str
            The parameter's name.
        rows : array of any integer type and shape, or (of a NumPy table) a list of int
            Numbers of rows, on the table's device, as often as they are wanted.

        Returns
        -------
        array, shape (\\*rows.shape, \\*row shape)
            New, of the table's element type. Zeros for rows that are not in the table, if the
            group's ``check`` is to skip them.

        Raises
        ------
        ParameterError, GradientError
            No such table; not such rows.
        RowIndexError
        """
        slot = self._slot(name)
        return slot.read(row_numbers(slot, rows), self._groups[slot.group].skips(slot.backend))

    def write(self, name: str, values: Any) -> None:
        """Make a parameter hold these numbers, and what is kept beside it hold the rest of them.

        Of float32 numbers that are written into an array of 16 bits, only what fits is left. Given
        here, the next step starts from the numbers themselves with ``master``, and from a number
        within 16 more bits of each with ``rounding="kahan"``. Other parameters take them to the
        nearest. Rows that have missed steps (``sparse="exact"``) take them before. States stay.

        Parameters
        ----------
        name : str
            The parameter's name.
        values : array
            NumPy's or CuPy's, of the parameter's shape, of any type that parameters have.

        Raises
        ------
        ParameterError
            No such parameter; not such an array; a number that is infinite in the parameter's type.

        Examples
        --------
        >>> import ml_dtypes, numpy as np, gpuadapt as ga
        >>> full = np.array([1.001, 2.002], np.float32)
        >>> w = full.astype(ml_dtypes.bfloat16)
        >>> optimizer = ga.Adam({"w": w}, master="float32")
        >>> optimizer.write("w", full)
        >>> optimizer.state["w"]["master"]
        array([1.001, 2.002], dtype=float32)
        """
        slot = self._slot(name)
        slot.write(numbers_of(slot, values))

    def flush(self, name: str | None = None, *, fraction: float = 1.0) -> None:
        """Bring rows up to date that have missed steps (``sparse="exact"``), states too.

        `state_dict`, `effective_lr` and ``stats`` do so themselves; it is for who reads the
        arrays, such as ``state``, and for who writes into a table: call it before, or rows take
        the steps that they have missed from what was written. Steps bring a few rows up to date as
        well, so that no more than some thousand steps have to be remembered.

        Parameters
        ----------
        name : str, optional
            Of one parameter; by default of all.
        fraction : float, > 0 and <= 1
            Of so many of each table's rows, from where the last call has stopped.

        Raises
        ------
        ParameterError, HyperparameterError
        """
        share = number("fraction", fraction)
        for slot in self._slots.values() if name is None else (self._slot(name),):
            slot.flush(share)

    def effective_lr(self, name: str) -> Any:
        """The learning rate of each element, from the state after the last step.

        It is what multiplies the gradient (for Adam the corrected mean of gradients):
        lr / (sqrt(.) + eps), with eps where the rule has it; for Adadelta
        lr RMS(u) / RMS(g).

        Parameters
        ----------
        name : str
            The parameter's name.

        Returns
        -------
        array
            New, of the parameter's shape and device; float64 for float64, otherwise float32.

        Raises
        ------
        ParameterError
            No parameter has that name.
        RuleError
            The rule (your own) has no variable named ``rate``.
        """
        slot = self._slot(name)
        slot.flush()
        count = self._steps.settle()
        return slot.rate(*self._groups[slot.group].rate(slot.updates, max(count - 1, 0)))

    def _rate(self, slot: Slot) -> tuple[Rule, Sequence[float]] | None:
        """The rule of effective rates and its coefficients, if there is one."""
        count = self._steps.settle()
        try:
            return self._groups[slot.group].rate(slot.updates, max(count - 1, 0))
        except RuleError:
            return None

    def _slot(self, name: str) -> Slot:
        if name not in self._slots:
            raise ParameterError(f"no parameter {name!r}; there are {', '.join(self._slots)}")
        return self._slots[name]

    def stats(self, name: str) -> Stats:
        """What the last step that was asked for it (``step(grads, stats=[name])``) did.

        Parameters
        ----------
        name : str
            The parameter's name.

        Returns
        -------
        Stats
            (lost, ratio, rates): the share of updates that were lost to rounding, the norm of the
            update over that of the parameter, quantiles of the effective rates.

        Raises
        ------
        ParameterError
            No parameter has that name, or no step was asked about it while it had a gradient.
        """
        self._slot(name)
        if name not in self._stats:
            raise ParameterError(f"no stats of {name!r}: take a step with stats=[{name!r}]")
        return self._stats[name]

    def __repr__(self) -> str:
        slots = list(self._slots.values())
        return shown(type(self).__name__, self.rule, self._groups, slots, self.step_count)
