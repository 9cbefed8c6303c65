"""Chunks cover every element once; tasks cover every chunk once, and are of one size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpuadapt.kernels.numerics.chunks import Chunks

CHUNK = 64


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 15)), max_size=30))
def test_chunks_and_tasks(arrays):
    sizes, shorter = [size for size, _ in arrays], [offset for _, offset in arrays]
    chunks = Chunks(sizes, CHUNK, shorter)
    for number, size in enumerate(sizes):
        own = [np.arange(start, start + n) for a, start, n in chunks.table if a == number]
        assert np.array_equal(np.concatenate([*own, np.arange(0)]), np.arange(size))
        # All but the first begin where a line does, as far as the array has a line's beginning.
        assert all((part[0] + shorter[number]) % CHUNK == 0 for part in own[1:])
    assert chunks.total == sum(sizes) and (chunks.table[:, 2] <= CHUNK).all()
    assert chunks.tasks[0] == 0 and chunks.tasks[-1] == len(chunks.table)
    assert (np.diff(chunks.tasks) > 0).all()
    filled = [
        int(chunks.table[first:last, 2].sum())
        for first, last in zip(chunks.tasks[:-1], chunks.tasks[1:], strict=True)
    ]
    assert all(count < 2 * CHUNK for count in filled)
    assert len(filled) <= chunks.total // CHUNK + 1
