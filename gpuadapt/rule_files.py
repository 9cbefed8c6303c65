"""Find a rule by a text of the command line: a method, a rule's name, or FILE.py:NAME."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpuadapt.kernels import rules
from gpuadapt.kernels.language.rule import Rule

from . import optimizers
from .errors import RuleError
from .suggest import asked, near

RULES: dict[str, Rule] = {
    name: value for name, value in vars(rules).items() if isinstance(value, Rule)
}
"""The rules of `gpuadapt.rules`, by name."""


def load_rule(text: str) -> Rule:
    """Return the rule that a text names.

    Parameters
    ----------
    text : str
        A method (``Adam``: its rule with the default options), a rule of `gpuadapt.rules`
        (``adam``), ``FILE.py:NAME``, or ``FILE.py`` if the file has one rule. The file is run, with
        its folder as the first place of imports.

    Returns
    -------
    Rule

    Raises
    ------
    RuleError
        There is no such method, file or name; the name is no rule; or the file raises.

    Examples
    --------
    >>> load_rule("Adagrad") is load_rule("adagrad")
    True
    """
    file, name = _parts(text)
    if file is None:
        return _known(name)
    if name:
        return _named(file, name)
    found = _own(file)
    if len(found) > 1:
        which = " or ".join(f"{file}:{each}" for each in found)
        raise RuleError(f"{file} has {len(found)} rules: say {which}")
    return next(iter(found.values()))


def load_rules(text: str) -> list[Rule]:
    """Return all rules that a text names: of ``FILE.py`` alone those of the file, in its order.

    Parameters
    ----------
    text : str
        See `load_rule`.

    Returns
    -------
    list of Rule
        At least one. Rules that a file has imported from `gpuadapt.rules` are not the file's.

    Raises
    ------
    RuleError
        See `load_rule`; or the file has no rule.
    """
    file, name = _parts(text)
    return [load_rule(text)] if file is None or name else list(_own(file).values())


def _parts(text: str) -> tuple[str | None, str]:
    """Return the file, or None, and the name, which may be empty."""
    if text.endswith(".py"):
        return text, ""
    file, colon, name = text.rpartition(":")
    if colon and file.endswith(".py"):
        return file, name
    if colon or "/" in text or "\\" in text:
        raise RuleError(f"got {text!r}, expected a method, a rule's name or FILE.py:NAME")
    return None, text


def _known(name: str) -> Rule:
    """Return the rule of a method, or a rule of `gpuadapt.rules`."""
    if name in optimizers.__all__:
        rule: Rule = getattr(optimizers, name)(np.zeros(1, np.float32)).rule
        return rule
    if name in RULES:
        return RULES[name]
    methods, known = ", ".join(optimizers.__all__), ", ".join(RULES)
    instead = asked(near(name, (*RULES, *optimizers.__all__)))
    raise RuleError(
        f"{instead}no method or rule {name!r}; methods: {methods}; rules: {known}; "
        "a rule of your own is FILE.py:NAME"
    )


def _own(file: str) -> dict[str, Rule]:
    """Return the rules that are made in a file, by name, each once."""
    seen = {id(rule) for rule in RULES.values()}
    found = dict[str, Rule]()
    for name, value in _run(file).items():
        if isinstance(value, Rule) and id(value) not in seen:
            seen.add(id(value))
            found[name] = value
    if not found:
        raise RuleError(f"{file} has no rule: decorate a function with @gpuadapt.rule")
    return found


def _named(file: str, name: str) -> Rule:
    """Return the rule of this name in a file."""
    names = _run(file)
    if name not in names:
        known = [each for each, value in names.items() if isinstance(value, Rule)]
        there = f"its rules: {', '.join(known)}" if known else "it has no rule"
        raise RuleError(f"{asked(near(name, known))}{file} has no {name!r}; {there}")
    value = names[name]
    if not isinstance(value, Rule):
        instead = (
            " a function: decorate it with @gpuadapt.rule" if callable(value) else f" {value!r}"
        )
        raise RuleError(f"{file}: {name} is no rule but{instead}")
    return value


def _run(file: str) -> dict[str, Any]:
    """Run a file and return its names, as if it had been imported.

    Raises
    ------
    RuleError
        There is no such file, or it raises; with the line.
    """
    path = Path(file)
    if not path.is_file():
        beside = [str(each) for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise RuleError(f"{asked(near(file, beside))}no file {file!r}")
    with _first_on_path(path.resolve().parent):
        try:
            return runpy.run_path(str(path.resolve()), run_name=path.stem)
        except RuleError:
            raise  # it names the line itself
        except (Exception, SystemExit) as error:
            line = _line(error, str(path.resolve()))
            said = str(error).splitlines()[:1]
            what = ": ".join([type(error).__name__, *said])
            raise RuleError(f"{file}{line}: {what}") from error


def _line(error: BaseException, file: str) -> str:
    """Return the last line of a file that an exception has passed through, after a colon."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f":{error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    return f":{lines[-1]}" if lines else ""


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Let a file import what lies beside it, as Python does for a script."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
