# SPDX-License-Identifier: Apache-2.0
"""Threads that do jobs: each when those before it are done, and a clean end whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from graphlib import CycleError

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.scheduler import (
    do_all,
)

PATIENCE = 10.0
"""Seconds after which a thread that should have come does not."""
NONE: frozenset[str] = frozenset()


def names(text: str) -> dict[str, frozenset[str]]:
    """``"a b<a c<ab"``: b after a, c after both."""
    parts = [part.partition("<") for part in text.split()]
    return {name: frozenset(before) for name, _sign, before in parts}


class Log:
    """Jobs that note when they begin and end, and in which thread."""

    def __init__(self, job: Callable[[str], None] = lambda name: None) -> None:
        self._job = job
        self._lock = threading.Lock()
        self.begun: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.threads: dict[str, int] = {}
        self.left: list[int] = []
        self._at_work = 0
        self.most = 0

    def __call__(self, name: str) -> None:
        with self._lock:
            self.begun.append(name)
            self.events.append(("begins", name))
            self.threads[name] = threading.get_ident()
            self._at_work += 1
            self.most = max(self.most, self._at_work)
        try:
            self._job(name)
        finally:
            with self._lock:
                self.events.append(("ends", name))
                self._at_work -= 1

    def leave(self) -> None:
        with self._lock:
            self.left.append(threading.get_ident())

    def check(self, after: Mapping[str, frozenset[str]]) -> None:
        """Each job was done once, and began after the end of those before it."""
        assert sorted(self.begun) == sorted(after)
        for name, before in after.items():
            began = self.events.index(("begins", name))
            for one in before:
                assert self.events.index(("ends", one)) < began, f"{name} did not wait for {one}"


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "text",
    ["", "a", "a b c d e", "c<ab a b<a", "a<b b<c c<d d", "a b<a c<a d<bc e<d f", "a<b b<c c"],
)
def test_each_comes_after_those_before_it(text: str, workers: int) -> None:
    after = names(text)
    for _time in range(10):
        log = Log()
        do_all(log, after, workers, log.leave)
        log.check(after)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_single_worker_needs_no_thread(workers: int) -> None:
    log = Log()
    do_all(log, names("b a<b c"), workers, log.leave)
    assert set(log.threads.values()) == {threading.get_ident()}
    assert log.left == [], "the caller's own connections are the caller's"


def test_a_single_job_needs_no_thread() -> None:
    log = Log()
    do_all(log, names("a"), 8, log.leave)
    assert (log.threads, log.left) == ({"a": threading.get_ident()}, [])


def test_what_is_ready_begins_in_the_order_given() -> None:
    """One worker is held up until the other has done everything else."""
    others_done, done = threading.Event(), []

    def job(name: str) -> None:
        if name == "first":
            assert others_done.wait(PATIENCE), "the other worker did not go on"
            return
        done.append(name)
        if name == "m":
            others_done.set()

    do_all(job, names("first z y x m"), 2)
    assert done == ["z", "y", "x", "m"]


def test_what_becomes_ready_together_begins_in_the_order_given() -> None:
    held, done = threading.Event(), []

    def job(name: str) -> None:
        if name == "q":
            assert held.wait(PATIENCE)
        else:
            done.append(name)
            if name == "b":
                held.set()

    do_all(
        job,
        {"q": NONE, "a": NONE, "d": frozenset("a"), "c": frozenset("a"), "b": frozenset("a")},
        2,
    )
    assert done == ["a", "d", "c", "b"]


@pytest.mark.parametrize(("workers", "jobs", "together"), [(2, 5, 2), (3, 5, 3), (8, 3, 3)])
def test_as_many_at_once_as_there_are_workers(workers: int, jobs: int, together: int) -> None:
    """The first ones meet; were there fewer threads, they would never."""
    meeting = threading.Barrier(together)
    first = {str(number) for number in range(together)}

    def job(name: str) -> None:
        if name in first:
            meeting.wait(PATIENCE)

    log = Log(job)
    do_all(log, {str(number): NONE for number in range(jobs)}, workers, log.leave)
    assert log.most == together
    assert len(log.left) == len(set(log.left)) == together, "each thread leaves once"
    assert threading.get_ident() not in log.left
    assert set(log.threads.values()) <= set(log.left)


def test_no_thread_outlives_the_call() -> None:
    before = set(threading.enumerate())
    do_all(Log(), names("a b c<ab d"), 3)
    assert set(threading.enumerate()) == before


# -- exceptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_comes_to_the_caller(workers: int, error: BaseException) -> None:
    def job(name: str) -> None:
        if name == "b":
            raise error

    log = Log(job)
    with pytest.raises(type(error)) as raised:
        do_all(log, names("a b<a c<b d<c"), workers, log.leave)
    assert raised.value is error
    assert log.begun == ["a", "b"], "what comes after it is not begun"
    assert len(log.left) == (0 if workers == 1 else workers)


def test_jobs_that_were_begun_are_over_before_the_exception_is_raised() -> None:
    """And of those that were not, none is begun."""
    begun, fails = threading.Event(), threading.Event()
    ended = []

    def job(name: str) -> None:
        if name == "slow":
            begun.set()
            assert fails.wait(PATIENCE)
            # The other thread raises now; this one is not told, and ends what it does.
            threading.Event().wait(0.2)
            ended.append(name)
        elif name == "bad":
            assert begun.wait(PATIENCE)
            fails.set()
            raise ValueError("no")

    log = Log(job)
    with pytest.raises(ValueError, match="no"):
        do_all(log, {"slow": NONE, "bad": NONE, "more": NONE}, 2, log.leave)
    assert ended == ["slow"]
    assert sorted(log.begun) == ["bad", "slow"]
    assert len(log.left) == 2


def test_a_thread_that_waits_is_woken_by_an_exception() -> None:
    """``late`` waits for ``bad``: the second thread has nothing to do until it fails."""

    def job(name: str) -> None:
        threading.Event().wait(0.1)
        raise ValueError(name)

    result: list[BaseException] = []

    def call() -> None:
        try:
            do_all(job, {"bad": NONE, "late": frozenset({"bad"})}, 2)
        except ValueError as error:
            result.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(PATIENCE)
    assert not caller.is_alive(), "it waits for ever"
    assert [str(error) for error in result] == ["bad"]


def test_the_first_exception_is_the_one_that_is_raised() -> None:
    first = threading.Event()

    def job(name: str) -> None:
        if name == "two":
            assert first.wait(PATIENCE)
            threading.Event().wait(0.1)
        first.set()
        raise ValueError(name)

    with pytest.raises(ValueError, match=r"^one$"):
        do_all(job, {"one": NONE, "two": NONE}, 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_circle_is_refused_before_anything_begins(workers: int) -> None:
    log = Log()
    with pytest.raises(CycleError):
        do_all(log, names("x a<b b<a"), workers)
    assert log.begun == []
