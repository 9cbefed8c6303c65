"""From (rule, traversal, backend) to a bound update: the only module that names backends."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Protocol

from gpuadapt.kernels.addresses import Layouts
from gpuadapt.kernels.array_types import Array, DeviceArray, HostArray
from gpuadapt.kernels.catchup.plan import needs_no_history, plan_for
from gpuadapt.kernels.commit import Call, make

# Imported early: it registers a hook for forks.
from gpuadapt.kernels.cpu import calling
from gpuadapt.kernels.cpu.calling import Threads as Threads
from gpuadapt.kernels.cpu.calling import in_default_modes as in_default_modes
from gpuadapt.kernels.cuda.scalars import BY_VALUE
from gpuadapt.kernels.formats import Formats, Operand
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.numerics.overflow import Measured, Verdict
from gpuadapt.kernels.numerics.scalar_layout import FIRST

from .arrays import cupy_layouts, on_device
from .errors import CaptureError


class Update(Protocol):
    """An update bound to its arrays, which it writes in place."""

    overflow_check: int
    """The overflow check of its gradients; see `kernels.numerics.overflow`."""

    def calls(self, gradient: Any, first: Any, numbers: Any) -> list[Call]:
        """The calls that update, see `kernels.commit`; nothing is written before they are made.

        Parameters
        ----------
        gradient : Array, list of rows that `RowUpdate.prepare` returned, or ndarray of int64
            The latter has the gradients' addresses, 0 for no gradient.
        first : int, or ndarray of int64
            The offset in ``numbers`` of the coefficients, for each array if there are several.
        numbers : ndarray of float64, or StepNumbers on a GPU
            The scalars of the step; see `kernels.numerics.scalar_layout`.
        """

    def partials(self, gradient: Any) -> int:
        """The length of each output of `squares`."""

    def squares(self, gradient: Any, numbers: Any, partial: Array, peaks: Array) -> None:
        """Write partial sums of squares, and largest magnitudes, of the unscaled gradient.

        Parameters
        ----------
        gradient, numbers
            As of `calls`.
        partial, peaks : Array of float64, shape (partials(gradient),)
            The outputs.
        """


class RowUpdate(Update, Protocol):
    """An update of table rows; its gradient is what `prepare` returns."""

    skipped: int
    """Number of rows so far that were out of range and left out; waits for a GPU."""

    def prepare(
        self,
        rows: Array,
        values: Array,
        duplicates: str,
        count: Array | None,
        skip: bool,
        max_norm: float,
    ) -> Any:
        """Check and sort the row indices; write nothing yet.

        Parameters
        ----------
        rows : Array of int32 or int64, shape (n,)
        values : Array, shape (n, ...)
        duplicates : {"sum", "mean"}
        count : Array of one integer, optional
            Number of entries that are in use, from the first on.
        skip : bool
            Leave out rows that are out of range; otherwise raise `RowIndexError`.
        max_norm : float
            Largest Euclidean norm of a row's gradient.
        """


class ExactUpdate(RowUpdate, Protocol):
    """An update of table rows that catch up with the steps they were not in."""

    def read(self, rows: Array, skip: bool) -> Array:
        """Rows after the last step, in a new array of shape (n, width)."""

    def refresh(self, start: int, stop: int) -> None:
        """Bring rows ``start`` to ``stop - 1`` up to date."""


class StepScalars(Protocol):
    """The scalars of a step on one device, and the decision whether to skip the step."""

    numbers: Any
    """What updates and measurements of the step take as its scalars."""

    def restart(self, step: int) -> None:
        """Continue from this number of steps."""

    def give(self, step: int, row: Sequence[float]) -> None:
        """Take the scalars of a step that is certain to be taken, for `load` and `select_step`.

        Only on a GPU, where `takes_by_value`; the host counts the step.
        """

    def load(self, step: int, rows: Sequence[Sequence[float]]) -> None:
        """Upload the scalars of the steps ``step``, ``step + 1``, ..., one row for each."""

    def select_step(
        self, scale: DeviceArray | None, indices: Sequence[int], micro_batches: int, measured: bool
    ) -> list[Call]:
        """Select the scalars of the current step; returns the first calls of the step.

        Then, in this order, if ``measured``: `Update.squares` with `numbers`, and `finish_norm`.
        In any case: the calls of all updates but the last one with `numbers`, those of the last one
        with `last_numbers`, and of `end_step`.

        Parameters
        ----------
        scale : DeviceArray of one float32, optional
            None if the rows already have the scale.
        indices : sequence of int
            Scalars that become ``scale * micro_batches``.
        micro_batches : int
        measured : bool
            `finish_norm` follows.
        """

    def partial_sums(self, count: int) -> Array:
        """Memory of ``count`` float64 for partial sums and largest magnitudes."""

    def to_host(self, partial: Array) -> HostArray:
        """Copy to the host; waits for a GPU."""

    def finish_norm(
        self, measured: Measured, known: Verdict | None, max_norm: float, max_value: float,
        skip: bool, indices: Sequence[int], loss_scale: Any,
    ) -> tuple[bool | None, list[Call]]:  # fmt: skip
        """Compute the norm and the clip factor, and decide whether to skip the step.

        Parameters
        ----------
        measured : Measured
        known : Verdict, optional
            The result for all devices together, if there are several.
        max_norm, max_value : float
            Largest norm, and largest magnitude of an element.
        skip : bool
            Skip the step if a gradient is out of range.
        indices : sequence of int
            Scalars that become the clip factor.
        loss_scale : tuple, optional
            The state of a `LossScale` on the GPU and its growth and backoff factors.

        Returns
        -------
        bool or None
            True if the step is skipped; None if only the GPU knows.
        list of Call
            They come before those of updates.
        """

    def last_numbers(self) -> Any:
        """What the last update of the step takes instead of `numbers`: a GPU counts the step."""

    def end_step(self) -> list[Call]:
        """The calls that let a GPU count the step, if no update does so."""

    def last_scalars(self) -> HostArray:
        """The scalars of the last step; see `kernels.numerics.scalar_layout`. Waits for a GPU."""

    def steps(self) -> int:
        """Number of steps taken, as counted by a GPU; waits for it."""

    def result(self) -> tuple[float, float, bool]:
        """Norm, clip factor and whether the last step was skipped; waits for a GPU."""


CHOICES: dict[str, list[str]] = {"cpu": ["threads"], "cuda": []}
"""The optional arguments of updates on each backend: on a GPU there is no choice of threads."""


def bind_strided(
    rule: Rule, backend: str, formats: Formats, operand: Operand, threads: Threads = None
) -> Update:
    """Compile the update of one parameter of any strides on a backend, "cpu" or "cuda".

    ``threads`` are those of the CPU that share the work; see `kernels.cpu.calling.Threads`.
    """
    made = _module(backend, "strided").Strided
    update: Update = made(rule, formats, operand, **dict.fromkeys(CHOICES[backend], threads))
    return update


def bind_multi_tensor(
    rule: Rule,
    backend: str,
    formats: Formats,
    operands: Iterable[Operand],
    threads: Threads = None,
) -> Update:
    """Compile the update of many contiguous parameters of equal formats in one launch."""
    if backend == "cuda":
        operands = list(operands)
    made = _module(backend, "multi_tensor").MultiTensor
    update: Update = made(rule, formats, operands, **dict.fromkeys(CHOICES[backend], threads))
    return update


def bind_rows(
    rule: Rule,
    backend: str,
    formats: Formats,
    operand: Operand,
    history: Any = None,
    threads: Threads = None,
) -> RowUpdate:
    """Compile the update of a table's rows; ``history`` is its `StepHistory` if they are exact."""
    given = dict.fromkeys(CHOICES[backend], threads)
    if history is not None:
        rows = _module(backend, "exact_rows")
        exact: ExactUpdate = rows.ExactRows(rule, formats, operand, history, **given)
        return exact
    update: RowUpdate = _module(backend, "rows").Rows(rule, formats, operand, **given)
    return update


def check_threads(threads: Threads) -> Threads:
    """Return the choice of threads; raises `BackendError` if there are no such threads."""
    return calling.check(threads)


def step_history(
    rule: Rule, backend: str, formats: Formats, approximate: bool, rows: int, updates: int
) -> Any:
    """A new `StepHistory` of a table whose rows catch up.

    Parameters
    ----------
    rule, backend, formats
        Of the table's updates.
    approximate : bool
        Take skipped steps at once where rule and formats allow it; otherwise replay them.
    rows : int
    updates : int
        Number of updates that the table has had.

    Returns
    -------
    StepHistory or None
        None if rows have nothing to catch up with.
    """
    if needs_no_history(rule, formats, approximate):
        return None
    plan = plan_for(rule, formats) if approximate else None
    return _module(backend, "step_history").StepHistory(rule, formats, plan, rows, updates)


def layouts(backend: str, arrays: list[Array]) -> Layouts:
    """Where arrays of one device lie in memory; see `kernels.cpu.array_headers`."""
    if backend == "cuda":
        return cupy_layouts(arrays)
    found: Layouts = _module(backend, "array_headers").layouts(arrays)
    return found


def address_finder(
    backend: str,
    parameters: Sequence[Any],
    sizes: HostArray,
    kinds: Sequence[tuple[Any, str] | None],
    numbers: HostArray,
    begins: HostArray,
    ends: HostArray,
) -> Any:
    """The check of many gradients in one call, an `AddressFinder` of `kernels.cpu.array_headers`.

    Parameters
    ----------
    backend : {"cpu", "cuda"}
    parameters : sequence of Parameter
        Of one device, with ``sizes`` elements.
    kinds : sequence of (dtype, {"C", "F"}) or None
        Those of the gradients; None for one that has no address to find.
    numbers : ndarray of int64
        The index in ``kinds`` of each parameter's gradient.
    begins, ends : ndarray of int64
        First and last address of memory that no gradient may alias, ascending.
    """
    if backend == "cuda":
        of_cupy = _module("cpu", "cupy_headers")
        classes, shapes = [one.array_type for one in parameters], [one.shape for one in parameters]
        device = parameters[0].array.device.id
        given = classes, shapes, sizes, kinds, numbers, begins, ends, device
        return of_cupy.address_finder(of_cupy.Expected(*given))
    updated, like = [one.user_array for one in parameters], [one.array for one in parameters]
    known = updated, like, sizes, kinds, numbers, begins, ends
    return _module("cpu", "array_headers").address_finder(*known)


def numbers_at() -> Any:
    """The reading and writing of numbers at addresses; see `kernels.cpu.numbers_at`."""
    return _module("cpu", "numbers_at").compiled()


def step_scalars(backend: str) -> StepScalars:
    """The scalars of steps on the current device of a backend."""
    made: StepScalars = _module(backend, "scalars").StepScalars()
    return made


def takes_by_value(width: int) -> bool:
    """Whether multi-tensor launches on a GPU can take so many scalars of a step as arguments."""
    return width <= BY_VALUE


def stream_finder() -> Callable[[int], Any]:
    """The function that returns CuPy's current stream of a device, by the device's number."""
    import cupy

    find: Callable[[int], Any] = cupy.cuda.get_current_stream
    return find


def held(owner: Any) -> dict[int, Any]:
    """The memory of a captured step; see `kernels.cuda.memory.held`."""
    found: dict[int, Any] = _module("cuda", "memory").held(owner)
    return found


def check_sort() -> None:
    """Raise `CaptureError` if this CuPy synchronizes with the GPU when it sorts."""
    import cupy

    if int(cupy.__version__.split(".")[0]) < 14:
        raise CaptureError(
            f"CuPy {cupy.__version__} waits for the GPU when it sorts row indices: install CuPy 14 "
            "or later to capture steps with a RowGrad"
        )


def update_once(
    rule: Rule,
    backend: str,
    formats: Formats,
    operand: Operand,
    gradient: Array,
    coefficients: Sequence[float],
    threads: Threads = None,
) -> None:
    """Update one array once, on its device; random bits are those of update 1.

    Parameters
    ----------
    rule, backend, formats, operand, threads
        As of `bind_strided`.
    gradient : Array, shape of the parameter
    coefficients : sequence of float
    """
    with on_device(operand.arrays[0]):
        update = bind_strided(rule, backend, formats, operand, threads)
        run(update, gradient, FIRST, scalars(backend, (*coefficients, 1.0)))


def run(update: Update, gradient: Any, first: Any, numbers: Any) -> None:
    """Update at once; see `Update.calls`."""
    make(update.calls(gradient, first, numbers))


def update_calls(launches: Sequence[tuple[Any, Any, Any]], scalars: StepScalars) -> list[Call]:
    """The calls of the updates of a step on one device, of which the last one counts it if it can.

    Parameters
    ----------
    launches : sequence of (Update, gradient, offset of its coefficients)
    scalars : StepScalars
    """
    calls: list[Call] = []
    for k, (update, gradient, offset) in enumerate(launches, 1):
        numbers = scalars.last_numbers() if k == len(launches) else scalars.numbers
        calls += update.calls(gradient, offset, numbers)
    return calls


def scalars(backend: str, coefficients: Sequence[float]) -> Any:
    """The scalars of an unscaled update that is not skipped, on the current device."""
    return _module(backend, "scalars").numbers(coefficients)


@cache
def _module(backend: str, name: str) -> Any:
    return importlib.import_module(f"gpuadapt.kernels.{backend}.{name}")
