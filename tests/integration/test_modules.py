# SPDX-License-Identifier: Apache-2.0
"""Each module through ansible-playbook on real servers: check, apply, again, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.models import make_forest, make_onnx, make_python
from support.modules import publish_by_module, run_module
from support.playbooks import run_task
from support.servers import MLflow, Triton

pytestmark = pytest.mark.takes(80)


@pytest.fixture
def target(mlflow: MLflow, triton: Triton) -> dict[str, Any]:
    return {
        "tracking_uri": mlflow.url,
        "triton_url": triton.url.removeprefix("http://"),
        "model_repository": str(triton.repository),
    }


def test_mlflow_publish_check_apply_again_change(tmp_path: Path, mlflow: MLflow) -> None:
    sample = make_onnx(tmp_path / "one", "published")
    options = {
        "name": "published",
        "path": str(sample.folder),
        "tracking_uri": mlflow.url,
        "aliases": ["champion"],
    }
    check = run_task(tmp_path, "mlflow_publish", options, "--check", "--diff")
    apply = run_task(tmp_path, "mlflow_publish", options, "--diff")
    again = run_module("mlflow_publish", options)
    assert [check["changed"], apply["changed"], again["changed"]] == [True, True, False]
    assert check["diff"] == apply["diff"]
    assert apply["model"]["version"] == again["model"]["version"] == 1
    info = run_task(
        tmp_path, "mlflow_model_info", {"names": ["published"], "tracking_uri": mlflow.url}
    )
    assert info["models"][0]["aliases"] == {"champion": 1}
    changed = make_onnx(tmp_path / "two", "published", bias=(9.0, 9.0))
    second = run_module("mlflow_publish", {**options, "path": str(changed.folder)})
    assert second["changed"] and second["model"]["version"] == 2


def test_triton_model_check_apply_again_update_remove(
    tmp_path: Path, mlflow: MLflow, triton: Triton, target: dict[str, Any]
) -> None:
    first, second = (
        make_python(tmp_path / "1", "life", identity=1),
        make_python(tmp_path / "2", "life", identity=2),
    )
    publish_by_module(mlflow, "life", first.folder, aliases=["champion"])
    options = {**target, "name": "life", "model_uri": "models:/life@champion"}

    check = run_task(tmp_path, "triton_model", options, "--check", "--diff")
    assert check["changed"] and not any(row["name"] == "life" for row in triton.index())
    assert not (triton.repository / "life").exists()
    apply = run_task(tmp_path, "triton_model", options, "--diff")
    assert apply["changed"], apply
    assert check["diff"] == apply["diff"] and check["actions"] == apply["actions"]
    assert apply["model"]["registry_version"] == 1 and apply["model"]["triton_versions"] == [1]
    status, answer = triton.infer("life", first.request())
    assert status == 200 and not first.differences(answer)

    loads, pids = triton.loads("life"), triton.stub_pids("life")
    again = run_module("triton_model", options)
    assert not again["changed"] and again["actions"] == []
    assert (triton.loads("life"), triton.stub_pids("life")) == (loads, pids)

    publish_by_module(mlflow, "life", second.folder, aliases=["champion"])
    update = run_module("triton_model", options, diff=True)
    assert update["changed"] and update["model"]["triton_versions"] == [2]
    assert (
        "models:/life/1" in update["diff"]["before"] and "models:/life/2" in update["diff"]["after"]
    )
    assert not second.differences(triton.infer("life", second.request())[1])
    info = run_task(
        tmp_path,
        "triton_model_info",
        {key: target[key] for key in ("triton_url", "model_repository")} | {"names": ["life"]},
    )
    assert info["models"][0]["ready"] and info["models"][0]["drift"] == []

    back = {key: value for key, value in options.items() if key != "model_uri"} | {
        "state": "rolled_back"
    }
    assert run_module("triton_model", back)["model"]["registry_version"] == 1
    assert not run_module("triton_model", back)["changed"]
    assert not first.differences(triton.infer("life", first.request())[1])

    gone = {key: value for key, value in options.items() if key != "model_uri"} | {
        "state": "absent"
    }
    checked, removed, again = (
        run_module("triton_model", gone, check=check, diff=diff)
        for check, diff in ((True, True), (False, True), (False, False))
    )
    assert [checked["changed"], removed["changed"], again["changed"]] == [True, True, False]
    assert checked["diff"] == removed["diff"]
    assert (
        not (triton.repository / "life").exists()
        and triton.infer("life", first.request())[0] == 404
    )


def test_triton_models_brings_a_list_and_one_failure_does_not_stop_the_rest(
    tmp_path: Path, mlflow: MLflow, triton: Triton, target: dict[str, Any]
) -> None:
    samples = [
        make_onnx(tmp_path, "list-network"),
        make_forest(tmp_path, "list-forest", kind="KIND_GPU"),
        make_python(tmp_path, "list-doubler"),
    ]
    for sample in samples:
        publish_by_module(mlflow, sample.name, sample.folder)
    wanted = [{"name": sample.name, "model_uri": f"models:/{sample.name}/1"} for sample in samples]
    refused = run_task(tmp_path, "triton_models", {**target, "models": wanted})
    assert refused["failed"] and [entry["failed"] for entry in refused["models"]] == [
        False,
        True,
        False,
    ]
    assert (
        "instance_kind: cpu" in refused["models"][1]["msg"]
        and "Traceback" not in refused["_output"]
    )
    wanted[1]["instance_kind"] = "cpu"
    check = run_task(tmp_path, "triton_models", {**target, "models": wanted}, "--check", "--diff")
    apply = run_module("triton_models", {**target, "models": wanted}, diff=True)
    again = run_module("triton_models", {**target, "models": wanted})
    assert [entry["changed"] for entry in apply["models"]] == [False, True, False], apply
    assert check["diff"] == apply["diff"] and not again["changed"]
    for sample in samples:
        assert not sample.differences(triton.infer(sample.name, sample.request())[1])
    absent = [{"name": sample.name, "state": "absent"} for sample in samples]
    assert run_module("triton_models", {**target, "models": absent})["changed"]
    assert not [row for row in triton.index() if row["name"].startswith("list-")]


def test_check_mode_on_a_bare_host_needs_no_repository_and_no_server(
    tmp_path: Path, mlflow: MLflow
) -> None:
    sample = make_onnx(tmp_path, "bare")
    publish_by_module(mlflow, "bare", sample.folder)
    result = run_task(
        tmp_path,
        "triton_model",
        {
            "name": "bare",
            "model_uri": "models:/bare/1",
            "tracking_uri": mlflow.url,
            "triton_url": "127.0.0.1:9",
            "model_repository": str(tmp_path / "not there"),
        },
        "--check",
        "--diff",
    )
    assert result["changed"] and "models:/bare/1" in result["diff"]["after"], result
    assert not (tmp_path / "not there").exists()


def test_triton_model_info_asks_each_model_what_proved_it(
    tmp_path: Path, triton: Triton, target: dict[str, Any]
) -> None:
    """One answers, one does not any more, of one nothing is known to ask, one is unloaded."""
    switch = tmp_path / "switch"
    case = {"inputs": {"x": [[1.0, 2.0, 3.0]]}, "outputs": {"y": [[2.0, 4.0, 6.0]]}}
    wanted: list[dict[str, Any]] = []
    for name in ("proven", "broken", "unknown", "sleeping"):
        sample = make_python(tmp_path, f"info-{name}")
        wanted.append({"name": sample.name, "model_uri": str(sample.folder)})
        if name != "unknown":
            wanted[-1]["verify"] = case
        if name == "broken":
            program = sample.folder / "1" / "model.py"
            lines = program.read_text().replace(
                "def execute(self, requests):",
                "def execute(self, requests):\n"
                f"        if __import__('os').path.exists({str(switch)!r}):\n"
                "            raise RuntimeError('the lights are out')",
            )
            assert "lights" in lines
            program.write_text(lines)
    there = {key: target[key] for key in ("triton_url", "model_repository")}
    done = run_module("triton_models", {**target, "models": wanted})
    assert not done.get("failed"), done
    asleep = {"name": "info-sleeping", "state": "unloaded"}
    assert run_module("triton_model", {**target, **asleep})["changed"]
    names = [one["name"] for one in wanted]
    switch.touch()
    told = run_module("triton_model_info", {**there, "names": names, "verify": True})["models"]
    assert [one["answers"] for one in told] == [True, False, None, None]
    assert "the lights are out" in told[1]["unproven"]
    assert told[2]["unproven"] == "there is nothing to ask it"
    quiet = run_module("triton_model_info", {**there, "names": names})["models"]
    assert not any("answers" in one for one in quiet)
    for name in names:
        run_module("triton_model", {**target, "name": name, "state": "absent"})


def test_a_server_that_does_not_answer_is_no_host_that_does_not(
    tmp_path: Path, triton: Triton
) -> None:
    """Ansible takes a result with the key "unreachable" for a host that is gone."""
    there = {"triton_url": "127.0.0.1:9", "model_repository": str(triton.repository)}
    done = run_task(tmp_path, "triton_model_info", there)
    assert done["failed"] and done["no_answer"] and "cannot be reached" in done["msg"]
    assert "unreachable=0" in done["_output"]
