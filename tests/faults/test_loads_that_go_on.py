# SPDX-License-Identifier: Apache-2.0
"""Loads that a run gave up on, where several servers or several spellings of an address are in
play.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import LoadPending
from support.bench import FAST, NAME, Bench
from support.rows import Row
from support.servers import Triton, triton_server


@pytest.fixture
def second(bench: Bench, tmp_path: Path) -> Iterator[Triton]:
    """Another server of the bench's repository."""
    with triton_server(
        tmp_path / "second", repository=bench.triton.repository, extra_args=list(FAST)
    ) as server:
        yield server


def both(bench: Bench, second: Triton, **more: Any) -> dict[str, Any]:
    return {"triton_url": [bench.triton.url, second.url], **more}


def identity_at(bench: Bench, server: Triton) -> int | None:
    return Bench(bench.folder, server).identity()


def test_the_second_server_has_all_of_its_time(bench: Bench, second: Triton, row: Row) -> None:
    """two servers, the first load outlasts load_timeout: the next run gives the second all of its
    time.
    """
    bench.good(target=both(bench, second), model_uri=bench.source(1))
    slow = bench.source(2, load_delay=5)
    failed = bench.deliver(target=both(bench, second, load_timeout=1), model_uri=slow)
    assert isinstance(failed.error, LoadPending), repr(failed.error)
    time.sleep(6)
    settled = bench.deliver(target=both(bench, second, load_timeout=9), model_uri=slow)
    assert settled.error is None, str(settled.error)
    assert [identity_at(bench, one) for one in (bench.triton, second)] == [2, 2]
    row.saw("both serve the new one")


def test_a_server_that_was_not_asked_keeps_what_it_serves(
    bench: Bench, second: Triton, row: Row
) -> None:
    """two servers, the first load outlasts load_timeout, then the one before is asked for: the
    second server never loads the new one.
    """
    old = bench.source(1)
    bench.good(target=both(bench, second), model_uri=old)
    loads = second.loads(NAME)
    slow = bench.source(2, load_delay=3)
    failed = bench.deliver(target=both(bench, second, load_timeout=1), model_uri=slow)
    assert isinstance(failed.error, LoadPending), repr(failed.error)
    settled = bench.deliver(target=both(bench, second), model_uri=old)
    assert settled.error is None, str(settled.error)
    assert [identity_at(bench, one) for one in (bench.triton, second)] == [1, 1]
    assert second.loads(NAME) == loads
    row.saw("it was not asked to load anything")


def test_an_address_in_another_spelling(bench: Bench, row: Row) -> None:
    """load that outlasts load_timeout, and a next run that spells the server's address otherwise:
    no file moves before the load has ended.
    """
    old = bench.source(1)
    bench.good(model_uri=old)
    spelled = bench.triton.url.replace("127.0.0.1", "localhost")
    assert spelled != bench.triton.url
    new, began = bench.source(2, load_delay=6), time.monotonic()
    failed = bench.deliver(target={"triton_url": spelled, "load_timeout": 1}, model_uri=new)
    assert isinstance(failed.error, LoadPending), repr(failed.error)
    moved: list[float] = []
    model = bench.repository / NAME / "1" / "model.py"

    def watch() -> None:
        while not moved:
            if model.read_text() != text:
                moved.append(time.monotonic() - began)
            time.sleep(0.05)

    text = model.read_text()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    bench.good(model_uri=old)
    watcher.join(5)
    assert moved and moved[0] > 6, moved
    bench.check_agreement(1)
    row.saw("it waited")
