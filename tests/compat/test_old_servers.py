# SPDX-License-Identifier: Apache-2.0
"""Publishing to an old MLflow server, and deploying from it: with the new client, and with the
server's own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication import (
    upload_location,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.batch import (
    publish,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support import servers
from support.deliveries import deploy_model
from support.models import make_forest, make_onnx

pytest.importorskip("mlflow")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MLflow]:
    python = servers.server_python("OLD_MLFLOW_PYTHON", "mlflow-server")
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow"), python=python) as running:
        yield running


def test_publish_again_change_and_read(server: servers.MLflow, tmp_path: Path) -> None:
    registry = Registry(server.url, 60)
    sample = make_onnx(tmp_path, "old", external_data=True)
    options: dict[str, Any] = {
        "name": "old",
        "path": str(sample.folder),
        "aliases": ["champion"],
        "tags": {"a": "b"},
        "input_example": {"x": [[1.0, 2.0, 3.0]]},
    }
    first, again = (publish(registry, [options])[0] for _time in range(2))
    assert first.error is None, str(first.error)
    assert (first.changed, again.changed) == (True, False)
    other = make_onnx(tmp_path / "other", "old", bias=(1.0, 2.0))
    changed = publish(registry, [{**options, "path": str(other.folder)}])[0]
    assert changed.published and changed.published.version == 2
    files = registry.files(registry.resolve(parse_model_uri("models:/old@champion")))
    assert [file.path for file in files.list()] == [
        "MLmodel",
        "input_example.json",
        "old/1/model.onnx",
        "old/config.pbtxt",
        "serving_input_example.json",
        "triton-manifest.json",
    ]
    assert registry.model_info("old").versions[0].tags["a"] == "b"


def test_the_servers_own_client_reads_it(server: servers.MLflow, tmp_path: Path) -> None:
    done = publish(
        Registry(server.url, 60),
        [
            {
                "name": "own",
                "path": str(make_forest(tmp_path, "own").folder),
                "input_example": {"input__0": [[1.0, 2.0, 3.0, 4.0]]},
            }
        ],
    )[0]
    assert done.error is None, str(done.error)
    program = (
        "import json, sys, mlflow\nmlflow.set_tracking_uri(sys.argv[1])\ninfo ="
        " mlflow.models.get_model_info('models:/own/1')\npath ="
        " mlflow.artifacts.download_artifacts('models:/own/1')\nexample ="
        " mlflow.models.Model.load(path).load_input_example(path)\nprint(json.dumps([info.flavors['triton']['backend'],"  # noqa: E501
        " info.signature.inputs.input_names(), example]))"
    )
    run = subprocess.run(
        [str(server.python), "-c", program, server.url], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [
        "fil",
        ["input__0"],
        {"input__0": [[1.0, 2.0, 3.0, 4.0]]},
    ]


def test_deploying_from_it(server: servers.MLflow, tmp_path: Path) -> None:
    samples = [
        make_onnx(tmp_path / str(number), "served", bias=(float(number), 0.0)) for number in (1, 2)
    ]
    for sample in samples:
        done = publish(
            Registry(server.url, 60),
            [{"name": "served", "path": str(sample.folder), "aliases": ["champion"]}],
        )[0]
        assert done.error is None, str(done.error)
    with servers.triton_server(tmp_path / "triton") as triton:
        target = Target(
            str(triton.repository),
            servers=(triton.url,),
            tracking_uri=server.url,
            timeout=60,
            registry_status="old.example.org",
        )

        def deliver(**options: Any) -> bool:
            return deploy_model(target, "served", **options).changed

        for uri, sample in (
            ("models:/served/1", samples[0]),
            ("models:/served@champion", samples[1]),
        ):
            assert deliver(model_uri=uri)
            assert not deliver(model_uri=uri)
            assert not sample.differences(triton.infer("served", sample.request())[1])
        assert deliver(state="rolled_back")
        assert not samples[0].differences(triton.infer("served", samples[0].request())[1])
        first, second = (
            Registry(server.url, 60).version_info("served", version) for version in (1, 2)
        )
        assert (
            first.tags["triton.deployed/old.example.org"].startswith("present since ")
            and "| old.example.org |" in first.description
        )
        assert (
            not [key for key in second.tags if "deployed" in key]
            and "old.example.org" not in second.description
        )


def test_what_a_killed_publisher_left(server: servers.MLflow, tmp_path: Path) -> None:
    """In MLflow 2 the files of a version lie in a run."""
    registry = Registry(server.url, 60)
    path = str(make_onnx(tmp_path, "killed").folder)
    program = (
        f"import sys\nsys.path.insert(0, {str(ROOT / '.dev')!r})\nfrom {upload_location.__name__}"
        f" import make_location\nfrom {Registry.__module__} import"
        f" Registry\nprint(make_location(Registry({server.url!r}, 60), 'killed', None)[0].run_id)"
    )
    begun = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    assert registry.client.get_run(begun).info.status == "RUNNING"
    done = publish(registry, [{"name": "killed", "path": path}])[0]
    assert done.published and done.published.version == 1
    assert "interrupted" in done.warnings[0]
    run = registry.client.get_run(begun).info
    assert (run.status, run.lifecycle_stage) == ("FAILED", "deleted")
