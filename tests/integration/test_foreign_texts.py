# SPDX-License-Identifier: Apache-2.0
"""What a registry, an artifact, a model or a neighbour wrote is no command for a terminal and looks
like no other message, whichever command shows it; and what is wrong with one model stays its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import models, plugin
from support.playbooks import run_playbook
from support.servers import ROOT, MLflow, Triton

pytestmark = [pytest.mark.takes(40)]

EVIL = "x\x1b[2J\x1b]0;owned\x07\x9b31m\u202ednuor\u200b\r\nTASK [all is well]"
NAME = "evil\x1b[2J\x9b31m\u202e.bin"


def assert_harmless(output: bytes) -> None:
    text = output.decode(errors="surrogateescape")
    shown = {one for one in text if one not in "\n\t" and not one.isprintable()}
    # What stands alone has no width of its own, and is none of those that were planted.
    harmful = {one for one in shown if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")}
    assert not harmful | {one for one in shown if one in EVIL + NAME}, ascii(harmful)
    assert not [line for line in text.splitlines() if line.startswith("TASK [all is well]")]


def task(module: str, **options: Any) -> dict[str, Any]:
    return {"name": module, f"mlops.triton.{module}": options, "ignore_errors": True}


@pytest.fixture(scope="module")
def published(mlflow: MLflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Registered models: one whose every text is evil, one whose file names are, one whose program
    fails with evil words, one with a malformed MLmodel, and a good one.
    """
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("foreign")
    client = MlflowClient(mlflow.url)

    def register(name: str, files: dict[str, bytes], description: str = "") -> None:
        root = folder / name
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        run = client.create_run("0")
        client.log_artifacts(run.info.run_id, str(root), "model")
        client.create_registered_model(name, description=description)
        source = f"{run.info.artifact_uri}/model"
        client.create_model_version(name, source, run.info.run_id, description=description)

    sample = models.make_python(folder / "sample", "foreign-good").folder
    config, program = (sample / "config.pbtxt").read_bytes(), (sample / "1/model.py").read_bytes()
    config = config.replace(b'name: "foreign-good"', b"")
    good = {"MLmodel": b"flavors: {triton: {data: m}}", "m/config.pbtxt": config}
    good["m/1/model.py"] = program
    register("foreign-good", good, EVIL)
    client.set_registered_model_tag("foreign-good", "note", EVIL)
    client.set_model_version_tag("foreign-good", "1", "note", EVIL)
    register(
        "foreign-names",
        {**good, "MLmodel": b"flavors: {triton: {data: gone}}", f"m/1/{NAME}": b"x"},
    )
    bad = b"raise RuntimeError(" + ascii(EVIL).encode() + b")\n" + program
    register("foreign-fails", {**good, "m/1/model.py": bad})
    register("foreign-malformed", {**good, "MLmodel": b"flavors: [1, 2]"})
    evil = json.dumps(EVIL)
    register(
        "foreign-flavor", {"MLmodel": f"flavors: {{{evil}: {{a: {evil}}}}}".encode(), "a.b": b"x"}
    )
    return folder


def where(mlflow: MLflow, triton: Triton) -> dict[str, Any]:
    return {
        "tracking_uri": mlflow.url,
        "model_repository": str(triton.repository),
        "triton_url": triton.url,
        "timeout": 30,
    }


def test_modules_show_no_foreign_text_as_it_is(
    mlflow: MLflow, triton: Triton, published: Path, tmp_path: Path
) -> None:
    names = (
        "foreign-names",
        "foreign-fails",
        "foreign-malformed",
        "foreign-flavor",
        "foreign-good",
    )
    stranger = triton.repository / "foreign-stranger"
    stranger.mkdir()
    (stranger / "config.pbtxt").write_text(f'backend: "{NAME}"\n# {EVIL}\n', encoding="utf-8")
    wanted = [{"name": one, "model_uri": f"models:/{one}/1"} for one in names]
    tasks = [
        task("mlflow_model_info", tracking_uri=mlflow.url, names=["foreign-good"]),
        task("triton_models", **where(mlflow, triton), models=wanted),
        task("triton_models", **where(mlflow, triton), models=wanted, registry_status=EVIL),
        task("triton_model_info", **where(mlflow, triton)),
        task("triton_model", **where(mlflow, triton), name="x", model_uri=f"models:/{EVIL}/1"),
    ]
    playbook = tmp_path / "play.yml"
    play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    playbook.write_text(yaml.safe_dump([play]), encoding="utf-8")
    said = run_playbook(tmp_path, playbook, "-v", "--diff").output
    assert_harmless(said.encode(errors="surrogateescape"))
    for name in ("foreign-names", "foreign-fails", "foreign-malformed", "foreign-flavor"):
        assert f"model '{name}'" in said
    assert (triton.repository / "foreign-good").is_dir()
    assert "Traceback" not in said


def test_commands_show_no_foreign_text_as_it_is(
    mlflow: MLflow, triton: Triton, published: Path, tmp_path: Path
) -> None:
    options = where(mlflow, triton)
    profiles = tmp_path / "profiles.yml"
    profiles.write_text(yaml.safe_dump({"here": options}), encoding="utf-8")
    variables = plugin.environment(
        plugin.registered(tmp_path / "site"),
        MLOPS_TRITON_PROFILES=str(profiles),
        MLFLOW_TRACKING_URI=mlflow.url,
    )
    command = [sys.executable, "-m", "mlflow", "deployments"]
    target = ("-t", "triton:/here")
    source = tmp_path / "source"
    (source / "1").mkdir(parents=True)
    (source / "1" / NAME).write_bytes(b"x")
    (source / "config.pbtxt").write_text(f'backend: "{EVIL[:4]}"\n')
    publish = [sys.executable, str(ROOT / "publish_model_to_mlflow.py"), "--flavor", "triton"]
    for words in (
        [*command, "create", *target, "--name", "foreign-names", "-m", "models:/foreign-names/1"],
        [*command, "create", *target, "--name", "foreign-fails", "-m", "models:/foreign-fails/1"],
        [*command, "create", *target, "--name", "foreign-flavor", "-m", "models:/foreign-flavor/1"],
        [*command, "get", *target, "--name", "foreign-good"],
        [*command, "list", *target],
        [*publish, "--model_name", "foreign-mine", "--model_directory", str(source)],
        [*publish, "--model_name", EVIL, "--model_directory", str(source)],
    ):
        done = subprocess.run(words, env=variables, capture_output=True, timeout=120, check=False)
        assert_harmless(done.stdout + done.stderr)
        assert b"Traceback" not in done.stderr, done.stderr
