"""The programs in examples/: they run as a user runs them, and reach what they promise."""

import re
import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def one_thread():
    """Where cores are busy, threads of torch that wait for each other take very long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_the_recommender_learns(one_thread, capsys):
    program = runpy.run_path(str(EXAMPLES / "torch_embeddings.py"))
    assert program["main"](["--steps", "150", "--users", "1000", "--items", "400"]) == 0
    printed = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss (\d\.\d+)", printed)]
    assert len(losses) == 10 and losses[-1] < losses[0] / 3
    ours, plain = map(float, re.findall(r"(\d+\.\d+) MB", printed))
    assert ours < 0.3 * plain


def test_the_recommender_refuses_numbers_that_do_not_fit(capsys):
    main = runpy.run_path(str(EXAMPLES / "torch_embeddings.py"))["main"]
    for arguments in (["--steps", "0"], ["--items", "41"], ["--users", "0"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "a multiple of 40" in capsys.readouterr().err
