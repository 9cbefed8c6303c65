"""Functions that a rule calls: pieces written into it, numbers that the host prepares."""

import math
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt.kernels import host_functions as prepared
from gpuadapt.kernels import rules


def halved(x, h):
    """x / 2"""
    return x / 2


def tripled(x, h):
    """3 x, or what h.factor says of it"""
    return 3 * h.factor * x


def powered(x, h):
    return x**h.factor


def lengthy(x, h):
    y = x * x
    return y / 2


def capturing(x, k):
    return x + s + k.factor  # noqa: F821


def ramp(t, steps):
    if t >= steps:
        return 1.0
    return t / steps


@ga.rule(prepare=ramp, scaled=halved)
def descent(p, g, s, h):
    """s <- s + ramp scaled(g) ;  p <- p - lr s"""
    s = s + ramp(h.t, h.steps) * scaled(g, h)  # noqa: F821
    return p - h.lr * s, s


def test_a_piece_is_written_into_the_rule():
    assert descent.lines == (("s", "(s + (h_0 * (g / T(2.0))))"),)
    assert "scaled" not in descent.source() and "scaled" not in descent.source("cuda")


def test_a_prepared_number_is_computed_by_the_host(backend):
    assert descent.hyperparameters == ("steps", "lr")
    assert descent.coefficients["h_0"] == "ramp(t, steps)"
    w = backend.array(np.zeros(3))
    optimizer = ga.Optimizer(descent, w, lr=1.0, steps=4)
    expected = 0.0
    total = 0.0
    for t in range(1, 7):
        optimizer.step(backend.array(np.ones(3)))
        total += min(t / 4, 1) / 2
        expected -= total
    assert np.array_equal(backend.numpy(w), np.full(3, expected))


def test_variants_are_shared_and_named():
    other = descent.variant(scaled=tripled)
    assert other is descent.variant(scaled=tripled) and other is not descent
    assert other.name == "descent_tripled" and "3 x" in other.doc
    assert other.hyperparameters == ("steps", "factor", "lr")
    assert other.variant(scaled=halved).lines == descent.lines
    assert descent.variant(scaled=halved) is descent is descent.variant()
    for piece in ({"root": halved}, {"scaled": 3}, {"scaled": []}):
        with pytest.raises(ga.RuleError, match=r"descent: .*, but it calls scaled"):
            descent.variant(**piece)
    copy = pickle.loads(pickle.dumps(descent))
    assert copy.evaluate(8.0, 0.5, 2) == descent.evaluate(8.0, 0.5, 2)
    with pytest.raises(ga.RuleError, match="but it calls nothing"):
        copy.variant(scaled=tripled)


def test_variants_of_variants():
    """The way to a form does not matter: what it is called by is how it differs."""
    one = rules.adam.variant(root=ga.pieces.inside, debias=ga.pieces.biased)
    assert one is rules.adam.variant(root=ga.pieces.inside).variant(debias=ga.pieces.biased)
    assert one is rules.adam.variant(debias=ga.pieces.biased).variant(root=ga.pieces.inside)
    assert one.variant(root=ga.pieces.outside).name == "adam_biased"
    assert one.variant(root=ga.pieces.outside, debias=ga.pieces.corrected) is rules.adam


def test_a_rule_with_a_piece_of_a_function_can_be_pickled():
    def local(x, h):
        return 2 * x

    rule = descent.variant(scaled=local)
    assert "With scaled: local" in rule.doc
    assert pickle.loads(pickle.dumps(rule)).lines == rule.lines


def test_what_is_made_of_a_rule_keeps_what_it_prepares():
    w = np.zeros(4)
    optimizer = ga.NAdam({"w": w}, weight_decay=0.1)
    optimizer.step({"w": np.ones(4)})
    assert np.isfinite(optimizer.effective_lr("w")).all()
    assert ga.rules.nadam.rowwise.evaluate(0.9, 0.99, 0.004, 1e-3, 1e-8, 3)


REFUSED = {
    "capturing": r"test_calls.py:\d+: unknown name 's': it reads its arguments alone.*\n +return x",
    "powered": r"test_calls.py:\d+: \*\* works between hyperparameters only.*\n +return x\*\*h.fac",
    "lengthy": r"test_calls.py:\d+: a function that a rule calls has one line.*\n +y = x \* x",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_piece_is_refused_at_its_own_line(name):
    with pytest.raises(ga.RuleError, match=REFUSED[name]):
        descent.variant(scaled=globals()[name])


def define(tmp_path, body, decorator):
    file = tmp_path / "own.py"
    file.write_text(f"{decorator}\ndef own(p, g, h):\n    return {body}\n")
    exec(compile(file.read_text(), str(file), "exec"), {**globals()})


@pytest.mark.parametrize(
    ("body", "decorator", "message"),
    [
        ("p - ramp(g, h.n)", "@ga.rule(prepare=ramp)", r"ramp\(\) runs on the host.*\n.*ramp\(g"),
        ("p - ramp(h.t, n=3)", "@ga.rule(prepare=ramp)", r"call ramp\(\) is not allowed"),
        ("p - ramp(h.t, 3) * g", "@ga.rule", r"call ramp\(\) is not allowed"),
        ("p - half(g)", "@ga.rule(half=halved)", r"half\(\) takes 2 arguments, got 1"),
        ("p - half(g, h=h)", "@ga.rule(half=halved)", r"call half\(\) is not allowed"),
        ("p - g", "@ga.rule(sqrt=halved)", "'sqrt' is not a new function's name"),
        ("p - g", "@ga.rule(half=3)", "half: got 3, expected a function of one line"),
        ("p - g", "@ga.rule(half=lambda x, h: x)", "is a function written with def"),
        ("p - g", "@ga.rule(prepare=lambda t: 1)", "prepare: got .*lambda.*names of their own"),
        ("p - g", "@ga.rule(prepare=3)", "prepare: got 3, expected functions with names"),
        ("p - g", "@ga.rule(prepare=[ramp, ramp])", "prepare: got .*ramp.*names of their own"),
        ("p - g", "@ga.rule(prepare=ramp, ramp=halved)", "'ramp' is not a new function's name"),
        ("p - ramp(h.t) * g", "@ga.rule(prepare=ramp)", r"ramp\(\): missing a required argument"),
        ("p - h.lr(h.t) * g", "@ga.rule", r"call h.lr\(\) is not allowed"),
        ("p - h.ramp(h.t, 3) * g", "@ga.rule(prepare=ramp)", r"call h.ramp\(\) is not allowed"),
        ("p - h.max(h.lr, g=g)", "@ga.rule", r"call h.max\(\) is not allowed"),
        (
            "p - h.ramp * ramp(h.t, 9)",
            "@ga.rule(prepare=ramp)",
            r"h.ramp and ramp\(\) are two",
        ),
    ],
)
def test_refused_calls(body, decorator, message, tmp_path):
    with pytest.raises(ga.RuleError, match=message):
        define(tmp_path, body, decorator)


@pytest.mark.parametrize(
    ("arguments", "line"), [("p, g, ramp, h", "s = g"), ("p, g, s, h", "ramp = g")]
)
def test_a_variable_is_not_a_function_too(arguments, line, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        f"@ga.rule(prepare=ramp)\ndef own({arguments}):\n\t{line}\n"
        "\treturn p - ramp(h.t, 3) * g, g\n"
    )
    with pytest.raises(ga.RuleError, match="'ramp' is also a function that it calls") as caught:
        exec(compile(file.read_text(), str(file), "exec"), {**globals()})
    _, shown, caret, _ = str(caught.value).split("\n")
    assert caret[: caret.index("^")].strip() == ""
    assert caret.index("^") <= len(shown)


def test_what_the_host_cannot_compute_is_refused_before_anything_is_written():
    w = np.ones(3)
    optimizer = ga.Optimizer(descent, w, lr=1.0, steps=0.0)
    optimizer.step(np.ones(3))
    optimizer = ga.FTRL(w, lr=0.0)
    before = w.copy()
    with pytest.raises(
        ga.HyperparameterError,
        match=r"ftrl: .*division by zero \(the formula divides by lr: .*'lr': 0",
    ):
        optimizer.step(np.ones(3))
    assert np.array_equal(w, before)


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("decay", [0.0, 0.004, 1.0, math.inf])
def test_momentum_product(beta1, decay):
    mu = [beta1 * (1 - 0.5 * 0.96 ** (i * decay)) for i in range(1, 3000)]
    for t in (2999, 1, 700, 40, 2):
        wanted = 1 - math.prod(mu[:t])
        assert 1 - prepared.momentum_product(beta1, decay, t) == pytest.approx(wanted, rel=1e-12)
    assert prepared.momentum_product(beta1, decay, 10**9) <= 1e-15 or beta1 == 0.999


def test_rectification():
    """Liu et al. 2020: zero for the first steps, then rising to 1."""
    r = [prepared.rectification(0.999, 5.0, False, t) for t in range(1, 20_000)]
    assert r[:5] == [0.0] * 5 and r[5] > 0
    assert np.all(np.diff(r) >= 0) and 0.99 < r[-1] < 1
    # 1.5 long, and 4 long: no threshold makes the formula valid there.
    assert prepared.rectification(0.2, 0.0, True, 100) == 0
    assert prepared.rectification(0.6, 0.0, True, 100) == 0
    # At t = 1 the length is 1; in the limit of beta2 = 3/4 it is 7.
    assert prepared.rectification(0.75, 7.0, False, 400) == 0
    assert prepared.rectification(0.75, 7.0, True, 400) == 1


RULE = """
@ga.rule
def prompt_rule(p, g, h):
    return p - h.lr * g

w = np.ones(2)
ga.Optimizer(prompt_rule, w, lr=0.5).step(np.ones(2))
print(w.tolist())
"""


def test_in_a_notebook_cell():
    """IPython keeps the lines of cells; also those of a rule that is defined anew."""
    shells = pytest.importorskip("IPython.core.interactiveshell")
    shell = shells.InteractiveShell()
    try:
        for lr in (0.5, 0.25):
            cell = "import numpy as np\nimport gpuadapt as ga\n" + RULE.replace("0.5", str(lr))
            assert shell.run_cell(cell).success
            assert np.array_equal(shell.user_ns["w"], np.full(2, 1 - lr))
    finally:
        shells.InteractiveShell.clear_instance()


def test_at_a_prompt():
    """Python keeps the lines of its prompt from 3.13 on; before, an error says what to do."""
    lines = "import numpy as np\nimport gpuadapt as ga\n" + RULE.lstrip("\n")
    result = subprocess.run(
        [sys.executable, "-i", "-q"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    if sys.version_info >= (3, 13):
        assert "[0.5, 0.5]" in result.stdout
    else:
        assert "define the rule in a file, a notebook cell, or a prompt" in result.stderr


def test_in_a_module(tmp_path):
    """The machine code is kept: a second process compiles nothing."""
    file = tmp_path / "own_rules.py"
    file.write_text("import gpuadapt as ga\nimport numpy as np\n" + RULE)
    script = textwrap.dedent(
        """
        import numba.core.event as event
        recorder = event.RecordingListener()
        event.register("numba:compile", recorder)
        import own_rules
        print(len(recorder.buffer))
        """
    )
    import os

    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "GPUADAPT_CACHE_DIR": str(tmp_path / "cache"),
    }
    compiled = [
        int(
            subprocess.run(
                [sys.executable, "-c", script],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            ).stdout.split()[-1]
        )
        for _ in range(2)
    ]
    assert compiled[0] > 0 and compiled[1] == 0


def test_nothing_is_compiled_at_import():
    script = (
        "import sys, gpuadapt, gpuadapt.presets\n"
        "import numba\n"
        "print([m for m in sys.modules if m.startswith('gpuadapt_generated')])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_every_rule_calls_what_it_was_made_with():
    for name, rule in vars(rules).items():
        if isinstance(rule, ga.Rule):
            for piece in rule.pieces.values():
                assert getattr(ga.pieces, piece.__name__) is piece, name
