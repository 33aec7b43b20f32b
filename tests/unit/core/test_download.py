# SPDX-License-Identifier: Apache-2.0
"""One file out of a store that breaks, changes and lies: never a byte of another file, and a
bounded number of tries.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts import download as it
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.transfer import (
    SLOTS,
    Broken,
    Cancelled,
    Stream,
    Unreachable,
    run_transfers,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    NotFound,
)
from support.memory_store import Break, MemoryStore, Question

CHUNK, LARGE = 1000, 4000
TRIES = 7
"""How often a break is borne where something came before it; 2 where nothing did."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of a thousand bytes, and no pauses."""
    monkeypatch.setattr(it, "CHUNK", CHUNK)
    monkeypatch.setattr(it, "LARGE", LARGE)
    monkeypatch.setattr(it, "_READ", 300)
    monkeypatch.setattr(it, "_LOOK", 0.02)
    monkeypatch.setattr(it, "_WAITS", (0.001,) * TRIES)


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def fetch(store: MemoryStore, size: int | None, stream: Stream | None = None) -> bytes:
    """What lies in the file afterwards; what ``download`` says of it is compared."""
    with tempfile.TemporaryFile() as file:
        count, digest = it.download(
            store, "1/model.onnx", file.fileno(), size, stream or Stream("f")
        )
        file.seek(0)
        found = file.read()
    assert (count, digest) == (len(found), hashlib.sha256(found).hexdigest())
    return found


@pytest.mark.parametrize("size", [0, 1, CHUNK, LARGE - 1])
@pytest.mark.parametrize("known", [True, False])
def test_what_is_not_large_is_asked_for_once(size: int, known: bool) -> None:
    store = MemoryStore(data_of(size))
    stream = Stream("f")
    assert fetch(store, size if known else None, stream) == store.data
    assert store.asked == [Question(0, None, None)]
    assert stream.moved == size
    assert store.bodies[0].closed


# -- ranges side by side ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [LARGE, LARGE + 1, 10 * CHUNK, 10 * CHUNK + 7])
def test_a_large_file_comes_in_ranges(size: int) -> None:
    store, stream = MemoryStore(data_of(size)), Stream("f")
    assert fetch(store, size, stream) == store.data
    assert store.asked[0] == Question(0, None, None), (
        "a server that copies files before it answers would do so for each range"
    )
    ranges = sorted((question.start, question.end) for question in store.asked[1:])
    assert ranges == [(at, min(at + CHUNK, size)) for at in range(CHUNK, size, CHUNK)]
    assert {question.tag for question in store.asked[1:]} == {'"1"'}, "of the same file alone"
    assert stream.moved == size
    assert all(body.closed for body in store.bodies)


def test_no_range_before_one_is_proven() -> None:
    """The second question is under way: nobody asks for a third, and the first answer goes on."""
    store = MemoryStore(data_of(20 * CHUNK), piece=CHUNK // 4)
    asked_at_once: list[int] = []

    def before(number: int) -> None:
        if number == 1:
            time.sleep(0.1)
            asked_at_once.append(len(store.asked))

    store.before = before
    assert fetch(store, 20 * CHUNK) == store.data
    assert asked_at_once == [2]


@pytest.mark.parametrize(
    "kind",
    [{"splits": False}, {"splits": False, "ranges": False}, {"tag": None}],
    ids=["says nothing of ranges", "knows none", "has no tag"],
)
def test_a_large_file_of_a_server_without_ranges(kind: dict[str, Any]) -> None:
    store = MemoryStore(data_of(LARGE), **kind)
    assert fetch(store, LARGE) == store.data
    assert store.asked == [Question(0, None, None)]


def test_ranges_that_do_not_fit_together() -> None:
    """A server that gives each answer a tag of its own: the first one goes on alone, and nobody
    tries again with another file.
    """
    store = MemoryStore(data_of(10 * CHUNK))

    def before(number: int) -> None:
        store.tag = f'"{number}"'

    store.before = before
    assert fetch(store, 10 * CHUNK) == store.data
    assert store.asked == [Question(0, None, None), Question(CHUNK, 2 * CHUNK, '"0"')]
    assert store.whole_only
    assert fetch(store, 10 * CHUNK) == store.data
    assert store.asked[2:] == [Question(0, None, None)]


def test_a_second_question_that_fails_ends_nothing() -> None:
    store = MemoryStore(data_of(10 * CHUNK), breaks={1: Broken("too many connections")})
    assert fetch(store, 10 * CHUNK) == store.data
    assert store.starts == [0, CHUNK]
    assert not store.whole_only, "that was a bad moment and no property of the server"


def test_without_a_free_connection_the_first_answer_brings_all() -> None:
    taken = 0
    try:
        while SLOTS.acquire(blocking=False):
            taken += 1
        store = MemoryStore(data_of(10 * CHUNK))
        assert fetch(store, 10 * CHUNK) == store.data
        assert store.starts == [0]
    finally:
        for _slot in range(taken):
            SLOTS.release()


def free_slots() -> int:
    """How many connections more this process may have."""
    taken = 0
    while SLOTS.acquire(blocking=False):
        taken += 1
    for _slot in range(taken):
        SLOTS.release()
    return taken


def test_connections_are_given_back() -> None:
    # Another file's tests may have helpers that still wait for a silent server.
    before = free_slots()
    for number in range(40):
        fetch(MemoryStore(data_of(6 * CHUNK, number)), 6 * CHUNK)
    assert before > 0
    assert free_slots() >= before


def test_every_answer_of_a_large_file_breaks_once() -> None:
    size = 10 * CHUNK
    # 1 plus 9 ranges, each cut in its middle.
    store = MemoryStore(data_of(size), breaks={number: Break(450) for number in range(10)})
    assert fetch(store, size) == store.data
    assert len(store.asked) > 10


def test_a_range_that_stays_broken_ends_all() -> None:
    size = 10 * CHUNK
    store = MemoryStore(data_of(size), breaks={number: Break(0) for number in range(2, 400)})
    with pytest.raises(Broken, match=r"^the connection broke$"):
        fetch(store, size)
    # The whole is begun three times, each with three connections.
    assert len(store.asked) <= 3 * (2 + 3 * (TRIES + 1))
    assert [thread for thread in threading.enumerate() if thread.name == "hash"] == []


def test_a_range_that_is_refused_ends_all() -> None:
    size = 10 * CHUNK
    refused = Unreachable("answered 403")
    store = MemoryStore(data_of(size), breaks=dict.fromkeys(range(2, 400), refused))
    with pytest.raises(Unreachable) as raised:
        fetch(store, size)
    assert raised.value is refused


# -- breaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True])
def test_a_break_is_taken_up_at_the_byte_reached(silent: bool) -> None:
    size = LARGE - 1
    store = MemoryStore(data_of(size), breaks={0: Break(1234, silent), 1: Break(1000, silent)})
    stream = Stream("f")
    assert fetch(store, size, stream) == store.data
    assert store.asked == [
        Question(0, None, None),
        Question(1234, None, '"1"'),
        Question(2234, None, '"1"'),
    ]
    assert stream.moved == size
    assert stream.trouble in ("the connection broke", f"2234 bytes came instead of {size}")


def test_a_break_before_the_first_byte() -> None:
    store = MemoryStore(data_of(50), breaks={0: Broken("away"), 1: Break(0)})
    assert fetch(store, 50) == store.data
    assert store.starts == [0, 0, 0]


def test_what_never_brings_a_byte_is_tried_three_times() -> None:
    away = Broken("cannot be reached")
    store = MemoryStore(data_of(50), breaks=dict.fromkeys(range(99), away))
    with pytest.raises(Broken) as raised:
        fetch(store, 50)
    assert raised.value is away
    assert store.starts == [0, 0, 0]


def test_what_breaks_again_and_again_is_given_up() -> None:
    breaks: dict[int, Break | Exception] = dict.fromkeys(range(1, 99), Break(0))
    store = MemoryStore(data_of(50), breaks={0: Break(20), **breaks})
    with pytest.raises(Broken, match=r"^the connection broke$"):
        fetch(store, 50)
    assert store.starts == [0] + [20] * TRIES


def test_breaks_after_much_are_borne_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it, "_ENOUGH", 50)
    store = MemoryStore(data_of(3000), breaks={number: Break(60) for number in range(49)})
    assert fetch(store, 3000) == store.data
    assert len(store.asked) == 50


def test_an_error_that_is_no_break_is_not_tried_again() -> None:
    store = MemoryStore(data_of(50), breaks={0: NotFound("there is no such file")})
    with pytest.raises(NotFound):
        fetch(store, 50)
    assert store.starts == [0]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_break_without_a_tag_begins_again(ranges: bool) -> None:
    """Nobody knows whether the rest would be of the same file."""
    store = MemoryStore(data_of(500), tag=None, ranges=ranges, breaks={0: Break(300)})
    stream = Stream("f")
    assert fetch(store, 500, stream) == store.data
    assert store.asked == [Question(0, None, None)] * 2
    assert stream.moved == 500, "what is thrown away counts for nothing"


def test_a_break_of_a_server_without_ranges_begins_again() -> None:
    store = MemoryStore(data_of(500), ranges=False, breaks={0: Break(300)})
    assert fetch(store, 500) == store.data
    assert store.asked == [
        Question(0, None, None), Question(300, None, '"1"'), Question(0, None, None)
    ]  # fmt: skip


# -- another file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [LARGE - 1, 10 * CHUNK])
def test_a_file_that_changes_meanwhile_begins_again(size: int) -> None:
    store, new = MemoryStore(data_of(size), breaks={0: Break(700)}), data_of(size, 2)

    def before(number: int) -> None:
        if number == 2 or (number == 1 and size < LARGE):
            store.data, store.tag = new, '"2"'

    store.before = before
    assert fetch(store, size) == new


def test_a_shorter_file_leaves_nothing_of_the_longer_one() -> None:
    """The size was not listed: what came of the first must not stand behind the second's end."""
    store = MemoryStore(data_of(900), breaks={0: Break(800)})

    def before(number: int) -> None:
        if number:
            store.data, store.tag = data_of(300, 2), '"2"'

    store.before = before
    assert fetch(store, None) == data_of(300, 2)
    assert store.starts == [0, 800, 0], "asked for what is behind its end, it says so (416)"


def test_a_file_that_changes_all_the_time_is_given_up() -> None:
    store = MemoryStore(data_of(500))

    def before(number: int) -> None:
        store.tag = f'"{number}"'
        store.breaks[number] = Break(100)

    store.before = before
    with pytest.raises(ArtifactError, match=r"^1/model\.onnx changes while it is read$"):
        fetch(store, 500)
    assert store.starts == [0, 100] * 4


def test_breaks_without_a_tag_are_given_up_with_their_reason() -> None:
    store = MemoryStore(data_of(500), tag=None, breaks=dict.fromkeys(range(99), Break(100)))
    with pytest.raises(Broken, match=r"^the connection broke$"):
        fetch(store, 500)
    assert store.starts == [0] * 4


# -- lengths ---------------------------------------------------------------------------------------


def test_a_file_that_is_shorter_than_listed_and_says_so() -> None:
    """It will not get longer: whoever listed it compares."""
    store = MemoryStore(data_of(300))
    assert fetch(store, 500) == store.data
    assert store.starts == [0]


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        (None, r"^300 bytes came instead of 500$"),
        # What lies behind its end was asked for, and the answer is that of another file.
        ('"1"', r"^1/model\.onnx changes while it is read$"),
    ],
)
def test_a_file_that_is_shorter_than_listed_and_does_not_say_so(
    tag: str | None, words: str
) -> None:
    store = MemoryStore(data_of(300), tag=tag, tells_length=False)
    with pytest.raises(ArtifactError, match=words):
        fetch(store, 500)
    assert len(store.asked) == (4 if tag is None else 8)


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("size", [LARGE - 5, LARGE, 10 * CHUNK])
def test_a_file_that_is_longer_than_listed_is_not_cut_off(size: int, tells: bool) -> None:
    """Whoever listed it compares, and must not be told that what was listed is all there is."""
    store = MemoryStore(data_of(size + 5), tells_length=tells)
    assert len(fetch(store, size)) > size


@pytest.mark.parametrize("size", [LARGE, 10 * CHUNK])
def test_a_large_file_that_is_shorter_than_listed(size: int) -> None:
    store = MemoryStore(data_of(size - 5))
    assert len(fetch(store, size)) == size - 5


def test_an_answer_that_ends_before_its_own_end_is_broken() -> None:
    """Also where nobody listed the size."""
    store = MemoryStore(data_of(500), breaks={0: Break(300, silent=True)})
    assert fetch(store, None) == store.data
    assert store.starts == [0, 300]


# -- stalls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [500, 10 * CHUNK])
@pytest.mark.parametrize("after", [0, 300])
def test_a_stall_is_given_up_on(size: int, after: int) -> None:
    """Whatever the answer does later, nothing of it is written."""
    hanging = threading.Event()
    stops = {number: Break(after, hangs=hanging) for number in range(99)}
    store = MemoryStore(data_of(size), breaks=stops)
    started = time.monotonic()
    with tempfile.TemporaryFile() as file:
        with pytest.raises(ArtifactError) as raised:
            run_transfers(
                {"f": lambda stream: it.download(store, "f", file.fileno(), size, stream)},
                workers=1,
                stall=0.5,
                failed="could not be brought here",
            )
        assert 0.5 <= time.monotonic() - started < 20
        came = len(file.read())
        hanging.set()
        time.sleep(0.1)
        file.seek(0)
        assert len(file.read()) == came
    assert raised.value.message.startswith(
        "1 of 1 files could not be brought here: f (less than 1 KiB came within 0.5 s, after "
    )
    assert raised.value.facts["files_failed"] == ["f"]


def test_what_was_cancelled_writes_nothing_more() -> None:
    store, stream = MemoryStore(data_of(500)), Stream("f")
    stream.cancel()
    with tempfile.TemporaryFile() as file:
        with pytest.raises(Cancelled):
            it.download(store, "f", file.fileno(), 500, stream)
        assert Path(f"/proc/self/fd/{file.fileno()}").stat().st_size == 0
