"""`@rule` makes of a straight-line function the text that every backend compiles.

The text of an expression is the same, character for character, in Python and in CUDA C:
fully parenthesised in Python's order, literals written ``T(0.5)`` with ``T`` the compute
type.

Subexpressions of hyperparameters alone (``1 - h.beta1``, ``1 / (1 - h.beta1 ** h.t)``) become
*coefficients*: the host computes them in float64 once per step, and the kernel receives the
rounded value.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, overload

from ..errors import RuleError
from . import primitives as functions
from .caching import cached_with_rule
from .emit import Writer
from .program import LONGEST_NAME, Program, read
from .rate import rate_program
from .rowwise import rowwise_program

SOURCES: list[Callable[..., str]] = []
"""One function, which `gpuadapt.kernels.sources` puts here: rules do not know traversals."""

STEP = "t"
"""The name of ``h.t`` in a rule: the number of the step, from 1."""


@dataclass(frozen=True, eq=False)
class Rule:
    """The update of one number, for any traversal, format and backend.

    Made by `rule`. Rules are compared by identity.

    Attributes
    ----------
    name, doc : str
        Name and docstring of the function.
    parameter, gradient : str
        Names of its first two arguments.
    states : tuple of str
        Names of the states, in order; each has an array of the parameter's shape.
    hyperparameters : tuple of str
        The hyperparameters that it reads, without ``t``.
    coefficients : dict of str to str
        Formula of each coefficient, by its name in the kernel.
    lines : tuple of (str, str)
        Assignments to each element's variables: variable and expression.
    results : tuple of str
        Expressions of the new parameter and states; states below the smallest normal number
        become +0.
    functions : tuple of str
        The functions that it calls; each follows the functions that it calls itself.
    """

    program: Program
    hyperparameters: tuple[str, ...]
    coefficients: dict[str, str]
    lines: tuple[tuple[str, str], ...]
    results: tuple[str, ...]
    functions: tuple[str, ...]
    function: Callable[..., object] | None = None
    """The author's function; None for composed, row-wise and unpickled rules."""
    pieces: dict[str, Callable[..., object]] = field(default_factory=dict)
    """The functions of one line that it calls; see `variant`."""
    original: Rule | None = None
    """The rule of which this is a variant."""
    averaged: tuple[Rule, Any] | None = None
    """For a rule that keeps an average: the rule without it, and the `averaging.AverageRule`."""
    cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    """Results by function; see `caching`."""

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def without_average(self) -> Rule:
        """The rule itself, if this one keeps an average of its parameter."""
        return self.averaged[0] if self.averaged else self

    @property
    def symbol(self) -> str:
        """The name of its function in generated code, unlike any variable."""
        return f"rule__{self.name}"

    @property
    def doc(self) -> str:
        return self.program.doc

    @property
    def parameter(self) -> str:
        return self.program.arguments[0]

    @property
    def gradient(self) -> str:
        return self.program.arguments[1]

    @property
    def states(self) -> tuple[str, ...]:
        return self.program.arguments[2 : 1 + len(self.results)]

    @property
    def row_states(self) -> tuple[str, ...]:
        """The states with one number per row; see `rowwise`."""
        return self.program.row_states

    @property
    def nonnegative(self) -> frozenset[str]:
        """The states that its author declares never to be negative."""
        return frozenset(self.program.nonnegative)

    @cached_property
    def evaluate(self) -> Callable[..., tuple[float, ...]]:
        """The function ``evaluate(*hyperparameters, t)`` of the coefficients, in float64."""
        names = ", ".join((*self.hyperparameters, STEP))
        values = "".join(f"{formula}, " for formula in self.coefficients.values())
        host: dict[str, Any] = {name: getattr(functions, name) for name in functions.ARITY}
        host |= {"sqrt": math.sqrt, "abs": abs, **self.program.prepare}
        compute: Callable[..., tuple[float, ...]] = eval(  # noqa: S307
            f"lambda {names}: ({values})", host
        )
        return compute

    @cached_property
    def digest(self) -> str:
        """The digest of the author's formulas.

        It is saved with states, so it must not depend on how kernels are written.
        """
        writer, program = Writer(self.program.h), self.program
        lines = [(target, writer.text(node)) for target, node in program.lines]
        results = [writer.text(node) for node in program.results]
        text = repr((program.arguments, lines, results, writer.coefficients()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def rate(self) -> Rule:
        """The rule that writes the effective rate, computed from the states, over the parameter.

        The rate is the variable named ``rate``.

        Raises
        ------
        RuleError
            There is no such variable, or the states do not determine it.
        """
        return from_program(rate_program(self.program), flush=False)

    @cached_property
    def rowwise(self) -> Rule:
        """The rule with the row's mean of squares in place of ``sq(...)``, for "rows" and "exact".

        Its `row_states` have one number per row.

        Raises
        ------
        RuleError
            The rule has no such form; says why.
        """
        return from_program(rowwise_program(self.program))

    @cached_property
    def squared(self) -> Rule | None:
        """The rule that computes what is squared, for a rule made by `rowwise`."""
        return None if self.program.squared is None else from_program(self.program.squared)

    @property
    def squared_coefficients(self) -> list[str]:
        """The coefficients of this rule that `squared` reads, in the order of `squared`."""
        known = {formula: name for name, formula in self.coefficients.items()}
        return [known[f] for f in self.squared.coefficients.values()] if self.squared else []

    def __deepcopy__(self, memo: object) -> Rule:
        """Return the rule itself: it does not change, and kernels are cached by identity."""
        return self

    def variant(self, /, **pieces: Callable[..., object]) -> Rule:
        """Return the rule with some of its functions of one line exchanged.

        Equal calls return the same rule, so that they share kernels.

        Raises
        ------
        RuleError
            It calls no functions by these names.

        Examples
        --------
        >>> from gpuadapt.kernels import pieces, rules
        >>> rules.adam.variant(root=pieces.inside)
        <rule adam_inside(p, g, m, v, h); h: beta1, beta2, lr, eps>
        """
        for name, piece in pieces.items():
            if name not in self.pieces or not callable(piece):
                known = ", ".join(self.pieces) or "nothing"
                raise RuleError(f"{self.name}: {name}={piece!r}, but it calls {known}")
        return _variant(self.original or self, tuple(sorted((self.pieces | pieces).items())))

    def __getstate__(self) -> dict[str, Any]:
        # Cached properties are computed again; neither `evaluate` nor the author's function,
        # whose name now belongs to the rule, can be pickled.
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        return state | {"function": None, "pieces": {}, "original": None, "cache": {}}

    def source(
        self,
        backend: Literal["cpu", "cuda", "javascript"] = "cpu",
        traversal: Literal["many", "dense", "rows", "exact"] | None = None,
        dtype: Any = "float32",
        *,
        form: Literal["source", "llvm", "asm", "ptx", "sass"] = "source",
        arch: str | None = None,
    ) -> str:
        """Return the text of a kernel, exactly as it is compiled; or the rule as JavaScript.

        Parameters
        ----------
        backend : {"cpu", "cuda", "javascript"}
            As JavaScript a rule is two functions: ``coefficients(h, t)``, the numbers of a step,
            and ``update(p, g, ...states, coefficients)``, the new parameter and states of one
            element, with the bits of the kernels.
        traversal : {"many", "dense", "rows", "exact"}, optional
            Many contiguous arrays; one array of any strides; rows of a table; rows that catch up
            with skipped steps. By default "many", of a rule that works on whole rows "rows".
            JavaScript has none.
        dtype : {"float32", "float64"} or gpuadapt.kernels.formats.Formats
            One type for all arguments, or the format of each.
        form : {"source", "llvm", "asm", "ptx", "sass"}
            What is compiled; or what it is compiled to: on the CPU the LLVM IR or the assembly of
            the loop over elements, for this processor; for CUDA the PTX or the machine code of the
            whole kernel, without a GPU.
        arch : str, optional
            Of "ptx" and "sass", the compute capability: "sm_90" by default.

        Raises
        ------
        SourceError
            There is no such backend, traversal, type, form or architecture, the rule works on whole
            rows, or an argument has no effect.
        BackendError
            What compiles it, or what disassembles it, is not installed.

        Notes
        -----
        `gpuadapt.kernels.language.javascript` says where JavaScript's coefficients may differ from
        those of Python, and how functions of ``@rule(prepare=...)`` get there.
        """
        (write,) = SOURCES
        return write(self, backend, traversal, dtype, form, arch)

    def __repr__(self) -> str:
        arguments = ", ".join((*self.program.arguments, "h"))
        return f"<rule {self.name}({arguments}); h: {', '.join(self.hyperparameters)}>"


Author = Callable[..., object]
"""The type of a function in the language of rules."""


@overload
def rule(function: Author, /) -> Rule: ...
@overload
def rule(
    *,
    prepare: Callable[..., float] | Sequence[Callable[..., float]] = (),
    nonnegative: str | Sequence[str] = (),
    **pieces: Author,
) -> Callable[[Author], Rule]: ...
def rule(
    function: Author | None = None,
    /,
    *,
    prepare: Callable[..., float] | Sequence[Callable[..., float]] = (),
    nonnegative: str | Sequence[str] = (),
    **pieces: Author,
) -> Rule | Callable[[Author], Rule]:
    """Make a rule of a straight-line function ``f(parameter, gradient, *states, h)``.

    The function returns the new parameter and states, and may contain assignments,
    ``+ - * /``, unary minus, numbers, ``h.<hyperparameter>``, ``h.t`` (the step, from 1)
    and the functions ``sqrt sq abs sign maximum minimum where``; ``**`` between
    hyperparameters only. A variable named ``rate`` is what `Optimizer.effective_lr` shows.

    Parameters
    ----------
    prepare : function or sequence of functions
        Functions of numbers, in any Python, that the rule calls by their names with
        arguments that read ``h`` alone. The host calls them once per step, in float64.
    nonnegative : str or sequence of str
        The states that are never negative if they begin at 0 or above, such as a mean of squares:
        8 bits of them have no sign, and 16 bits of them are bfloat16, which has their range.
    **pieces : function
        Functions of one line, in the language of rules, that the rule calls by these
        names. `Rule.variant` puts others in their place.

    Raises
    ------
    RuleError
        Anything else is in it; the message has file, line and reason.

    Examples
    --------
    >>> @rule
    ... def adagrad(p, g, G, h):
    ...     G = G + sq(g)
    ...     rate = h.lr / sqrt(G + h.eps)
    ...     return p - rate * g, G

    With a warm-up of the learning rate:

    >>> def warmup(t, steps):
    ...     return min(1.0, t / steps)
    >>> @rule(prepare=warmup)
    ... def descent(p, g, h):
    ...     return p - h.lr * warmup(h.t, h.steps) * g
    """
    prepared: dict[str, Callable[..., float]] = {}
    for given in prepare if isinstance(prepare, (list, tuple)) else [prepare]:
        name = getattr(given, "__name__", "")
        if not callable(given) or not name.isidentifier() or name in prepared:
            raise RuleError(f"prepare: got {given!r}, expected functions with names of their own")
        prepared[name] = given
    for name, piece in pieces.items():
        if not callable(piece):
            raise RuleError(f"{name}: got {piece!r}, expected a function of one line")

    declared = (nonnegative,) if isinstance(nonnegative, str) else tuple(nonnegative)

    def make(function: Author) -> Rule:
        program = read(function, pieces=pieces, prepare=prepared)
        made = from_program(replace(program, nonnegative=declared))
        for name in declared:
            if name not in made.states:
                known = ", ".join(made.states) or "none"
                raise RuleError(f"{made.name}: nonnegative={name!r} is no state; states: {known}")
        return replace(made, function=function, pieces=pieces)

    return make if function is None else make(function)


@cached_with_rule
def _variant(rule: Rule, pieces: tuple[tuple[str, Author], ...]) -> Rule:
    changed = {name: piece for name, piece in pieces if rule.pieces[name] is not piece}
    if not changed:
        return rule
    assert rule.function is not None  # as long as there are pieces
    given = rule.pieces | changed
    program = read(rule.function, pieces=given, prepare=rule.program.prepare)
    names = (piece.__name__ for piece in changed.values())
    formulas = (
        f"{name}: {inspect.getdoc(piece) or piece.__name__}" for name, piece in changed.items()
    )
    name = "_".join((program.name, *names))
    if len(name) > 2 * LONGEST_NAME:
        raise RuleError(f"{program.name}: with these functions its name is too long: {name}")
    program = replace(
        program,
        name=name,
        nonnegative=rule.program.nonnegative,
        doc="\n\n".join((program.doc, "With " + "; ".join(formulas))),
    )
    return replace(from_program(program), function=rule.function, pieces=given, original=rule)


def from_program(program: Program, *, flush: bool = True) -> Rule:
    """Translate a checked program.

    With ``flush``, a new state whose magnitude is below the smallest normal number of the
    arithmetic's type becomes +0: states that decay would stay subnormal for ever, and arithmetic
    with subnormal numbers is slow.
    """
    writer = Writer(program.h)
    if program.squared is not None:
        # It is a function of its own; its coefficients are computed with this rule's.
        for _, node in program.squared.lines:
            writer.text(node)
        for node in program.squared.results:
            writer.text(node)
    lines = tuple((target, writer.text(node)) for target, node in program.lines)
    results = tuple(writer.text(node) for node in program.results)
    if flush and results[1:]:
        writer.called[functions.NORMAL] = None
        results = results[:1] + tuple(f"{functions.NORMAL}({state})" for state in results[1:])
    names = [name for name in writer.read if name != STEP]
    for name in program.prepare:
        if name in names or name == STEP:
            raise RuleError(f"{program.name}: h.{name} and {name}() are two things of one name")
    used = dict.fromkeys(
        name for call in writer.called for name in (*functions.USES.get(call, ()), call)
    )
    return Rule(program, tuple(names), writer.coefficients(), lines, results, tuple(used))
