# SPDX-License-Identifier: Apache-2.0
"""What the models of a run share: turns to be brought here, and the room for their files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import RepositoryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import (
    limits as limits_file,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.limits import Limits

PATIENCE = 10.0
"""Seconds after which what should happen does not."""
MOMENT = 0.1
"""Seconds in which what must not happen would."""


class Disk:
    """A repository with so many bytes of room; what was asked for is kept."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[int] = []

    def require_space(self, size: int) -> None:
        self.asked.append(size)
        if size > self.room:
            raise RepositoryError(f"{size} bytes do not fit into {self.room}")


@contextmanager
def beginning(
    limits: Limits, disk: Disk, size: int, folder: Path
) -> Iterator[tuple[threading.Event, Callable[[], None]]]:
    """Another model is brought by a thread of its own: whether it has begun, and what ends it."""
    begun, over = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def bring() -> None:
        try:
            with limits.download(disk, size, str(folder)):
                begun.set()
                assert over.wait(PATIENCE)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=bring, daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join(PATIENCE)

    try:
        yield begun, end
    finally:
        end()
        assert not thread.is_alive()
        assert failed == []


@pytest.mark.parametrize(("downloads", "loads"), [(1, 1), (3, 2)])
def test_as_many_workers_as_turns(downloads: int, loads: int) -> None:
    limits = Limits(downloads, loads)
    assert limits.workers == downloads + loads
    taken = sum(limits.loads.acquire(blocking=False) for _time in range(loads + 1))
    assert taken == loads
    taken = sum(limits.downloads.acquire(blocking=False) for _time in range(downloads + 1))
    assert taken == downloads


def test_without_options_one_after_another() -> None:
    assert Limits().workers == 2


def test_a_turn_is_waited_for(tmp_path: Path) -> None:
    limits, disk = Limits(2), Disk(1000)
    with (
        beginning(limits, disk, 1, tmp_path / "a") as (a, end_a),
        beginning(limits, disk, 1, tmp_path / "b") as (b, _end_b),
    ):
        assert a.wait(PATIENCE) and b.wait(PATIENCE)
        with beginning(limits, disk, 1, tmp_path / "c") as (c, _end_c):
            assert not c.wait(MOMENT), "three are brought at once"
            end_a()
            assert c.wait(PATIENCE)


def test_a_turn_is_given_back_by_one_that_failed(tmp_path: Path) -> None:
    limits, disk = Limits(1), Disk(1000)
    for _time in range(3):
        with (
            pytest.raises(ValueError, match="broken"),
            limits.download(disk, 900, str(tmp_path / "a")),
        ):
            raise ValueError("broken")
    with limits.download(disk, 900, str(tmp_path / "a")):
        assert disk.asked == [900] * 4, "what was promised to one that failed is free again"


def test_a_turn_is_given_back_by_one_that_has_no_room(tmp_path: Path) -> None:
    limits, disk = Limits(1), Disk(10)
    for _time in range(3):
        with (
            pytest.raises(RepositoryError, match="11 bytes do not fit into 10"),
            limits.download(disk, 11, str(tmp_path / "a")),
        ):
            pytest.fail("it was begun without room")
    with limits.download(disk, 10, str(tmp_path / "a")):
        pass


def test_room_that_nobody_can_free_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits_file, "_LOOK_AGAIN", 60)
    started = time.monotonic()
    with pytest.raises(RepositoryError), Limits(4).download(Disk(10), 11, str(tmp_path / "a")):
        pytest.fail("it was begun without room")
    assert time.monotonic() - started < PATIENCE


def test_room_is_promised(tmp_path: Path) -> None:
    """What is promised and not yet written counts as taken; what is written is gone from the disk
    already.
    """
    limits, disk = Limits(3), Disk(1000)
    one, two = tmp_path / "one", tmp_path / "two"
    with limits.download(disk, 600, str(one)):
        assert disk.asked == [600]
        (one / "1").mkdir(parents=True)
        (one / "1" / "weights").write_bytes(bytes(500))
        with limits.download(disk, 100, str(two)):
            assert disk.asked == [600, 100 + (600 - 500)]
            (one / "1" / "more").write_bytes(bytes(400))
            with limits.download(disk, 5, str(tmp_path / "three")):
                assert disk.asked[-1] == 5 + 100, "more than promised frees no room of others"
    with limits.download(disk, 7, str(tmp_path / "four")):
        assert disk.asked[-1] == 7, "what is over is promised nothing"


def test_room_is_waited_for_while_others_may_free_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits_file, "_LOOK_AGAIN", 60)
    limits, disk = Limits(2), Disk(1000)
    with beginning(limits, disk, 600, tmp_path / "a") as (a, end_a):
        assert a.wait(PATIENCE)
        with beginning(limits, disk, 600, tmp_path / "b") as (b, _end_b):
            assert not b.wait(MOMENT), "1200 bytes were promised of 1000"
            end_a()
            assert b.wait(PATIENCE), "it was not told that there is room"
            assert disk.asked[-1] == 600


def test_room_that_becomes_free_otherwise_is_found(tmp_path: Path) -> None:
    """Somebody else deletes something: nobody tells, so it is looked again every second."""
    limits, disk = Limits(2), Disk(1000)
    with beginning(limits, disk, 600, tmp_path / "a") as (a, _end_a):
        assert a.wait(PATIENCE)
        with beginning(limits, disk, 600, tmp_path / "b") as (b, _end_b):
            assert not b.wait(MOMENT)
            disk.room = 2000
            assert b.wait(3)


def test_the_last_one_that_finds_no_room_fails(tmp_path: Path) -> None:
    """It waits while another is at work; when that has ended and there still is no room, it says
    so.
    """
    limits, disk = Limits(2), Disk(1000)
    failed: list[RepositoryError] = []

    def bring() -> None:
        try:
            with limits.download(disk, 1001, str(tmp_path / "b")):
                pytest.fail("it was begun without room")
        except RepositoryError as error:
            failed.append(error)

    thread = threading.Thread(target=bring, daemon=True)
    with limits.download(disk, 10, str(tmp_path / "a")):
        thread.start()
        thread.join(MOMENT)
        assert thread.is_alive(), "it did not wait"
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [error.message for error in failed] == ["1001 bytes do not fit into 1000"]
