# SPDX-License-Identifier: Apache-2.0
"""What vLLM is told by a file that is here already is judged like what comes: in a retained copy,
in a version that stays, and in a member that an ensemble calls.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import PolicyRefused
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    FolderRepository,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.kept import (
    kept_text,
)

pytest.importorskip("tritonclient")

from support.memory_triton import MemoryTriton

CONFIG = (
    'backend: "vllm"\ninstance_group { kind: KIND_MODEL }\n'
    'input { name: "x" data_type: TYPE_FP32 dims: 1 }\n'
    'output { name: "y" data_type: TYPE_FP32 dims: 1 }\n'
)
ENSEMBLE = (
    'platform: "ensemble"\ninput { name: "x" data_type: TYPE_FP32 dims: 1 }\n'
    'output { name: "y" data_type: TYPE_FP32 dims: 1 }\n'
    'ensemble_scheduling { step { model_name: "chat" model_version: -1'
    ' input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } }\n'
)
RULE = {"allowed_backends": ["vllm", "ensemble"]}
CODE = {"model": "some/model", "trust_remote_code": True}


@pytest.fixture
def triton(tmp_path: Path) -> MemoryTriton:
    (tmp_path / "models").mkdir()
    return MemoryTriton(tmp_path / "models")


def deliver(triton: MemoryTriton, *wanted: dict[str, Any], **policy: Any) -> Result:
    options = {"model_repository": str(triton.repository), "triton_url": "localhost:8000", **policy}
    with Delivery(Target.from_options(options)) as delivery:
        delivery.servers[0].transport = cast(Any, triton)
        return delivery.deliver([DesiredModel.from_options(one) for one in wanted])[0]


def chat(triton: MemoryTriton, name: str, settings: dict[str, Any], version: int = 1) -> str:
    folder = triton.repository.parent / name
    (folder / str(version)).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / f"{version}/model.json").write_text(json.dumps(settings))
    return str(folder)


def good(triton: MemoryTriton, *wanted: dict[str, Any], **policy: Any) -> None:
    done = deliver(triton, *wanted, **policy)
    assert done.error is None, str(done.error)


def refused(done: Result, *words: str) -> None:
    assert isinstance(done.error, PolicyRefused), str(done.error)
    for word in (*words, "1/model.json has 'trust_remote_code'"):
        assert word in str(done.error)
    assert not done.changed


def test_of_what_is_rolled_back_to(triton: MemoryTriton) -> None:
    sound = {"model": "some/model"}
    good(triton, {"name": "chat", "model_uri": chat(triton, "one", CODE)})
    good(triton, {"name": "chat", "model_uri": chat(triton, "two", sound)})
    back = {"name": "chat", "state": "rolled_back"}
    refused(deliver(triton, back, **RULE))
    assert json.loads((triton.repository / "chat/1/model.json").read_text()) == sound
    good(triton, back)


def test_what_is_sound_may_come_back(triton: MemoryTriton) -> None:
    for name in ("one", "two"):
        good(triton, {"name": "chat", "model_uri": chat(triton, name, {"model": f"some/{name}"})})
    good(triton, {"name": "chat", "state": "rolled_back"}, **RULE)
    assert "some/one" in (triton.repository / "chat/1/model.json").read_text()


def test_of_a_version_that_stays(triton: MemoryTriton) -> None:
    good(triton, {"name": "chat", "model_uri": chat(triton, "one", CODE)})
    there, policy = FolderRepository(str(triton.repository)), Policy(("vllm",))
    record = there.store.record("chat")
    assert record is not None

    def judge(one: Record, config: bytes) -> None:
        paths = [file["path"] for file in one.manifest["files"]]
        policy.check_settings(config, paths, lambda path: kept_text(there, one, path))

    with pytest.raises(PolicyRefused) as found:
        policy.check_staying(record, CONFIG.encode(), [1], judge)
    assert "of version 1, which stays beside it: 1/model.json has 'trust_remote" in str(found.value)
    (triton.repository / "chat/1/model.json").write_text("{}")  # what is judged is what came
    assert kept_text(there, record, "1/model.json") is None


def test_of_a_member_that_an_ensemble_calls(triton: MemoryTriton) -> None:
    good(triton, {"name": "chat", "model_uri": chat(triton, "one", CODE)})
    folder = triton.repository.parent / "both"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(ENSEMBLE)
    both = {"name": "both", "model_uri": str(folder)}
    refused(deliver(triton, both, **RULE), "its member 'chat' is deployed, and is refused itself")
    good(triton, both)
