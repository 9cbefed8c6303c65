"""`gpuadapt.torch` on two processes: DDP, ZeroRedundancyOptimizer, fully_shard, checkpoints."""

import pytest
import torch_programs
from torch_pair import Pair

STEPS = 100


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A function that returns two processes, the same as long as they live."""
    made = []

    def pair(fresh=False):
        if fresh or not made or not made[-1].alive:
            made.append(Pair(tmp_path_factory.mktemp("pair")))
        return made[-1]

    yield pair
    for one in made:
        one.close()


@pytest.fixture
def pair(pairs):
    return pairs()


@pytest.mark.parametrize("bucket_view", [False, True])
@pytest.mark.parametrize("wrapper", ["ddp", "zero"])
def test_replicated_parameters(wrapper, bucket_view, pair):
    first, second = pair(wrapper, bucket_view)
    assert first == second


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {"lr": 0.01, "amsgrad": True}),
        ("SGD", {"lr": 0.01, "momentum": 0.9}),
    ],
)
def test_fully_sharded_parameters(name, options, pair):
    pair("fsdp", name, options)


@pytest.mark.parametrize("max_norm", [0.5, None])
def test_the_norm_is_that_of_all_parts(max_norm, pair):
    first, second = pair("norms", max_norm)
    assert first == second


@pytest.mark.parametrize("kind", ["sharded", "full", "broadcast"])
@pytest.mark.parametrize(
    ("source", "target"), [("ours", "ours"), ("torch", "ours"), ("ours", "torch")]
)
def test_states_by_name_of_parameter(source, target, kind, pair):
    pair("state_dicts", source, target, kind)


@pytest.mark.parametrize("format", torch_programs.FORMATS)
def test_own_formats_are_put_together_and_divided(format, pair):
    pair("full_states", format)


def test_own_formats_are_resumed_bit_for_bit(pairs, tmp_path):
    saved = {one: pairs()("save", one, str(tmp_path), STEPS) for one in torch_programs.FORMATS}
    fresh = pairs(fresh=True)
    for format, expected in saved.items():
        assert fresh("resume", format, str(tmp_path), STEPS) == expected, format


def test_blocks_do_not_depend_on_the_number_of_processes(pair):
    pair("blocks")


@pytest.mark.parametrize(
    ("shape", "dim", "options", "refused"),
    [
        ((4, 8), 0, {"state_dtype": "8bit"}, False),
        ((3, 8), 0, {"state_dtype": "8bit"}, False),
        ((1024,), 0, {"state_dtype": "8bit"}, False),
        ((24,), 0, {"state_dtype": "8bit"}, True),
        ((770,), 0, {"state_dtype": "8bit"}, True),
        ((4, 2), 0, {"state_dtype": "8bit"}, True),
        ((4, 512), 1, {"state_dtype": "8bit"}, False),
        ((4, 300), 1, {"state_dtype": "8bit"}, True),
        ((4, 8), 0, {"rowwise": True}, False),
        ((4, 8), 1, {"rowwise": True}, True),
        ((4, 8), 0, {"max_row_norm": 1.0}, False),
        ((4, 8), 1, {"max_row_norm": 1.0}, True),
    ],
)
def test_what_would_depend_on_the_parts_is_refused(shape, dim, options, refused, pair):
    for said in pair("divided", shape, dim, options):
        assert (said is not None and f"shape {shape} is in 2 parts" in said) == refused


def test_gradients_with_other_placements(pair):
    pair("partial_gradients")
