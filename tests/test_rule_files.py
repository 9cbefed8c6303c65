"""Rules by the text of a command line."""

import sys

import pytest

import gpuadapt as ga
from gpuadapt.rule_files import RULES, load_rule, load_rules

GOOD = """
import math
import beside
import gpuadapt as ga
from gpuadapt.kernels.rules import adam


def double(x):
    return math.ldexp(x, beside.ONE)


@ga.rule(prepare=double)
def plain(p, g, h):
    return p - double(h.lr) * g


same = plain
inside = adam.variant(root=ga.pieces.inside)


def undecorated(p, g, h):
    return p - h.lr * g
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "beside.py").write_text("ONE = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ga.optimizers.__all__)
def test_a_method_is_its_rule_with_default_options(name):
    import numpy as np

    assert load_rule(name) is getattr(ga, name)(np.zeros(1)).rule


@pytest.mark.parametrize("name", RULES)
def test_a_rule_by_its_name(name):
    assert load_rule(name) is getattr(ga.rules, name)
    assert load_rules(name) == [load_rule(name)]


def test_a_rule_of_a_file(folder):
    rule = load_rule("good.py:plain")
    assert rule.name == "plain" and rule.evaluate(0.5, 1) == (1.0,)
    assert load_rule(f"{folder}/good.py:plain").lines == rule.lines
    assert load_rule("good.py:inside") is ga.rules.adam.variant(root=ga.pieces.inside)
    assert load_rule("good.py:adam") is ga.rules.adam


def test_all_rules_of_a_file(folder):
    assert [rule.name for rule in load_rules("good.py")] == ["plain", "adam_inside"]
    (folder / "one.py").write_text("from good import plain\n")
    assert [load_rule("one.py").name] == [rule.name for rule in load_rules("one.py")] == ["plain"]


def test_a_file_that_has_changed_is_read_again(folder):
    before = load_rule("good.py:plain")
    (folder / "good.py").write_text(GOOD.replace("double(h.lr) * g", "double(h.lr) * sq(g)"))
    assert load_rule("good.py:plain").results != before.results


def test_the_process_is_left_as_it_was(folder):
    path, argv, modules = sys.path[:], sys.argv[:], set(sys.modules)
    load_rule("good.py:plain")
    assert (sys.path, sys.argv) == (path, argv) and set(sys.modules) - modules == {"beside"}


WRONG = {
    "adm": "did you mean Adam? no method or rule 'adm'; methods: FTRL, ",
    "ADAM": "did you mean ",
    "nothing.py:adam": "no file 'nothing.py'",
    "god.py": "did you mean good.py? no file 'god.py'",
    "good.py": "good.py has 2 rules: say good.py:plain or good.py:inside",
    "good.py:plan": "did you mean plain? good.py has no 'plan'; its rules: adam, plain, same, ",
    "good.py:undecorated": "undecorated is no rule but a function: decorate it",
    "good.py:math": "good.py: math is no rule but <module 'math'",
    "beside.py": "beside.py has no rule: decorate a function",
    "beside.py:x": "beside.py has no 'x'; it has no rule",
    "good.txt:plain": "expected a method, a rule's name or FILE.py:NAME",
    "folder/good": "expected a method, a rule's name or FILE.py:NAME",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_in_one_line(folder, text):
    with pytest.raises(ga.RuleError) as raised:
        load_rule(text)
    assert WRONG[text] in str(raised.value) and len(str(raised.value).splitlines()) == 1


RAISING = {
    "x = 1\n1 / 0\n": "bad.py:2: ZeroDivisionError: division by zero",
    "\n\nx = = 1\n": "bad.py:3: SyntaxError: invalid syntax",
    "import no_such_module_here": "bad.py:1: ModuleNotFoundError: No module named",
    "def f():\n    raise ValueError('a\\nb')\n\n\nf()\n": "bad.py:2: ValueError: a",
    "raise SystemExit": "bad.py:1: SystemExit",
}


@pytest.mark.parametrize("text", RAISING)
@pytest.mark.parametrize("load", [load_rule, load_rules])
def test_a_file_that_raises_is_named_with_its_line(folder, text, load):
    (folder / "bad.py").write_text(text)
    with pytest.raises(ga.RuleError) as raised:
        load("bad.py")
    assert str(raised.value).startswith(RAISING[text]), str(raised.value)
    assert len(str(raised.value).splitlines()) == 1 and str(folder) not in sys.path


def test_a_rule_that_is_refused_is_named_with_its_line(folder):
    text = "import gpuadapt as ga\n\n\n@ga.rule\ndef f(p, g, h):\n    return p ** g\n"
    (folder / "bad.py").write_text(text)
    with pytest.raises(ga.RuleError, match=r"bad\.py:6: "):
        load_rule("bad.py:f")
