"""Messages out of pieces, and the memory that takes: never much more than what was sent."""

from __future__ import annotations

import pytest

from h2_drive import prefixed
from tensorquay.core.errors import Overloaded, ServingError
from tensorquay.transport.buffers import BufferPool
from tensorquay.transport.grpc_inbox import Inbox, ReceiveBudget


class Box:
    """An inbox and what it delivered."""

    def __init__(self, limit: int = 0, max_bytes: int = 2**31 - 1) -> None:
        self.got: list[tuple[bytes, bool]] = []
        self.budget = ReceiveBudget(limit)
        self.inbox = Inbox(self.budget, BufferPool(), max_bytes, self._deliver)

    def _deliver(self, message: bytes | memoryview, compressed: bool) -> None:
        self.got.append((bytes(message), compressed))

    def feed(self, data: bytes, step: int = 0) -> None:
        for begin in range(0, len(data), step or len(data)):
            piece = data[begin : begin + (step or len(data))]
            start = 0
            while start < len(piece):
                start = self.inbox.feed(piece, start, len(piece))


@pytest.mark.parametrize("step", [0, 1, 4, 5, 6, 1000, 65_536])
def test_messages_of_all_sizes_come_out_as_they_went_in(step: int) -> None:
    box = Box()
    sizes = [0, 1, 5, 4095, 4096] if step and step < 1000 else [0, 4096, 65_535, 65_536, 70_000, 1_200_000, 0]
    messages = [(b"abc" * size)[:size] for size in sizes]
    box.feed(b"".join(prefixed(message, number & 1) for number, message in enumerate(messages)), step)
    assert box.got == [(message, bool(number & 1)) for number, message in enumerate(messages)]
    assert box.budget.held == 0
    assert not box.inbox.unfinished


def test_one_message_per_feed_so_that_a_call_may_stop() -> None:
    box = Box()
    data = prefixed(b"a") + prefixed(b"b")
    assert box.inbox.feed(data, 0, len(data)) == 6
    assert box.got == [(b"a", False)]


def test_what_is_booked_is_a_small_multiple_of_what_came() -> None:
    box = Box()
    box.feed(b"\0" + (2**30).to_bytes(4, "big"))
    assert box.budget.held == 0
    sent = 0
    for _ in range(600):
        box.feed(b"x" * 4096)
        sent += 4096
        assert sent <= box.budget.held <= max(2**20, 8 * sent)
    box.inbox.close()
    assert box.budget.held == 0


def test_a_large_message_is_received_in_place() -> None:
    box = Box()
    message = bytes(range(256)) * 4000
    data = prefixed(message)
    assert box.inbox.direct() is None
    box.feed(data[:10_000])
    position = 10_000
    while not box.got:
        target = box.inbox.direct()
        assert target is not None
        count = min(len(target), 300_000, len(data) - position)
        target[:count] = data[position : position + count]
        box.inbox.filled(count)
        position += count
    assert box.got == [(message, False)]
    assert position == len(data)
    assert box.inbox.direct() is None


def test_beyond_the_budget_a_message_is_refused_but_a_single_one_always_fits() -> None:
    box = Box(limit=50_000)
    box.feed(prefixed(b"x" * 500_000))
    assert len(box.got) == 1
    box.budget.held = 30_000
    with pytest.raises(Overloaded, match="--max-inflight-bytes"):
        box.feed(prefixed(b"x" * 60_000)[:30_000])
    box.inbox.close()
    assert box.budget.held == 30_000


def test_a_budget_that_is_spent_while_a_buffer_grows_refuses_it_and_loses_nothing() -> None:
    box = Box(limit=3 * 2**20)
    box.budget.held = 10
    with pytest.raises(Overloaded):
        box.feed(prefixed(b"x" * 2**24), step=60_000)
    box.inbox.close()
    assert box.budget.held == 10


def test_no_memory_is_an_answer() -> None:
    class Full(BufferPool):
        def take(self, size: int) -> memoryview:
            raise MemoryError

    budget = ReceiveBudget(0)
    inbox = Inbox(budget, Full(), 2**31 - 1, lambda message, compressed: None)
    data = prefixed(b"x" * 100_000)[:50_000]
    with pytest.raises(Overloaded, match="no memory"):
        inbox.feed(data, 0, len(data))
    inbox.close()
    assert budget.held == 0


@pytest.mark.parametrize("prefix", [b"\x02\0\0\0\0", b"\xff\0\0\0\1"])
def test_unknown_flags_are_refused(prefix: bytes) -> None:
    with pytest.raises(ServingError, match="flag"):
        Box().feed(prefix)


def test_the_largest_message_is_accepted_and_one_byte_more_is_not() -> None:
    box = Box(max_bytes=100)
    box.feed(prefixed(b"x" * 100))
    with pytest.raises(Overloaded, match=r"101 vs\. 100"):
        box.feed(prefixed(b"x" * 101)[:5])


def test_waiting_is_counted_from_the_last_byte_and_only_inside_a_message() -> None:
    box = Box()
    assert box.inbox.waits(100) == 0
    assert box.inbox.waits(200) == 0
    box.feed(b"\0\0")
    assert box.inbox.waits(300) == 0
    assert box.inbox.waits(450) == 150
    box.feed(b"\0\0\2a")
    assert box.inbox.waits(500) == 0
    assert box.inbox.waits(501) == 1
    box.feed(b"b")
    assert box.inbox.waits(10**9) == 0
    assert box.inbox.waits(2 * 10**9) == 0
