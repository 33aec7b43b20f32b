# SPDX-License-Identifier: Apache-2.0
"""The README's playbook, word for word, and what its tables say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from support.models import make_onnx
from support.modules import publish_by_module
from support.playbooks import ROOT, run_playbook, run_task
from support.servers import MLflow, Triton

pytestmark = pytest.mark.takes(75)

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_example_playbook_changes_once(tmp_path: Path, mlflow: MLflow, triton: Triton) -> None:
    plays = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(plays) == 1
    sample = make_onnx(tmp_path, "sid-minibert-onnx")
    published = publish_by_module(mlflow, sample.name, sample.folder, aliases=["champion"])
    assert published["changed"], published
    folder = tmp_path / "play"
    folder.mkdir()
    (folder / "inventory.ini").write_text(
        "\n".join(
            [
                "[triton]",
                "localhost ansible_connection=local",
                "[triton:vars]",
                f"mlflow_tracking_uri={mlflow.url}",
                f"triton_url={triton.url.removeprefix('http://')}",
                f"triton_model_repository={triton.repository}",
                f"triton_client_python={sys.executable}",
            ]
        ),
        encoding="utf-8",
    )
    first, second = run_playbook(folder, plays[0]), run_playbook(folder, plays[0])
    assert re.search(r"changed=1 .*failed=0", first.output), first.output
    assert re.search(r"changed=0 .*failed=0", second.output), second.output
    assert not sample.differences(triton.infer(sample.name, sample.request())[1])


def test_tables_name_what_there_is() -> None:
    modules = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
    playbooks = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    named = set(re.findall(r"`([a-z_]+)`", README))
    assert modules <= named and playbooks <= named
    assert {path.name for path in (ROOT / "roles").iterdir() if path.is_dir()} <= named
    options = {
        "tracking_uri",
        "triton_url",
        "model_repository",
        "state_dir",
        "lock_timeout",
        "timeout",
        "load_timeout",
        "load_url",
        "admin_key",
        "ca_file",
        "client_cert",
        "client_key",
        "server_log",
    }
    fragment = (ROOT / "plugins" / "doc_fragments" / "model.py").read_text(encoding="utf-8")
    shown = named | {"name", "alias", "flavor"}
    assert options | set(re.findall(r"^  ([a-z_]+):$", fragment, re.MULTILINE)) <= shown
    targets = set(
        re.findall(
            r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert set(re.findall(r"make ([a-z-]+)\b", README)) - {"and"} <= targets


def test_deploy_models_pins_and_the_record_keeps_the_alias(
    tmp_path: Path, mlflow: MLflow, triton: Triton
) -> None:
    sample = make_onnx(tmp_path, "pinned")
    publish_by_module(mlflow, "pinned", sample.folder, aliases=["champion"])
    (tmp_path / "inventory.ini").write_text(
        "\n".join(
            [
                "[triton]",
                f"localhost ansible_connection=local ansible_python_interpreter={sys.executable!r}",
            ]
        ),
        encoding="utf-8",
    )
    (tmp_path / "values.json").write_text(
        json.dumps(
            {
                "mlflow_tracking_uri": mlflow.url,
                "triton_url": triton.url.removeprefix("http://"),
                "triton_model_repository": str(triton.repository),
                "triton_client_python": sys.executable,
                "triton_models": [{"name": "pinned", "model_uri": "models:/pinned@champion"}],
            }
        ),
        encoding="utf-8",
    )
    runs = [
        run_playbook(tmp_path, ROOT / "playbooks" / "deploy_models.yml", "-e", "@values.json")
        for dummy in range(2)
    ]
    assert [re.findall(r"changed=(\d)", run.output) for run in runs] == [["1"], ["0"]], (
        runs[0].output + runs[1].output
    )
    info = run_task(
        tmp_path,
        "triton_model_info",
        {
            "triton_url": triton.url.removeprefix("http://"),
            "model_repository": str(triton.repository),
            "names": ["pinned"],
        },
    )
    assert (info["models"][0]["model_uri"], info["models"][0]["alias"]) == (
        "models:/pinned@champion",
        "champion",
    )
