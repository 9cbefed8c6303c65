"""`gpuadapt.torch` on a GPU, by the stand-in for CuPy: the same bits as on the CPU.

PyTorch has no stand-in for its own tensors on a GPU. So tensors of the CPU are taken for ones on
"cuda:0" here, and their memory is what the kernels' text, compiled for the host, reads and writes.
"""

import sys

import hostcupy
import pytest
import torch
from conftest import install, installed

import gpuadapt.torch
from gpuadapt.torch import binding, places, refusal, rows, stepping

STREAM = 4711
"""The handle of what is taken for torch's current stream."""


@pytest.fixture
def gpu(monkeypatch):
    """Within this, all tensors lie on a GPU; returns the streams on which kernels were launched."""
    used = []

    class Stream(hostcupy.ExternalStream):
        def __enter__(self):
            used.append((self.ptr, self.device_id))
            return super().__enter__()

        def __exit__(self, *_):
            # torch gives no memory to others while its stream uses it; that of the CPU it does.
            self.synchronize()
            super().__exit__()

    with installed("host") as backend:
        monkeypatch.setattr(backend.library.cuda, "ExternalStream", Stream)
        monkeypatch.setattr(places, "stream_of", lambda device: STREAM)
        monkeypatch.setattr(places, "device_view", lambda x: hostcupy.ndarray(x.numpy()))
        yield used


@pytest.fixture
def entering(gpu, monkeypatch):
    """A function after whose call tensors lie on the GPU, and the list of streams."""

    def enter():
        for module in (binding, places, refusal, rows, stepping):
            monkeypatch.setattr(module, "place_of", lambda tensor: torch.device("cuda", 0))

    return enter, gpu


def dense(name, steps=3, shapes=((33, 5), (300,), ()), view=None, dtype=torch.float32, **options):
    """Parameters and states after some steps; two groups with rates of their own."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    if view is not None:
        params[0] = torch.nn.Parameter(view(torch.randn(shapes[0]).to(dtype)))
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.05}]
    optimizer = getattr(gpuadapt.torch, name)(groups, lr=0.01, **options)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape).to(dtype)
        optimizer.step()
    assert optimizer.fallback is None
    return params, optimizer


def table(name, sparse, steps=4, **options):
    torch.manual_seed(0)
    lookup = torch.nn.Embedding(40, 16, sparse=True)
    optimizer = getattr(gpuadapt.torch, name)(lookup.parameters(), sparse=sparse, **options)
    if sparse == "exact":
        optimizer.watch(lookup)
    for _ in range(steps):
        optimizer.zero_grad()
        lookup(torch.randint(0, 40, (9,))).pow(2).sum().backward()
        optimizer.step()
    optimizer.flush()
    return [lookup.weight], optimizer


CASES = {
    "adam": lambda: dense("Adam", weight_decay=0.1),
    "nadam": lambda: dense("NAdam", maximize=True, weight_decay=0.1),
    "sgd": lambda: dense("SGD", momentum=0.9, dampening=0.5),
    "gaps": lambda: dense("Adagrad", shapes=((33, 5, 2), (300,)), view=lambda x: x[..., 0]),
    "bfloat16": lambda: dense("Adam", dtype=torch.bfloat16, rounding="stochastic"),
    "8bit": lambda: dense("Adam", state_dtype="8bit"),
    "max_norm": lambda: dense("Adam", max_norm=0.5, clip_value=0.1),
    "skip": lambda: dense("Adam", skip_nonfinite=True),
    "lazy": lambda: table("Adagrad", "lazy", max_row_norm=0.5),
    "exact": lambda: table("Adam", "exact"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_gpu_has_the_bits_of_the_cpu(case, entering):
    enter, used = entering
    params, optimizer = CASES[case]()
    assert not used
    enter()
    others, other = CASES[case]()
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q), case
        for name, state in optimizer.state[p].items():
            assert torch.equal(torch.as_tensor(state), torch.as_tensor(other.state[q][name])), name
    assert optimizer.last == other.last
    assert set(used) == {(STREAM, 0)}


def test_without_cupy_torchs_own_step_is_taken_and_says_so(entering):
    enter, _ = entering
    enter()
    install(None)
    sys.modules["cupy"] = None
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = gpuadapt.torch.Adam([parameter])
    parameter.grad = torch.ones(3)
    with pytest.warns(gpuadapt.torch.FallbackWarning, match="CuPy"):
        optimizer.step()
    assert "CuPy" in optimizer.fallback
    assert not torch.equal(parameter, torch.ones(3))
