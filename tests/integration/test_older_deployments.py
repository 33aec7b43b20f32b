# SPDX-License-Identifier: Apache-2.0
"""Models that an older release of this collection deployed, and which today's would refuse or make
otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import replacement
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors import conversion
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats import served, trees
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from support.deliveries import deploy_model, target_of
from support.models import logistic, margins, xgboost_document
from support.servers import Triton

STUMPS = tuple((0, float(split), -1.0, 1.0, 0) for split in range(6))
ROW = [2.5, 0.0, 0.0, 0.0]


@pytest.fixture
def document() -> dict[str, Any]:
    """A classifier whose class leaves out all trees behind the third."""
    made = xgboost_document(STUMPS)
    made["learner"]["attributes"] = {"best_iteration": "2", "scikit_learn": "{}"}
    return made


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The rules of before; ``undo`` ends them."""
    monkeypatch.setattr(replacement, "RULES", 0)
    monkeypatch.setattr(conversion, "refuse_other_answers", lambda layout, staged: None)
    # A reader of today is a process of its own, which knows nothing of the rules of before.
    monkeypatch.setattr(conversion, "read_served", lambda *asked: served.read_served(*asked[:3]))
    monkeypatch.setattr(trees, "without_unused_trees", lambda document, scikit_learn: None)
    return monkeypatch


def told(target: Target, name: str, **options: Any) -> tuple[str, ...]:
    """What a run says that changes nothing."""
    result = deploy_model(target, name, **options)
    assert not result.changed
    return result.warnings


def answer(triton: Triton, name: str) -> float:
    body = {
        "inputs": [{"name": "input__0", "shape": [1, 4], "datatype": "FP32", "data": [ROW]}],
    }
    status, said = triton.infer(name, body)
    assert status == 200, said
    return float(said["outputs"][0]["data"][-1])


def test_trees_that_its_class_leaves_out_are_told_of_until_it_is_deployed_anew(
    document: dict[str, Any], older: pytest.MonkeyPatch, triton: Triton, tmp_path: Path
) -> None:
    (tmp_path / "model.json").write_text(json.dumps(document))
    model_class = "xgboost.sklearn.XGBClassifier"
    flavor = {"xgboost": {"data": "model.json", "model_class": model_class}}
    (tmp_path / "MLmodel").write_text(json.dumps({"flavors": flavor}))
    target, wanted = target_of(triton), {"model_uri": str(tmp_path)}
    assert not deploy_model(target, "older", **wanted).warnings
    assert answer(triton, "older") == pytest.approx(logistic(margins(STUMPS, ROW)[0]))
    older.undo()

    for check in (True, False):
        (said,) = told(target, "older", check=check, **wanted)
        assert said == (
            "an older release of this collection deployed it: it answers with trees that the class"
            " which trained it leaves out; deploy it anew, with state absent and then present"
        )

    # As it says.
    deploy_model(target, "older", state="absent")
    assert not deploy_model(target, "older", **wanted).warnings
    assert answer(triton, "older") == pytest.approx(logistic(margins(STUMPS[:3], ROW)[0]))
    assert told(target, "older", **wanted) == ()


def test_a_configuration_without_the_columns_stays_in_place(
    monkeypatch: pytest.MonkeyPatch, triton: Triton, tmp_path: Path
) -> None:
    """Releases of before did not write them down; a run of today brings nothing because of that."""
    named = xgboost_document()
    named["learner"]["feature_names"] = ["a", "b", "c", "d"]
    (tmp_path / "model.json").write_text(json.dumps(named))
    flavor = {"flavors": {"xgboost": {"data": "model.json"}}}
    (tmp_path / "MLmodel").write_text(json.dumps(flavor))
    target, wanted = target_of(triton), {"model_uri": str(tmp_path)}
    made = conversion.forest_config
    with monkeypatch.context() as older:
        older.setattr(conversion, "forest_config", lambda forest, columns: made(forest))
        deploy_model(target, "plain", **wanted)
    config = triton.repository / "plain" / "config.pbtxt"
    before = config.read_bytes()
    assert config_pbtxt.COLUMNS_KEY.encode() not in before
    for check in (True, False):
        assert told(target, "plain", check=check, **wanted) == ()
    assert config.read_bytes() == before
    assert deploy_model(target, "plain", **wanted, config={"max_batch_size": 8}).changed
    assert config_pbtxt.COLUMNS_KEY.encode() not in config.read_bytes()
    deploy_model(target, "plain", state="absent")
    deploy_model(target, "plain", **wanted)
    assert config_pbtxt.COLUMNS_KEY.encode() in config.read_bytes()


def test_a_folder_that_would_be_refused_today_is_served_on_and_told_of(
    document: dict[str, Any], older: pytest.MonkeyPatch, triton: Triton, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "xgboost.json").write_text(json.dumps(document))
    (folder / "config.pbtxt").write_text(
        'backend: "fil"\nmax_batch_size: 8\n'
        'input { name: "input__0" data_type: TYPE_FP32 dims: 4 }\n'
        'output { name: "output__0" data_type: TYPE_FP32 dims: 1 }\n'
        'parameters { key: "model_type" value { string_value: "xgboost_json" } }\n'
    )
    target = target_of(triton)
    deploy_model(target, "folder", model_uri=str(folder))
    older.undo()
    (said,) = told(target, "folder", model_uri=str(folder))
    assert "it would be refused today, because 1/xgboost.json was saved by a scikit-learn" in said
    answer(triton, "folder")
