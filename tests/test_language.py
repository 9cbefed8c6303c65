"""What a rule may contain, what it becomes, and how what it may not contain is refused."""

import gc
import itertools
import linecache
import pickle
import subprocess
import sys
import textwrap
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
from cases import RULES

import gpuadapt as ga
from gpuadapt.kernels.cpu import multi_tensor
from gpuadapt.kernels.formats import Operand, uniform
from gpuadapt.kernels.language.caching import cached_with_rule
from gpuadapt.kernels.language.program import LONGEST_NAME
from gpuadapt.kernels.options import AFTER, OPTIONS, compose
from gpuadapt.launch import update_once
from gpuadapt.oracle import evaluate

counter = itertools.count()


def define(tmp_path, body, signature="p, g, s, h", head=""):
    """Define a rule in a file of its own, below ``head``; returns (the rule, the file)."""
    file = tmp_path / f"rule_{next(counter)}.py"
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    file.write_text(f"import gpuadapt as ga\n{head}\n\n@ga.rule\ndef own({signature}):\n{lines}\n")
    names = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    return names["own"], file


REFUSED = {
    "if p > 0:\n    s = g\nreturn p, s": "if is not allowed",
    "for i in range(3):\n    s = g\nreturn p, s": "a loop is not allowed",
    "while p:\n    s = g\nreturn p, s": "a loop is not allowed",
    "s = g if p > 0 else p\nreturn p, s": r"use where\(",
    "s += g\nreturn p, s": "augmented assignment",
    "s, q = g, p\nreturn p, s": "one plain name",
    "s = q = g\nreturn p, s": "one plain name",
    "s[0] = g\nreturn p, s": "one plain name",
    "s: float = g\nreturn p, s": "annotated",
    "h = g\nreturn p, s": "cannot be assigned",
    "s = g ** 2\nreturn p, s": r"write sq\(x\)",
    "c = h.lr * g\nreturn p ** c, s": r"write sq\(x\)",
    "s = g % 2\nreturn p, s": "operator Mod",
    "s = g // 2\nreturn p, s": "operator FloorDiv",
    "s = exp(g)\nreturn p, s": r"call exp\(\)",
    "s = g.sum()\nreturn p, s": r"call g.sum\(\)",
    "s = np.sqrt(g)\nreturn p, s": r"call np.sqrt\(\) is not allowed in a rule: write sqrt\(\)",
    "s = ga.language.sq(g)\nreturn p, s": r"write sq\(\), which needs no import",
    "s = np.exp(g)\nreturn p, s": r"call np.exp\(\) is not allowed in a rule\n",
    "s = sqrt(g, p)\nreturn p, s": "takes 1 argument",
    "s = sqrt(x=g)\nreturn p, s": r"call sqrt\(\)",
    "s = q\nreturn p, s": "unknown name 'q': pass constants as h.q",
    "s = g > p\nreturn p, s": "comparison outside where",
    "s = where(g, p, s)\nreturn p, s": "one comparison first",
    "s = where(g < p < s, p, s)\nreturn p, s": "one comparison first",
    "s = g and p\nreturn p, s": "and/or",
    "s = g[0]\nreturn p, s": "an index",
    "s = g.real\nreturn p, s": "Attribute",
    "s = True * g\nreturn p, s": "not a real number",
    "s = 2j * g\nreturn p, s": "not a real number",
    "s = 'a'\nreturn p, s": "Constant",
    "s = not g\nreturn p, s": "UnaryOp",
    "return p": "returns 1 values, expected 2",
    "return p, s, g": "returns 3 values, expected 2",
    "s = g": "ends with a return",
    "return": "ends with a return",
    "return p, s\nreturn p, s": "early return",
    "'''only a docstring'''": "ends with a return",
    "import math\nreturn p, s": "Import is not allowed",
    "int = g\nreturn p, int": "'int' is taken",
    "sqrt = g\nreturn p, sqrt": "'sqrt' is taken",
    "T = g\nreturn p, T": "'T' is taken",
    "h_0 = g\nreturn p, h_0": "'h_0' begins with",
    "_x = g\nreturn p, _x": "'_x' begins with",
    "p_ = g\nreturn p_, s": "ends with '_'",
    "NULL = g\nreturn p, NULL": "'NULL' is taken",
    "β = g\nreturn p, β": "not plain ASCII",
    "return p, h.double * g": "'double' is taken",
    "return p, 1e400 * g": "not a finite number",
}


@pytest.mark.parametrize("body", REFUSED)
def test_refused_with_file_line_and_reason(body, tmp_path):
    with pytest.raises(ga.RuleError, match=REFUSED[body]) as caught:
        define(tmp_path, body)
    first, shown, caret, allowed = str(caught.value).split("\n")
    file, line, _ = first.split(":", 2)
    assert file == str(next(tmp_path.iterdir()))
    source_line = next(tmp_path.iterdir()).read_text().splitlines()[int(line) - 1]
    assert shown.strip() == source_line.strip()
    assert caret.strip() == "^" and caret.index("^") < len(shown)
    assert allowed.startswith("a rule may contain")


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("p, h", "takes \\(parameter"),
        ("p, g, *s, h", "plain positional"),
        ("p, g, s=0, h=1", "plain positional"),
        ("p, g, *, h", "plain positional"),
        ("h, g, x", "'h' is for the last argument"),
    ],
)
def test_refused_signatures(signature, reason, tmp_path):
    with pytest.raises(ga.RuleError, match=reason):
        define(tmp_path, "return p", signature)


def test_refused_name_of_the_rule(tmp_path):
    file = tmp_path / "own.py"
    file.write_text("import gpuadapt as ga\n@ga.rule\ndef bêta(p, g, h):\n    return p\n")
    with pytest.raises(ga.RuleError, match="'bêta' is not plain ASCII"):
        exec(compile(file.read_text(), str(file), "exec"), {})


def test_refused_a_name_too_long_for_a_file(tmp_path):
    """With options around it, a rule of the longest name still has a file."""
    rules = []
    for count in (LONGEST_NAME, LONGEST_NAME + 1):
        file = tmp_path / f"own_{count}.py"
        text = f"import gpuadapt as ga\n@ga.rule\ndef {count * 'a'}(p, g, h):\n    return p - g\n"
        file.write_text(text)
        refused = pytest.raises(ga.RuleError, match="name has at most 64 characters")
        with refused if count > LONGEST_NAME else nullcontext():
            names = {}
            exec(compile(text, str(file), "exec"), names)
            rules.append(names[count * "a"])
    (rule,) = rules
    assert len(compose(rule, frozenset(OPTIONS)).name) < 160

    def a_root_whose_name_is_as_long_as_a_sentence_and_then_some_more_of_it_so_that(x, h):
        return sqrt(x)  # noqa: F821

    root = a_root_whose_name_is_as_long_as_a_sentence_and_then_some_more_of_it_so_that
    with pytest.raises(ga.RuleError, match="name is too long"):
        ga.rules.amsgrad_corrected.variant(root=root).variant(debias=root)


BODY = "s = maximum(sq(g), abs(s))\nreturn p - where(s > 0, sign(g), sqrt(s)), minimum(s, 1)"
TYPES = "p: Number, g: Number, s: Number, h: Hyper) -> (Number"


@pytest.mark.parametrize(
    ("head", "signature"),
    [
        ("from gpuadapt.language import abs, maximum, minimum, sign, sq, sqrt, where", None),
        ("from gpuadapt.language import *", TYPES),
        ("from gpuadapt.language import Hyper, Number", TYPES),
        ("from math import sqrt", None),
        ("from numpy import abs, maximum, minimum, sign, sqrt, where", None),
        ("sqrt = where = 3", None),
    ],
)
def test_names_mean_what_is_written(head, signature, tmp_path):
    """Whatever is imported under the names of the language, and whatever types are written."""
    plain, _ = define(tmp_path, BODY)
    rule, _ = define(tmp_path, BODY, signature or "p, g, s, h", head)
    assert rule.digest == plain.digest and rule.results == plain.results


@pytest.mark.parametrize("body", ["return p, sq(g)", "return p, 1 + where(sq(g) > 1, g, p)"])
def test_a_function_of_the_authors_with_a_name_of_the_language_is_refused(body, tmp_path):
    """It would have been ignored."""
    with pytest.raises(ga.RuleError, match=r"sq is a function of \S+ here, .* another name"):
        define(tmp_path, body, head="def sq(x): return x * x * x")

    def sq(x):
        return x * x * x

    with pytest.raises(ga.RuleError, match="sq is a function of"):

        @ga.rule
        def own(p, g, h):
            return p - sq(g)

    def cube(x):
        return x * x * x

    @ga.rule(cube=cube)
    def right(p, g, h):
        return p - cube(g)

    assert right.results == ("(p - ((g * g) * g))",)


def test_comments_may_stand_anywhere(tmp_path):
    """Also at the margin of an indented rule, where they end no block."""
    body = "@ga.rule\n    def own(p, g, h):\n# here\n        return p - {}\n"
    names = {"ga": ga}
    for index, expression in enumerate(("h.lr * g", "exp(g)")):
        file = tmp_path / f"own_{index}.py"
        file.write_text(f"if True:\n    {body.format(expression)}")
        code = compile(file.read_text(), str(file), "exec")
        if index == 0:
            exec(code, names)
            assert names["own"].results == ("(p - (h_lr * g))",)
        else:
            with pytest.raises(ga.RuleError, match=r"own_1.py:5: .*exp\(\).*\n.*- exp") as caught:
                exec(code, names)
            _, shown, caret, _ = str(caught.value).split("\n")
            assert caret.index("^") == shown.index("exp")


def test_refused_without_source():
    text = "@ga.rule\ndef own(p, g, h):\n    return p - g"
    code = compile(text, "<nowhere>", "exec")
    with pytest.raises(ga.RuleError, match="define the rule in a file"):
        exec(code, {"ga": ga})
    with pytest.raises(ga.RuleError, match="def"):
        ga.rule(lambda p, g, h: p - g)
    with pytest.raises(ga.RuleError, match="define the rule"):
        ga.rule(len)


def test_host_expressions_become_coefficients(tmp_path):
    rule, _ = define(
        tmp_path,
        """
        keep = 1 - h.beta
        scale = keep / 3
        s = h.beta * s + (1 - h.beta) * g
        x = 2 * s
        return p - h.lr / (1 - h.beta**h.t) * x * scale, s
        """,
    )
    assert rule.hyperparameters == ("beta", "lr")
    assert list(rule.coefficients.values()) == [
        "beta",
        "1 - beta",
        "lr / (1 - beta ** t)",
        "(1 - beta) / 3",
    ]
    assert rule.evaluate(0.9, 0.1, 2) == (0.9, 1 - 0.9, 0.1 / (1 - 0.9**2), (1 - 0.9) / 3)


def test_names_are_free(tmp_path):
    rule, _ = define(
        tmp_path,
        "n = z + grad\ni = n * hyper.lr\nspan = i\nreturn w - span, n, k",
        "w, grad, z, k, hyper",
    )
    w, g = np.full(5, 2.0), np.full(5, 3.0)
    ga.Optimizer(rule, w, lr=0.5).step(g)
    assert np.array_equal(w, np.full(5, 0.5))


@pytest.mark.parametrize("name", ["velocity", "w", "g", "dense", "span", "pack"])
def test_a_rule_may_be_called_like_anything(name, backend):
    """Also like one of its arguments."""
    text = (
        f"def {name}(w, g, velocity, h):\n"
        "    velocity = velocity + g\n"
        "    return w - h.lr * g, velocity\n"
    )
    file = f"<{name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names = {}
    exec(compile(text, file, "exec"), names)
    w = backend.array(np.ones(5))
    ga.Optimizer(ga.rule(names[name]), w, lr=0.5).step(backend.array(np.ones(5)))
    assert np.array_equal(backend.numpy(w), np.full(5, 0.5))


def test_a_name_may_change_from_host_to_element(tmp_path):
    rule, _ = define(tmp_path, "c = h.lr\ns = c * g\nc = s + c\nreturn p - c, s")
    w = np.zeros(3)
    ga.Optimizer(rule, w, lr=0.5).step(np.ones(3))
    assert np.array_equal(w, np.full(3, -1.0))


def test_results_are_simultaneous(backend, tmp_path):
    """The new state reads the old parameter, whatever the order of the stores."""
    rule, _ = define(tmp_path, "return s + g, p - g", "p, g, s, h")
    w = backend.array(np.full(9, 1.0, np.float32))
    optimizer = ga.Optimizer(rule, w)
    optimizer.step(backend.array(np.full(9, 5.0, np.float32)))
    assert np.array_equal(backend.numpy(w), np.full(9, 5.0))
    assert np.array_equal(backend.numpy(optimizer.state["0"]["s"]), np.full(9, -4.0))


def test_a_rule_without_hyperparameters(backend, tmp_path):
    rule, _ = define(tmp_path, "return p - g / 4", "p, g, h")
    w = backend.array(np.full(9, 1.0))
    ga.Optimizer(rule, w).step(backend.array(np.full(9, 2.0)))
    assert np.array_equal(backend.numpy(w), np.full(9, 0.5))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_source_of_every_rule(rule):
    for backend in ("cpu", "cuda"):
        for dtype in ("float32", "float64"):
            text = rule.source(backend, "dense", dtype)
            assert dtype in text
            for target, expression in rule.lines:
                assert f"{target} = {expression}" in text


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("gpu",), "no backend 'gpu'; there are cpu, cuda, javascript"),
        (("cpu", "diagonal"), "no traversal 'diagonal' on backend 'cpu'; there are many, dense, "),
        (("cuda", "module"), "no traversal 'module' on backend 'cuda'; there are many, dense, "),
        (("cpu", "many", "float16"), "dtype: got 'float16', expected float32, float64 or Formats"),
        (("cpu", "many", "nothing"), "dtype: got 'nothing', expected float32, float64 or Formats"),
    ],
)
def test_source_of_what_there_is_not(given, reason):
    with pytest.raises(ga.SourceError, match=reason):
        ga.rules.sgd.source(*given)


def test_rules_of_whole_rows_have_traversals_by_rows():
    rule = ga.rules.adam.rowwise
    assert rule.source("cpu") == rule.source("cpu", "rows")
    with pytest.raises(ga.SourceError, match="works on whole rows: its traversals are rows and"):
        rule.source("cuda", "many")


def test_options_leave_no_trace_when_off():
    assert compose(ga.rules.adam, frozenset()) is ga.rules.adam
    every = compose(ga.rules.adam, frozenset(OPTIONS))
    assert every is compose(ga.rules.adam, frozenset(OPTIONS))
    assert "weight_decay" not in ga.rules.adam.source()
    assert [line for line in every.lines if line[0] == "g"][3] == ("g", "(-g)")


def test_every_rule_says_formula_and_source():
    for name, rule in vars(ga.rules).items():
        if isinstance(rule, ga.Rule):
            assert "<-" in rule.doc, name
    for name in ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam"):
        assert any(char.isdigit() for char in vars(ga.rules)[name].doc), f"{name}: no year"


def test_plain_python():
    """With NUMBA_DISABLE_JIT=1 the same modules run as Python, to the same bits."""
    script = """
import hashlib
import numpy as np
import sys
sys.path.insert(0, "tests")
from cases import KINDS
digest = hashlib.sha256()
for case in KINDS:
    random = np.random.default_rng(8)
    w = random.normal(size=(3, 5)).astype(np.float32)
    optimizer = case.optimizer(w)
    for _ in range(3):
        optimizer.step(random.normal(size=(3, 5)).astype(np.float32))
    digest.update(w.tobytes())
print(digest.hexdigest())
"""
    import os
    from pathlib import Path

    def digest(**environment):
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert digest(NUMBA_DISABLE_JIT="1") == digest()


def test_results_die_with_their_rule():
    """A rule that is defined again does not keep the kernels of the one before."""
    calls = []

    @cached_with_rule
    def length(rule, more):
        calls.append(rule.name)
        return len(rule.lines) + more

    def made():
        @ga.rule
        def fleeting(p, g, h):
            return p - h.lr * g

        return fleeting

    rule = made()
    assert [length(rule, 1), length(rule, 1), length(rule, 2)] == [1, 1, 2] and len(calls) == 2
    length.cache_clear()
    assert length(rule, 1) == 1 and len(calls) == 3
    assert compose(rule, frozenset({"l2"})) is compose(rule, frozenset({"l2"}))
    assert compose(made(), frozenset({"l2"})) is not compose(rule, frozenset({"l2"}))
    length(pickle.loads(pickle.dumps(rule)), 1)
    dead = weakref.ref(rule)
    del rule
    gc.collect()
    assert dead() is None and len(calls) == 4


def test_kernels_die_with_their_rule():
    """A notebook's cell that is run five times leaves one kernel, and one module."""

    def made():
        @ga.rule
        def fleeting(p, g, h):
            return p - 3 * h.lr * g

        return fleeting

    def modules():
        return {name for name in sys.modules if name.startswith("gpuadapt_generated.fleeting")}

    dead = []
    for _ in range(5):
        rule = made()
        formats = uniform(rule, np.dtype(np.float32))
        kernel = multi_tensor.kernel(rule, formats)
        assert kernel is multi_tensor.kernel(made(), formats) and len(modules()) == 1
        parameter = np.ones(5, np.float32)
        numbers = rule.evaluate(0.25, 1)
        update_once(rule, "cpu", formats, Operand((parameter,)), parameter.copy(), numbers)
        assert (parameter == 0.25).all()
        dead += [weakref.ref(rule), weakref.ref(kernel)]
        del rule, kernel
        gc.collect()
    assert not any(of() for of in dead) and not modules()


def cautious(p, old, g, h):
    """p where the step goes against the gradient, else old (Liang et al. 2024, without its mean)"""
    return where((old - p) * g > 0, p, old)  # noqa: F821


def clip_update(p, old, g, h):
    """old - min(max(old - p, -update_limit), update_limit)"""
    return old - minimum(maximum(old - p, -h.update_limit), h.update_limit)  # noqa: F821


@ga.rule
def overwriting(p, g, m, h):
    """A rule that assigns to its parameter and its gradient."""
    g = g + h.shift
    m = h.beta1 * m + g
    p = p - h.lr * m
    return p, m


@pytest.mark.parametrize("rule", [ga.rules.adam, overwriting], ids=["adam", "overwriting"])
def test_options_after_a_rule_see_the_old_parameter(rule, backend, monkeypatch):
    """Cautious masks and clipped updates around any rule, after a decay before it."""
    for option in (cautious, clip_update):
        monkeypatch.setitem(AFTER, option.__name__, option)
        monkeypatch.setitem(OPTIONS, option.__name__, option)
    values = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
    values |= {"shift": 0.25, "update_limit": 0.03}
    names = frozenset({"decoupled", "cautious", "clip_update"})
    made = compose(rule, names)
    random = np.random.default_rng(1)
    arrays = [random.normal(size=999).astype(np.float32) for _ in made.program.arguments]
    arrays[3:] = [np.abs(array) for array in arrays[3:]]
    numbers = made.evaluate(*(values[name] for name in made.hyperparameters), 2)
    got = [backend.array(array) for array in arrays]
    formats = uniform(made, np.dtype(np.float32))
    where = "cpu" if backend.name == "cpu" else "cuda"
    update_once(made, where, formats, Operand((got[0], *got[2:])), got[1], numbers)

    decayed = compose(rule, frozenset({"decoupled"}))
    numbers = decayed.evaluate(*(values[name] for name in decayed.hyperparameters), 2)
    new, *states = evaluate(decayed, arrays, numbers)
    old = arrays[0] - np.float32(0.1 * 0.1) * arrays[0]
    moved = np.where((old - new) * arrays[1] > 0, old - new, 0)
    expected = old - np.clip(moved, np.float32(-0.03), np.float32(0.03))
    assert np.allclose(backend.numpy(got[0]), expected, rtol=0, atol=1e-6)
    assert 0.1 < np.mean(expected == old) < 0.9 and (np.abs(moved) > 0.04).any()
    for a, b in zip(got[2:], states, strict=True):
        assert np.array_equal(backend.numpy(a), b)
