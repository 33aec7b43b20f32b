# SPDX-License-Identifier: Apache-2.0
"""``swap: unload_first`` on a real server: the old deployment goes when all else is in place, and
comes back where the new one fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import replacement
from support import models
from support.bench import VERIFY, Bench, new_bench
from support.deliveries import deliver_models
from support.gpu_metrics import FakeGpus, free

ASKED = {"inputs": {"x": [[1.0, 2.5, -4.0]]}, "outputs": {"y": [[2.0, 5.0, -8.0]]}}
FIRST: dict[str, Any] = {"swap": "unload_first", "verify": VERIFY}
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of"
    " which 3.10 GiB is free."
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with new_bench(tmp_path_factory.mktemp("swap") / "bench") as made:
        yield made


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """A model that is served, its verification in its record."""
    if shared.record() is None or shared.identity() != 1:
        shared.good(model_uri=shared.source(1), verify=VERIFY)
    assert shared.identity() == 1
    return shared


def told(bench: Bench, begin: int) -> list[str]:
    """What the server did from there on in its log, in order."""
    found = re.findall(r"(loading|successfully unloaded)[: ]", bench.triton.log_text()[begin:])
    return ["load" if one == "loading" else "unload" for one in found]


def now(bench: Bench) -> int:
    return len(bench.triton.log_text())


def test_the_old_one_is_unloaded_when_all_else_is_in_place_and_can_be_gone_back_to_likewise(
    bench: Bench,
) -> None:
    begin = now(bench)
    done = bench.good(model_uri=bench.source(2), **FIRST)
    assert done.plan is not None
    assert done.plan.actions[1:4] == [
        (
            f"unload the old one from {bench.triton.url} before the new one is loaded"
            " (swap is unload_first)"
        ),
        f"load on {bench.triton.url}",
        "verify by an inference",
    ]
    assert told(bench, begin) == ["unload", "load"]
    assert done.to_dict()["swap"] == "unload_first"
    assert "swap: unload_first" in done.to_dict()["diff"]["after"]
    bench.check_agreement(2)
    assert bench.good(model_uri=bench.source(2), swap="unload_first").changed is False
    begin = now(bench)
    bench.good(state="rolled_back", swap="unload_first")
    assert told(bench, begin) == ["unload", "load"]
    bench.check_agreement(1)


@pytest.mark.parametrize(
    "broken", [{"fail": OUT_OF_MEMORY}, {"wrong": True}], ids=["load", "verification"]
)
def test_the_old_one_is_loaded_and_proven_again_by_the_run_in_which_the_new_one_fails(
    bench: Bench, broken: dict[str, Any]
) -> None:
    begin = now(bench)
    failed = bench.deliver(model_uri=bench.source(2, **broken), **FIRST)
    text = str(failed.error)
    url = bench.triton.url
    assert f"{url} had unloaded it first, has loaded it again, and it answers" in text, text
    # What failed does not take the memory that the old one needs.
    assert told(bench, begin) == ["unload", "load", *["unload"] * ("wrong" in broken), "load"]
    bench.check_agreement(1)
    if "fail" in broken:
        assert "the GPU's memory is too small for it (it asked for 20.0 GiB)" in text
        assert "swap: unload_first" not in text
        assert text.index("too small") < text.index("Triton answered: ") < text.index("CUDA out of")


def test_out_of_memory_names_what_was_free_and_the_option(bench: Bench) -> None:
    source = bench.source(2, fail=OUT_OF_MEMORY, kind="KIND_AUTO")
    with FakeGpus(free(3 << 30)) as gpus:
        failed = bench.deliver(model_uri=source, target={"metrics_url": gpus.url})
    text = str(failed.error)
    assert "it asked for 20.0 GiB, and 3.0 GiB was free before" in text
    assert "; swap: unload_first unloads the old deployment before" in text
    assert f"is in place as before, and {bench.triton.url} serves version 1" in text
    bench.check_agreement(1)


@pytest.mark.parametrize("how", ["fail", "fail_infer"])
def test_out_of_memory_of_a_candidate_is_said_likewise(bench: Bench, how: str) -> None:
    sample: Any = {how: OUT_OF_MEMORY, "kind": "KIND_AUTO"}
    aside = {"verify": VERIFY, "verify_aside": True}
    with FakeGpus(free(3 << 30)) as gpus:
        target = {"metrics_url": gpus.url}
        failed = bench.deliver(model_uri=bench.source(2, **sample), target=target, **aside)
    text = str(failed.error)
    assert "it asked for 20.0 GiB, and 3.0 GiB was free before" in text
    assert "; swap: unload_first without verify_aside unloads the old deployment" in text
    bench.check_agreement(1)


def test_what_can_be_refused_is_refused_before_the_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = now(bench)
    bad = bench.deliver(model_uri=bench.source(2, config='backend: "python"\nmax_bach: 8'), **FIRST)
    assert "max_bach" in str(bad.error)

    def lost(*_arguments: Any) -> None:
        raise ArtifactError("the artifact cannot be fetched", step="download")

    monkeypatch.setattr(replacement, "_fetch", lost)
    lacking = bench.deliver(model_uri=bench.source(2), **FIRST)
    assert "cannot be fetched" in str(lacking.error)
    assert told(bench, begin) == []
    bench.check_agreement(1)


def test_what_stays_unloaded_is_said_and_the_run_that_is_named_loads_it(
    shared: Bench, tmp_path: Path
) -> None:
    shared.wipe()
    flag = tmp_path / "no-memory"
    old = shared.sample(1)
    program = old.folder / "1/model.py"
    program.write_text(
        f"import os\nif os.path.exists({str(flag)!r}):\n    raise RuntimeError('no room')\n"
        + program.read_text()
    )
    shared.good(model_uri=str(old.folder), verify=VERIFY)
    flag.touch()
    failed = shared.deliver(model_uri=shared.source(2, fail="no room for this"), **FIRST)
    text = str(failed.error)
    said = (
        rf"{shared.triton.url} had unloaded it first, and it stays unloaded there \(.*no room.*\);"
        rf" a run that asks for (\S+) loads it"
    )
    found = re.search(said, text)
    assert found and "no server serves it" in text, text
    assert shared.identity() is None
    flag.unlink()
    shared.good(model_uri=found[1])
    shared.check_agreement(1)


def test_a_change_that_triton_applies_in_place_needs_no_outage(bench: Bench) -> None:
    record = bench.record()
    assert record is not None
    source, begin = record.model_uri, now(bench)
    groups = {"instance_group": [{"kind": "KIND_CPU", "count": 2}]}
    done = bench.good(model_uri=source, config=groups, **FIRST)
    assert done.changed and done.to_dict()["swap"] is None
    assert "unload" not in told(bench, begin)
    bench.good(model_uri=source, **FIRST)


def test_users_of_a_model_that_was_unloaded_first_answer_again(shared: Bench) -> None:
    shared.wipe()
    members = {number: shared.sample(number, "member") for number in (1, 2)}
    shared.folder.joinpath("ensembles").mkdir(exist_ok=True)
    ensemble = models.make_ensemble(shared.folder / "ensembles", "user", [members[1]])
    wanted = [{"name": one.name, "model_uri": str(one.folder)} for one in (members[1], ensemble)]
    for result in deliver_models(shared.target, wanted):
        assert result.error is None, str(result.error)
    assert shared.triton.infer("user", ensemble.request())[0] == 200
    done = shared.deliver(name="member", model_uri=str(members[2].folder), **FIRST)
    assert done.error is None, str(done.error)
    assert shared.triton.infer("user", ensemble.request())[0] == 200
    assert shared.identity("member") == 2
    config = ensemble.folder / "config.pbtxt"
    config.write_text(config.read_text() + 'parameters { key: "n" value { string_value: "2" } }')
    changed = shared.deliver(name="user", model_uri=str(ensemble.folder), swap="unload_first")
    assert changed.changed and changed.to_dict()["swap"] is None, "it has no memory of its own"
    broken = shared.deliver(
        name="member", model_uri=shared.source(3, "member", fail="no room"), **FIRST
    )
    assert broken.error is not None
    assert shared.identity("member") == 2
    assert shared.triton.infer("user", ensemble.request())[0] == 200
