"""gpuadapt's own keywords on torch's parameters: each has an effect, or is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch_sides import CLASSES, seen

import gpuadapt as ga
import gpuadapt.torch
from gpuadapt.torch.options import DEFAULTS

SHORT, LONG = torch.bfloat16, torch.float32


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = LONG) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def parameter(dtype: torch.dtype = LONG, *shape: int, seed: int = 0) -> Parameter:
    return Parameter(numbers(*(shape or (6, 8)), seed=seed, dtype=dtype))


def table_gradient(seed: int) -> torch.Tensor:
    rows = torch.tensor([[1, 4, 1, seed % 6]])
    return torch.sparse_coo_tensor(rows, numbers(4, 8, seed=seed), (6, 8), check_invariants=False)


def take(optimizer: Any, steps: int = 3, sparse: bool = False, first: int = 0) -> None:
    for step in range(first, first + steps):
        for k, p in enumerate(q for group in optimizer.param_groups for q in group["params"]):
            gradient = numbers(*p.shape, seed=100 * step + k, dtype=p.dtype)
            p.grad = table_gradient(step) if sparse else gradient
        optimizer.step()
    optimizer.flush()


def same(one: Any, other: Any) -> bool:
    """Whether nested tensors have equal bits."""
    if isinstance(one, torch.Tensor):
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64, 1: torch.uint8}[one.element_size()]
        return torch.equal(one.contiguous().view(bits), other.contiguous().view(bits))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# What is refused

NONE = {
    "state_dtype of no states": ("SGD", LONG, {"state_dtype": "8bit"}, "keeps no states"),
    "master": ("Adam", LONG, {"master": "float32"}, "for parameters of bfloat16 and float16"),
    "split": ("Adam", torch.float64, {"master": "split"}, "for parameters of bfloat16"),
    "rounding": ("RMSprop", LONG, {"rounding": "stochastic"}, "rounded if they are bfloat16 or"),
    "kahan": ("Adagrad", LONG, {"rounding": "kahan"}, "rounded if they are bfloat16 or"),
    "seed": ("Adam", LONG, {"seed": 1}, "nothing is rounded stochastically"),
    "seed of nearest": ("Adam", SHORT, {"seed": 1}, "nothing is rounded stochastically"),
    "seed of kahan": ("SGD", SHORT, {"seed": 1, "rounding": "kahan"}, "nothing is rounded"),
}


@pytest.mark.parametrize("case", NONE)
def test_what_has_no_effect(case):
    name, dtype, given, reason = NONE[case]
    option = next(iter(given))
    match = f"^{option}: got .*{reason}.*; leave it out"
    make = getattr(gpuadapt.torch, name)
    with pytest.raises(ga.HyperparameterError, match=match):
        make([parameter(dtype)], **given)
    with pytest.raises(ga.HyperparameterError, match=match):
        make([{"params": [parameter(dtype)]}, {"params": [parameter(dtype)], **given}])
    optimizer = make([parameter(dtype)])
    with pytest.raises(ga.HyperparameterError, match=match):
        optimizer.add_param_group({"params": [parameter(dtype)], **given})
    assert len(optimizer.param_groups) == 1
    before = seen(optimizer)
    optimizer.param_groups[0].update(given)
    with pytest.raises(ga.HyperparameterError, match=match):
        take(optimizer)
    for name in given:
        del optimizer.param_groups[0][name]
    assert same(seen(optimizer), before)


def test_an_effect_on_some_parameter_is_enough():
    long, short = parameter(), parameter(SHORT)
    gpuadapt.torch.Adam([long, short], rounding="stochastic", seed=1)
    gpuadapt.torch.SGD(
        [{"params": [long]}, {"params": [short], "momentum": 0.9}], state_dtype="8bit"
    )


WRONG = {
    "rounding": ["up", None, True],
    "master": ["bfloat16", False],
    "state_dtype": ["int3", 8, {"m": "8bit"}, {"exp_avg": "4bit"}],
    "rowwise": [1, None, "yes"],
    "sparse": ["eager", True],
    "max_row_norm": [0, -1.0, "1", float("nan")],
    "seed": [-1, 0.5, None, True],
    "max_norm": [0.0, -1, "1", True],
    "clip_value": [0.0, -1, float("inf")],
    "skip_nonfinite": [1, None],
    "threads": [0, -1, 1.5, "tbb2"],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values(name):
    for value in WRONG[name]:
        with pytest.raises(ga.HyperparameterError, match=f"^{name}[:=]"):
            gpuadapt.torch.Adam([parameter()], **{name: value})
        with pytest.raises(ga.HyperparameterError, match=f"^{name}[:=]"):
            gpuadapt.torch.Adam([{"params": [parameter()], name: value}])
        optimizer = gpuadapt.torch.Adam([parameter()])
        optimizer.param_groups[0][name] = value
        with pytest.raises(ga.HyperparameterError, match=f"^{name}[:=]"):
            take(optimizer)
        assert not optimizer.state


def test_all_keywords_are_tried():
    assert WRONG.keys() == DEFAULTS.keys()


def test_values_that_do_not_fit_together():
    with pytest.raises(
        ga.HyperparameterError, match=r"^rounding: got 'kahan' with master='float32'"
    ):
        gpuadapt.torch.Adam([parameter(SHORT)], rounding="kahan", master="float32")
    with pytest.raises(ga.ParameterError, match="'0': float16 is no half of a float32"):
        gpuadapt.torch.Adam([parameter(torch.float16)], master="split")
    with pytest.raises(ga.ParameterError, match="'w': state_dtype is for real parameters"):
        gpuadapt.torch.Adam([("w", parameter(torch.complex64))], state_dtype="8bit")
    with pytest.raises(ga.RuleError, match="rowwise: 'sgd' has no sq"):
        gpuadapt.torch.SGD([parameter()], rowwise=True)
    for name in ("max_norm", "clip_value", "skip_nonfinite"):
        groups = [{"params": [parameter()], name: True if "skip" in name else 1.0}]
        with pytest.raises(ga.HyperparameterError, match=f"^{name}: .* in two groups"):
            gpuadapt.torch.Adam([*groups, {"params": [parameter()]}])


@pytest.mark.parametrize("name", CLASSES)
def test_unknown_keywords(name):
    make = getattr(gpuadapt.torch, name)
    for given, meant in {
        "roundin": "rounding", "learning_rate": "lr", "maxnorm": "max_norm",
        "max_imize": "maximize", "state_dtypes": "state_dtype",
    }.items():  # fmt: skip
        with pytest.raises(ga.KeywordError, match=f"did you mean {meant}\\? unknown .*'{given}'"):
            make([parameter()], **{given: 1})
    with pytest.raises(TypeError, match="unknown hyperparameter 'colour'; this optimizer has lr, "):
        make([parameter()], colour=1)


# What each keyword does

EFFECTS = {
    "rounding": ("Adam", SHORT, {}, {"rounding": "stochastic"}, False),
    "kahan": ("Adam", SHORT, {}, {"rounding": "kahan"}, False),
    "master": ("Adam", SHORT, {}, {"master": "float32"}, False),
    "split": ("Adam", SHORT, {}, {"master": "split"}, False),
    "state_dtype": ("Adam", LONG, {}, {"state_dtype": "8bit"}, False),
    "one state's dtype": ("Adam", LONG, {}, {"state_dtype": {"exp_avg": "bfloat16"}}, False),
    "rowwise": ("Adam", LONG, {}, {"rowwise": True}, False),
    "sparse": ("Adam", LONG, {"sparse": "lazy"}, {"sparse": "exact"}, True),
    "max_row_norm": ("Adam", LONG, {}, {"max_row_norm": 0.1}, False),
    "seed": ("Adam", LONG, {"state_dtype": "bfloat16"}, {"seed": 7}, False),
}
"""By case: class, dtype, what there is already, the keyword, and whether gradients are sparse."""

WHOLE = {"max_norm": 0.1, "clip_value": 0.01}


@pytest.mark.parametrize("case", EFFECTS)
def test_keywords_have_an_effect_on_their_group_alone(case):
    name, dtype, common, given, sparse = EFFECTS[case]
    make = getattr(gpuadapt.torch, name)

    def run(**options):
        optimizer = make([("w", parameter(dtype))], lr=0.1, **options)
        take(optimizer, sparse=sparse)
        return seen(optimizer)["params"][0], seen(optimizer)["states"][0]

    plain, changed = run(**common), run(**{**common, **given})
    assert not same(list(plain), list(changed))
    groups = [
        {"params": [("w", parameter(dtype))]},
        {"params": [("w2", parameter(dtype))], **given},
    ]
    both = make(groups, lr=0.1, **common)
    for step in range(3):
        for group in both.param_groups:
            gradient = numbers(6, 8, seed=100 * step, dtype=dtype)
            group["params"][0].grad = table_gradient(step) if sparse else gradient
        both.step()
    both.flush()
    found = seen(both)
    assert same([found["params"][0], found["states"][0]], list(plain))
    assert not same([found["params"][1], found["states"][1]], list(plain))
    if case in ("master", "split", "rowwise", "sparse", "max_row_norm"):
        # Others round with random bits, which depend on the parameter's name.
        assert same([found["params"][1], found["states"][1]], list(changed))


@pytest.mark.parametrize("name", WHOLE)
def test_keywords_for_all_gradients_together(name):
    def run(**options):
        optimizer = gpuadapt.torch.SGD(
            [{"params": [parameter()]}, {"params": [parameter()]}], **options
        )
        take(optimizer)
        return seen(optimizer)["params"]

    assert not same(run(lr=0.1), run(lr=0.1, **{name: WHOLE[name]}))


def test_clipping_is_torchs():
    params = [parameter(), parameter(LONG, 3, seed=1)]
    others = [Parameter(p.detach().clone()) for p in params]
    ours = gpuadapt.torch.SGD(params, lr=0.1, max_norm=0.5)
    take(ours, 1)
    torchs = torch.optim.SGD(others, lr=0.1)
    for p, q in zip(params, others, strict=True):
        q.grad = p.grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(others, 0.5)
    torchs.step()
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q)
    assert ours.last.grad_norm == pytest.approx(norm.item(), rel=1e-6)
    assert ours.last.clip_factor == pytest.approx(0.5 / norm.item(), rel=1e-5)


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped():
    optimizer = gpuadapt.torch.Adam([parameter(), parameter(seed=1)], skip_nonfinite=True)
    take(optimizer, 1)
    before = seen(optimizer)
    optimizer.param_groups[0]["params"][1].grad[2, 3] = float("nan")
    optimizer.step()
    assert optimizer.last.skipped and same(seen(optimizer), before)
    take(optimizer, 1)
    assert not optimizer.last.skipped and not same(seen(optimizer), before)


def test_sparse_gradients_can_be_refused():
    for name in CLASSES:
        optimizer = getattr(gpuadapt.torch, name)([parameter()], sparse="raise")
        optimizer.param_groups[0]["params"][0].grad = table_gradient(0)
        with pytest.raises((RuntimeError, ga.GradientError), match="sparse"):
            optimizer.step()
        assert all("step" not in entry or not entry["step"] for entry in optimizer.state.values())


# Changed later

LATER = {
    "states of 8 bits": (LONG, {}, {"state_dtype": "8bit"}),
    "states of 8 bits no more": (LONG, {"state_dtype": "8bit"}, {"state_dtype": None}),
    "one state of 16 bits": (LONG, {}, {"state_dtype": {"exp_avg": "bfloat16"}}),
    "other 8 bits": (LONG, {"state_dtype": "bfloat16"}, {"state_dtype": "8bit"}),
    "a master": (SHORT, {}, {"master": "float32"}),
    "a master no more": (SHORT, {"master": "float32"}, {"master": None}),
    "halves": (SHORT, {"master": "float32"}, {"master": "split"}),
    "random rounding": (SHORT, {}, {"rounding": "stochastic"}),
    "kahan": (SHORT, {"master": "float32"}, {"master": None, "rounding": "kahan"}),
    "another seed": (SHORT, {"rounding": "stochastic"}, {"seed": 3}),
    "means of rows": (LONG, {}, {"rowwise": True}),
    "longest rows": (LONG, {}, {"max_row_norm": 0.1}),
    "no longest rows": (LONG, {"max_row_norm": 0.1}, {"max_row_norm": None}),
    "a norm": (LONG, {}, {"max_norm": 0.1}),
    "a largest value": (LONG, {"clip_value": 0.1}, {"clip_value": None}),
}


@pytest.mark.parametrize("case", LATER)
def test_keywords_changed_later(case):
    """The next step is that of an optimizer with the new keywords that has loaded the states."""
    dtype, before, after = LATER[case]
    settings = {
        name: value for name, value in (before | after).items() if value not in (None, False)
    }
    one = gpuadapt.torch.Adam([parameter(dtype)], lr=0.1, **before)
    take(one)
    saved = copy.deepcopy(one.state_dict())
    for name in before:
        saved["param_groups"][0].pop(name)
    values = one.param_groups[0]["params"][0].detach().clone()
    other = gpuadapt.torch.Adam([Parameter(values)], lr=0.1, **settings)
    other.load_state_dict(saved)
    assert {k: v for k, v in other.param_groups[0].items() if k in DEFAULTS} == settings
    one.param_groups[0].update(after)
    for optimizer in (one, other):
        take(optimizer, 2, first=3)
    found, expected = seen(one), seen(other)
    assert same(found["params"], expected["params"])
    assert same(found["states"], expected["states"])


def test_a_dictionary_of_formats_changed_in_place():
    optimizer = gpuadapt.torch.Adam([parameter()], state_dtype={"exp_avg": "bfloat16"})
    take(optimizer, 1)
    optimizer.param_groups[0]["state_dtype"]["exp_avg_sq"] = "bfloat16"
    take(optimizer, 1)
    (entry,) = optimizer.state.values()
    assert entry["exp_avg_sq"].dtype == torch.bfloat16


def test_means_of_rows_do_not_become_states_of_elements():
    optimizer = gpuadapt.torch.Adam([parameter()], rowwise=True)
    take(optimizer, 1)
    before = seen(optimizer)
    optimizer.param_groups[0]["rowwise"] = False
    with pytest.raises(ga.StateError, match=r"'exp_avg_sq' of '0': got shape \(6,\), expected"):
        take(optimizer, 1)
    optimizer.param_groups[0]["rowwise"] = True
    assert same(seen(optimizer), before)


# Bits

RANDOM = {
    "8bit": (LONG, {"state_dtype": "8bit"}),
    "bfloat16": (LONG, {"state_dtype": "bfloat16"}),
    "stochastic": (SHORT, {"rounding": "stochastic"}),
    "plain": (LONG, {}),
}


@pytest.mark.parametrize("case", RANDOM)
def test_bits_do_not_depend_on_groups_or_order(case):
    dtype, settings = RANDOM[case]
    shapes = {"a": (6, 8), "b": (5,), "c": (3, 2, 4), "d": (300,)}

    def run(arrange):
        made = {n: parameter(dtype, *shape) for n, shape in shapes.items()}
        optimizer = gpuadapt.torch.Adam(arrange(made), lr=0.1, **settings)
        for step in range(3):
            for name, p in made.items():
                p.grad = numbers(*p.shape, seed=10 * step + ord(name), dtype=dtype)
            optimizer.step()
        return [[p.detach(), dict(optimizer.state[p])] for p in made.values()]

    expected = run(lambda made: list(made.items()))
    assert same(run(lambda made: list(made.items())[::-1]), expected)
    assert same(run(lambda made: [{"params": [one]} for one in made.items()]), expected)
    split = run(lambda made: [{"params": list(made.items())[k::2]} for k in (1, 0)])
    assert same(split, expected)


def test_zero_gradients_with_lr_of_zero_leave_all_bits():
    """As torch.distributed.checkpoint makes states."""
    values = torch.tensor([0.0, 1.0, -2.5, 1e-38, -1e-40, 3e38, 7e-5, 0.1] * 3)
    for dtype, options in (
        (LONG, [{}, {"state_dtype": "8bit"}, {"state_dtype": "bfloat16"}, {"sparse": "exact"}]),
        (SHORT, [{}, {"rounding": "stochastic"}, {"rounding": "kahan"}, {"master": "float32"},
                 {"master": "split"}, {"state_dtype": "8bit", "rounding": "stochastic"}]),
    ):  # fmt: skip
        for option in options:
            for name in ("Adam", "AdamW", "SGD"):
                given = dict(option)
                more = {"momentum": 0.9} if name == "SGD" else {}
                p = Parameter(values.reshape(3, 8).to(dtype))
                before = p.detach().clone()
                optimizer = getattr(gpuadapt.torch, name)([p], lr=0.0, **more, **given)
                p.grad = torch.zeros_like(p)
                optimizer.step()
                optimizer.flush()
                assert same(p.detach(), before), (name, dtype, given)
                assert optimizer.state[p]


# Steps that raise


def broken_state(optimizer):
    (entry, *_) = (optimizer.state[p] for p in optimizer.param_groups[1]["params"])
    entry["exp_avg"] = torch.zeros(2)


def broken_step(optimizer):
    (entry, *_) = (optimizer.state[p] for p in optimizer.param_groups[1]["params"])
    entry["step"] = torch.zeros(3)


def bad_rows(optimizer):
    p = optimizer.param_groups[1]["params"][0]
    rows = torch.tensor([[1, 6]])
    p.grad = torch.sparse_coo_tensor(rows, numbers(2, 8), (6, 8), check_invariants=False)


def setting(**given):
    def change(optimizer):
        optimizer.param_groups[1].update(given)

    return change


def another_dtype(optimizer):
    p = optimizer.param_groups[1]["params"][0]
    p.grad_dtype = None
    p.grad = torch.ones(6, 8, dtype=torch.int32)


def expanded(optimizer):
    p = optimizer.param_groups[1]["params"][0]
    p.data = p.data[:1].expand(6, 8)


FAILURES = {
    "shape of a state": (broken_state, ga.StateError, "'exp_avg' of 'b': got shape"),
    "shape of the step": (broken_step, ga.StateError, "'step'"),
    "rows": (bad_rows, ga.RowIndexError, "6"),
    "lr that is text": (setting(lr="a"), ga.HyperparameterError, "^lr: got 'a', expected"),
    "no lr": (setting(lr=None), ga.HyperparameterError, "^lr: got None"),
    "NaN as lr": (setting(lr=float("nan")), ga.HyperparameterError, "not finite"),
    "large lr": (setting(lr=1e300), ga.HyperparameterError, "too large"),
    "one beta": (setting(betas=(0.9,)), ga.HyperparameterError, r"^betas: got \(0.9,\)"),
    "beta of 1": (setting(betas=(1.0, 0.9)), ga.HyperparameterError, "division by zero"),
    "format": (setting(state_dtype="3bit"), ga.HyperparameterError, "^state_dtype: got"),
    "dtype of a gradient": (another_dtype, ga.GradientError, "'b': got torch.int32"),
    "memory": (expanded, ga.InPlaceError, "more than one element"),
}


@pytest.mark.parametrize(
    ("case", "first"),
    [(case, False) for case in FAILURES if case != "memory"]
    + [(case, True) for case in FAILURES if "shape" not in case],
)
def test_a_step_that_raises_has_changed_nothing(case, first):
    """Neither as the first step, nor as a later one; the next one is as if it had not been."""
    spoil, error, text = FAILURES[case]

    def made():
        groups = [
            {"params": [("a", parameter()), ("c", parameter(LONG, 3))]},
            {"params": [("b", parameter(seed=1))]},
            {"params": [("d", parameter(LONG, 4))]},
        ]
        optimizer = gpuadapt.torch.Adam(groups, lr=0.1, sparse="lazy")
        if not first:
            take(optimizer, 2)
        return optimizer

    one, other = made(), made()
    for optimizer in (one, other):
        for k, p in enumerate(q for group in optimizer.param_groups for q in group["params"]):
            p.grad = numbers(*p.shape, seed=k)
    params = [p for group in one.param_groups for p in group["params"]]
    states = {p: dict(entry) for p, entry in one.state.items()}
    groups = [dict(group) for group in one.param_groups]
    data, grads = [p.data for p in params], [p.grad for p in params]
    spoil(one)
    before, versions = seen(one), [p._version for p in params]
    with pytest.raises(error, match=text):
        one.step()
    after = seen(one)
    assert same(after["params"], before["params"])
    assert same(after["states"], before["states"])
    assert [p._version for p in params] == versions
    assert {p: list(entry) for p, entry in one.state.items()} == {
        p: list(entry) for p, entry in states.items()
    }
    for p, values, gradient in zip(params, data, grads, strict=True):
        p.data, p.grad = values, gradient
    for p, entry in states.items():
        one.state[p].update(entry)
    for group, known in zip(one.param_groups, groups, strict=True):
        group.update(known)
        if "state_dtype" not in known:
            group.pop("state_dtype", None)
    one.step()
    other.step()
    assert same(seen(one)["params"], seen(other)["params"])
    assert same(seen(one)["states"], seen(other)["states"])


def test_a_closure_that_raises():
    optimizer = gpuadapt.torch.Adam([parameter()])
    take(optimizer, 1)
    before = seen(optimizer)

    def closure():
        raise KeyError("no loss")

    with pytest.raises(KeyError, match="no loss"):
        optimizer.step(closure)
    assert same(seen(optimizer), before)


def test_a_kernel_that_cannot_be_made(monkeypatch):
    """Nothing is in place before all kernels are there."""
    from gpuadapt import launch

    optimizer = gpuadapt.torch.Adam([parameter()])

    def fails(*given):
        raise MemoryError

    with monkeypatch.context() as context:
        context.setattr(launch, "bind_multi_tensor", fails)
        with pytest.raises(MemoryError):
            take(optimizer, 1)
    assert not optimizer.state
    take(optimizer, 1)
    assert optimizer.state
