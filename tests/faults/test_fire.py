# SPDX-License-Identifier: Apache-2.0
"""Updates while clients keep asking: none of them fails, each gets the answer of a deployment that
could have been in place.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bench import NAME, QUESTION, Bench, new_bench
from support.rows import Row

pytestmark = pytest.mark.takes(120)

UPDATES = 50
CLIENTS = 8
Answer = tuple[float, float, int]
"""Asked at, answered at, identity of the deployment that answered."""


@pytest.fixture
def bench(base: Path) -> Iterator[Bench]:
    with new_bench(base / "fire") as made:
        yield made


class Client(threading.Thread):
    """One connection, kept alive, that asks without end."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self.over = threading.Event()
        self._connection = http.client.HTTPConnection(url, timeout=60)

    def run(self) -> None:
        body = json.dumps(QUESTION)
        while not self.over.is_set():
            asked = time.monotonic()
            try:
                self._connection.request(
                    "POST", f"/v2/models/{NAME}/infer", body, {"Content-Type": "application/json"}
                )
                answer = self._connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise ValueError(f"{answer.status} {text[:200]!r}")
                outputs = {entry["name"]: entry["data"] for entry in json.loads(text)["outputs"]}
                if outputs["y"] != [2.0, 5.0, -8.0]:
                    raise ValueError(f"a wrong answer: {outputs}")
                self.answers.append((asked, time.monotonic(), int(outputs["identity"][0])))
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                self._connection.close()
            time.sleep(0.002)


def not_in_place(answers: list[Answer], windows: dict[int, tuple[float, float]]) -> list[Answer]:
    """Answers of deployments that were neither in place nor on their way in or out between question
    and answer.
    """
    return [one for one in answers if one[1] < windows[one[2]][0] or one[0] > windows[one[2]][1]]


def backwards(answers: list[Answer]) -> list[Answer]:
    """Answers that are older than one which had been given before they were asked for."""
    by_end = sorted(answers, key=lambda one: one[1])
    found, newest, position = [], 0, 0
    for one in sorted(answers):
        while position < len(by_end) and by_end[position][1] < one[0]:
            newest = max(newest, by_end[position][2])
            position += 1
        if one[2] < newest:
            found.append(one)
    return found


def test_updates_under_fire(bench: Bench, row: Row) -> None:
    """50 updates with loads of 1 s under 8 keep-alive clients."""
    bench.good(model_uri=bench.source(1))
    windows = {1: [0.0, float("inf")]}
    clients = [Client(bench.triton.url) for _number in range(CLIENTS)]
    for client in clients:
        client.start()
    loads = []
    for identity in range(2, UPDATES + 2):
        source = bench.source(identity, load_delay=1.0)
        started = time.monotonic()
        windows[identity] = [started, float("inf")]
        bench.good(model_uri=source)
        loads.append(time.monotonic() - started)
        # A request that was being computed by the old instance when the load ended is answered by
        # it.
        windows[identity - 1][1] = time.monotonic()
    time.sleep(0.2)
    for client in clients:
        client.over.set()
    for client in clients:
        client.join(60)
    answers = [answer for client in clients for answer in client.answers]
    failures = [failure for client in clients for failure in client.failures]
    slowest = max(end - start for start, end, _identity in answers)
    row.saw(
        f"{UPDATES} updates of {min(loads):.1f} to {max(loads):.1f} s, {len(answers)} requests,"
        f" {len(failures)} failed, {len({one[2] for one in answers})} deployments answered, the"
        f" slowest answer took {slowest:.2f} s"
    )
    assert failures == []
    assert {one[2] for one in answers} == set(range(1, UPDATES + 2))
    assert min(loads) >= 1.0
    assert (
        not_in_place(answers, {key: (value[0], value[1]) for key, value in windows.items()}) == []
    )
    assert backwards(answers) == []
    bench.check_agreement(UPDATES + 1, retained=1)
