"""What all frameworks share: methods by rule, arrays as numbers, loading, reading, checks."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import HostArray
from gpuadapt.kernels.language.rule import Rule

from ..arrays import backend_of, describe, dtype_name
from ..errors import StateError
from ..foreign import as_array
from ..optimizer import Optimizer, internals
from ..parameter import Parameter
from ..state import count
from ..state_formats import arrays_of, decoded

OTHER = "is it the state of another method?"
"""The end of messages about states that do not fit."""

MOST_FACTORS = 10**6
"""Number of NAdam's momenta from which on all are taken to be equal."""


class Slot(NamedTuple):
    """A state of a framework's method."""

    name: str
    sign: int = 1
    """-1 if the framework's numbers are the negative of ours."""


class Method(NamedTuple):
    """A method of a framework, in the form of one rule."""

    name: str
    rule: Rule
    states: Mapping[str, Slot]
    """By the rule's letter. A centered rule has G here: the frameworks keep G = V + M^2."""


class Found(NamedTuple):
    """States of an optimizer, in the letters of `Method.states`."""

    step_count: int
    updates: dict[str, int]
    """By name of parameter."""
    states: dict[str, dict[str, HostArray]]
    """By name of parameter, then letter."""


def methods(name: str, rules: Iterable[Rule], **names: str) -> list[Method]:
    """Return a method in the form of several rules.

    Parameters
    ----------
    name : str
    rules : iterable of Rule
    **names : str
        The framework's name of a state by its letter, with a leading "-" if its numbers are the
        negative of ours. States that a rule does not have are left out.
    """
    slots = {
        letter: Slot(text.removeprefix("-"), -1 if text.startswith("-") else 1)
        for letter, text in names.items()
    }
    return [
        Method(name, rule, {letter: slots[letter] for letter in slots if letter in _letters(rule)})
        for rule in rules
    ]


def _letters(rule: Rule) -> tuple[str, ...]:
    """Return a rule's states, with G in the place of V."""
    return tuple("G" if letter == "V" else letter for letter in rule.states)


def method_of(framework: str, known: Sequence[Method], optimizer: Any) -> Method:
    """Return the framework's method that has an optimizer's rule.

    Raises
    ------
    StateError
        There is none.
    """
    if not isinstance(optimizer, Optimizer):
        raise StateError(
            f"optimizer: got {describe(optimizer)}, expected an optimizer of gpuadapt; "
            f"ga.presets.{framework} makes it"
        )
    if optimizer.rule.averaged:
        raise StateError(
            "averages of parameters are not converted; make the optimizer without average=..."
        )
    for method in known:
        if method.rule.digest == optimizer.rule.digest:
            return method
    raise StateError(
        f"no method of {framework} has the formula {optimizer.rule.name!r} of this optimizer; make "
        f"it with ga.presets.{framework}"
    )


def parameters_of(optimizer: Optimizer) -> dict[str, Parameter]:
    """Return the parameters by name.

    Raises
    ------
    StateError
        States have one number for each row, which other frameworks do not have.
    """
    parameters = internals(optimizer).parameters
    for name, parameter in parameters.items():
        if any(kept.by_row for kept in parameter.storage.states):
            raise StateError(
                f"parameter {name!r}: rowwise=True keeps one number for each row, the other "
                "framework one for each element; make the optimizer without rowwise"
            )
    return parameters


def array_of(label: str, given: Any) -> HostArray:
    """Return an array of any library as NumPy's float32 or float64.

    Parameters
    ----------
    label : str
        The beginning of error messages.
    given : array of floats

    Raises
    ------
    StateError
        It is no array of floats.
    """
    found = as_array(label, given, StateError)
    if backend_of(found) is None and hasattr(type(given), "__array__"):
        found = np.asarray(given)
    if isinstance(found, (float, np.floating)):
        found = np.asarray(found)
    if backend_of(found) is None or dtype_name(found) is None:
        raise StateError(f"{label}: got {describe(found)}, expected an array of floats")
    return decoded(found)


def number_of(label: str, given: Any) -> float:
    """Return an array of one element, or a number, as a float.

    Raises
    ------
    StateError
    """
    try:
        if isinstance(given, str):
            raise TypeError
        return float(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise StateError(f"{label}: got {describe(given)}, expected one number") from None


def count_of(label: str, given: Any) -> int:
    """Return a count, which frameworks keep as an integer or a float.

    Raises
    ------
    StateError
        It is no whole number from 0.
    """
    try:
        return count(label, operator.index(given))
    except TypeError:
        number = number_of(label, given)
    return count(label, int(number) if number.is_integer() else number)


def state_of(method: Method, parameter: Parameter, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter's states in the letters of `Method.states`.

    Parameters
    ----------
    method : Method
    parameter : Parameter
    given : mapping
        Arrays by letter.

    Raises
    ------
    StateError
        A state is missing, or no array of floats of the parameter's shape, or negative where it
        cannot be.
    """
    found = {}
    for letter, slot in method.states.items():
        label = f"parameter {parameter.name!r}, {slot.name!r}"
        if given.get(letter) is None:
            raise StateError(f"{label}: it is missing, {method.name} keeps it; {OTHER}")
        numbers = array_of(label, given[letter])
        if numbers.shape != parameter.shape:
            raise StateError(
                f"{label}: got shape {numbers.shape}, expected {parameter.shape}; parameters must "
                "be the same, in the same order"
            )
        negative = letter in (*method.rule.nonnegative, "G") and (numbers < 0).any()
        if negative:
            raise StateError(f"{label}: got negative numbers, expected a sum of squares; {OTHER}")
        found[letter] = -numbers if slot.sign < 0 else numbers
    return found


def zeros(method: Method, parameter: Parameter) -> dict[str, HostArray]:
    """Return the states of a parameter that has had no gradient."""
    return {letter: np.zeros(parameter.shape, parameter.compute_dtype) for letter in method.states}


def agreed(method: Method, counted: Iterable[int], steps: int | None) -> int:
    """Return the number of steps.

    Parameters
    ----------
    method : Method
    counted : iterable of int
        The counts of the framework's state.
    steps : int or None
        The user's count.

    Raises
    ------
    StateError
        There is none, or they differ.
    """
    found = {*counted}
    if steps is not None:
        found.add(count("steps", steps))
    if not found:
        raise StateError(
            f"the state of {method.name} has no count of its steps: pass steps=, the number of "
            "steps taken; schedules of this optimizer continue from there"
        )
    if len(found) > 1:
        raise StateError(
            f"{method.name}: the counts of steps differ, {sorted(found)}; leave steps out, or pass "
            "the state's own"
        )
    return found.pop()


def check_equal(framework: str, differences: Iterable[tuple[str, Any, Any]]) -> None:
    """Refuse settings that differ.

    Parameters
    ----------
    framework : str
    differences : iterable of (str, object, object)
        Name, the framework's value, ours.

    Raises
    ------
    StateError
    """
    texts = [f"{name}: {framework} has {a!r}, this optimizer {b!r}" for name, a, b in differences]
    if texts:
        raise StateError(f"{'; '.join(texts)}. Make the optimizer with {framework}'s settings")


def rate_differs(theirs: Any, ours: Any) -> bool:
    """True if two numbers differ in float32, the type of many frameworks; a schedule never does."""
    return not callable(ours) and np.float32(theirs) != np.float32(ours)


def mu_product(group: Mapping[str, Any], updates: int) -> float:
    """Return the product of NAdam's momenta after a number of updates.

    Parameters
    ----------
    group : mapping
        Of ``param_groups``.
    updates : int

    Raises
    ------
    StateError
        A hyperparameter is a schedule.
    """
    if callable(group["beta1"]) or callable(group["momentum_decay"]):
        raise StateError(
            "the product of NAdam's momenta, which other frameworks keep, takes numbers as beta1 "
            "and momentum_decay, not schedules"
        )
    beta1, decay = float(group["beta1"]), float(group["momentum_decay"])
    # A rule stops where 1 minus the product is 1; other frameworks multiply on.
    steps = np.arange(1, min(updates, MOST_FACTORS) + 1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.log(beta1 * (1 - 0.5 * 0.96 ** (steps * decay)))
        rest = (updates - len(steps)) * logarithms[-1] if updates > len(steps) else 0.0
        return float(np.exp(logarithms.sum() + rest))


def check_product(framework: str, theirs: Any, group: Mapping[str, Any], updates: int) -> None:
    """Refuse a product of NAdam's momenta other than that of our hyperparameters.

    Raises
    ------
    StateError
    """
    ours = mu_product(group, updates)
    product = number_of("the product of NAdam's momenta", theirs)
    # The other framework rounds it in every step, in the end to zero.
    if not np.isclose(product, ours, rtol=1e-3, atol=1e-30):
        raise StateError(
            f"the product of NAdam's momenta: {framework} has {product}, {updates} steps with this "
            f"optimizer's beta1 and momentum_decay give {ours}. It is not kept here, so that only "
            "a run in which these have not changed can continue"
        )


def load(optimizer: Optimizer, found: Found) -> None:
    """Put states and counts into an optimizer, in its formats.

    Parameters
    ----------
    optimizer : Optimizer
    found : Found

    Raises
    ------
    StateError
        Nothing has changed then.
    """
    encoded = {
        name: {"updates": found.updates[name], **_encoded(parameter, found.states[name])}
        for name, parameter in parameters_of(optimizer).items()
    }
    snapshot = optimizer.state_dict()
    for name, entry in encoded.items():
        snapshot["state"][name] |= entry
    optimizer.load_state_dict(snapshot | {"step_count": found.step_count})


def _encoded(parameter: Parameter, numbers: Mapping[str, HostArray]) -> dict[str, Any]:
    """Return states in a parameter's formats, named as in a snapshot."""
    states: dict[str, Any] = {}
    for kept in parameter.storage.states:
        if kept.letter == "V":
            # Rounding may have taken it below zero.
            values = np.maximum(numbers["G"] - np.square(numbers["M"], dtype=np.float64), 0)
        else:
            values = numbers[kept.letter]
        with np.errstate(over="ignore"):
            rounded = values.astype(parameter.compute_dtype, copy=False)
        parts: list[Any] = list(kept.form.encode(rounded))
        # A format without infinities stores its largest number instead.
        largest, stored = (np.abs(x).max(initial=0) for x in (values, kept.form.decode(parts)))
        if 1 < largest < np.inf and not 15 / 16 < stored / largest < 17 / 16:
            raise StateError(
                f"parameter {parameter.name!r}: numbers of its state {kept.letter!r} do not fit in "
                f"{kept.form.dtype}; make the optimizer with another state_dtype"
            )
        parts[0] = parts[0].view(kept.dtype)
        states[kept.letter] = kept.form.view(parts)
    return arrays_of(states)


def held(method: Method, optimizer: Optimizer) -> Found:
    """Return an optimizer's states as the framework's numbers; exact rows catch up first.

    Parameters
    ----------
    method : Method
    optimizer : Optimizer

    Raises
    ------
    StateError
    """
    parameters = parameters_of(optimizer)
    snapshot = optimizer.state_dict()
    states: dict[str, dict[str, HostArray]] = {}
    for name in parameters:
        own = {
            letter: decoded(array)
            for letter, array in optimizer.state[name].items()
            if letter in method.rule.states
        }
        if "V" in own:
            own["G"] = own.pop("V") + np.square(own["M"], dtype=np.float64)
        states[name] = {letter: slot.sign * own[letter] for letter, slot in method.states.items()}
    updates = {name: entry["updates"] for name, entry in snapshot["state"].items()}
    return Found(snapshot["step_count"], updates, states)
