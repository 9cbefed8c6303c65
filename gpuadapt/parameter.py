"""`Parameter`: one array, its states, and the updates that are bound to them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from gpuadapt.kernels import averages, averaging
from gpuadapt.kernels.addresses import address, same_memory
from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.catchup.plan import needs_no_history
from gpuadapt.kernels.commit import Call, make
from gpuadapt.kernels.formats import NARROW, PLAIN, Formats, Operand, block_width, parameter_key
from gpuadapt.kernels.language.rule import Rule

from . import pages, state_formats
from .arrays import (
    STAGGER,
    SmallArrayArena,
    bits_of,
    contiguous,
    copied,
    describe,
    namespace,
    on_device,
    plain,
    take_rows,
    to_host,
    zeros_like,
)
from .errors import GradientError, HyperparameterError, ParameterError, RowIndexError
from .foreign import as_array, place, written
from .hyperparameters import Start
from .launch import RowUpdate, Update, bind_rows, bind_strided, step_history, update_once
from .pages import Residence
from .row_indices import INDEX, as_given
from .rowgrad import RowGrad
from .state_formats import Storage

MOST_BYTES = 16
"""More bytes than an element has in any array of a state."""

SETTLED = Residence()
"""Of all parameters whose states are too small to choose pages."""
SETTLED.settled = True


class Parameter:
    """One array, its states, and the updates that are bound to them.

    Parameters
    ----------
    name : str
    array : NumPy or CuPy array
        The user's, or of the memory of ``owner``.
    backend : {"cpu", "cuda"}
    group : int
        Index of the group. A reference to the group itself would be a cycle, and keep the arrays
        alive.
    storage : Storage
        Of the group's parameters with this element type.
    settings : mapping
        The group's.
    initial : mapping of str to float or Start
        Initial values of the states; 0 for those left out.
    arena : SmallArrayArena
        Memory for small states.
    owner : array of another library, optional
        The user's; by default, or if it is ``array``, the user has that one.

    Raises
    ------
    ParameterError, HyperparameterError
    """

    # What most parameters never change costs no time and no memory for each of them.
    update_count = 0
    """Number of updates up to the last `Steps.sync_counts`."""
    owner: Any = None
    """The user's array of another library, in whose memory `user_array` lies."""
    _place: tuple[Any, ...] | None = None
    """Where the elements of ``owner`` lie."""
    companions: Mapping[str, Array] = {}
    """Arrays with the bits of the parameter that its 16 bits cannot hold, by name."""
    _strided_updates: Mapping[tuple[Rule, str], Update] = {}
    _row_updates: Mapping[tuple[Rule, str], RowUpdate] = {}
    """By rule and dtype of the gradient, compiled when needed; exact ones have one history."""
    history: Any = None
    """The `StepHistory` of an exact table, once a row may have skipped a step."""
    _next_refreshed_row = 0
    """The row at which the next partial `flush` begins."""
    _earlier_skipped_rows = 0
    """`skipped_rows` of row updates that there are no more."""
    _row_indices: Array = None
    """All row indices, int64, for dense gradients that are launched by rows."""

    def __init__(
        self,
        name: str,
        array: Array,
        backend: str,
        group: int,
        storage: Storage,
        settings: Mapping[str, Any],
        initial: Mapping[str, Any],
        arena: SmallArrayArena,
        owner: Any = None,
    ) -> None:
        self.name = name
        self.user_array = array
        if owner is not None and owner is not array:
            self.owner, self._place = owner, place(f"parameter {name!r}", owner)
        self.backend = backend
        self.array = self._view()
        self.group = group
        self.array_type = type(self.array)
        self.shape = self.array.shape
        self.storage = storage
        self.dtype_name, self.formats, self.compute_dtype = storage[:3]
        # Blocks and random bits are numbered in C order.
        self.needs_c_order = storage.random or storage.block
        self.states: dict[str, Any] = self._new_states(settings, initial, arena)
        """By the rule's letters; `Quantized` or arrays."""
        if not storage.plain:
            self.companions = state_formats.new_companions(self.formats.parameter, self.array)
        self._seed = settings["seed"]
        self.exact = settings["sparse"] == "exact"
        """True if rows catch up with the steps in which they had no gradient."""
        self._approximate = settings["exactness"] != "bits"
        self.residence = self._new_residence()

    @cached_property
    def random_key(self) -> int:
        """Seed of the parameter's random bits."""
        return parameter_key(self._seed, self.name)

    def _new_residence(self) -> Residence:
        """The pages of states; small states share a `Residence`, which has nothing to do."""
        return Residence() if MOST_BYTES * self.array.size >= pages.LARGE else SETTLED

    def _new_states(
        self, settings: Mapping[str, Any], initial: Mapping[str, Any], arena: SmallArrayArena
    ) -> dict[str, Any]:
        """New states, filled with their initial values."""
        states: dict[str, Any] = {}
        order = "C" if self.needs_c_order else "K"
        beside = address(self.array) if self.backend == "cpu" else 0
        for kept in self.storage.states:
            beside += STAGGER
            states[kept.letter] = state_formats.new_state(
                kept, self.array, self.backend, order, arena, beside
            )
        for kept in self.storage.states if initial else ():
            new, value = states[kept.letter], initial.get(kept.letter, 0.0)
            if isinstance(value, Start):
                numbers = value.of(state_formats.decoded(self.array), settings)
                state_formats.write(state_formats.parts_of(new), kept.form.encode(numbers))
            elif value != 0:  # zeros are pages that have not been touched yet
                try:
                    state_formats.fill(kept.form, new, value)
                except HyperparameterError as error:
                    raise HyperparameterError(f"initial {kept.letter}: {error}") from None
        return states

    def _view(self) -> Array:
        """A view of a NumPy array, whose shape no one else can change; a CuPy array itself."""
        return plain(self.user_array).view() if self.backend == "cpu" else self.user_array

    def check_place(self) -> None:
        """Raise `ParameterError` if the user's array has been given other memory."""
        if self.backend == "cpu" and not same_memory(self.user_array, self.array):
            raise ParameterError(
                f"parameter {self.name!r}: its array has other memory than when it was passed, as "
                "after array.resize(..., refcheck=False); what the optimizer would update is gone. "
                "For more rows there is `grow`; otherwise make a new optimizer"
            )
        if self.owner is None or place(f"parameter {self.name!r}", self.owner) == self._place:
            return
        raise ParameterError(
            f"parameter {self.name!r}: its {describe(self.owner)} has other memory than when it "
            "was passed. Write into the memory that was there (tensor.copy_(new) instead of "
            "tensor.data = new), or make a new optimizer"
        )

    def tell_owner(self) -> None:
        """Tell another library that its array has been written to."""
        if self.owner is not None:
            written([(self.owner, self.array)])

    def check_writable(self) -> None:
        """Raise `ParameterError` if the parameter has been made read-only, or lies elsewhere."""
        self.check_place()
        if self.backend == "cpu" and not self.user_array.flags.writeable:
            raise ParameterError(
                f"parameter {self.name!r}: the array has been made read-only; make it writable "
                "(setflags(write=True)), give it no gradient, or leave it out of a new optimizer"
            )

    @property
    def arrays(self) -> list[Array]:
        """The arrays that kernels update: the parameter, its companions and its states."""
        if self.storage.plain:
            return [self.array, *self.states.values()]
        return state_formats.operand_arrays(self.array, self.companions, self.states)

    @property
    def rule_states(self) -> tuple[str, ...]:
        """The names of the states, without an average."""
        names = tuple(self.states)
        return names if self.storage.average is None else names[:-1]

    @property
    def operand(self) -> Operand:
        """The arrays that kernels update, with the key and the layout of blocks."""
        key = self.random_key if self.storage.random else 0
        return Operand(self.arrays, key, block_width(self.shape) if self.storage.block else 0)

    @property
    def saved_states(self) -> Mapping[str, Any]:
        """The states and companions, by name: everything that a snapshot needs."""
        return {**self.states, **self.companions} if self.companions else self.states

    @property
    def saved_arrays(self) -> Mapping[str, Array]:
        """`saved_states` as arrays: a quantized state ``m`` gives "m.codes" and "m.scales"."""
        if self.storage.plain:
            return self.states
        return state_formats.arrays_of(self.saved_states)

    def formats_for(self, gradient: str) -> Formats:
        """The formats with a gradient of the named dtype."""
        formats = self.formats
        return (
            formats if gradient == self.dtype_name else formats._replace(gradient=PLAIN[gradient])
        )

    def strided_update(self, rule: Rule, gradient: str) -> Update:
        """The update by a rule from gradients of a named dtype and any strides."""
        update = self._strided_updates.get((rule, gradient))
        if update is None:
            formats = self.formats_for(gradient)
            update = bind_strided(rule, self.backend, formats, self.operand)
            self._strided_updates = {**self._strided_updates, (rule, gradient): update}
        return update

    def row_update(self, rule: Rule, gradient: str) -> RowUpdate:
        """The update by a rule from rows of a named dtype.

        Raises
        ------
        GradientError
            If blocks of 8-bit states extend over several rows.
        """
        width = math.prod(self.shape[1:])
        if self.formats.block and block_width(self.shape) != width:
            raise GradientError(
                f"gradient of {self.name!r}: rows of {width} elements share scales with others "
                f"where states have 8 bits: that takes rows of {NARROW}, or another state_dtype"
            )
        if self.exact:
            self._start_history(rule)
        update = self._row_updates.get((rule, gradient))
        if update is None:
            formats = self.formats_for(gradient)
            update = bind_rows(rule, self.backend, formats, self.operand, self.history)
            self._row_updates = {**self._row_updates, (rule, gradient): update}
        return update

    def needs_history(self, rule: Rule) -> bool:
        """True if the table needs a history of steps by a rule, and has none."""
        return not needs_no_history(rule, self.formats, self._approximate) and (
            self.history is None or self.history.rule is not rule
        )

    def _start_history(self, rule: Rule) -> None:
        """Start the history of steps by a rule; rows catch up with those of another rule.

        Raises
        ------
        ParameterError
            If the table is not contiguous.
        """
        if self.history is not None and self.history.rule is rule:
            return
        self.flush()
        if not all(contiguous(array, "C") for array in self.arrays):
            raise ParameterError(
                f"parameter {self.name!r}: sparse='exact' takes tables whose rows lie one behind "
                "the other, without gaps"
            )
        history = rule, self.backend, self.formats, self._approximate, len(self.array)
        new = step_history(*history, self.update_count)
        if new is not self.history:
            vars(self).update(self._without_history(new))

    def _exact_update(self) -> Any:
        """An `ExactUpdate` with the table's history; None if rows have skipped no steps."""
        if self.history is None:
            return None
        return next(iter(self._row_updates.values()), None)

    @property
    def is_current(self) -> bool:
        """True if all rows have caught up; waits for a GPU."""
        return not self._rows_behind().size

    def _rows_behind(self) -> HostArray:
        """The rows that have not caught up; waits for a GPU."""
        history = self.history
        if history is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(to_host(history.last) != to_host(history.now))

    def caught_up(self) -> tuple[HostArray, Array] | None:
        """Let all rows catch up; those that had to, and their numbers. None if none had to."""
        behind = self._rows_behind()
        self.flush()
        if not behind.size:
            return None
        with on_device(self.array):
            return behind, self.array[namespace(self.backend).asarray(behind)]

    def put(self, rows: HostArray, values: Array) -> None:
        """Write numbers into some rows of the array."""
        with on_device(self.array):
            self.array[namespace(self.backend).asarray(rows)] = values

    def flush(self, fraction: float = 1.0) -> None:
        """Let all rows, or the next fraction of them, catch up.

        Raises
        ------
        ParameterError
            If the table has been made read-only.
        """
        if self.history is None:
            return
        update = self._exact_update()
        if update is None:
            return
        self.check_writable()
        rows = len(self.array)
        remaining = min(rows, math.ceil(fraction * rows))
        if remaining == rows:
            self.residence.all(self._state_memory)
        with on_device(self.array):
            while remaining:
                start = self._next_refreshed_row
                stop = min(start + remaining, rows)
                update.refresh(start, stop)
                remaining -= stop - start
                self._next_refreshed_row = stop % rows
        self.tell_owner()

    @contextmanager
    def up_to_date(self, find_rows: Callable[[], HostArray]) -> Iterator[None]:
        """Within this, rows are as after the last step; afterwards they are as they were before.

        So they catch up later as if nobody had looked: in one go, with the same bits.

        Parameters
        ----------
        find_rows : function
            Returns their indices, int64; called if rows may have to catch up.

        Raises
        ------
        ParameterError
            If they have to catch up, and the table has been made read-only.
        """
        update = self._exact_update()
        rows = np.zeros(0, np.int64) if update is None else find_rows()
        if not rows.size:
            yield
            return
        self.check_writable()
        with on_device(self.array):
            indices = namespace(self.backend).asarray(rows)
            before = [(array, array[indices]) for array in (*self.arrays, self.history.last)]
            try:
                update.read(indices, False)
                yield
            finally:
                make([(array.__setitem__, indices, numbers) for array, numbers in before])

    def read(self, rows: Array, skip: bool) -> Array:
        """Rows after the last step.

        Parameters
        ----------
        rows : Array of integers, any shape
            Row indices.
        skip : bool
            Return zeros for rows that are out of range; otherwise raise.

        Returns
        -------
        Array, shape (\\*rows.shape, \\*shape of a row)
            New, of the table's dtype.

        Raises
        ------
        ParameterError, RowIndexError
        """
        self.check_place()
        shape = rows.shape + self.shape[1:]
        with on_device(self.array):
            indices = rows.reshape(-1)
            indices = indices if rows.dtype in INDEX else indices.astype(np.int64)
            try:
                update = self._exact_update()
                if update is not None:
                    values = update.read(indices, skip)
                    return values.view(self.array.dtype).reshape(shape)
                return take_rows(self.array, indices, skip).reshape(shape)
            except RowIndexError as error:
                raise as_given(error, rows) from None

    def _state_memory(self) -> Iterable[Array]:
        """The arrays whose page sizes `residence` chooses."""
        return self.saved_arrays.values()

    def touch(self, grad: Array | RowGrad) -> bool:
        """Choose page sizes for what a gradient updates; True if later ones have to as well."""
        if isinstance(grad, RowGrad):
            self.residence.rows(grad.rows.size, self._state_memory)
        else:
            self.residence.all(self._state_memory)
        return not self.residence.settled

    def write(self, numbers: HostArray) -> None:
        """Write numbers into the parameter and its companions.

        Parameters
        ----------
        numbers : ndarray, the parameter's shape

        Raises
        ------
        ParameterError
            If a finite number overflows in the parameter's dtype, or the parameter has been made
            read-only.
        """
        self.check_writable()
        with np.errstate(over="ignore"):
            parts = self.formats.parameter.encode(numbers.astype(self.compute_dtype))
        rounded = PLAIN[self.dtype_name].decode(parts[:1])
        overflows = np.isfinite(numbers) & ~np.isfinite(rounded)
        if overflows.any():
            first = float(numbers[overflows][0])
            raise ParameterError(
                f"values of {self.name!r}: {first!r} does not fit in {self.dtype_name}"
            )
        self.flush()
        state_formats.write([self.array, *self.companions.values()], parts)
        self.tell_owner()

    def take_counts_from(self, other: Parameter) -> None:
        """Continue the counts of a parameter that this one replaces."""
        self.update_count = other.update_count
        self._earlier_skipped_rows = other.skipped_rows

    def recount_call(self, updates: int) -> Call:
        """The call that sets the number of updates, when all arrays are about to be overwritten.

        It forgets the history of steps.
        """
        if not self.residence.settled:
            self.residence.all(self._state_memory)
        after: dict[str, Any] = {"update_count": updates}
        if self.history is not None or self._row_updates or self._next_refreshed_row:
            after |= self._without_history() | {"_next_refreshed_row": 0}
        return vars(self).update, after

    def _without_history(self, new: Any = None) -> dict[str, Any]:
        """The attributes with another history, or none: row updates are made anew."""
        return {
            "_earlier_skipped_rows": self.skipped_rows, "_row_updates": {}, "history": new,
        }  # fmt: skip

    @property
    def skipped_rows(self) -> int:
        """Number of gradient rows that were out of range and left out; waits for a GPU."""
        current = sum(int(update.skipped) for update in self._row_updates.values())
        return self._earlier_skipped_rows + current

    def as_rows(self, grad: Array | RowGrad) -> RowGrad:
        """A gradient by rows; a dense one has every row once."""
        if isinstance(grad, RowGrad):
            return grad
        grad = grad.reshape(self.shape or (1,))
        if self._row_indices is None:
            with on_device(self.array):
                self._row_indices = namespace(self.backend).arange(len(grad))
        return RowGrad(self._row_indices, grad)

    @property
    def average(self) -> Array:
        """The average, rounded to the parameter's dtype; if that is the average's, it itself."""
        found = self.states[averaging.STATE]
        if found.dtype == self.array.dtype:
            return found
        result = zeros_like(self.array, self.backend, self.array.dtype, "K")
        compute = self.formats.compute
        formats = Formats(compute, PLAIN[self.dtype_name], PLAIN[compute], ())
        update_once(averages.rounded, self.backend, formats, Operand([bits_of(result)]), found, ())
        return result

    def effective_rates(self, rule: Rule, coefficients: tuple[float, ...]) -> Array:
        """The learning rate of each element, by a rule of rates; new, of the compute dtype."""
        order = "C" if self.needs_c_order else "K"
        result = zeros_like(self.array, self.backend, self.compute_dtype, order)
        states = {
            name: state if state.shape == self.shape else self._spread(state)
            for name, state in self.states.items()
        }
        plain_ = PLAIN[self.formats.compute]
        formats = self.formats._replace(parameter=plain_, gradient=plain_)
        operand = self.operand._replace(arrays=state_formats.operand_arrays(result, {}, states))
        update_once(rule, self.backend, formats, operand, result, coefficients)
        return result

    def _spread(self, state: Array) -> Array:
        """A state of shape (rows,), repeated to the parameter's shape."""
        wide = state.reshape(self.shape[:1] + (1,) * (len(self.shape) - 1))
        return copied(namespace(self.backend).broadcast_to(wide, self.shape))

    def __getstate__(self) -> dict[str, Any]:
        # A copy has arrays of its own: the bound updates are not for them. `array` is made anew as
        # a view of the copied array, because copying a view copies its memory.
        foreign = {} if self.owner is None else {"user_array": None, "_place": None}
        return self.__dict__ | foreign | {
            "array": None,
            "_strided_updates": {},
            "_row_updates": {},
            "history": None,
            "_row_indices": None,
            "_earlier_skipped_rows": self.skipped_rows,
            "residence": None,
        }  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        # Only arrays are copied: what else a parameter has is never changed, but replaced.
        new = memo[id(self)] = object.__new__(type(self))
        state = self.__getstate__()
        for name in {"user_array", "owner", "states", "companions"} & state.keys():
            state[name] = copy.deepcopy(state[name], memo)
        new.__setstate__(state)
        return new

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.owner is not None:
            label = f"parameter {self.name!r}"
            self.user_array = as_array(label, self.owner, ParameterError, writable=True)
            self._place = place(label, self.owner)
        self.array = self._view()
        self.residence = self._new_residence()
