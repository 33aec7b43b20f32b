# SPDX-License-Identifier: Apache-2.0
"""The wheel, as pip installs it into an environment that has no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import models
from support.servers import ROOT, MLflow

sys.path.insert(0, str(ROOT / "tools"))

from collection_copy import copy_collection


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel brings, and nothing of the checkout."""
    base = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(base)]
    subprocess.run(build, cwd=copy_collection(base / "copy"), check=True, capture_output=True)
    (wheel,) = base.glob("*.whl")
    words = ["-qq", "--no-deps", "--no-index", "--disable-pip-version-check", "--target"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, str(base / "site"), str(wheel)],
        check=True,
        capture_output=True,
    )
    return base / "site"


def call(
    site: Path, words: list[str], folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Without the hook of the editable installation, which would find the checkout first."""
    path = os.pathsep.join([str(folder), str(site), sysconfig.get_path("purelib")])
    return subprocess.run(
        [sys.executable, "-S", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def run(site: Path, words: list[str], folder: Path, **variables: str) -> str:
    done = call(site, words, folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_guide_s_command_is_there_after_pip_install(
    site: Path, mlflow: MLflow, tmp_path: Path
) -> None:
    folder = models.make_python(tmp_path / "source", "wheeled").folder
    options = ["--model_name", "wheeled", "--model_directory", str(folder), "--flavor", "triton"]
    program = str(site / "bin" / "publish_model_to_mlflow")
    variables = {"MLFLOW_TRACKING_URI": mlflow.url}
    first = run(site, [program, *options], tmp_path, **variables)
    assert first.startswith("mlflow-artifacts:/")
    module = ["-m", "ansible_collections.mlops.triton.publish_model_to_mlflow"]
    assert run(site, [*module, *options], tmp_path, **variables) == first
    where = (
        "import ansible_collections.mlops.triton.publish_model_to_mlflow as m; print(m.__file__)"
    )
    assert run(site, ["-c", where], tmp_path).startswith(str(site))


def test_only_the_command_predict_needs_pandas(site: Path, tmp_path: Path) -> None:
    """What the wheel asks for brings none along."""
    (tmp_path / "pandas.py").write_text(
        "raise ModuleNotFoundError('No module named pandas', name='pandas')\n", encoding="utf-8"
    )
    (tmp_path / "in.json").write_text('{"x": [[1]]}', encoding="utf-8")
    command = ["-m", "mlflow", "deployments"]
    assert "Options for the target" in run(site, [*command, "help", "-t", "triton"], tmp_path)
    nowhere = "triton://127.0.0.1:9?model_repository=/no/models"
    listed = call(site, [*command, "list", "-t", nowhere], tmp_path)
    assert "the model repository /no/models does not exist" in listed.stderr, listed.stderr
    predict = [*command, "predict", "-t", nowhere, "--name", "m", "-I", str(tmp_path / "in.json")]
    assert "No module named pandas" in call(site, predict, tmp_path).stderr
