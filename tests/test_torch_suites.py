"""PyTorch's own tests over gpuadapt's classes, where they are at hand; see tests/pytorch_suite.py.

The whole of them, by kernels alone, takes `python tests/pytorch_suite.py`. Here dense updates of
float32 and float64 are NumPy's but for one class, and tests are left out that take long.
"""

import os

import pytest
from pytorch_suite import CLASSES, FOLDER, compared

pytestmark = pytest.mark.skipif(
    not os.environ.get(FOLDER),
    reason=f"PyTorch's own tests of optimizers are not at hand: {FOLDER} does not name their "
    "folder, which `bash tests/fetch_pytorch_tests.sh .pytorch-tests` fetches",
)

LONG = "rosenbrock_sparse,float16"
"""Thousands of torch's sparse steps; kernels of 16 bits, of which "bfloat16" are others."""

QUICK = ("optim", "--numpy", "--without", LONG, "--classes")

PARTS = {
    "optim, first half": (*QUICK, ",".join(CLASSES[:5])),
    "optim, second half": (*QUICK, ",".join(CLASSES[5:])),
    "optim, Adam by kernels": ("optim", "--classes", "Adam", "-k", "float32"),
    "lrscheduler": ("lrscheduler", "--numpy"),
    "swa": ("swa", "--numpy"),
}
"""By name: arguments of tests/pytorch_suite.py."""

PASSED = {
    "optim, first half": 170,
    "optim, second half": 170,
    "optim, Adam by kernels": 35,
    "lrscheduler": 150,
    "swa": 13,
}
"""About as many tests pass; PyTorch's versions have a few more or less."""


@pytest.mark.parametrize("part", PARTS)
def test_as_many_pass_as_with_torchs_classes(part, record_property):
    outcome = compared(*PARTS[part])
    record_property("pytorch", outcome.report)
    assert not outcome.faults, outcome.report
    passed = sum(one["outcome"] == "passed" for one in outcome.found.values())
    assert passed >= PASSED[part], outcome.report
