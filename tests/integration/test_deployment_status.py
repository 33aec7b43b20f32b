# SPDX-License-Identifier: Apache-2.0
"""What a real registry shows of deployments on a real Triton, as told by option registry_status."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import effects
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.batch import (
    publish,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.models import make_python
from support.servers import MLflow, Triton, free_ports

WRITES = ("set tag", "delete tag", "describe version")
PROSE = "Finds *fraud*.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"


class Told:
    """Deliveries of one model, and what the registry shows of it."""

    def __init__(self, folder: Path, name: str, mlflow: MLflow, triton: Triton) -> None:
        self.folder, self.name = folder, name
        self.registry = Registry(mlflow.url, 60)
        self.target: dict[str, Any] = {
            "model_repository": str(triton.repository),
            "triton_url": triton.url,
            "tracking_uri": mlflow.url,
            "registry_status": "one",
            "timeout": 60,
        }
        self.writes: list[str] = []

    def publish(self, identity: int, **options: Any) -> None:
        sample = make_python(self.folder / str(identity), self.name, identity=identity)
        (done,) = publish(
            self.registry, [{"name": self.name, "path": str(sample.folder), **options}]
        )
        assert done.error is None, str(done.error)

    def deliver(
        self, check: bool = False, model: dict[str, Any] | None = None, **target: Any
    ) -> Result:
        self.writes = []
        wanted = DesiredModel.from_options(
            {"name": self.name, "model_uri": f"models:/{self.name}/latest", **(model or {})}
        )
        with (
            effects.observe(self._seen),
            Delivery(Target.from_options({**self.target, **target})) as delivery,
        ):
            (result,) = delivery.deliver([wanted], check=check)
        assert result.error is None, str(result.error)
        return result

    def _seen(self, moment: str, kind: str, subject: str) -> None:
        if moment == "after" and kind in WRITES:
            self.writes.append(f"{kind} {subject}")

    def changes(self, **model: Any) -> None:
        """A check run, a real one that does what the first said, and one that has nothing to do."""
        checked = self.deliver(check=True, model=model)
        assert self.writes == []
        done = self.deliver(model=model)
        assert done.changed and self.writes and done.reported == checked.reported
        assert done.to_dict()["actions"] == checked.to_dict()["actions"]
        again = self.deliver(model=model)
        assert not again.changed and self.writes == []

    def tags(self, version: int) -> dict[str, str]:
        """Target → state."""
        prefix = "triton.deployed/"
        return {
            key.removeprefix(prefix): value.split()[0]
            for key, value in self.registry.version_info(self.name, version).tags.items()
            if key.startswith(prefix)
        }

    def description(self, version: int) -> str:
        return self.registry.version_info(self.name, version).description


@pytest.fixture
def told(tmp_path: Path, mlflow: MLflow, triton: Triton, request: pytest.FixtureRequest) -> Told:
    return Told(tmp_path, f"status-{request.node.name.replace('_', '-')[5:40]}", mlflow, triton)


def test_life_of_a_deployment(told: Told) -> None:
    told.publish(1, description=PROSE)
    told.changes()
    assert told.tags(1) == {"one": "present"}
    assert told.description(1).startswith(PROSE) and "| one | present |" in told.description(1)
    told.publish(1, description=PROSE)
    assert "| one | present |" in told.description(1), "publishing again took the block away"
    told.publish(2)
    told.changes()
    assert (told.tags(1), told.tags(2)) == ({}, {"one": "present"})
    assert told.description(1) == PROSE
    told.changes(state="rolled_back")
    assert (told.tags(1), told.tags(2)) == ({"one": "present"}, {})
    told.changes(state="unloaded", model_uri=None)
    assert told.tags(1) == {"one": "unloaded"} and "| one | unloaded |" in told.description(1)
    told.changes(state="absent")
    assert (told.tags(1), told.tags(2)) == ({}, {}) and told.description(1) == PROSE


def test_targets_that_report_at_once(told: Told) -> None:
    told.publish(1, description=PROSE)
    told.deliver()
    targets = [f"target-{number}" for number in range(4)]
    threads = [
        threading.Thread(target=told.deliver, kwargs={"registry_status": target})
        for target in targets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(told.tags(1)) == {"one", *targets}
    assert [
        line.split()[1] for line in told.description(1).splitlines() if " present " in line
    ] == ["one", *targets]
    told.changes(state="absent")
    assert set(told.tags(1)) == set(targets) and told.description(1).startswith(PROSE)


def test_a_registry_that_does_not_answer_fails_no_deployment(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # as in the modules
    told.publish(1)
    told.deliver()
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    for expected in (True, False):
        result = told.deliver(model={"state": "unloaded", "model_uri": None}, registry_uri=nobody)
        assert result.changed == expected
        assert [
            text
            for text in result.warnings
            if "its deployment status is not in the registry" in text
        ]
    assert told.tags(1) == {"one": "present"}
    assert told.deliver(model={"state": "unloaded", "model_uri": None}).changed
    assert told.tags(1) == {"one": "unloaded"}
    told.deliver(model={"state": "absent"})
