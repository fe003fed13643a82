"""The pool of body buffers: used again only when nobody can see them any more."""

from __future__ import annotations

import numpy as np

from tensorquay.transport.buffers import POOLED_FROM_BYTES, BufferPool

SIZE = 3 * POOLED_FROM_BYTES


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def test_a_buffer_is_used_again_when_its_last_view_is_gone():
    pool = BufferPool()
    first = pool.take(SIZE)
    where = address(first)
    tensor = np.frombuffer(first[8:24], np.float32)
    del first
    second = pool.take(SIZE)
    assert address(second) != where, "a tensor still looks at it"
    del tensor
    assert address(pool.take(SIZE - 100)) == where


def test_what_is_given_out_is_exactly_as_long_as_asked():
    pool = BufferPool()
    for size in (POOLED_FROM_BYTES, POOLED_FROM_BYTES + 1, SIZE, 20 * 2**20):
        assert len(pool.take(size)) == size


def test_two_users_never_share():
    pool = BufferPool()
    views = [pool.take(SIZE) for _ in range(100)]
    assert len({address(view) for view in views}) == 100
    assert len(pool._kept) <= 64


def test_a_small_body_does_not_occupy_a_huge_buffer():
    pool = BufferPool()
    pool.take(6 * 2**20)
    assert len(pool.take(POOLED_FROM_BYTES).obj) < 2**20
