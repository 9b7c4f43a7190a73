"""Memory that threads reuse."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from her2core.buffers import ThreadBuffers


def test_a_buffer_is_the_same_memory_until_more_is_requested() -> None:
    buffers = ThreadBuffers()
    first = buffers.flat("a", 100, capacity=300)
    first[:] = 7
    assert np.shares_memory(buffers.flat("a", 300), first)
    assert buffers.flat("a", 100).tolist() == [7] * 100
    assert not np.shares_memory(buffers.flat("b", 10), first)
    larger = buffers.flat("a", 301)
    assert larger.size == 301
    assert not np.shares_memory(larger, first)


def test_threads_share_none() -> None:
    buffers = ThreadBuffers()
    mine = buffers.flat("a", 10)
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(buffers.flat, "a", 10).result()
    assert not np.shares_memory(mine, theirs)
    assert np.shares_memory(buffers.flat("a", 10), mine)
