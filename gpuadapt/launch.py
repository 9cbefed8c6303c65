"""From (rule, traversal, backend) to a bound update: the only dispatch of updates."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from gpuadapt.kernels.cpu import threads  # noqa: F401  (its fork hook must be there early)
from gpuadapt.kernels.formats import Formats, Operand
from gpuadapt.kernels.missed import following, unchanged
from gpuadapt.kernels.numbers import FIRST
from gpuadapt.kernels.overflow import Measured, Verdict
from gpuadapt.kernels.rule import Rule

from .arrays import on_device
from .errors import CaptureError


class Update(Protocol):
    """Updates the arrays that it is bound to, in place."""

    kind: int
    """What makes its gradients too large; see `kernels.overflow`."""

    def __call__(self, gradient: Any, first: Any, numbers: Any) -> None:
        """Update, by coefficients that begin at ``numbers[first]``; see `kernels.numbers`.

        Of many arrays, ``gradient`` has addresses (0: no gradient), and ``first`` is an array.
        """

    def partials(self, gradient: Any) -> int:
        """How many numbers `squares` writes."""

    def squares(self, gradient: Any, numbers: Any, partial: Any, peaks: Any) -> None:
        """Write sums of squares of the gradient, divided by the scale in ``numbers``.

        And as many largest magnitudes.
        """


class RowUpdate(Update, Protocol):
    """Updates rows of the table it is bound to; its gradient is what `prepare` returns."""

    skipped: int
    """Rows that were out of range and left out."""

    def prepare(
        self, rows: Any, values: Any, duplicates: str, count: Any, skip: bool, most: float
    ) -> Any:
        """Check and sort row numbers, of which ``count`` are in use; nothing is written yet."""


class ExactUpdate(RowUpdate, Protocol):
    """As `RowUpdate`, of rows that take the steps that they have missed."""

    def read(self, rows: Any, skip: bool) -> Any:
        """Rows as they are after the last step, in a new array of shape (n, width)."""

    def refresh(self, start: int, stop: int) -> None:
        """Bring rows from ``start`` to ``stop`` up to date."""


class Control(Protocol):
    """The numbers of a step on one device, and what becomes of it."""

    numbers: Any
    """See `kernels.numbers`."""

    def restart(self, step: int) -> None:
        """Go on from so many steps."""

    def load(self, step: int, rows: Sequence[Sequence[float]]) -> None:
        """Take the numbers of steps from ``step`` on, a row for each."""

    def begin(self, scale: Any, places: Sequence[int], times: int = 1) -> None:
        """Make the numbers those of the step at hand, with ``scale`` in these places.

        None if the scale is among the rows already.
        """

    def partial(self, count: int) -> Any:
        """Memory for so many numbers of what is measured."""

    def fetch(self, partial: Any) -> Any:
        """As a NumPy array; waits for a GPU."""

    def judge(
        self, measured: Measured, known: Verdict | None, most: float, limit: float, skip: bool,
        places: Sequence[int], adapted: Any,
    ) -> bool | None:  # fmt: skip
        """From what is measured (or the verdict, if known) to the factor, in these places.

        Returns
        -------
        bool or None
            Whether to skip the step; None if only the GPU knows.
        """

    def steps(self) -> int:
        """Steps taken, if this is a GPU's; waits for it."""

    def report(self) -> tuple[float, float, bool]:
        """Norm, factor and whether it was skipped, of the last step; waits for a GPU."""


def bind(rule: Rule, backend: str, formats: Formats, operand: Operand) -> Update:
    """The update of one array, from gradients of any strides; compiles what it needs."""
    update: Update = _module(backend, "dense").Dense(rule, formats, operand)
    return update


def bind_many(rule: Rule, backend: str, formats: Formats, operands: Sequence[Operand]) -> Update:
    """The update of many contiguous arrays of the same formats."""
    update: Update = _module(backend, "many").Many(rule, formats, operands)
    return update


def bind_rows(
    rule: Rule, backend: str, formats: Formats, operand: Operand, clock: Any = None
) -> RowUpdate:
    """The update of rows of a table; of exact ones, if there is a clock."""
    if clock is not None:
        exact: ExactUpdate = _module(backend, "exact_rows").ExactRows(rule, formats, operand, clock)
        return exact
    update: RowUpdate = _module(backend, "rows").Rows(rule, formats, operand)
    return update


def clock(rule: Rule, backend: str, formats: Formats, close: bool, rows: int, updates: int) -> Any:
    """What is remembered of the steps of a table that has had so many updates.

    None if a zero gradient changes nothing. Missed steps are followed if the result may be
    ``close`` and rule and formats allow it, replayed otherwise.
    """
    if unchanged(rule):
        return None
    followed = following(rule, formats) if close else None
    return _module(backend, "step_history").StepHistory(rule, formats, followed, rows, updates)


def headers(
    updated: Sequence[Any],
    wanted: Sequence[tuple[Any, str] | None],
    places: Sequence[tuple[int, int]],
) -> Any:
    """What looks at many NumPy arrays at once; see `kernels.cpu.headers.Headers`."""
    return _module("cpu", "headers").Headers(updated, wanted, places)


def control(backend: str) -> Control:
    """A control for arrays of a backend, on the current device."""
    made: Control = _module(backend, "control").Control()
    return made


def capturing() -> bool:
    """Whether CuPy's current stream is being captured in a CUDA graph."""
    captured: bool = _module("cuda", "control").capturing()
    return captured


def stream() -> int:
    """The handle of CuPy's current stream."""
    import cupy

    handle: int = cupy.cuda.get_current_stream().ptr
    return handle


def check_sort() -> None:
    """Raise `CaptureError` if sorting row numbers on a GPU waits for it."""
    import cupy

    if int(cupy.__version__.split(".")[0]) < 14:
        raise CaptureError(
            f"CuPy {cupy.__version__} waits for the GPU when it sorts: rows need CuPy 14 here"
        )


def update_once(
    rule: Rule,
    backend: str,
    formats: Formats,
    operand: Operand,
    gradient: Any,
    coefficients: Sequence[float],
) -> None:
    """One update of one array, on its device; as the first one, where bits are random."""
    with on_device(operand.arrays[0]):
        update = bind(rule, backend, formats, operand)
        update(gradient, FIRST, numbers(backend, (*coefficients, 1.0)))


def numbers(backend: str, coefficients: Sequence[float]) -> Any:
    """Numbers of an update that nobody skips or scales, on the current device."""
    return _module(backend, "control").numbers(coefficients)


def _module(backend: str, name: str) -> Any:
    return importlib.import_module(f"gpuadapt.kernels.{backend}.{name}")
