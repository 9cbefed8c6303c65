"""`check_rule` passes what is right and finds what is wrong, wherever it is."""

import copy
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cases import KINDS, RULES

import gpuadapt as ga
from gpuadapt import node, testing
from gpuadapt.benchmark import limits
from gpuadapt.kernels.cuda import host_check
from gpuadapt.kernels.options import compose
from gpuadapt.oracle import check_nonnegative


@ga.rule
def drift(p, g, s, h):
    """s <- s + g ;  p <- p - lr s"""
    s = s + g
    return p - h.lr * s, s


def check(rule=drift):
    return testing.check_rule(rule, lr=0.5)


def test_what_is_right_passes():
    checked = check()
    assert checked["python"] == "agrees" and checked["bits"].startswith("equal")
    assert checked["cuda"].startswith("equal") and checked["rate"].startswith("no: ")
    assert check(copy.deepcopy(drift)) == checked and copy.deepcopy(drift) is drift


def test_a_rule_from_a_pickle_passes():
    """Which has no function of an author's."""
    assert check(pickle.loads(pickle.dumps(drift)))["python"].startswith("no function")


def test_a_rule_with_pieces_and_prepared_numbers_passes():
    assert testing.check_rule(ga.rules.radam)["python"] == "agrees"


def test_names_of_an_authors_own_surroundings(monkeypatch):
    """A closure's, an array's size, a loop's i: none of them is the rule's."""
    monkeypatch.setattr(testing, "_check_rows", lambda *given: None)  # takes longest to compile
    root, where = ga.pieces.inside, None

    @ga.rule(root=root)
    def local(p, g, size, i, h):
        size = size + sq(g)  # noqa: F821
        i = i + where(g > 0, 1, sign(h.lr))  # noqa: F821
        return p - h.lr * i / root(size, h), size, i

    for rule in (local, local.variant(root=ga.pieces.outside)):
        checked = testing.check_rule(rule)
        assert checked["python"] == "agrees" and checked["cuda"].startswith("equal")


@pytest.mark.parametrize("run", [testing.check_rule, testing.benchmark])
def test_what_is_no_rule_of_its_own(run):
    for wrong in (3, ga.rules.adam.rowwise, KINDS[-1].rule):
        with pytest.raises(ga.RuleError, match=r"expected a function|is made of another rule"):
            run(wrong)


def test_benchmark_without_a_gpu(monkeypatch):
    monkeypatch.setattr(testing, "check_device", no_device)
    with pytest.raises(ga.BackendError, match="no CUDA device here"):
        testing.benchmark(drift, backend="cuda")


def test_a_value_that_nothing_reads():
    with pytest.raises(ga.RuleError, match=r"'drift' reads no h\.rate"):
        testing.check_rule(drift, lr=1.0, rate=1.0)


def other(p, g, s, h):
    s = s + g
    return p - 2 * h.lr * s, s


def test_another_function_is_found():
    with pytest.raises(ga.RuleError, match="drift: the parameter is not what its Python gives at"):
        check(replace(drift, function=other))


def last_bit(results):
    """One number of one state, off by the last bit."""
    flat = results[-1].reshape(-1)
    flat[7] = np.nextafter(np.nan_to_num(flat[7]), np.inf)
    return results


def test_a_bit_is_found(monkeypatch):
    whole = testing.evaluate
    monkeypatch.setattr(testing, "evaluate", lambda *given: last_bit(whole(*given)))
    with pytest.raises(ga.RuleError, match=r"drift, cpu, all threads, float32: s differs at elem"):
        check()


def test_a_bit_of_the_cuda_text_is_found(monkeypatch):
    build = host_check.build

    def wrong(rule, dtype):
        kernel = build(rule, dtype)

        def run(arrays, numbers):
            kernel(arrays, numbers)
            last_bit(arrays)

        return run

    monkeypatch.setattr(host_check, "build", wrong)
    monkeypatch.setattr(testing, "check_device", no_device)
    with pytest.raises(ga.RuleError, match="drift, cuda, float32: s differs at element 7: got"):
        check()


def no_device():
    raise ga.BackendError("no CUDA device here")


def test_what_cannot_be_checked_is_said(monkeypatch):
    monkeypatch.setattr(testing, "check_device", no_device)
    monkeypatch.setattr(host_check, "available", lambda: False)
    assert check()["cuda"] == "not checked: neither a GPU nor g++"


def test_a_bit_of_the_javascript_is_found(monkeypatch):
    update = node.update

    def wrong(rule, arrays, numbers):
        return last_bit([made.copy() for made in update(rule, arrays, numbers)])

    monkeypatch.setattr(node, "update", wrong)
    with pytest.raises(ga.RuleError, match="drift, javascript, float32: s differs at element 7: g"):
        check()


def test_without_node_it_is_said(monkeypatch):
    monkeypatch.setattr(node, "find", lambda: None)
    assert check()["javascript"] == "not checked: no node"


def test_coefficients_in_javascript_are_checked():
    def twice(x):
        return 2 * x

    @ga.rule(prepare=twice)
    def doubled(p, g, h):
        return p - twice(h.lr) * g

    checked = partial(testing._check_javascript, doubled, {"lr": 0.1})
    assert checked() == "equal, but for coefficients: twice() is Python alone"
    twice.javascript = "(x) => 2 * x"
    assert checked() == "equal"
    twice.javascript = "(x) => 3 * x"
    with pytest.raises(ga.RuleError, match="doubled, javascript: the coefficient h_0 is not what"):
        checked()


def test_rows_that_differ_are_found(monkeypatch):
    def doubled(rows, values):
        return ga.RowGrad(rows, 2 * values)

    monkeypatch.setattr(testing, "RowGrad", doubled)
    with pytest.raises(ga.RuleError, match="drift, rows, float32: p differs"):
        check()


def test_benchmark():
    measured = testing.benchmark(drift, size=1000, dtype="float64", runs=3, lr=0.5)
    moved = 1000 * 8 * 5
    assert measured.bytes == moved
    assert measured.gigabytes_per_second == pytest.approx(moved / measured.seconds / 1e9)
    assert 0 < measured.share < 10
    assert limits.additions(2).results == ("(p + g)", "(s0 + g)", "(s1 + g)")


def yogi(p, g, m, v, h):
    """Zaheer et al. 2018: v moves towards g^2 by a share of g^2, and stays above 0."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = v - (1 - h.beta2) * sign(v - sq(g)) * sq(g)  # noqa: F821
    return p - h.lr * m / (sqrt(v) + h.eps), m, v  # noqa: F821


def welford(p, g, G, M, h):
    """A variance as the difference of two means: rounding makes it negative."""
    M = h.rho * M + (1 - h.rho) * g
    G = h.rho * G + (1 - h.rho) * sq(g) - sq(M)  # noqa: F821
    return p - h.lr * g / sqrt(G + h.eps), G, M  # noqa: F821


def test_states_that_are_declared_to_be_nonnegative(monkeypatch):
    monkeypatch.setattr(testing, "_check_rows", lambda *given: None)  # takes longest to compile
    rule = ga.rule(nonnegative="v")(yogi)
    assert rule.nonnegative == {"v"}
    assert testing.check_rule(rule)["nonnegative"] == "v"
    undeclared = testing.check_rule(ga.rule(yogi))["nonnegative"]
    assert undeclared == "none declared; v could be declared: @rule(nonnegative=...)"
    with pytest.raises(ga.RuleError, match="welford: nonnegative='G' is declared, and a step"):
        testing.check_rule(ga.rule(nonnegative=["G"])(welford))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_of_ours_declares_what_is_nonnegative(rule):
    check_nonnegative(rule)
    assert testing._nonnegative(rule) in {"none declared", ", ".join(sorted(rule.nonnegative))}


def test_a_false_declaration_is_refused_where_a_sign_would_be_lost():
    """Before numbers without their signs are used, and not with float32, which has them."""
    rule, w = ga.rule(nonnegative="G")(welford), np.ones(300, np.float32)
    ga.Optimizer(rule, w, lr=0.1, rho=0.9, eps=1e-8)
    with pytest.raises(ga.RuleError, match="take it out of nonnegative"):
        ga.Optimizer(rule, w, lr=0.1, rho=0.9, eps=1e-8, state_dtype="8bit")


def test_only_states_can_be_declared():
    for names in ("m", ["v", "g"]):
        with pytest.raises(ga.RuleError, match=r"nonnegative='.' is no state; states: v"):

            @ga.rule(nonnegative=names)
            def wrong(p, g, v, h):
                return p, v


def test_a_declaration_stays_with_what_is_made_of_a_rule():
    rule = ga.rules.adam
    made = (rule.variant(root=ga.pieces.inside), compose(rule, frozenset({"l2"})), rule.rowwise)
    assert all(
        each.nonnegative == {"v"} for each in (*made, rule.rate, pickle.loads(pickle.dumps(rule)))
    )
    assert rule.rowwise.squared.nonnegative == frozenset()
