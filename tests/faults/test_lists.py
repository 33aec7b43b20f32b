# SPDX-License-Identifier: Apache-2.0
"""A list of 20 with one that fails in its middle, each kind of failure once: the other 19 are
deployed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.journal import (
    begun_load,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import LoadPending
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support import models
from support.bench import NAME, VERIFY, Bench
from support.deliveries import artifact_folder, deliver_models, publish_model
from support.fault_proxy import FaultProxy
from support.rows import Row
from support.servers import MLflow, mlflow_server

pytest.importorskip("mlflow")

pytestmark = pytest.mark.takes(100)
COUNT = 20
MIDDLE = 10
WEIGHTS = 200_000


@pytest.fixture(scope="module")
def mlflow(base: Path) -> Iterator[MLflow]:
    with mlflow_server(base / "mlflow-of-lists") as server:
        yield server


@pytest.fixture(scope="module")
def proxy(mlflow: MLflow) -> Iterator[FaultProxy]:
    with FaultProxy(mlflow.url) as made:
        yield made


@dataclass
class Case:
    """The failing model of one list: its options, those of the run, and words of its error."""

    words: str
    options: dict[str, Any]
    target: dict[str, Any] = field(default_factory=dict)
    during: Callable[[Bench], Any] | None = None


def others(bench: Bench) -> list[dict[str, Any]]:
    """Three models that run and sixteen ensembles of them, the users first."""
    members = [bench.sample(number + 20, f"member-{number}") for number in range(3)]
    folder = bench.folder / "sources" / "ensembles"
    shutil.rmtree(folder, ignore_errors=True)
    ensembles = [
        models.make_ensemble(folder, f"ensemble-{number:02d}", [members[number % 3]])
        for number in range(COUNT - 4)
    ]
    return [
        {"name": sample.name, "model_uri": str(sample.folder)} for sample in [*ensembles, *members]
    ]


def published(bench: Bench, mlflow: MLflow, name: str, **options: Any) -> Path:
    """Publish a model with weights; returns where its folder lies behind the server."""
    sample = bench.sample(2, **options)
    (sample.folder / "1" / "weights.bin").write_bytes(b"\2" * WEIGHTS)
    _plan, made = publish_model(Registry(mlflow.url, 30), name, sample.folder)
    return artifact_folder(mlflow, made) / NAME


def unknown_version(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    published(bench, mlflow, "version-of-list")
    return Case("has no version 9", {"model_uri": "models:/version-of-list/9"})


def unknown_alias(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    published(bench, mlflow, "alias-of-list")
    return Case("has no alias 'champion'", {"model_uri": "models:/alias-of-list@champion"})


def truncated(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    published(bench, mlflow, "truncated-of-list")
    proxy.fault, proxy.only, proxy.after = "cut", "weights.bin HTTP", WEIGHTS // 2
    return Case("weights.bin", {"model_uri": "models:/truncated-of-list/1"})


def silent(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    published(bench, mlflow, "silent-of-list")
    proxy.fault, proxy.only = "silent", "weights.bin HTTP"
    return Case(
        "less than 1 KiB came within 6 s", {"model_uri": "models:/silent-of-list/1"}, {"timeout": 6}
    )


def changed_bytes(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    target = published(bench, mlflow, "changed-of-list")
    (target / "1" / "weights.bin").write_bytes(b"\3" * WEIGHTS)
    return Case("is not what was published", {"model_uri": "models:/changed-of-list/1"})


def bad_configuration(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    return Case(
        "max_bach_size",
        {"model_uri": bench.source(2, config='backend: "python"\nmax_bach_size: 8')},
    )


def no_folder(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    return Case("does not exist", {"model_uri": str(bench.folder / "nowhere")})


def fails_to_load(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    return Case("no weights for you", {"model_uri": bench.source(2, fail="no weights for you")})


def answers_wrongly(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    return Case("output 'y'", {"model_uri": bench.source(2, wrong=True), "verify": VERIFY})


def foreign(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    bench.good(state="absent")
    shutil.copytree(bench.sample(1).folder, bench.repository / NAME)
    assert bench.triton.load(NAME)[0] == 200
    return Case("did not deploy", {"model_uri": bench.source(2)})


def too_large(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    published(bench, mlflow, "large-of-list")
    return Case(
        "max_size allows 100000", {"model_uri": "models:/large-of-list/1"}, {"max_size": "100KB"}
    )


def locked(bench: Bench, mlflow: MLflow, proxy: FaultProxy) -> Case:
    held = bench.store.lock(NAME, 1)

    def hold(_bench: Bench) -> Any:
        held.__enter__()
        return held

    return Case("has been changing it", {"model_uri": bench.source(2)}, {"lock_timeout": 0.5}, hold)


CASES = (
    unknown_version,
    unknown_alias,
    truncated,
    silent,
    changed_bytes,
    bad_configuration,
    no_folder,
    fails_to_load,
    answers_wrongly,
    foreign,
    too_large,
    locked,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_failing_middle(
    case: Callable[[Bench, MLflow, FaultProxy], Case],
    bench: Bench,
    mlflow: MLflow,
    proxy: FaultProxy,
    row: Row,
) -> None:
    """list of 20, the middle one fails: {case.__name__}."""
    bench.good(model_uri=bench.source(1))
    wanted = others(bench)
    proxy.clear()
    made = case(bench, mlflow, proxy)
    wanted.insert(MIDDLE, {"name": NAME, **made.options})
    target = {"tracking_uri": proxy.url, **made.target}
    said = {
        result.name: result
        for result in deliver_models({**bench.target, **target}, wanted, check=True)
    }
    held = made.during(bench) if made.during else None
    done = deliver_models({**bench.target, **target}, wanted)
    if held:
        held.__exit__(None, None, None)
    assert [result.name for result in done] == [options["name"] for options in wanted]
    failed = done[MIDDLE]
    assert [result.name for result in done if result.error] == [NAME], [
        str(result.error) for result in done if result.error
    ]
    assert made.words in str(failed.error), str(failed.error)
    assert all(result.changed for result in done if not result.error)
    assert [said[result.name].changed for result in done if not result.error] == [True] * (
        COUNT - 1
    ), "the check run promised it"
    assert bench.identity() == 1, "what was served before is served"
    for options in wanted:
        if options["name"] != NAME:
            assert bench.drift(options["name"]) == []
            assert bench.triton.call(f"v2/models/{options['name']}/ready")[0] == 200
    proxy.clear()
    healed = deliver_models(
        {**bench.target, "tracking_uri": proxy.url},
        [
            *wanted[:MIDDLE],
            {"name": NAME, "model_uri": bench.source(3), "adopt": True},
            *wanted[MIDDLE + 1 :],
        ],
    )
    assert not [str(result.error) for result in healed if result.error]
    assert [result.changed for result in healed] == [number == MIDDLE for number in range(COUNT)]
    assert bench.identity() == 3
    assert bench.left_behind(models_there=tuple(options["name"] for options in wanted)) == []
    row.saw(f"19 are deployed; {failed.error}")


def test_slow_load_in_a_list(bench: Bench, row: Row) -> None:
    """list of 20, the middle one loads longer than load_timeout: the others do not wait for it,
    and the next run waits for it and proves it.
    """
    bench.good(model_uri=bench.source(1))
    wanted = others(bench)
    wanted.insert(MIDDLE, {"name": NAME, "model_uri": bench.source(2, load_delay=30)})
    done = deliver_models({**bench.target, "load_timeout": 20}, wanted)
    assert "was still loading" in str(done[MIDDLE].error)
    assert [
        str(result.error) for number, result in enumerate(done) if result.error and number != MIDDLE
    ] == []
    ended = deliver_models({**bench.target, "load_timeout": 120}, wanted)
    assert not [str(result.error) for result in ended if result.error]
    assert [result.changed for result in ended] == [number == MIDDLE for number in range(COUNT)]
    assert all(bench.drift(options["name"]) == [] for options in wanted)
    assert all(
        bench.triton.call(f"v2/models/{options['name']}/ready")[0] == 200 for options in wanted
    )
    assert bench.identity() == 2
    assert bench.left_behind(models_there=tuple(options["name"] for options in wanted)) == []
    row.saw(f"19 are deployed; {done[MIDDLE].error}")


@pytest.mark.parametrize("again", [True, False])
def test_a_slow_load_in_a_group(again: bool, bench: Bench, row: Row) -> None:
    """members of an ensemble change with it, and one loads longer than load_timeout (asked for
    again: {again}).
    """
    names = ("first", "second", "chain")

    def asked(identity: int, **slow: Any) -> list[dict[str, Any]]:
        members = [bench.sample(identity, "first"), bench.sample(identity, "second", **slow)]
        chain = models.make_ensemble(bench.folder / f"chain-{identity}", "chain", members)
        config = chain.folder / "config.pbtxt"
        note = f'parameters {{ key: "of" value {{ string_value: "{identity}" }} }}\n'
        config.write_text(config.read_text() + note)
        folders = [*(member.folder for member in members), chain.folder]
        return [{"name": name, "model_uri": str(at)} for name, at in zip(names, folders)]

    before, slow = asked(1), asked(2, load_delay=3)
    assert not any(result.error for result in deliver_models(bench.target, before))
    loads = [bench.triton.loads(name) for name in names[:2]]
    done = deliver_models({**bench.target, "load_timeout": 1.5}, slow)
    assert isinstance(done[1].error, LoadPending), repr(done[1].error)
    assert "it waits together with 'second'" in str(done[0].error), str(done[0].error)
    assert all(begun_load(bench.store.journal(name)) for name in names[:2])
    settled = deliver_models(bench.target, slow if again else before)
    assert not any(result.error for result in settled), [str(one.error) for one in settled]
    for name in names[:2]:
        bench.check_agreement_of(name, 2 if again else 1)
    config = bench.served_config("chain")["parameters"]
    assert config["of"]["string_value"] == ("2" if again else "1")
    assert not any(bench.drift(name) for name in names)
    assert bench.left_behind(models_there=names) == []
    more = [bench.triton.loads(name) - n for name, n in zip(names, loads)]
    assert more == ([1, 1] if again else [2, 2]), "one was loaded once too often"
    row.saw(f"{done[0].error}")


def test_all_kinds_at_once(bench: Bench, mlflow: MLflow, proxy: FaultProxy, row: Row) -> None:
    """list with seven failures of different kinds among eight good ones."""
    kinds = (
        unknown_version,
        bad_configuration,
        no_folder,
        fails_to_load,
        answers_wrongly,
        changed_bytes,
        unknown_alias,
    )
    bad = []
    for kind in kinds:
        made = kind(bench, mlflow, proxy)
        target = bench.folder / "kinds" / kind.__name__
        uri = made.options["model_uri"]
        if os.path.isdir(uri):
            shutil.rmtree(target, ignore_errors=True)
            uri = str(shutil.copytree(uri, target))
        bad.append(
            (
                kind.__name__.replace("_", "-"),
                made.words,
                {**made.options, "model_uri": uri, "config": {"name": None}},
            )
        )
    good = others(bench)[8:]
    failing = [{"name": name, **options} for name, _words, options in bad]
    wanted = [options for pair in zip(good, failing) for options in pair] + good[len(bad) :]
    done = {
        result.name: result
        for result in deliver_models(
            {**bench.target, "tracking_uri": mlflow.url, "timeout": 10}, wanted
        )
    }
    assert [name for name, result in done.items() if result.error] == [
        name for name, _words, _options in bad
    ]
    assert all(words in str(done[name].error) for name, words, _options in bad), [
        str(done[name].error) for name, _w, _o in bad
    ]
    assert all(bench.drift(options["name"]) == [] for options in good)
    row.saw("; ".join(type(done[name].error).__name__ for name, _words, _options in bad))


MEASURED = """
import json, resource, sys
sys.path[:0] = json.loads(sys.argv[1])
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import Delivery
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import Target
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import DesiredModel
with Delivery(Target.from_options(json.loads(sys.argv[2]))) as delivery:
    (result,) = delivery.deliver([DesiredModel.from_options(json.loads(sys.argv[3]))])
print(json.dumps({"error": str(result.error or ""), "kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""  # noqa: E501


def test_memory_does_not_grow_with_the_artifact(bench: Bench, mlflow: MLflow, row: Row) -> None:
    """artifact of 300 MiB and of 3 MiB, from a folder and through MLflow."""
    said = []
    for way in ("folder", "MLflow"):
        peaks = []
        for number, size in enumerate((3 << 20, 300 << 20)):
            name = f"memory-{way.lower()}-{number}"
            sample = bench.sample(1, name)
            with open(sample.folder / "1" / "weights.bin", "wb") as stream:
                for _mib in range(size >> 20):
                    stream.write(os.urandom(1 << 10) * 1024)
            uri = str(sample.folder)
            if way == "MLflow":
                publish_model(Registry(mlflow.url, 60), name, sample.folder)
                uri = f"models:/{name}/1"
            arguments = [
                json.dumps(value)
                for value in (
                    sys.path,
                    {**bench.target, "timeout": 60, "tracking_uri": mlflow.url},
                    {"name": name, "model_uri": uri},
                )
            ]
            run = subprocess.run(
                [sys.executable, "-c", MEASURED, *arguments],
                check=True,
                capture_output=True,
                text=True,
            )
            done = json.loads(run.stdout)
            assert not done["error"]
            peaks.append(done["kib"] << 10)
        assert peaks[1] - peaks[0] < 60 << 20, peaks
        said.append(f"{way}: {peaks[0] >> 20} and {peaks[1] >> 20} MiB at the peak")
    row.saw("; ".join(said))
