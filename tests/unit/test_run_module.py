# SPDX-License-Identifier: Apache-2.0
"""The tests' own way of running a module: it says what Ansible would hear."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.models import make_python
from support.modules import run_module


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "one",
        "model_uri": str(make_python(tmp_path, "one").folder),
        "triton_url": "127.0.0.1:9",
        "model_repository": str(tmp_path / "not there"),
    }


def test_check_mode_and_diff_reach_the_module(options: dict[str, Any]) -> None:
    shown = run_module("triton_model", options, check=True, diff=True)
    assert (shown["changed"], shown["failed"]) == (True, False)
    assert options["model_uri"] in shown["diff"]["after"]
    assert "diff" not in run_module("triton_model", options, check=True)
    failed = run_module("triton_model", options)
    assert failed["failed"] and "does not exist on this host" in failed["msg"]


def test_the_module_s_arguments_are_checked(options: dict[str, Any]) -> None:
    failed = run_module("triton_model", {**options, "state": "nonsense"})
    assert failed["failed"] and "nonsense" in failed["msg"]


def test_nothing_stays_in_this_process(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of.another.test")
    before = dict(os.environ)
    run_module("triton_model", options, check=True, variables={"ONLY": "there"})
    assert dict(os.environ) == before
