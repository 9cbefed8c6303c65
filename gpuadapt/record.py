"""`Record`: what every n-th step of an optimizer does, as rows of numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, TextIO

from .arrays import describe, to_host
from .checkpoint.paths import FilePath
from .errors import (
    BackendError,
    CaptureError,
    HyperparameterError,
    ParameterError,
    RecordWarning,
    StateError,
)
from .hooks import Finish, Handle
from .hyperparameters import whole_from
from .loss_scale import LossScale
from .optimizer import Optimizer, internals
from .record_output import csv_text, drawn, frame, json_text, write
from .stats import QUANTILES, Stats, Watched
from .step_options import StepOptions

SAMPLE, LEAST = 4096, 64
"""Number of elements that are looked at, of all parameters and at least of each."""

Row = dict[str, Any]
"""Plain numbers, strings, bools or None by name of the column."""

RATES = tuple(f"rate_{round(100 * quantile):02d}" for quantile in QUANTILES)

COLUMNS = {
    "step", "name", "elements", "sampled", "lost", "ratio", *RATES,
    "grad_norm", "clip_factor", "skipped", "scale",
}  # fmt: skip
"""Of every row; a hyperparameter of the same name gets "h." before it."""


class Record:
    """Record every n-th step of an optimizer.

    Each recorded step gives a row of numbers for each parameter with a gradient: what its update
    was, and the settings of the step. Recording changes no bit of the training. Steps that are not
    recorded wait for no GPU.

    Parameters
    ----------
    optimizer : Optimizer
        Of gpuadapt itself. It records until `close`, also if nobody else keeps the `Record`.
    every : int, >= 1
        Steps whose number, from 1, is a multiple of it are recorded.
    names : str or sequence of str, optional
        Names of parameters; by default all, those that are added later included.
    sample : int, >= 1
        Number of elements to look at in all: parameters have equal shares, but at least 64 each. A
        parameter with more elements is represented by so many of them, always the same: one at
        random from each of as many equal parts. A `RowGrad` is represented by some of its rows,
        and so is a parameter with one second moment for each row (``rowwise``); at least one row
        is taken.
    add_scalar : callable, optional
        Called as ``add_scalar(tag, value, step)`` for each number of a recorded step, such as
        TensorBoard's ``SummaryWriter.add_scalar``.
    log : callable, optional
        Called as ``log(values, step=step)`` with a dict of these numbers by their tags, such as
        ``wandb.log``.

    Attributes
    ----------
    rows : list of dict
        In order, of plain Python numbers, strings, bools and None, with the columns

        - ``step``: number of the step, from 1; ``name``: the parameter's name,
        - ``elements``: number of elements of the parameter; ``sampled``: how many were looked at,
        - ``lost``, ``ratio``: see `Stats`; ``rate_05``, ``rate_25``, ``rate_50``, ``rate_75``,
          ``rate_95``: quantiles of the effective learning rates (`Optimizer.effective_lr`) after
          the step; None if the rule has no rate, or the step was skipped,
        - ``grad_norm``, ``clip_factor``, ``skipped``: see `Optimizer.last`; recorded steps measure
          the norm. ``scale``: the loss scale, else 1 (gradients of ``grad_scale=n * scale`` were
          divided by n times it),
        - the hyperparameters of the parameter's group at the step, such as ``lr``.

    Raises
    ------
    HyperparameterError, ParameterError
        An argument is out of range, or there is no parameter of a name.
    BackendError
        The optimizer is not of gpuadapt itself.
    CaptureError
        The optimizer's steps are captured, which a `Record` would wait for.

    Notes
    -----
    Tags are "grad_norm", "clip_factor", "skipped" and "scale", "NAME/ratio" and such for each
    parameter, and "lr" and such for hyperparameters, with "group 0/" before them if there are
    several groups. A value of None has no tag.

    ``add_scalar`` and ``log`` are called when the step has been taken or skipped. What they raise
    becomes a `RecordWarning`: the training goes on, and the row is in ``rows``. ``log`` is not
    called for a step whose ``add_scalar`` has raised.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.ones(4, np.float32)
    >>> optimizer = ga.SGD({"w": w}, lr=0.5)
    >>> with ga.Record(optimizer, every=2) as record:
    ...     for _ in range(4):
    ...         optimizer.step({"w": np.full(4, 0.25, np.float32)})
    >>> [(row["step"], row["ratio"], row["grad_norm"], row["lr"]) for row in record.rows]
    [(2, 0.14285714285714285, 0.5, 0.5), (4, 0.2, 0.5, 0.5)]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        every: int = 100,
        names: str | Iterable[str] | None = None,
        sample: int = SAMPLE,
        add_scalar: Callable[[str, float, int], object] | None = None,
        log: Callable[..., object] | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise BackendError(
                f"Record: got {describe(optimizer)}, expected an optimizer of gpuadapt itself; for "
                "one of gpuadapt.torch register_step_post_hook can read `last` and `effective_lr`"
            )
        for name, sink in (("add_scalar", add_scalar), ("log", log)):
            if sink is not None and not callable(sink):
                raise HyperparameterError(f"{name}: got {describe(sink)}, expected a function")
        self._every = whole_from("every", every, 1)
        self._sample = whole_from("sample", sample, 1)
        self._names = _names(optimizer, names)
        self._add_scalar, self._log = add_scalar, log
        self.rows: list[Row] = []
        if optimizer.capturable:
            raise CaptureError("Record: it waits for the GPU; set `capturable` to False before")
        self._handle = Handle(optimizer, "observers", self)

    def begin(
        self, optimizer: Optimizer, grads: list[Any], options: StepOptions
    ) -> tuple[StepOptions, Finish] | None:
        """Look at a step before it is taken, if it is one to record; see `hooks.Observer`."""
        parameters, _, steps = internals(optimizer)
        count, _ = steps.known_count
        if (count + 1) % self._every:
            return None
        number = steps.sync_counts() + 1
        if number % self._every:
            return None
        names = parameters if self._names is None else self._names
        limit = max(self._sample // max(len(names), 1), min(self._sample, LEAST))
        watched = optimizer._watch(names, grads, limit)
        scale = _scale(options.scale)
        if not options.needs_norm:
            options = replace(options, max_norm=inf)
        return options, partial(self._finish, optimizer, number, watched, options, scale)

    def _finish(
        self,
        optimizer: Optimizer,
        number: int,
        watched: Watched,
        options: StepOptions,
        scale: float,
    ) -> None:
        """Append the rows of a step that has been taken or skipped, and hand them on."""
        parameters, groups, steps = internals(optimizer)
        steps.streams.wait()
        steps.sync_counts()  # a skipped step is due again
        result = steps.last
        assert result is not None and result.grad_norm is not None
        of_step = {
            "grad_norm": float(result.grad_norm), "clip_factor": float(result.clip_factor),
            "skipped": bool(result.skipped), "scale": scale,
        }  # fmt: skip
        settings = [
            _columns(group.prepare(number - 1, options.rule_options).values) for group in groups
        ]
        found = {} if result.skipped else watched.finish()
        rows = []
        for name, sampled in watched.elements.items():
            parameter = parameters[name]
            row: Row = {"step": number, "name": name, "elements": parameter.array.size}
            row |= _statistics(sampled, found.get(name)) | of_step | settings[parameter.group]
            rows.append(row)
        self.rows += rows
        if self._add_scalar is not None or self._log is not None:
            self._tell(number, _tags(of_step, settings, rows))

    def _tell(self, step: int, tags: Mapping[str, float]) -> None:
        """Hand the numbers of a step to the user's functions."""
        name = "add_scalar"
        try:
            if self._add_scalar is not None:
                for tag, value in tags.items():
                    self._add_scalar(tag, value, step)
            name = "log"
            if self._log is not None:
                self._log(dict(tags), step=step)
        except Exception as error:
            warnings.warn(
                f"Record: {name} raised {error!r}. Step {step} has been taken and is in `rows`; "
                "later ones will be handed on",
                RecordWarning,
                stacklevel=4,
            )

    def close(self) -> None:
        """Record no more; `rows` stay. A second time this does nothing."""
        self._handle.remove()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> Any:
        raise StateError("a Record cannot be copied or pickled, but its `rows` can")

    def to_csv(self, target: FilePath | TextIO) -> None:
        """Write the rows as a table of comma-separated values, with the columns' names first.

        Parameters
        ----------
        target : path, or file open for text
            Numbers are written so that they are read back as they are; None is empty.

        Raises
        ------
        NotWrittenError, NotDurableError, CheckpointError
            The file cannot be written.
        """
        write(target, csv_text(self.rows))

    def to_json(self, target: FilePath | TextIO) -> None:
        """Write the rows as a JSON array of objects.

        Parameters
        ----------
        target : path, or file open for text
            JSON has no NaN and no infinities: null stands for them.

        Raises
        ------
        NotWrittenError, NotDurableError, CheckpointError
            The file cannot be written.
        """
        write(target, json_text(self.rows))

    def to_frame(self) -> Any:
        """Return the rows as a `pandas.DataFrame`.

        Raises
        ------
        PackageError
            pandas is not installed.
        """
        return frame(self.rows)

    def plot(self, names: Iterable[str] | None = None) -> Any:
        """Draw effective rates, ratios, lost updates and gradient norms over the steps.

        Parameters
        ----------
        names : iterable of str, optional
            The parameters to draw; by default all that were recorded.

        Returns
        -------
        matplotlib.figure.Figure
            ``figure.savefig(path)`` writes it; pyplot does not know of it.

        Raises
        ------
        PackageError
            matplotlib is not installed.
        StateError
            There are no rows (of these parameters).
        """
        chosen = None if names is None else {*([names] if isinstance(names, str) else names)}
        return drawn([row for row in self.rows if chosen is None or row["name"] in chosen])

    def __repr__(self) -> str:
        return f"Record(every={self._every}, sample={self._sample}, {len(self.rows)} rows)"


def _names(optimizer: Optimizer, names: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Check the names of parameters."""
    if names is None:
        return None
    found = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    if not found:
        raise ParameterError("names: got none, expected names of parameters, or None for all")
    for name in found:
        optimizer._parameter(name)
    return found


def _scale(scale: Any) -> float:
    """The scale of a step's gradients, before the step."""
    if isinstance(scale, LossScale):
        return scale.divisor()
    return float(scale) if isinstance(scale, float) else float(to_host(scale)[0])


def _statistics(sampled: int, stats: Stats | None) -> Row:
    """The columns of a parameter's statistics; None for a skipped step."""
    if stats is None:
        return dict.fromkeys(("sampled", "lost", "ratio", *RATES))
    rates = [None] * len(RATES) if stats.rates is None else stats.rates.values()
    return {
        "sampled": sampled, "lost": stats.lost, "ratio": stats.ratio,
        **dict(zip(RATES, rates, strict=True)),
    }  # fmt: skip


def _tags(
    of_step: Mapping[str, float], settings: Sequence[Mapping[str, float]], rows: Sequence[Row]
) -> dict[str, float]:
    """The numbers of a step by tag."""
    tags = {name: float(value) for name, value in of_step.items()}
    for k, values in enumerate(settings):
        prefix = f"group {k}/" if len(settings) > 1 else ""
        tags |= {prefix + name: value for name, value in values.items()}
    for row in rows:
        values = {f"{row['name']}/{column}": row[column] for column in ("lost", "ratio", *RATES)}
        tags |= {tag: value for tag, value in values.items() if value is not None}
    return tags


def _columns(values: Mapping[str, float]) -> dict[str, float]:
    """Hyperparameters by the names of their columns."""
    return {f"h.{name}" if name in COLUMNS else name: float(x) for name, x in values.items()}
