"""A parameter: one parameter, its states, and the updates bound to both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels.catchup.plan import unchanged
from gpuadapt.kernels.formats import PLAIN, Formats, Operand
from gpuadapt.kernels.language.rule import Rule

from . import storage
from .arrays import (
    SmallArrayArena,
    contiguous,
    copied,
    dtype_name,
    namespace,
    new_zeros,
    numpy_dtype,
    on_device,
    plain,
    to_host,
    zeros_like,
)
from .errors import GradientError, HyperparameterError, ParameterError, RowIndexError
from .hyperparameters import Start
from .launch import RowUpdate, Update, bind_rows, bind_strided, step_history, update_once
from .pages import Residence
from .rowgrad import RowGrad, prepared
from .rownumbers import INDEX, as_given


class Parameter:
    """One parameter: its array, its states and the updates bound to both."""

    def __init__(
        self,
        name: str,
        array: Any,
        backend: str,
        group: int,
        rule: Rule,
        settings: Mapping[str, Any],
        initial: Mapping[str, Any],
        memory: SmallArrayArena,
    ) -> None:
        self.name = name
        self.user_array = array
        """What its owner has; `array` is a view of it."""
        self.backend = backend
        self.array = self._view()
        self.group = group
        """Its number, not the group itself: a cycle would keep the arrays alive."""
        self.array_type = type(self.array)
        self.dtype_name: str = dtype_name(self.array) or ""
        self.shape = self.array.shape
        self.formats: Formats = storage.formats_of(rule, name, self.dtype_name, settings, initial)
        """For a gradient of the parameter's element type."""
        self.compute_dtype = np.dtype(self.formats.compute)
        """The type of arithmetic."""
        # Blocks and random bits go by C's order.
        self.needs_c_order = self.formats.random or self.formats.block
        by_row = rule.rowwise.row_states if settings["rowwise"] else ()
        self.states: dict[str, Any] = {}
        order = "C" if self.needs_c_order else "K"
        for number, (state, form) in enumerate(
            zip(rule.states, self.formats.states, strict=True), start=1
        ):
            self.states[state] = (
                new_zeros(self.shape[:1], self.compute_dtype, self.array)
                if state in by_row
                else storage.new_state(form, self.array, backend, order, memory, number)
            )
            start = initial.get(state, 0.0)
            if isinstance(start, Start):
                numbers = start.of(storage.decoded(self.array), settings)
                storage.put([self.states[state]], storage.stored(form, numbers))
            elif start != 0:  # zeros are memory that nobody has touched yet
                try:
                    storage.fill(self.states[state], start)
                except HyperparameterError as error:
                    raise HyperparameterError(f"initial {state}: {error}") from None
        self.companions = storage.companions(self.array, self.formats.parameter)
        """What is kept of the parameter besides its 16 bits, by name."""
        if taken := {"updates", *self.companions} & set(self.states):
            raise ParameterError(
                f"parameter {name!r}: the rule has a state {min(taken)!r} itself, which a snapshot "
                "has beside the states: give the state another name"
            )
        self.random_key = storage.key_of(settings["seed"], name)
        self.update_count = 0
        """How many there were, up to where `Steps` has last settled."""
        # None until they are needed: nothing is compiled before.
        self._dense: tuple[Rule, str, Update] | None = None
        self._rows: tuple[Rule, str, RowUpdate] | None = None
        self.exact = settings["sparse"] == "exact"
        """Whether rows take the steps that they miss."""
        self._close = settings["exactness"] != "bits"
        self.history: Any = None
        """What is remembered of steps that rows have missed, once there may be such."""
        self._turn = 0
        """The row from which on a part of the table is flushed next."""
        self._skipped = 0
        self._numbers: Any = None
        self.residence = Residence()

    def _view(self) -> Any:
        """Of NumPy's array a view, so that nobody else can change its shape."""
        return plain(self.user_array).view() if self.backend == "cpu" else self.user_array

    def check_writable(self) -> None:
        """Raise `ParameterError` if the parameter has been made read-only."""
        if self.backend == "cpu" and not self.user_array.flags.writeable:
            raise ParameterError(
                f"parameter {self.name!r}: the array has been made read-only; make it writable "
                "(setflags(write=True)), give it no gradient, or leave it out of a new optimizer"
            )

    @property
    def arrays(self) -> list[Any]:
        """Of the parameter and the states, as kernels see them."""
        return storage.memory_of(self.array, self.companions, self.states)

    @property
    def operand(self) -> Operand:
        """What an update works on."""
        return Operand(self.arrays, self.random_key, storage.width_of(self.shape))

    @property
    def saved_states(self) -> dict[str, Any]:
        """Everything that a resumed run needs: the states, and what is beside the parameter."""
        return self.states | self.companions

    @property
    def saved_arrays(self) -> dict[str, Any]:
        """The same as arrays: of a quantized state ``m`` there are "m.codes" and "m.scales"."""
        return storage.arrays_of(self.saved_states)

    def formats_for(self, element: str) -> Formats:
        """The formats with gradients of an element type."""
        return self.formats._replace(gradient=PLAIN[element])

    def strided_update(self, rule: Rule, element: str) -> Update:
        """The update by a rule of this parameter's arrays, from a gradient of any strides."""
        if self._dense is None or self._dense[:2] != (rule, element):
            update = bind_strided(rule, self.backend, self.formats_for(element), self.operand)
            self._dense = rule, element, update
        return self._dense[2]

    def row_update(self, rule: Rule, element: str) -> RowUpdate:
        """As `bound`, of rows.

        Raises
        ------
        GradientError
            Rows share scales.
        """
        if self._rows is None or self._rows[:2] != (rule, element):
            width = int(np.prod(self.shape[1:], dtype=np.int64))
            if self.formats.block and storage.width_of(self.shape) != width:
                raise GradientError(
                    f"gradient of {self.name!r}: rows of {width} elements share scales with others "
                    f"where states have 8 bits: that takes rows of {storage.NARROW}, or another "
                    "state_dtype"
                )
            if self.exact:
                self._start(rule)
            formats = self.formats_for(element)
            update = bind_rows(rule, self.backend, formats, self.operand, self.history)
            self._skipped, self._rows = self.skipped_rows, (rule, element, update)
        return self._rows[2]

    def needs_history(self, rule: Rule) -> bool:
        """Whether steps by a rule are to be remembered, and are not yet."""
        return not unchanged(rule) and (self.history is None or self.history.rule is not rule)

    def _start(self, rule: Rule) -> None:
        """Remember steps by a rule from now on; those by another one are made up for.

        Raises
        ------
        ParameterError
        """
        if self.history is not None and self.history.rule is rule:
            return
        self.flush()
        if not all(contiguous(array, "C") for array in self.arrays):
            raise ParameterError(
                f"parameter {self.name!r}: sparse='exact' takes tables whose rows lie one behind "
                "the other, without gaps"
            )
        history = rule, self.backend, self.formats, self._close, len(self.array)
        self.history = step_history(*history, self.update_count)

    @property
    def is_current(self) -> bool:
        """Whether no row has missed a step; waits for a GPU."""
        clock = self.history
        return clock is None or bool((to_host(clock.last) == to_host(clock.now)).all())

    def flush(self, fraction: float = 1.0) -> None:
        """Bring all rows up to date with the last step, or the next fraction of them.

        Raises
        ------
        ParameterError
            The table has been made read-only.
        """
        if self.history is None or self._rows is None:
            return
        self.check_writable()
        update: Any = self._rows[2]
        left = min(len(self.array), math.ceil(fraction * len(self.array)))
        if left == len(self.array):
            self.residence.all(self._memory)
        with on_device(self.array):
            while left:
                stop = min(self._turn + left, len(self.array))
                update.refresh(self._turn, stop)
                left -= stop - self._turn
                self._turn = stop % len(self.array)

    def read(self, rows: Any, skip: bool) -> Any:
        """Rows as they are after the last step, in a new array; zeros for those out of range.

        Raises
        ------
        RowIndexError
            A row is out of range, and they are not to be skipped.
        """
        shape = rows.shape + self.shape[1:]
        with on_device(self.array):
            numbers = rows.reshape(-1)
            numbers = numbers if rows.dtype in INDEX else numbers.astype(np.int64)
            try:
                if self.history is not None and self._rows is not None:
                    update: Any = self._rows[2]
                    return update.read(numbers, skip).view(self.array.dtype).reshape(shape)
                return storage.taken(self.array, numbers, skip).reshape(shape)
            except RowIndexError as error:
                raise as_given(error, rows) from None

    def _memory(self) -> Iterable[Any]:
        return self.saved_arrays.values()

    def touch(self, grad: Any) -> bool:
        """Say what a gradient is about to touch; whether more of it has to be said."""
        if isinstance(grad, RowGrad):
            self.residence.rows(grad.rows.size, self._memory)
        else:
            self.residence.all(self._memory)
        return not self.residence.settled

    def write(self, numbers: np.ndarray) -> None:
        """Make the parameter, and what is kept beside it, hold these numbers.

        Raises
        ------
        ParameterError
            A finite number does not fit in the parameter's type, or that has been made read-only.
        """
        self.check_writable()
        with np.errstate(over="ignore"):
            parts = storage.stored(self.formats.parameter, numbers.astype(self.compute_dtype))
        held = storage.decoded(parts[0].view(numpy_dtype(self.dtype_name, "cpu")))
        lost = np.isfinite(numbers) & ~np.isfinite(held)
        if lost.any():
            first = float(numbers[lost][0])
            raise ParameterError(
                f"values of {self.name!r}: {first!r} does not fit in {self.dtype_name}"
            )
        self.flush()
        storage.put([self.array, *self.companions.values()], parts)

    def take_counts_from(self, before: Parameter) -> None:
        """Count on from a parameter that this one takes the place of."""
        self.update_count, self._skipped = before.update_count, before.skipped_rows

    def drop_history(self) -> None:
        """Forget missed steps: the arrays are written anew."""
        self.residence.all(self._memory)
        self._skipped = self.skipped_rows
        self.history = self._rows = None
        self._turn = 0

    @property
    def skipped_rows(self) -> int:
        """Gradient rows that were out of range and left out."""
        return self._skipped + (self._rows[2].skipped if self._rows else 0)

    def as_rows(self, grad: Any) -> RowGrad:
        """A gradient as rows; a dense one has every row once."""
        if isinstance(grad, RowGrad):
            return grad
        grad = grad.reshape(self.shape or (1,))
        if self._numbers is None:
            with on_device(self.array):
                self._numbers = namespace(self.backend).arange(len(grad))
        return RowGrad(self._numbers, grad)

    def effective_rates(self, rule: Rule, coefficients: tuple[float, ...]) -> Any:
        """A new array with the effective rates, by the rule that computes them."""
        order = "C" if self.needs_c_order else "K"
        result = zeros_like(self.array, self.backend, self.compute_dtype, order)
        states = {
            name: state if state.shape == self.shape else self._spread(state)
            for name, state in self.states.items()
        }
        plain_ = PLAIN[self.formats.compute]
        formats = self.formats._replace(parameter=plain_, gradient=plain_)
        operand = self.operand._replace(arrays=storage.memory_of(result, {}, states))
        update_once(rule, self.backend, formats, operand, result, coefficients)
        return result

    def _spread(self, state: Any) -> Any:
        """A state that has one number for each row, as one that has them all."""
        wide = state.reshape(self.shape[:1] + (1,) * (len(self.shape) - 1))
        return copied(namespace(self.backend).broadcast_to(wide, self.shape))

    def __getstate__(self) -> dict[str, Any]:
        # A copy has arrays of its own: the bound kernels are not for them. Its view is made anew,
        # of the array that belongs to the copy: a view that is copied has memory of its own.
        return self.__dict__ | {
            "array": None,
            "_dense": None,
            "_rows": None,
            "history": None,
            "_numbers": None,
            "_skipped": self.skipped_rows,
            "residence": Residence(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.array = self._view()


def prepare_rows(
    parameter: Parameter, rule: Rule, grad: Any, skips: bool, most: float
) -> tuple[RowUpdate, Any]:
    """The update of a parameter by rows, and what it is to be called with.

    ``skips`` says whether rows that are out of range are left out, ``most`` how long a row's
    gradient may be.

    Raises
    ------
    RowIndexError
        Rows are out of range, and are not to be skipped.
    GradientError
    """
    rows = parameter.as_rows(grad)
    update = parameter.row_update(rule, dtype_name(rows.values) or "")
    try:
        return update, prepared(update, rows, skips, most)
    except RowIndexError as error:
        raise RowIndexError(f"gradient of {parameter.name!r}: {error}") from None
