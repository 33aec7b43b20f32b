# SPDX-License-Identifier: Apache-2.0
"""Registry versions side by side, on a real MLflow and a real Triton."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.deliveries import deploy_model, publish_model, target_of
from support.models import Sample, make_python
from support.servers import MLflow, Triton


def publish_sides(mlflow: MLflow, folder: Path, versions: range, **knobs: Any) -> list[Sample]:
    samples = []
    for version in versions:
        sample = make_python(folder / f"{version}", "sides", identity=version, **knobs)
        publish_model(Registry(mlflow.url, 60), "sides", sample.folder)
        samples.append(sample)
    return samples


class Sides:
    """One model, delivered with ``serve_versions``."""

    def __init__(self, mlflow: MLflow, triton: Triton, sample: Sample) -> None:
        self.target = target_of(triton, mlflow)
        self.triton, self.sample = triton, sample

    def bring(self, **options: Any) -> Result:
        return deploy_model(self.target, "sides", **{"keep": 5, **options})

    def served(self) -> dict[int, int]:
        """Version → identity, of the versions that answer."""
        found = {}
        for version in range(1, 6):
            status, answer = self.triton.infer("sides", self.sample.request(), version=version)
            if status == 200:
                found[version] = answer["outputs"][1]["data"][0]
        return found

    def wait(self, expected: set[int]) -> None:
        until = time.monotonic() + 20
        while {
            row["version"]
            for row in self.triton.index()
            if row["name"] == "sides" and row.get("state") == "READY"
        } != {str(version) for version in expected}:
            assert time.monotonic() < until, self.triton.index()
            time.sleep(0.05)


def test_versions_come_and_go_and_the_others_are_left_alone(
    tmp_path: Path, mlflow: MLflow, triton: Triton
) -> None:
    samples = publish_sides(mlflow, tmp_path, range(1, 5))
    sides = Sides(mlflow, triton, samples[0])
    sides.bring(model_uri="models:/sides/1", serve_versions=2)
    first = triton.stub_pids("sides")
    stop, failed, counted = threading.Event(), [], [0]

    def ask() -> None:
        while not stop.is_set():
            status, answer = triton.infer("sides", samples[0].request())
            counted[0] += 1
            if status != 200:
                failed.append(answer)

    client = threading.Thread(target=ask)
    client.start()
    try:
        added = sides.bring(model_uri="models:/sides/2", serve_versions=2)
        assert added.record and added.record.triton_versions == (1, 2)
        assert set(first) <= set(triton.stub_pids("sides"))
        assert sides.served() == {1: 1, 2: 2}
        again = sides.bring(model_uri="models:/sides/2", serve_versions=2)
        assert not again.changed
        second = set(triton.stub_pids("sides")) - set(first)
        third = sides.bring(model_uri="models:/sides/3", serve_versions=2)
        assert third.plan and "retire version 1" in third.plan.actions[0]
        sides.wait({2, 3})
        assert sides.served() == {2: 2, 3: 3} and second <= set(triton.stub_pids("sides"))
        back = sides.bring(state="rolled_back")
        sides.wait({1, 2})
        assert back.record and back.record.registry_version == 2 and sides.served() == {1: 1, 2: 2}
        assert (
            second <= set(triton.stub_pids("sides"))
            and not sides.bring(state="rolled_back").changed
        )
        sides.bring(model_uri="models:/sides/4", serve_versions=2)
        sides.wait({2, 4})
        sides.bring(model_uri="models:/sides/2", serve_versions=2)
        sides.wait({2})
        assert sides.served() == {2: 2}
        sides.bring(model_uri="models:/sides/4", serve_versions=3)
        sides.wait({2, 4})
        sides.bring(model_uri="models:/sides/4")
        sides.wait({4})
    finally:
        stop.set()
        client.join()
    assert counted[0] > 100 and not failed, failed[:3]
    with Delivery(sides.target) as delivery:
        assert delivery.status(["sides"])[0]["drift"] == []
    triton.restart()
    assert sides.served() == {4: 4}
    sides.bring(state="absent")
    assert not (triton.repository / "sides").exists()


def test_a_bad_version_does_not_disturb_those_beside_it(
    tmp_path: Path, mlflow: MLflow, triton: Triton
) -> None:
    samples = publish_sides(mlflow, tmp_path, range(1, 2))
    sides = Sides(mlflow, triton, samples[0])
    sides.bring(model_uri="models:/sides/1", serve_versions=2)
    pids = triton.stub_pids("sides")
    publish_sides(mlflow, tmp_path / "bad", range(7, 8), fail="no good")
    with Delivery(sides.target) as delivery:
        wanted = DesiredModel.from_options(
            {"name": "sides", "model_uri": "models:/sides/latest", "serve_versions": 2}
        )
        latest = delivery.deliver([wanted])[0]
    assert (
        latest.error
        and "no good" in str(latest.error)
        and "is in place as before" in str(latest.error)
    )
    assert sides.served() == {1: 1} and triton.stub_pids("sides") == pids
    assert not sides.bring(model_uri="models:/sides/1", serve_versions=2).changed
    sides.bring(state="absent")
