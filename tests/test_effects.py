"""Options without an effect are refused, and say so; those with one on some parameter are not."""

import ml_dtypes
import numpy as np
import pytest

import gpuadapt as ga

SHORT, LONG = np.zeros((3, 8), ml_dtypes.bfloat16), np.zeros((3, 8), np.float32)


@ga.rule
def averaging(p, g, z, h):
    """z <- z + g ;  p <- -lr z: the parameter is made of its state alone."""
    z = z + g
    return -h.lr * z, z


@ga.rule
def proximal(p, g, m, h):
    """Momentum, then a step towards zero."""
    m = h.momentum * m + g
    q = p - h.lr * m
    return sign(q) * maximum(abs(q) - h.l1, 0), m  # noqa: F821


NONE = {
    "state_dtype of no states": (ga.SGD, LONG, {"state_dtype": "8bit"}, "keeps no states"),
    "master": (ga.Adam, LONG, {"master": "float32"}, "for parameters of bfloat16 and float16"),
    "split": (ga.Adam, LONG, {"master": "split"}, "for parameters of bfloat16 and float16"),
    "rounding": (ga.Adam, LONG, {"rounding": "stochastic"}, "rounded if they are bfloat16 or"),
    "kahan": (ga.Adam, LONG.astype(float), {"rounding": "kahan"}, "rounded if they are bfloat16"),
    "seed": (ga.Adam, SHORT, {"seed": 1}, "nothing is rounded stochastically"),
    "seed with kahan": (
        ga.SGD,
        SHORT,
        {"seed": 1, "rounding": "kahan"},
        "nothing is rounded stoch",
    ),
    "exactness": (ga.Adam, LONG, {"exactness": "bits"}, "how exact sparse='exact' is"),
}


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: lambda step: x])
def test_an_eps_that_a_form_does_not_have(wrap):
    with pytest.raises(ga.HyperparameterError, match=r"^eps: got .*, which has no effect with"):
        ga.Adagrad(LONG.copy(), eps_mode="none", eps=wrap(1e-3))


@pytest.mark.parametrize("name", NONE)
def test_what_has_no_effect(name):
    method, w, given, reason = NONE[name]
    option = next(iter(given))
    with pytest.raises(ga.HyperparameterError, match=f"^{option}: got .*{reason}.*; leave it out"):
        method({"w": w.copy()}, **given)
    with pytest.raises(ga.HyperparameterError, match=f"^{option}: got"):
        method([{"params": w.copy()}, {"params": w.copy(), **given}])


SOME = {
    "state_dtype": (ga.Adam, [LONG], {"state_dtype": "8bit", "seed": 1}),
    "one of 16 bits": (ga.Adam, [LONG, SHORT], {"rounding": "stochastic", "seed": 1}),
    "one with a master": (ga.SGD, [LONG, SHORT], {"master": "split"}),
    "exactness": (ga.Adam, [LONG], {"sparse": "exact", "exactness": "bits"}),
    "what is usual": (ga.SGD, [LONG], {"state_dtype": None, "rounding": "nearest", "seed": 0}),
    "no state is named": (ga.SGD, [LONG], {"state_dtype": {}}),
}


@pytest.mark.parametrize("name", SOME)
def test_what_has_an_effect(name):
    method, arrays, given = SOME[name]
    method([w.copy() for w in arrays], **given)
    method([{"params": w.copy()} for w in arrays], **given)


@pytest.mark.parametrize("decay", ["decoupled", "absolute", "after"])
def test_a_decay_of_what_is_made_anew(decay):
    """A parameter that a rule makes of its states keeps nothing of a decay."""
    zero, some = {"weight_decay": 0.0, "decay": decay}, {"weight_decay": 0.1, "decay": decay}
    for rule, values in ((ga.rules.ftrl, {"l1": 0.0, "l2": 0.0, "beta": 1.0}), (averaging, {})):
        optimizer = ga.Optimizer(rule, LONG.copy(), lr=0.1, **values, **zero)
        refused = f"^decay: got '{decay}', but '{rule.name}' makes the parameter anew"
        with pytest.raises(ga.HyperparameterError, match=refused):
            ga.Optimizer(rule, LONG.copy(), lr=0.1, **values, **some)
        with pytest.raises(ga.HyperparameterError, match=refused):
            ga.Optimizer(
                rule, LONG.copy(), lr=0.1, **values, **some | {"weight_decay": lambda t: t}
            )
        optimizer.param_groups[0]["weight_decay"] = 0.1
        with pytest.raises(ga.HyperparameterError, match=refused):
            optimizer.step(np.ones_like(LONG))
        ga.Optimizer(rule, LONG.copy(), lr=0.1, **values, **some | {"decay": "l2"})
    ga.Optimizer(proximal, LONG.copy(), lr=0.1, momentum=0.5, l1=0.1, **some)
    ga.SGD(LONG.copy(), momentum=0.5, **some)


def test_what_is_kept_wider_is_shown():
    shown = repr(ga.FTRL(LONG.copy(), state_dtype="8bit"))
    assert "states: z float32, n float32," in shown
    assert "states: m float16, v bfloat16," in repr(ga.Adam(LONG.copy(), state_dtype="float16"))
    assert "states: m 8bit, v 8bit," in repr(ga.Adam(LONG.copy(), state_dtype="8bit"))
