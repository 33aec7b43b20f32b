# SPDX-License-Identifier: Apache-2.0
"""What an older release deployed, judged by the rules of today; on a real server in
tests/integration/test_older_deployments.py.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import (
    RULES,
    Record,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.former_rules import (  # noqa: E501
    judge,
)
from support import models

LIGHTGBM = (
    "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=4\nobjective=regression"
    "\n\nTree=0\nnum_leaves=3\nnum_cat=0\nsplit_feature=0 0\n"
    "threshold={pair}\ndecision_type={kinds}\nis_linear=0\n"
    "\nend of trees\n\nparameters:\n[zero_as_missing: {zero}]\nend of parameters\n"
)
TIMES = "1700000015.5000002 1700000031.5000002"


def checkpoint(average: bool) -> str:
    """The beginning of what treelite 4 writes; none of its bytes is beyond ASCII."""
    head = struct.pack("<3i2BQiBBi", 4, 0, 0, 3, 3, 2, 5, 1, average, 1)
    return (head + struct.pack("<Qi", 1, 1) + bytes(64)).decode("ascii")


def record_of(folder: Path, flavor: str, filename: str, data: str) -> Record:
    (folder / "1").mkdir()
    (folder / "1" / filename).write_text(data, encoding="utf-8")
    manifest = Manifest.of([FileEntry(f"1/{filename}", len(data), "")])
    return Record(
        name="net",
        deploy_id="id",
        model_uri="models:/net/1",
        pinned_uri="models:/net/1",
        source="",
        flavor=flavor,
        triton_versions=(1,),
        manifest=manifest.to_dict(),
        manifest_digest="",
        config_digest="",
        request={},
        deployed_at="",
        deployed_by="",
    )


@pytest.mark.parametrize(
    ("flavor", "filename", "data", "says"),
    [
        (
            "lightgbm",
            "model.txt",
            LIGHTGBM.format(pair="1 2", kinds="4 4", zero=1),
            "zero_as_missing",
        ),
        ("lightgbm", "model.txt", LIGHTGBM.format(pair="1 2", kinds="2 2", zero=0), None),
        ("lightgbm", "model.txt", LIGHTGBM.format(pair=TIMES, kinds="2 2", zero=0), "hardly does"),
        ("triton", "model.txt", LIGHTGBM.format(pair=TIMES, kinds="2 2", zero=0), "hardly does"),
        ("lightgbm", "model.txt", "tree\nsplit_feature=a\nthreshold=1\ndecision_type=2\n", None),
        ("sklearn", "checkpoint.tl", checkpoint(average=False), "mixed up the columns"),
        ("sklearn", "checkpoint.tl", checkpoint(average=True), None),
        ("triton", "checkpoint.tl", checkpoint(average=False), None),
        ("xgboost", "xgboost.json", json.dumps(models.xgboost_document()), None),
        ("xgboost", "xgboost.json", '{"best_iteration": no model', None),
        ("onnx", "model.onnx", "zero_as_missing", None),
    ],
)
def test_judge(flavor: str, filename: str, data: str, says: str | None, tmp_path: Path) -> None:
    record = record_of(tmp_path, flavor, filename, data)
    found = judge(record, str(tmp_path))
    assert (says in found) if says and found else found is says
    assert judge(dataclasses.replace(record, rules=RULES), str(tmp_path)) is None
    assert judge(record, "s3://bucket/net") is None and judge(None, str(tmp_path)) is None
    assert judge(dataclasses.replace(record, manifest={"files": 3}), str(tmp_path)) is None
    (tmp_path / "1" / filename).unlink()
    assert judge(record, str(tmp_path)) is None
