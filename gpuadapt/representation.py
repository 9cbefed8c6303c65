"""What is printed of an optimizer: its text, its table in a notebook, `params` and `state`.

Nothing here waits for a GPU or for another thread, or changes anything.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .arrays import device_name
from .errors import Error, ParameterError, StateError
from .group import Group
from .hyperparameters import SETTINGS, expand
from .parameter import Parameter
from .texts import counted, listed, outline, safe, short, size, value

MOST_LINES = 20
"""Number of parameters, or groups, that are listed at most."""

WIDEST = 320
"""Number of characters of a line of settings, at most."""

ABSENT = object()
"""In place of a setting that a group does not have."""


class _ReadOnly(dict[str, Any]):
    """A dict that cannot be changed, and whose text has dtypes and shapes in place of arrays."""

    _refusal: tuple[type[Error], str]

    def _refuse(self, *_: Any, **__: Any) -> Any:
        kind, message = self._refusal
        raise kind(message)

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    @safe
    def __repr__(self) -> str:
        inner = ",\n ".join(_entries(self))
        return f"{{{inner}}}"


class Params(_ReadOnly):
    """The arrays that are updated, by name: a replaced array would not be updated."""

    _refusal = (
        ParameterError,
        "params: it shows which arrays are updated, and cannot be changed. Write into an array "
        "(params[name][...] = new); for more parameters there is `add`, for more rows `grow`",
    )


class States(_ReadOnly):
    """The states of parameters by name, or the states of one by letter."""

    _refusal = (
        StateError,
        "state: it shows which arrays are updated, and cannot be changed. Write into an array "
        "(state[name][letter][...] = new), or load a snapshot by `load_state_dict`",
    )


def _entries(shown: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text of each array, then how many are left out."""
    for number, (name, given) in enumerate(shown.items()):
        if number == MOST_LINES:
            yield f"... {len(shown) - MOST_LINES:,} more"
            return
        inner = isinstance(given, States)
        yield f"{name!r}: " + (f"{{{', '.join(_entries(given))}}}" if inner else outline(given))


class Facts(NamedTuple):
    """What is known of an optimizer without waiting."""

    heading: str
    """Method, rule if its name is another one, steps taken."""
    parameters: list[Parameter]
    groups: list[Group]
    common: dict[str, str]
    """Texts of settings by name: ``lr``, and what differs from the default, if all groups share
    it."""
    by_group: dict[str, list[str]]
    """Texts of settings that differ between groups, for each group."""


def text(kind: type, found: Mapping[str, Any]) -> str:
    """Describe an optimizer in five lines at most.

    Parameters
    ----------
    kind : type
        Its class.
    found : mapping
        Its attributes; some may be missing.
    """
    try:
        facts = _facts(kind, found)
        lines = [
            facts.heading,
            _parameters(facts.parameters, facts.groups),
            f"states: {_states(facts.parameters)}" if facts.parameters else "",
            _settings(facts.common),
            _by_group(facts.by_group),
        ]
        return "\n  ".join(filter(None, lines))
    except Exception as error:
        return f"<{kind.__name__}, incomplete: {type(error).__name__}>"


def table(kind: type, found: Mapping[str, Any]) -> str:
    """Describe an optimizer as a table of HTML, with a row for each group.

    Parameters and returns are as of `text`. It has no colours, scripts or links of its own.
    """
    try:
        return _table(_facts(kind, found))
    except Exception:
        return f"<pre>{html.escape(text(kind, found))}</pre>"


def _facts(kind: type, found: Mapping[str, Any]) -> Facts:
    found = dict(found)  # another thread may assign attributes meanwhile
    rule, groups = found.get("rule"), [*found.get("_groups", ())]
    if rule is None or not groups or "_steps" not in found:
        return Facts(f"{kind.__name__}: it has not been made", [], [], {}, {})
    heading = kind.__name__
    if rule.name.lower() != heading.lower():
        heading += f" (rule {rule.name})"
    heading += f": {_steps(*found['_steps'].known_count)}"
    if found.get("_half_loaded"):
        heading += "; a load has not come to its end"
    if found.get("_swapped") is not None:
        heading += "; the arrays hold the averages"
    settings = [dict(group.settings) for group in groups]
    common, by_group = _differing(settings, _defaults(kind))
    initial = _initial(found.get("_initial", {}), _defaults(kind))
    common |= {"initial": value(initial)} if initial else {}
    return Facts(heading, [*found["_parameters"].values()], groups, common, by_group)


def _steps(count: int, unconfirmed: int) -> str:
    taken = counted(count, "step")
    return f"{count - unconfirmed:,} to {taken} taken" if unconfirmed else f"{taken} taken"


def _defaults(kind: type) -> dict[str, Any]:
    """Return the defaults of settings by name, as the constructors have them."""
    found = dict(SETTINGS)
    for base in reversed(kind.__mro__[:-1]):
        if "__init__" in vars(base):
            for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                if parameter.default is not parameter.empty:
                    found[name] = parameter.default
    return expand(found)


def _initial(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, float]:
    """Return the initial values of states that are neither 0 nor the method's default."""
    usual = [0.0, *(each for name, each in defaults.items() if name.startswith("initial_"))]
    return {
        letter: start
        for letter, start in given.items()
        if isinstance(start, float) and start not in usual
    }


def _differing(
    settings: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the texts of settings that all groups share, and of those that differ by group."""
    common: dict[str, str] = {}
    by_group: dict[str, list[str]] = {}
    left_out = {"params"}
    if all(_same(each.get("weight_decay"), 0) for each in settings):
        left_out.add("decay")  # which has no effect then
    names = dict.fromkeys(name for each in ({"lr": 0.0}, *settings) for name in each)
    for name in names:
        if name in left_out or not any(name in each for each in settings):
            continue
        first, *others = (each.get(name, ABSENT) for each in settings)
        if all(_same(first, other) for other in others):
            if name == "lr" or not _same(first, defaults.get(name, ABSENT)):
                common[name] = value(first)
        else:
            given = (each.get(name, ABSENT) for each in settings)
            by_group[name] = ["none" if one is ABSENT else value(one) for one in given]
    return common, by_group


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:  # arrays, or an object whose comparison fails
        return False


def _parameters(parameters: Sequence[Parameter], groups: Sequence[Group]) -> str:
    number = "" if len(groups) == 1 else f" in {counted(len(groups), 'group')}"
    if not parameters:
        return f"no parameters{number}" if groups else ""
    elements, bytes_ = _elements(parameters), _bytes(parameters)
    return (
        f"{counted(len(parameters), 'parameter')}{number}: {counted(elements, 'element')}, "
        f"{size(bytes_)} of {listed(one.dtype_name for one in parameters)} on "
        f"{listed(device_name(one.array) for one in parameters)}"
    )


def _states(parameters: Sequence[Parameter]) -> str:
    kinds: dict[str, set[str]] = {}
    for one in parameters:
        for kept in one.storage.states:
            kinds.setdefault(kept.letter, set()).add(kept.form.dtype)
        for name, array in one.companions.items():
            kinds.setdefault(name, set()).add(str(array.dtype))
    if not kinds:
        return "none"
    texts = (f"{letter} {'/'.join(sorted(dtypes))}" for letter, dtypes in kinds.items())
    return f"{', '.join(texts)}, {size(_state_bytes(parameters))}"


def _elements(parameters: Iterable[Parameter]) -> int:
    return sum(int(one.array.size) for one in parameters)


def _bytes(parameters: Iterable[Parameter]) -> int:
    return sum(int(one.array.nbytes) for one in parameters)


def _state_bytes(parameters: Iterable[Parameter]) -> int:
    return sum(int(state.nbytes) for one in parameters for state in one.saved_states.values())


def _settings(common: Mapping[str, str]) -> str:
    return short(", ".join(f"{name}={short(text)}" for name, text in common.items()), WIDEST)


def _by_group(by_group: Mapping[str, Sequence[str]]) -> str:
    """Return each setting with the groups that have each value: "lr=0.1 (0-3), 0.01 (4)"."""
    texts = []
    for name, values in by_group.items():
        groups: dict[str, list[int]] = {}
        for number, shown in enumerate(values):
            groups.setdefault(shown, []).append(number)
        texts.append(
            f"{name}=" + ", ".join(f"{short(text)} ({_ranges(of)})" for text, of in groups.items())
        )
    return short("by group: " + "; ".join(texts), WIDEST) if texts else ""


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as ranges: "0-3, 7"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


def _table(facts: Facts) -> str:
    names = [*facts.common, *facts.by_group]
    rows = [_row(["group", "parameters", "elements", "bytes", "states", *names], "th")]
    members: dict[int, list[Parameter]] = {}
    for one in facts.parameters:
        members.setdefault(one.group, []).append(one)
    for number in range(min(len(facts.groups), MOST_LINES)):
        own = members.get(number, [])
        shown = [", ".join(one.name for one in own[:3]) + ", …" * (len(own) > 3)]
        shown[0] = f"{len(own):,}: {short(shown[0])}" if own else "none"
        shown += [f"{_elements(own):,}", size(_bytes(own)), _states(own)]
        given = (*facts.common.values(), *(each[number] for each in facts.by_group.values()))
        shown += [short(each) for each in given]
        rows.append(_row([str(number), *shown], "td"))
    more = len(facts.groups) - MOST_LINES
    last = f"<p>and {counted(more, 'more group')}</p>" if more > 0 else ""
    heading = html.escape(f"{facts.heading}. {_parameters(facts.parameters, facts.groups)}.")
    return f"<table><caption>{heading}</caption>{''.join(rows)}</table>{last}"


def _row(cells: Iterable[str], kind: str) -> str:
    return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in cells)}</tr>"
