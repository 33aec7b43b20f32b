# SPDX-License-Identifier: Apache-2.0
"""What becomes of the old deployment while the new one is loaded, by the memory of GPUs."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import gpu_memory
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.gpu_memory import (
    GpuRoom,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.gpu_need import (
    taken_by,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    Load,
    Unload,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.swap import choose
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.metrics import (
    GpuMemory,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    TritonServer,
)
from support.gpu_metrics import GPU, FakeGpus, free
from support.memory_triton import CONFIG, MemoryTriton, deliver, delivery_to, make_model

GIB = 1 << 30
PATIENCE = 10.0
URL = "localhost:8000"
ON_GPU = CONFIG + "instance_group [ { kind: KIND_GPU count: 1 } ]\n"
ON_CPU = CONFIG + "instance_group [ { kind: KIND_CPU count: 1 } ]\n"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """These GPUs say at once what is so, and what is unloaded gives its memory back at once."""
    monkeypatch.setattr(gpu_memory, "FRESH", 0.0)
    monkeypatch.setattr(gpu_memory, "RELEASED", 0.0)


@pytest.fixture
def triton(tmp_path: Path) -> MemoryTriton:
    (tmp_path / "models").mkdir()
    return MemoryTriton(tmp_path / "models")


class Memory:
    """What the models of a server take of its GPU. The old copy goes after some questions."""

    def __init__(self, triton: MemoryTriton, size: int, lingers: int = 0) -> None:
        self.triton, self.size, self.lingers = triton, size, lingers
        self.old = 0

    def __call__(self) -> int:
        if self.old:
            self.old -= 1
        copies = len(self.triton.loaded) + bool(self.old)
        return GIB + self.size * copies


@pytest.fixture
def sources(tmp_path: Path) -> dict[int, str]:
    """Two versions of a model, of 1000 bytes each."""
    found = {}
    for number in (1, 2):
        found[number] = make_model(tmp_path / f"source-{number}/m", ON_GPU)
        (tmp_path / f"source-{number}/m/1/model.py").write_text(f"#{number}".ljust(1000, "#"))
    return found


def served_first(triton: MemoryTriton, sources: dict[int, str], **more: Any) -> None:
    (done,) = deliver(triton, {"name": "m", "model_uri": sources[1]}, **more)
    assert done.error is None, str(done.error)


@pytest.mark.parametrize(
    ("room", "drained", "swap", "warns"),
    [
        (GIB, True, "overlap", None),
        (100, True, "unload_first", None),
        (100, False, "overlap", "swap: auto unloads the old one before only on servers that are"),
        (None, True, "overlap", None),
    ],
    ids=["room", "no room, drained", "no room", "not known"],
)
@pytest.mark.parametrize("check", [True, False])
def test_auto_takes_the_outage_where_two_do_not_fit_and_nobody_notices(
    triton: MemoryTriton,
    sources: dict[int, str],
    room: int | None,
    drained: bool,
    swap: str,
    warns: str | None,
    check: bool,
) -> None:
    served_first(triton, sources)
    with FakeGpus(free(room or 0)) as gpus:
        more = {"metrics_url": gpus.url if room else "127.0.0.1:9", "drained": drained}
        wanted = {"name": "m", "model_uri": sources[2], "swap": "auto"}
        triton.asked.clear()
        (done,) = deliver(triton, wanted, check=check, **more)
    assert done.error is None and done.changed, str(done.error)
    assert done.to_dict()["swap"] == swap
    assert len(done.warnings) == bool(warns)
    assert all(warns in said for said in done.warnings if warns)
    calls = [call for call in triton.asked if call in ("load_model", "unload_model")]
    expected = ["unload_model", "load_model"] if swap == "unload_first" else ["load_model"]
    # The first unload asks for the model control mode.
    assert calls == ([] if check else ["unload_model", *expected])


def test_too_little_room_is_warned_of_before_with_what_is_needed_and_free(
    triton: MemoryTriton, sources: dict[int, str]
) -> None:
    served_first(triton, sources)
    with FakeGpus(free(100)) as gpus:
        wanted = {"name": "m", "model_uri": sources[2]}
        (planned,) = deliver(triton, wanted, check=True, metrics_url=gpus.url)
    (said,) = planned.warnings
    assert f"it may not fit beside the old one: GPU {GPU} of {URL} has 100 bytes free" in said
    assert "the new deployment needs about 1000 bytes; swap: unload_first unloads the" in said


def test_models_on_cpus_wait_for_nothing(triton: MemoryTriton, tmp_path: Path) -> None:
    with FakeGpus(free(100)) as gpus:
        for number in (1, 2):
            source = make_model(tmp_path / f"cpu-{number}/m", ON_CPU)
            wanted = {"name": "m", "model_uri": source}
            (done,) = deliver(triton, wanted, metrics_url=gpus.url)
            assert done.error is None and not done.warnings
        assert gpus.asked == 2, "each run asks once, when it plans"
    assert done.record is not None and done.record.gpu_memory == {}


def test_a_record_has_what_was_measured_and_the_next_plan_believes_it(
    triton: MemoryTriton, sources: dict[int, str]
) -> None:
    memory = Memory(triton, 30 * GIB)
    with FakeGpus(memory) as gpus:
        served_first(triton, sources, metrics_url=gpus.url)
        wanted = {"name": "m", "model_uri": sources[2], "swap": "auto"}
        more = {"metrics_url": gpus.url, "drained": True}
        (planned,) = deliver(triton, wanted, check=True, **more)
        assert planned.record is not None
        assert planned.record.gpu_memory == {URL: {GPU: 30 * GIB}}
        assert planned.to_dict()["swap"] == "overlap"
        memory.size = 45 * GIB
        (planned,) = deliver(triton, wanted, check=True, **more)
        assert planned.to_dict()["swap"] == "overlap", "30 GiB fit into 34"
    # 80 GiB, of which 60 are used: what was measured does not fit, the files' few bytes would.
    with FakeGpus(free(20 * GIB)) as gpus:
        (planned,) = deliver(triton, wanted, check=True, metrics_url=gpus.url, drained=True)
    assert planned.to_dict()["swap"] == "unload_first"
    assert any("needs about 30.0 GiB" in action for action in planned.to_dict()["actions"])


def test_a_load_is_done_when_the_memory_of_the_old_copy_is_free(
    triton: MemoryTriton, sources: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "FRESH", 0.2)
    monkeypatch.setattr(gpu_memory, "_POLL", 0.05)
    memory = Memory(triton, 30 * GIB)
    with FakeGpus(memory) as gpus:
        served_first(triton, sources, metrics_url=gpus.url)
        call = triton.call

        def load(timeout: float, method: str, *arguments: Any, **options: Any) -> Any:
            if method == "load_model":
                memory.old = 3
            return call(timeout, method, *arguments, **options)

        monkeypatch.setattr(triton, "call", load)
        wanted = {"name": "m", "model_uri": sources[2]}
        (done,) = deliver(triton, wanted, metrics_url=gpus.url)
    assert done.error is None and memory.old == 0
    assert done.record is not None and done.record.gpu_memory == {URL: {GPU: 30 * GIB}}


def test_metrics_are_believed_when_the_gpu_was_read_twice_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a reading says that had begun before may be older; no time-out decides."""
    monkeypatch.setattr(gpu_memory, "FRESH", 60.0)
    monkeypatch.setattr(gpu_memory, "_LONGEST_READINGS", 60.0)
    monkeypatch.setattr(gpu_memory, "_POLL", 0.01)
    readings = [(70, 5.0), (70, 5.0), (70, 6.0), (70, 6.0), (40, 7.0), (40, 8.0), (40, 9.0)]
    used, energy = iter(readings), iter(readings)
    with FakeGpus(lambda: next(used)[0] * GIB, lambda: next(energy)[1]) as gpus:
        server = TritonServer(URL, 5, metrics_url=gpus.url)
        gpu_memory.wait_for_release(server)
        assert gpus.asked == len(readings)
    before = gpu_memory.Before({GPU: GpuMemory(GPU, GIB, 80 * GIB)}, {})
    readings = [(1, 5.0), (1, 6.0), (31, 6.5)]
    used, energy = iter(readings), iter(readings)
    with FakeGpus(lambda: next(used)[0] * GIB, lambda: next(energy)[1]) as gpus:
        server = TritonServer(URL, 5, metrics_url=gpus.url)
        loaded = gpu_memory.Loaded(before, gpu_memory.Readings())
        assert gpu_memory.measure(server, loaded) == {GPU: 30 * GIB}


def test_what_goes_late_is_waited_for_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of an old copy ends a second or more after the new one is loaded, and the first
    readings may be of before the new one had all its memory.
    """
    monkeypatch.setattr(gpu_memory, "_POLL", 0.01)
    readings = [50, 70, *[75] * 20, 60, 46]
    used, energy = iter(readings), iter(range(100))
    with FakeGpus(lambda: next(used) * GIB, lambda: next(energy)) as gpus:
        server = TritonServer(URL, 5, metrics_url=gpus.url)
        monkeypatch.setattr(gpu_memory, "RELEASED", 60.0)
        gpu_memory.wait_for_release(server, old={GPU: 30 * GIB})
        assert gpus.asked == len(readings)
        gpu_memory.wait_for_release(server, old={GPU: 0})
        gpu_memory.wait_for_release(server, old={})
        assert gpus.asked == len(readings), "nothing comes back"


def test_metrics_that_stand_still_are_waited_for_no_longer_than_for_some_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_memory, "FRESH", 60.0)
    monkeypatch.setattr(gpu_memory, "_LONGEST_READINGS", 0.2)
    with FakeGpus(free(GIB), lambda: 5.0) as gpus:
        server = TritonServer(URL, 5, metrics_url=gpus.url)
        gpu_memory.wait_for_release(server)
        assert gpus.asked > 1
        before = gpu_memory.Before(gpu_memory.read_gpus(server), {})
        loaded = gpu_memory.Loaded(before, gpu_memory.Readings())
        assert gpu_memory.measure(server, loaded) is None, "nobody knows what it took"


def test_an_outage_is_no_longer_than_the_memory_needs_that_is_known_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_memory, "FRESH", 60.0)
    monkeypatch.setattr(gpu_memory, "LONGEST", 60.0)
    monkeypatch.setattr(gpu_memory, "_POLL", 0.01)
    used = iter([70, 70, 70, 45, 41])
    with FakeGpus(lambda: next(used) * GIB) as gpus:
        server = TritonServer(URL, 5, metrics_url=gpus.url)
        enough = gpu_memory.free_without(server, {GPU: 30 * GIB})
        gpu_memory.wait_for_release(server, enough)
        assert gpus.asked == 5, "43 of the 80 GiB are to be used at most"
    assert gpu_memory.free_without(server, {GPU: 30 * GIB}) is None, "it is not known any more"


def test_models_of_a_list_take_the_room_of_those_before_them(
    triton: MemoryTriton, sources: dict[int, str]
) -> None:
    wanted = [{"name": name, "model_uri": sources[1]} for name in ("one", "two")]
    with FakeGpus(free(1500)) as gpus:
        first, second = deliver(triton, *wanted, check=True, metrics_url=gpus.url)
    assert not first.warnings
    (said,) = second.warnings
    assert f"it may not fit: GPU {GPU} of {URL} has 500 bytes free" in said
    assert "swap" not in said


def test_where_not_even_one_fits_the_option_is_no_remedy(
    triton: MemoryTriton, sources: dict[int, str]
) -> None:
    with FakeGpus(Memory(triton, 4)) as gpus:
        served_first(triton, sources, metrics_url=gpus.url)
    (Path(sources[2]) / "1/model.py").write_text("#" * 2000)
    with FakeGpus(free(100)) as gpus:
        wanted = {"name": "m", "model_uri": sources[2], "swap": "unload_first"}
        (planned,) = deliver(triton, wanted, check=True, metrics_url=gpus.url)
    (said,) = planned.warnings
    assert said.endswith("needs about 2.0 KiB, and unloading the old one frees 4 bytes")


def test_room_for_a_second_copy_is_not_asked_for_where_there_is_none() -> None:
    options = {"name": "m", "model_uri": "models:/m/1", "swap": "unload_first"}
    with pytest.raises(InvalidOption, match="verify_aside needs room for a second copy"):
        DesiredModel.from_options({**options, "verify_aside": True})


# -- in turn ---------------------------------------------------------------------------------------


def test_what_does_not_fit_beside_others_of_the_list_goes_in_turn() -> None:
    with FakeGpus(free(50 * GIB)) as gpus:
        server = TritonServer(URL, 5, metrics_url=gpus.url)
        room = GpuRoom([server])
        begun, may_end = threading.Event(), threading.Event()
        seen: list[str] = []

        def load(name: str, size: int) -> None:
            with room.reserve({server.url: {GPU: size}}) as share:
                seen.append(f"{name} begins{' alone' * share.alone}")
                begun.set()
                if name == "first":
                    assert may_end.wait(PATIENCE)
                seen.append(f"{name} ends")

        first = threading.Thread(target=load, args=("first", 30 * GIB), daemon=True)
        first.start()
        assert begun.wait(PATIENCE)
        load("small", 20 * GIB)
        large = threading.Thread(target=load, args=("large", 40 * GIB), daemon=True)
        asked = gpus.asked
        large.start()
        while gpus.asked == asked:
            assert large.is_alive()
        may_end.set()
        for thread in (first, large):
            thread.join(PATIENCE)
    assert seen == [
        "first begins alone",
        "small begins",
        "small ends",
        "first ends",
        "large begins alone",
        "large ends",
    ]


def test_what_fits_nowhere_is_tried_all_the_same() -> None:
    with FakeGpus(free(1)) as gpus:
        server = TritonServer(URL, 5, metrics_url=gpus.url)
        with GpuRoom([server]).reserve({server.url: {GPU: GIB}}) as share:
            assert share.alone


def test_a_record_whose_measures_are_of_no_use_is_read(
    triton: MemoryTriton, sources: dict[int, str]
) -> None:
    served_first(triton, sources)
    with delivery_to(triton) as delivery:
        record = delivery.record("m")
    assert record is not None
    data = json.loads(json.dumps(record.to_dict()))
    del data["gpu_memory"]
    assert Record.from_dict(data) == record
    for damaged in ("much", None, {URL: 7}, {URL: {GPU: "all of it"}}):
        read = Record.from_dict({**data, "gpu_memory": damaged})
        assert taken_by(read, URL) is None


def test_servers_of_one_repository_take_their_outages_in_turn(
    triton: MemoryTriton, sources: dict[int, str]
) -> None:
    """While one is without the model, the other serves."""
    served_first(triton, sources)
    with delivery_to(triton) as delivery:
        (planned,) = delivery.deliver(
            [DesiredModel.from_options({"name": "m", "model_uri": sources[2]})], check=True
        )
    plan = planned.plan
    assert plan is not None
    (one,) = plan.observed.served
    both = (one, replace(one, url="b"))
    steps = tuple(
        replace(step, servers=(one.url, "b")) if isinstance(step, Load) else step
        for step in plan.steps
    )
    desired = replace(plan.desired, swap="unload_first")
    observed = replace(plan.observed, served=both)
    chosen = choose(replace(plan, desired=desired, observed=observed, steps=steps), {}, False)
    order = [
        (type(step).__name__, *step.servers)
        for step in chosen.steps
        if isinstance(step, (Load, Unload))
    ]
    assert order == [("Unload", URL), ("Load", URL), ("Unload", "b"), ("Load", "b")]
