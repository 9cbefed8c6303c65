"""Averages of the parameters, which the kernel of the update keeps: ``average=...``.

>>> import numpy as np, gpuadapt as ga
>>> w = np.zeros(2, np.float32)
>>> optimizer = ga.SGD({"w": w}, lr=1.0, average=ga.averages.Exponential(0.5))
>>> for gradient in (-1.0, -2.0):
...     optimizer.step({"w": np.full(2, gradient, np.float32)})
>>> w, optimizer.averages["w"]
(array([3., 3.], dtype=float32), array([2., 2.], dtype=float32))

The parameters are averaged as they are after a step. Steps that are skipped, and steps in which a
parameter has no gradient, leave its average as it is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, overload

from gpuadapt.kernels import averages as kernels
from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.averaging import AverageRule, hyperparameter, with_average
from gpuadapt.kernels.averaging import average as read_average
from gpuadapt.kernels.language.recomputed import recomputes_parameter
from gpuadapt.kernels.language.rule import Rule

from .errors import HyperparameterError
from .hyperparameters import Hyperparameter, Start, number, whole_from

__all__ = ["Average", "Equal", "Exponential", "Lookahead", "average"]

__dir__ = partial(sorted, __all__)


class Average:
    """An average and its hyperparameters, for ``average=`` of an optimizer.

    Made by `Exponential`, `Equal`, `Lookahead`, or by what `average` returns.

    Attributes
    ----------
    rule : AverageRule
        What it does to one number.
    values : mapping of str to float or schedule
        Its hyperparameters. In ``param_groups`` their names begin with "average_".

    Raises
    ------
    HyperparameterError
        A hyperparameter is missing, unknown or out of range.
    """

    def __init__(self, rule: AverageRule, values: Mapping[str, Hyperparameter]) -> None:
        if {*values} != {*rule.hyperparameters}:
            raise HyperparameterError(
                f"{rule.name}: got the hyperparameters {', '.join(values) or 'none'}, expected "
                f"{', '.join(rule.hyperparameters) or 'none'}"
            )
        for name, value in values.items():
            if not callable(value):
                number(hyperparameter(name), value)
        self.rule, self.values = rule, dict(values)

    @property
    def settings(self) -> dict[str, Hyperparameter]:
        """The hyperparameters by their names in ``param_groups``."""
        return {hyperparameter(name): value for name, value in self.values.items()}

    def __repr__(self) -> str:
        name = self.rule.name if type(self) is Average else type(self).__name__
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in self.values.items())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Average):
            return NotImplemented
        return self.rule is other.rule and self.values == other.values

    __hash__ = None  # type: ignore[assignment]


class Exponential(Average):
    r"""The exponential moving average of the parameters.

    .. math::
        a \leftarrow decay \cdot a + (1 - decay)\, p, \quad\text{the first time } a \leftarrow p

    Rows of a table that a `RowGrad` leaves out keep their average, as they keep their numbers;
    with ``sparse="exact"`` they have that of dense steps.

    Parameters
    ----------
    decay : float or schedule, in [0, 1)
        Weight of the old average.
    bias_correction : bool
        True divides the sum of ``(1 - decay) decay^(t - i) p_i``, over the updates i to t, by its
        weights, ``1 - decay^t``, so that the first parameters count no more than others. Then
        ``decay`` is a number, and a table with rows takes ``sparse="exact"``.

    Notes
    -----
    As ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_avg_fn``, and, with
    ``bias_correction``, ``optax.ema`` of the parameters. Kingma & Ba, Adam: A Method for Stochastic
    Optimization, 2015, section 7.2 (temporal averaging).
    """

    def __init__(self, decay: Hyperparameter = 0.999, *, bias_correction: bool = False) -> None:
        if not isinstance(bias_correction, bool):
            raise HyperparameterError(f"bias_correction: got {bias_correction!r}, expected a bool")
        if bias_correction:
            super().__init__(kernels.CORRECTED, {"decay": number("average_decay", decay)})
        else:
            super().__init__(kernels.EXPONENTIAL, {"decay": decay})
        self.bias_correction = bias_correction

    def __repr__(self) -> str:
        more = ", bias_correction=True" if self.bias_correction else ""
        return f"Exponential({self.values['decay']!r}{more})"


class Equal(Average):
    r"""The mean of the parameters after chosen updates: stochastic weight averaging (SWA).

    .. math::
        a \leftarrow a + \frac{p - a}{n}, \quad n = 1, 2, \ldots

    Before the first of them the average is the parameter. Tables take ``sparse="exact"``.

    Parameters
    ----------
    start : int, >= 0
        Number of a parameter's updates before those that count.
    every : int, >= 1
        Updates ``start + 1``, ``start + 1 + every``, ``start + 1 + 2 every``, ... count.

    Notes
    -----
    As ``torch.optim.swa_utils.AveragedModel``, updated after these steps. Izmailov et al.,
    Averaging Weights Leads to Wider Optima and Better Generalization, 2018, algorithm 1.
    """

    def __init__(self, start: int = 0, *, every: int = 1) -> None:
        counts = {"start": whole_from("start", start, 0), "every": whole_from("every", every, 1)}
        super().__init__(kernels.EQUAL, counts)


class Lookahead(Average):
    r"""Lookahead: slow weights, to which the parameters return after every few updates.

    .. math::
        a \leftarrow a + \alpha\, (p - a), \quad p \leftarrow a

    The average is the slow weights. The states of the rule stay. Tables take ``sparse="exact"``.

    Parameters
    ----------
    alpha : float or schedule, in (0, 1]
        Step of the slow weights.
    every : int, >= 1
        Number of updates between two of these steps: k of the paper.

    Notes
    -----
    As ``optax.lookahead``. Zhang, Lucas, Hinton & Ba, Lookahead Optimizer: k steps forward, 1 step
    back, 2019, algorithm 1.
    """

    def __init__(self, alpha: Hyperparameter = 0.5, *, every: int = 5) -> None:
        values = {"alpha": alpha, "every": whole_from("every", every, 1)}
        super().__init__(kernels.LOOKAHEAD, values)


@overload
def average(function: Callable[..., object], /) -> Callable[..., Average]: ...
@overload
def average(
    *,
    prepare: Callable[..., float] | Sequence[Callable[..., float]] = (),
    constant: Sequence[str] = (),
    misses_steps: bool = False,
) -> Callable[[Callable[..., object]], Callable[..., Average]]: ...
def average(
    function: Callable[..., object] | None = None,
    /,
    *,
    prepare: Callable[..., float] | Sequence[Callable[..., float]] = (),
    constant: Sequence[str] = (),
    misses_steps: bool = False,
) -> Any:
    """Make an average of your own from a function ``f(p, a, h)`` in the language of rules.

    It receives the new parameter and the average, which begins as the parameter, and returns both.
    ``h.t`` is the number of the parameter's update, from 1; other names of ``h`` are the average's
    own hyperparameters. See `gpuadapt.rule` for the language.

    Parameters
    ----------
    prepare : function or sequence of functions
        Functions of hyperparameters that the host calls; see `gpuadapt.rule`.
    constant : sequence of str
        Hyperparameters that cannot be changed during training, nor be schedules.
    misses_steps : bool
        True if a row may leave out the steps in which it has no gradient. Otherwise a table takes
        ``sparse="exact"``, and a `RowGrad` of another one is a GradientError.

    Returns
    -------
    function
        It takes the hyperparameters by name, and returns an `Average`.

    Raises
    ------
    RuleError
        With file, line and reason.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> @ga.averages.average(misses_steps=True)
    ... def largest(p, a, h):
    ...     return p, maximum(a, h.slack * p)
    >>> w = np.zeros(2)
    >>> optimizer = ga.SGD(w, lr=1.0, average=largest(slack=0.5))
    >>> optimizer.step(np.array([-4.0, 4.0]))
    >>> optimizer.averages["0"]
    array([2., 0.])
    """
    functions = (prepare,) if callable(prepare) else tuple(prepare)

    def make(function: Callable[..., object]) -> Callable[..., Average]:
        rule = read_average(
            function, prepare=functions, constant=tuple(constant), misses_steps=misses_steps
        )

        def with_values(**hyperparameters: Hyperparameter) -> Average:
            return Average(rule, hyperparameters)

        with_values.__name__ = with_values.__qualname__ = rule.name
        with_values.__doc__ = rule.program.doc
        return with_values

    return make if function is None else make(function)


def averaged(rule: Rule, average: Average) -> Rule:
    """Put an average after a rule.

    Raises
    ------
    HyperparameterError
        It is no average, or what it does to the parameter would be lost.
    RuleError
        The rule has names that the average takes.
    """
    if not isinstance(average, Average):
        raise HyperparameterError(
            f"average: got {average!r}, expected one of gpuadapt.averages, such as "
            "averages.Exponential(0.999)"
        )
    if average.rule.moves_parameter and recomputes_parameter(rule.program):
        raise HyperparameterError(
            f"average: got {average!r}, which changes the parameter, but {rule.name!r} makes the "
            "parameter anew of its states in every step; averages.Exponential and Equal only read "
            "it"
        )
    return with_average(rule, average.rule)


def _itself(parameter: HostArray, settings: Mapping[str, Any]) -> HostArray:
    return parameter


START = Start(_itself)
"""Before the first step an average is the parameter."""


class Block:
    """A ``with`` block in which the parameters' arrays hold the averages."""

    open = True


class Swapped(NamedTuple):
    """What is kept while the parameters' arrays hold the averages."""

    block: weakref.ref[Block]
    parameters: dict[str, Array]
    """Copies of the parameters."""

    @property
    def is_open(self) -> bool:
        """Whether the block has not ended; also if its end was interrupted."""
        block = self.block()
        return block is not None and block.open


class Averages(Mapping[str, Array]):
    """The averages of an optimizer's parameters, by name; see `Optimizer.averages`."""

    def __init__(
        self,
        names: Collection[str],
        read: Callable[[str], Array],
        swap: Callable[[Block], None],
        end_block: Callable[[], None],
    ) -> None:
        self._names, self._read, self._swap, self._end_block = names, read, swap, end_block

    def __getitem__(self, name: str) -> Array:
        if self._names and name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<averages of {', '.join(map(repr, [*self][:3]))}{', ...' * (len(self) > 3)}>"

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages into the parameters' arrays for a ``with`` block, such as an evaluation.

        The parameters come back, bit for bit, when the block ends, also by an exception; what was
        written into them within the block is lost. Meanwhile a copy of them takes memory, and what
        would change or save the parameters, such as a step, raises StateError. Averages are rounded
        to the nearest number of the parameter's dtype. If Ctrl-C interrupts the end of the block,
        the next of these calls puts the parameters back.

        Raises
        ------
        StateError
            If the averages are in the parameters already.
        ParameterError
            If a parameter has been made read-only. Nothing has changed then.
        """
        block = Block()
        try:
            self._swap(block)
            yield
        finally:
            block.open = False
            self._end_block()
