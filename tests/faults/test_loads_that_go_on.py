# SPDX-License-Identifier: Apache-2.0
"""Loads that a run gave up on, where several servers or several spellings of an address are in
play.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import LoadPending
from support import models
from support.bench import FAST, NAME, VERIFY, Bench
from support.deliveries import deliver_models
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


@contextlib.contextmanager
def moves_of(bench: Bench, name: str, began: float) -> Iterator[list[float]]:
    """After how many seconds the model's file was first seen to be another one."""
    moved: list[float] = []
    model, ends = bench.repository / name / "1" / "model.py", threading.Event()
    text = model.read_text()

    def watch() -> None:
        while not ends.is_set() and not moved:
            if model.read_text() != text:
                moved.append(time.monotonic() - began)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield moved
    finally:
        time.sleep(0.2)
        ends.set()
        watcher.join()


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
    with moves_of(bench, NAME, began) as moved:
        bench.good(model_uri=old)
    assert moved[0] > 6, moved
    bench.check_agreement(1)
    row.saw("it waited")


def test_one_of_a_group_fails_while_the_load_of_another_goes_on(bench: Bench, row: Row) -> None:
    """members of an ensemble of which one loads longer than load_timeout, and in the next run the
    other one fails: no file moves before the load has ended.
    """
    names = ("first", "second", "chain")

    def asked(identity: int, broken: str | None = None, **slow: Any) -> list[dict[str, Any]]:
        members = [
            bench.sample(identity + 5 * bool(broken), "first", fail=broken),
            bench.sample(identity, "second", **slow),
        ]
        chain = models.make_ensemble(bench.folder / f"group-{identity}", "chain", members)
        config = chain.folder / "config.pbtxt"
        note = f'parameters {{ key: "of" value {{ string_value: "{identity}" }} }}\n'
        config.write_text(config.read_text().split("parameters")[0] + note)
        folders = [*(member.folder for member in members), chain.folder]
        return [{"name": name, "model_uri": str(at)} for name, at in zip(names, folders)]

    assert not any(result.error for result in deliver_models(bench.target, asked(1)))
    slow, began = asked(2, load_delay=8), time.monotonic()
    done = deliver_models({**bench.target, "load_timeout": 1.5}, slow)
    assert isinstance(done[1].error, LoadPending), repr(done[1].error)
    broken = asked(2, broken="no weights", load_delay=8)
    with moves_of(bench, "second", began) as moved:
        done = deliver_models(bench.target, broken)
    assert "no weights" in str(done[0].error), str(done[0].error)
    assert moved[0] > 8, moved
    for name in names[:2]:
        bench.check_agreement_of(name, 1)
    assert not any(bench.drift(name) for name in names)
    assert bench.left_behind(models_there=names) == []
    row.saw(str(done[1].error))


def test_the_next_run_keeps_as_many_copies_as_it_asks_for(bench: Bench, row: Row) -> None:
    """load that outlasts load_timeout, then the same with keep 0: no copy is retained."""
    bench.good(model_uri=bench.source(1))
    slow = bench.source(2, load_delay=3)
    failed = bench.deliver(model_uri=slow, target={"load_timeout": 1})
    assert isinstance(failed.error, LoadPending), repr(failed.error)
    bench.good(model_uri=slow, keep=0)
    bench.check_agreement(2, retained=0)
    assert bench.store.retained_records(NAME) == []
    row.saw("none is")


@pytest.mark.parametrize("wish", ["the same, which answers wrongly", "the one before", "another"])
def test_in_an_outage_there_is_room_for_one_copy(wish: str, bench: Bench, row: Row) -> None:
    """unload_first, a load that outlasts load_timeout, then {wish}: never two copies at once."""
    first: dict[str, Any] = {"swap": "unload_first", "verify": VERIFY}
    (bench.folder / "taken").unlink(missing_ok=True)
    old = alone(bench, 1)
    bench.good(model_uri=old, verify=VERIFY)
    new = alone(bench, 2, load_delay=3, wrong=wish.startswith("the same"))
    failed = bench.deliver(model_uri=new, target={"load_timeout": 1}, **first)
    assert isinstance(failed.error, LoadPending), repr(failed.error)
    if wish.startswith("the same"):
        failed = bench.deliver(model_uri=new, **first)
        text = str(failed.error)
        assert "output 'y'" in text and "has loaded it again, and it answers" in text, text
        bench.check_agreement(1)
    else:
        number = 1 if "before" in wish else 3
        bench.good(model_uri=old if number == 1 else alone(bench, 3), **first)
        bench.check_agreement(number)
    row.saw(str(failed.error))


def alone(bench: Bench, identity: int, **options: Any) -> str:
    """A model that cannot be loaded while another copy of it is."""
    source = bench.source(identity, **options)
    code = Path(source) / "1" / "model.py"
    taken = bench.folder / "taken"
    text = code.read_text()
    text = text.replace(
        "        if FAIL:\n",
        f"        os.close(os.open({str(taken)!r}, os.O_CREAT | os.O_EXCL))\n        if FAIL:\n",
        1,
    )
    text += f"\n    def finalize(self):\n        os.remove({str(taken)!r})\n"
    code.write_text(text)
    return source
