"""Check and time a rule, for its author.

`check_rule` does in one call what gpuadapt's tests do with its own rules.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuadapt.kernels import formats
from gpuadapt.kernels.cuda import host_check
from gpuadapt.kernels.formats import Operand
from gpuadapt.kernels.language.javascript import spelled
from gpuadapt.kernels.language.rule import Rule

from . import node
from .arrays import check_device, namespace
from .benchmark import RUNS
from .benchmark.subjects import of_rule, trial_values
from .choices import Backend, ParameterDtype, StateDtype
from .errors import BackendError, RuleError
from .hyperparameters import SETTINGS
from .launch import update_once
from .optimizer import Optimizer
from .oracle import any_bits, author, check_nonnegative, evaluate, nonnegative_states, same_bits
from .rowgrad import RowGrad

__all__ = ["benchmark", "check_rule"]

__dir__ = partial(sorted, __all__)

if TYPE_CHECKING:
    from .benchmark.measurement import Measurement

Values = dict[str, Any]
"""Hyperparameters by name."""

STEPS = 4
SMALL = 1003
"""Number of elements for one thread, with a remainder for every width of a vector."""
LARGE = 70_001
"""Number of elements for all threads."""


def check_rule(rule: Rule, **hyperparameters: float) -> dict[str, str]:
    """Check a rule against its own Python, on every traversal and in every spelling.

    1. Its author's function, run by Python in float64, gives what the kernel gives.
    2. Its translated lines, run by NumPy, give the kernel's bits: for numbers of every
       kind (infinities, NaN, subnormals, both zeros), in float32 and float64, with one
       thread and with all, with strides. States that are below the smallest normal number are
       +0 after a step.
    3. Its CUDA text gives the same bits: on a GPU, or compiled by g++ where there is none. So does
       its JavaScript, where Node is installed, and its coefficients are those of Python but for the
       last bits of powers.
    4. States that are declared to be nonnegative are, for hard gradients.
    5. A step by rows gives the bits of the dense step on the summed rows.

    Parameters
    ----------
    rule : Rule
    **hyperparameters : float
        Values; by default 0.9 for what lies in [0, 1), 0.1 for a learning rate and others,
        1e-3 for eps.

    Returns
    -------
    dict of str to str
        What was checked, what could not be, which states are nonnegative, and whether ``rowwise``
        and `effective_lr` work.

    Raises
    ------
    RuleError
        With the check that failed, the type, and the first element that differs.

    Examples
    --------
    >>> import gpuadapt as ga
    >>> checked = ga.testing.check_rule(ga.rules.adagrad, lr_decay=0.0)
    >>> checked["rows"]
    'the bits of the dense step'
    """
    _checkable(rule)
    values: Values = trial_values(rule)
    for name in hyperparameters:
        if name not in values:
            raise RuleError(f"{rule.name!r} reads no h.{name}")
    values |= hyperparameters
    found = {"python": "no function of the author's" if rule.function is None else "agrees"}
    if rule.function is not None:
        _check_function(rule, values)
    cuda = _spelling(rule)
    found["cuda"] = cuda[0] if cuda else "not checked: neither a GPU nor g++"
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        _check_bits(rule, values, dtype, cuda)
    found["javascript"] = _check_javascript(rule, values)
    found["bits"] = "equal: float32, float64, every kind of number, all threads, strides"
    check_nonnegative(rule)
    found["nonnegative"] = _nonnegative(rule)
    _check_rows(rule, values)
    found["rows"] = "the bits of the dense step"
    for form in ("rowwise", "rate"):
        try:
            getattr(rule, form)
            found[form] = "yes"
        except RuleError as error:
            found[form] = f"no: {error}"
    return found


def benchmark(
    rule: Rule,
    size: int = 10_000_000,
    dtype: ParameterDtype = "float32",
    backend: Backend = "cpu",
    *,
    state_dtype: StateDtype | None = None,
    threads: int | None = None,
    runs: int = RUNS,
    **hyperparameters: float,
) -> Measurement:
    """Time a dense step of a rule beside the machine's limit, in turns.

    The limit is a kernel that reads and writes as many bytes and only adds. `gpuadapt benchmark` on
    the command line does this for many sizes, methods and formats; docs/benchmark.md says how to
    read a figure.

    Parameters
    ----------
    rule : Rule
    size : int
        Elements.
    dtype : {"float32", "float64", "float16", "bfloat16"}
        Of parameter and gradient.
    backend : {"cpu", "cuda"}
    state_dtype : str, optional
        As of `Optimizer`.
    threads : int, optional
        How many to use at most on the CPU.
    runs : int, at least 2
        How often step and limit are timed; a run takes about 20 ms.
    **hyperparameters : float
        Values, as of `check_rule`.

    Returns
    -------
    Measurement
        Median and quartiles in seconds, bytes, the share of the limit, the machine, and why the
        figure is not to be trusted, if it is not.

    Raises
    ------
    RuleError, BackendError, HyperparameterError
    """
    from .benchmark.measure import measure
    from .benchmark.measurement import Work

    _checkable(rule)
    if backend != "cpu":
        check_device()
    subject = of_rule(rule.name, rule, hyperparameters)
    work = Work(size, dtype, state_dtype, threads, backend)
    return measure(subject, work, runs=runs).measurements[0]


def _checkable(rule: Rule) -> None:
    """Raise `RuleError` unless an optimizer can be made of a rule as it is."""
    if not isinstance(rule, Rule):
        raise RuleError(f"got {rule!r}, expected a function decorated with @rule")
    if rule.squared is not None or set(SETTINGS) & set(rule.hyperparameters):
        raise RuleError(f"{rule.name!r} is made of another rule: check that one")


def _check_function(rule: Rule, values: Values) -> None:
    """Compare the author's function with the kernel, both in float64."""
    function = author(rule)
    random = np.random.default_rng(0)
    start, *gradients = random.normal(size=(1 + STEPS, SMALL))
    got, expected = start.copy(), start
    optimizer = Optimizer(rule, {"w": got}, **values)
    states = [np.zeros_like(start) for _ in rule.states]
    for t, gradient in enumerate(gradients, start=1):
        optimizer.step({"w": gradient})
        with np.errstate(all="ignore"):
            result = function(expected, gradient, *states, types.SimpleNamespace(**values, t=t))
        expected, *states = result if isinstance(result, tuple) else (result,)
    for name, a, b in zip(
        ("the parameter", *rule.states),
        (got, *optimizer.state["w"].values()),
        (expected, *states),
        strict=True,
    ):
        right = np.isclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
        if not right.all():
            raise RuleError(
                f"{rule.name}: {name} is not what its Python gives{_first(a, b, right)}"
            )


Spelling = tuple[str, Callable[[np.dtype], Callable[..., list[np.ndarray]]]]


def _spelling(rule: Rule) -> Spelling | None:
    """Return how the CUDA text can be run here, and what runs it."""
    try:
        check_device()
    except BackendError:
        return ("equal, compiled by g++", _by_host(rule)) if host_check.available() else None
    return "equal, on the GPU", lambda dtype: lambda *given: _run(rule, "cuda", *given)


def _by_host(rule: Rule) -> Callable[[np.dtype], Callable[..., list[np.ndarray]]]:
    def build(dtype: np.dtype) -> Callable[..., list[np.ndarray]]:
        kernel = host_check.build(rule, dtype)

        def run(arrays: Sequence[np.ndarray], numbers: Sequence[float]) -> list[np.ndarray]:
            copies = [array.copy() for array in arrays]
            kernel(copies, numbers)
            return [copies[0], *copies[2:]]

        return run

    return build


def _run(
    rule: Rule,
    backend: str,
    arrays: Sequence[np.ndarray],
    numbers: Sequence[float],
    threads: int | None = None,
) -> list[np.ndarray]:
    xp = namespace(backend)
    parameter, gradient, *states = [xp.array(array) for array in arrays]
    _update(rule, backend, parameter, gradient, states, numbers, threads)
    new = (parameter, *states)
    return [np.array(array) if backend == "cpu" else array.get() for array in new]


def _update(
    rule: Rule,
    backend: str,
    parameter: Any,
    gradient: Any,
    states: Sequence[Any],
    numbers: Sequence[float],
    threads: int | None = None,
) -> None:
    kinds = formats.uniform(rule, parameter.dtype)
    update_once(rule, backend, kinds, Operand((parameter, *states)), gradient, numbers, threads)


def _check_bits(rule: Rule, values: Values, dtype: np.dtype, spelling: Spelling | None) -> None:
    """Compare kernels with NumPy."""
    random = np.random.default_rng(1)
    cuda = spelling[1](dtype) if spelling else None
    for t in (1, 2, 1000):
        numbers = rule.evaluate(*values.values(), t)
        arrays = [any_bits(random, LARGE, dtype) for _ in rule.program.arguments]
        want = evaluate(rule, arrays, numbers)
        small, wanted = [a[:SMALL] for a in arrays], [a[:SMALL] for a in want]
        _same(rule, "cpu, all threads", dtype, _run(rule, "cpu", arrays, numbers), want)
        alone = _run(rule, "cpu", arrays, numbers, threads=1)
        _same(rule, "cpu, one thread", dtype, alone, want)
        _same(rule, "cpu", dtype, _run(rule, "cpu", small, numbers), wanted)
        wide = [np.repeat(a, 2)[::2] for a in small]
        parameter, gradient, *states = wide
        _update(rule, "cpu", parameter, gradient, states, numbers)
        _same(rule, "cpu, strided", dtype, [parameter, *states], wanted)
        if cuda:
            _same(rule, "cuda", dtype, cuda(small, numbers), wanted)


def _check_javascript(rule: Rule, values: Values) -> str:
    """Compare JavaScript with NumPy, and its coefficients with those of Python."""
    if node.find() is None:
        return "not checked: no node"
    random, steps = np.random.default_rng(4), (1, 2, 1000)
    expected = [rule.evaluate(*values.values(), t) for t in steps]
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        arrays = [any_bits(random, LARGE, dtype) for _ in rule.program.arguments]
        want = evaluate(rule, arrays, expected[-1])
        _same(rule, "javascript", dtype, node.update(rule, arrays, expected[-1]), want)
    if missing := [name for name, of in rule.program.prepare.items() if not spelled(of)]:
        return f"equal, but for coefficients: {missing[0]}() is Python alone"
    given = np.array([[*values.values(), t] for t in steps], np.float64)
    right = np.isclose(node.coefficients(rule, given), expected, rtol=1e-9, equal_nan=True)
    if not right.all():
        t, name = (int(at) for at in np.argwhere(~right)[0])
        raise RuleError(
            f"{rule.name}, javascript: the coefficient {list(rule.coefficients)[name]} is not "
            f"what Python gives at step {steps[t]}"
        )
    return "equal"


def _check_rows(rule: Rule, values: Values) -> None:
    """Compare rows, each once or twice, with the dense step on their sums."""
    random = np.random.default_rng(2)
    table = random.normal(size=(50, 6)).astype(np.float32)
    dense = table.copy()
    by_rows, by_all = Optimizer(rule, {"w": table}, **values), Optimizer(rule, dense, **values)
    for _ in range(STEPS):
        rows = random.permutation(np.concatenate([np.arange(50), np.arange(0, 50, 3)]))
        grads = random.normal(size=(len(rows), 6)).astype(np.float32)
        sums, seen = np.empty_like(table), set()
        for row, grad in zip(rows.tolist(), grads, strict=True):
            sums[row] = sums[row] + grad if row in seen else grad
            seen.add(row)
        by_rows.step({"w": RowGrad(rows, grads)})
        by_all.step(sums)
    got = [table, *by_rows.state["w"].values()]
    _same(rule, "rows", table.dtype, got, [dense, *by_all.state["0"].values()])


def _same(rule: Rule, where: str, dtype: np.dtype, got: Sequence[Any], want: Sequence[Any]) -> None:
    for name, a, b in zip((rule.parameter, *rule.states), got, want, strict=True):
        right = same_bits(a, b)
        if not right.all():
            raise RuleError(f"{rule.name}, {where}, {dtype}: {name} differs{_first(a, b, right)}")


def _nonnegative(rule: Rule) -> str:
    """Say which states are declared to be nonnegative, and which others seem to be."""
    candidates = frozenset(rule.states)
    while (found := nonnegative_states(rule, candidates)) != candidates:
        candidates = found
    declared = [name for name in rule.states if name in rule.nonnegative]
    more = [name for name in rule.states if name in candidates - rule.nonnegative]
    said = ", ".join(declared) or "none declared"
    return f"{said}; {', '.join(more)} could be declared: @rule(nonnegative=...)" if more else said


def _first(a: np.ndarray, b: np.ndarray, right: np.ndarray) -> str:
    """Describe the first element that is not right."""
    index = int(np.argmin(right))
    return f" at element {index}: got {a.flat[index]!r}, expected {b.flat[index]!r}"
