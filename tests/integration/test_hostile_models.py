# SPDX-License-Identifier: Apache-2.0
"""Whoever may publish a file cannot end the run that delivers it: the run says in a sentence that
the file is no model, and the model before is served on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import hostile_files
from support.playbooks import run_playbook
from support.servers import Triton

pytestmark = pytest.mark.takes(40)
pytest.importorskip("treelite")

MLMODEL = "flavors: {sklearn: {pickled_model: model.pkl, serialization_format: pickle}}\n"


def logged(folder: Path, data: bytes) -> str:
    folder.mkdir()
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "model.pkl").write_bytes(data)
    # Staging, which the reader could not enter, is root's where this is root's run.
    (folder / "model.pkl").chmod(0o600)
    return str(folder)


def good() -> bytes:
    nodes = hostile_files.nodes_of_one_leaf()
    values = hostile_files.array((1, 1, 2), hostile_files.kind("f8"), hostile_files.HALVES)
    trees = b"(" + hostile_files.one_tree(nodes, values) + b"l"
    return hostile_files.whole(hostile_files.forest(trees, 2))


def test_hostile_pickles_fail_alone_and_the_model_before_goes_on(
    triton: Triton, tmp_path: Path
) -> None:
    """By ansible-playbook, so that the reader is started from what AnsiballZ unpacks."""
    hostile = ("hidden objects", "many bytes", "a small archive", "one tree often")
    uris = {words: logged(tmp_path / words, hostile_files.SKLEARN[words]()) for words in hostile}
    common = {
        "name": "forest",
        "model_repository": str(triton.repository),
        "triton_url": triton.url,
    }
    tasks = [
        {
            "mlops.triton.triton_model": {**common, "model_uri": uri},
            "register": "done",
            "ignore_errors": True,
        }
        for uri in (logged(tmp_path / "good", good()), *uris.values())
    ]
    shown = [
        {"ansible.builtin.debug": {"msg": "SAID {{ done.msg | default('') }} {{ done.failed }}"}}
    ]
    steps = [step for task in tasks for step in (task, *shown)]
    done = run_playbook(tmp_path, [{"hosts": "localhost", "gather_facts": False, "tasks": steps}])
    said = [line for line in done.output.splitlines() if '"msg": "SAID' in line]
    assert done.rc == 0 and len(said) == 1 + len(hostile), done.output
    assert said[0].endswith(' False"'), said[0]
    for line in said[1:]:
        assert line.endswith(' True"') and "model 'forest', convert the model:" in line, line
        assert "Traceback" not in line and "an unexpected" not in line
    status, body = triton.infer(
        "forest",
        {"inputs": [{"name": "input__0", "shape": [1, 1], "datatype": "FP32", "data": [0.5]}]},
    )
    assert status == 200 and body["outputs"][0]["data"] == [0.5, 0.5]
    assert os.listdir(triton.repository / "forest" / "1") == ["checkpoint.tl"]
