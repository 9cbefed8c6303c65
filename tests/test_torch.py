"""`gpuadapt.torch` against `torch.optim`: values, states, and what both do with odd tensors."""

import copy
import os
import sys

import pytest
import torch
from test_processes import python

import gpuadapt as ga
import gpuadapt.torch
from gpuadapt.kernels.formats import SIGNED8, UNSIGNED8
from gpuadapt.torch.loading import convert_states

CLASSES = [name for name in gpuadapt.torch.__all__ if hasattr(torch.optim, name)]
CLASSES.remove("Optimizer")
DENSE = [name for name in CLASSES if name != "SparseAdam"]

OPTIONS = {
    "SGD": [{}, {"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.9, "nesterov": True}],
    "Adagrad": [{}, {"initial_accumulator_value": 0.1, "lr_decay": 0.1}],
    "RMSprop": [{}, {"centered": True}, {"momentum": 0.9}, {"centered": True, "momentum": 0.9}],
    "Adam": [{}, {"amsgrad": True}],
    "AdamW": [{}, {"amsgrad": True}],
    "NAdam": [{}, {"momentum_decay": 6e-3}],
}
"""Options of each class that choose a formula, each also with weight decay and maximize."""

CASES = [
    (name, options | common)
    for name in DENSE
    for options in OPTIONS.get(name, [{}])
    for common in ({}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "maximize": True})
]


def parameters(shapes=((7, 5), (3,), ()), dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]


def copies(params):
    return [torch.nn.Parameter(p.detach().clone()) for p in params]


def train(optimizer, params, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()


def ulps(a, b):
    """The largest difference in units of the last place of the largest number."""
    unit = max(b.abs().max().item(), 1e-30) * torch.finfo(b.dtype).eps / 2
    return (a.double() - b.double()).abs().max().item() / (2 * unit)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_states_have_torchs_names_types_and_strides(name, options):
    params = parameters()
    ours = copies(params)
    one = getattr(torch.optim, name)(params, **options)
    other = getattr(gpuadapt.torch, name)(ours, **options)
    train(one, params, 3)
    train(other, ours, 3)
    assert other.fallback is None
    assert one.param_groups[0].keys() == other.param_groups[0].keys()
    for p, q in zip(params, ours, strict=True):
        assert one.state[p].keys() == other.state[q].keys()
        for key, value in one.state[p].items():
            found = other.state[q][key]
            assert found.dtype == value.dtype and found.shape == value.shape
            assert found.stride() == value.stride()


RATES = [
    *[(name, {}) for name in CLASSES],
    ("Adam", {"amsgrad": True}),
    ("Adam", {"state_dtype": "8bit"}),
    ("Adagrad", {"rowwise": True}),
]


@pytest.mark.parametrize(("name", "options"), RATES)
def test_effective_rates_are_those_of_the_plain_optimizer(name, options):
    (parameter,) = parameters([(6, 8)])
    array = parameter.detach().clone().numpy()
    own = {} if name != "SparseAdam" else {"sparse": "lazy"}
    optimizer = getattr(gpuadapt.torch, name)([parameter], **options, **own)
    plain = getattr(ga.presets.torch, name)({"0": array}, **options)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        plain.step({"0": parameter.grad.numpy()})
        optimizer.step()
    rates = optimizer.effective_lr(parameter)
    assert rates.shape == parameter.shape and rates.dtype == torch.float32
    torch.testing.assert_close(rates, torch.from_numpy(plain.effective_lr("0")), rtol=3e-4, atol=0)
    with pytest.raises(ga.ParameterError, match="not among"):
        optimizer.effective_lr(torch.zeros(3))


def checkpointed(classes, name, options, steps=4):
    """Train by each class in turn, which loads the checkpoint of the class before."""
    params, saved = parameters(), None
    for number, module in enumerate(classes):
        optimizer = getattr(module, name)(params, **options)
        if saved is not None:
            optimizer.load_state_dict(saved)
        train(optimizer, params, steps, seed=number)
        saved = copy.deepcopy(optimizer.state_dict())
    return params, saved


@pytest.mark.parametrize(("name", "options"), CASES)
def test_checkpoints_go_both_ways(name, options):
    """As near to torch alone as torch's own loop is to a run in float64, or 2 units."""
    theirs = torch.optim
    params, saved = checkpointed((theirs, gpuadapt.torch, theirs), name, options)
    alone, expected = checkpointed((theirs, theirs, theirs), name, options)
    assert saved["state"].keys() == expected["state"].keys()
    assert saved["param_groups"] == expected["param_groups"]
    for number, entry in expected["state"].items():
        assert entry.keys() == saved["state"][number].keys()
        for key, value in entry.items():
            found = saved["state"][number][key]
            assert found.dtype == value.dtype and found.stride() == value.stride()
    # AdamW rounds lr weight_decay, which torch multiplies by, in another place: see
    # tests/test_torch_values.py for what is nearer to float64.
    limit = 16 if name == "AdamW" else 2
    assert max(map(ulps, params, alone)) <= limit


SIGNED = ("exp_avg", "grad_avg", "momentum_buffer", "z")
"""The states that may be negative, by torch's names; all others are means or sums of squares."""

IN_8_BITS = [
    ("SGD", {"momentum": 0.9}),
    ("Adagrad", {}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("Adam", {"amsgrad": True}),
]


def trained_in_8_bits(name, options, shape=(6, 300)):
    """A parameter, its optimizer, and the numbers that its states in 8 bits stand for."""
    (parameter,) = parameters([shape])
    optimizer = getattr(gpuadapt.torch, name)([parameter], **options, state_dtype="8bit")
    train(optimizer, [parameter], 3)
    state, numbers = optimizer.state[parameter], {}
    for key in [each.removesuffix(".codes") for each in state if each.endswith(".codes")]:
        form = SIGNED8 if key in SIGNED else UNSIGNED8
        codes, scales = (state[f"{key}.{part}"].numpy() for part in ("codes", "scales"))
        numbers[key] = torch.from_numpy(form.decode([codes, scales]))
    return parameter, optimizer, numbers


@pytest.mark.parametrize(("name", "options"), IN_8_BITS)
@pytest.mark.parametrize("kind", [None, "bfloat16"])
def test_states_in_8_bits_keep_their_numbers_in_another_format(name, options, kind):
    """bfloat16 has all bits of the numbers that 8 bits stand for."""
    parameter, optimizer, numbers = trained_in_8_bits(name, options)
    assert numbers, "a state is in 8 bits"
    optimizer.param_groups[0]["state_dtype"] = kind and dict.fromkeys(numbers, kind)
    convert_states(optimizer)
    state = optimizer.state[parameter]
    assert not any(key.endswith((".codes", ".scales")) for key in state)
    for key, expected in numbers.items():
        assert state[key].dtype == (torch.bfloat16 if kind else torch.float32)
        assert torch.equal(state[key].float(), expected), key
        assert key in SIGNED or (state[key] >= 0).all(), key


def test_states_in_8_bits_become_means_of_rows():
    parameter, optimizer, numbers = trained_in_8_bits("Adam", {})
    group = optimizer.param_groups[0]
    group["state_dtype"], group["rowwise"] = None, True
    convert_states(optimizer)
    state = optimizer.state[parameter]
    assert torch.equal(state["exp_avg"], numbers["exp_avg"])
    expected = numbers["exp_avg_sq"].double().mean(1).float()
    assert torch.equal(state["exp_avg_sq"], expected)


def test_scales_that_do_not_fit_their_codes_are_refused():
    parameter, optimizer, _ = trained_in_8_bits("Adam", {})
    before = optimizer.state[parameter]["exp_avg.codes"].clone()
    optimizer.state[parameter]["exp_avg.scales"] = torch.ones(1, 1)
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ga.StateError, match=r"scales of shape \(1, 1\)"):
        optimizer.step()
    assert torch.equal(optimizer.state[parameter]["exp_avg.codes"], before)


def test_blocks_are_those_of_the_memory_that_codes_were_saved_from():
    _, optimizer, numbers = trained_in_8_bits("Adam", {}, (4, 3, 16, 16))
    (other,) = parameters([(4, 3, 16, 16)])
    other = torch.nn.Parameter(other.detach().to(memory_format=torch.channels_last))
    loaded = gpuadapt.torch.Adam([other])
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["param_groups"][0]["state_dtype"]
    loaded.load_state_dict(saved)
    for key, expected in numbers.items():
        state = loaded.state[other][key]
        assert torch.equal(state, expected) and state.stride() == other.stride()


IN_A_FILE = [
    ("Adam", torch.float32, {}),
    ("Adam", torch.float32, {"state_dtype": "8bit"}),
    ("Adam", torch.bfloat16, {"rounding": "stochastic", "state_dtype": "bfloat16"}),
    ("Adam", torch.bfloat16, {"master": "split"}),
    ("SGD", torch.bfloat16, {"rounding": "kahan", "momentum": 0.9}),
    ("SGD", torch.bfloat16, {"master": "float32", "momentum": 0.9}),
    ("Adagrad", torch.float32, {"rowwise": True}),
]

GO_ON = """
    import sys
    import torch
    from test_torch import IN_A_FILE, begun, train

    saved, after = torch.load(sys.argv[1], weights_only=True), []
    for case, (weights, states) in zip(IN_A_FILE, saved, strict=True):
        optimizer, params = begun(*case)
        with torch.no_grad():
            for p, weight in zip(params, weights, strict=True):
                p.copy_(weight)
        optimizer.load_state_dict(states)
        train(optimizer, params, 5, 2)
        after.append((params, optimizer.state_dict()))
    torch.save(after, sys.argv[1])
"""


def begun(name, dtype, options):
    params = parameters(shapes=((40, 8), (8,)), dtype=dtype)
    return getattr(gpuadapt.torch, name)(params, lr=0.01, **options), params


def test_a_fresh_process_goes_on_from_a_file_bit_for_bit(tmp_path):
    """`torch.load` with ``weights_only`` reads own formats, and nothing of a run is elsewhere."""
    runs, saved = [begun(*case) for case in IN_A_FILE], []
    for optimizer, params in runs:
        train(optimizer, params, 5)
        weights = [p.detach().clone() for p in params]
        saved.append((weights, copy.deepcopy(optimizer.state_dict())))
        train(optimizer, params, 5, 2)
    torch.save(saved, tmp_path / "runs.pt")
    python(GO_ON, tmp_path / "runs.pt", PYTHONPATH=os.pathsep.join(sys.path))
    for (optimizer, params), (weights, states) in zip(
        runs, torch.load(tmp_path / "runs.pt", weights_only=True), strict=True
    ):
        assert all(map(torch.equal, params, weights))
        expected = optimizer.state_dict()["state"]
        assert expected.keys() == states["state"].keys()
        for key, entry in expected.items():
            assert entry.keys() == states["state"][key].keys()
            for state, value in entry.items():
                found = states["state"][key][state]
                assert found.dtype == value.dtype and torch.equal(found, value)
