"""Spans cover every element once; pieces cover every span once, and are of one size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpuadapt.kernels.numerics.chunks import Spans

SPAN = 64


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 15)), max_size=30))
def test_spans_and_pieces(arrays):
    sizes, before = [size for size, _ in arrays], [offset for _, offset in arrays]
    spans = Spans(sizes, SPAN, before)
    for number, size in enumerate(sizes):
        own = [np.arange(start, start + n) for a, start, n in spans.table if a == number]
        assert np.array_equal(np.concatenate([*own, np.arange(0)]), np.arange(size))
        # All but the first begin where a line does, as far as the array has a line's beginning.
        assert all((part[0] + before[number]) % SPAN == 0 for part in own[1:])
    assert spans.total == sum(sizes) and (spans.table[:, 2] <= SPAN).all()
    assert spans.pieces[0] == 0 and spans.pieces[-1] == len(spans.table)
    assert (np.diff(spans.pieces) > 0).all()
    filled = [
        int(spans.table[first:last, 2].sum())
        for first, last in zip(spans.pieces[:-1], spans.pieces[1:], strict=True)
    ]
    assert all(count < 2 * SPAN for count in filled)
    assert len(filled) <= spans.total // SPAN + 1
