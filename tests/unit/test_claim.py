# SPDX-License-Identifier: Apache-2.0
"""A folder of a host is claimed for one name of the inventory, whoever asks at the same time."""

from __future__ import annotations

import ast
import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CLAIM = Path(__file__).resolve().parents[2] / "roles/triton/files/claim.py"


@pytest.fixture
def claim() -> Any:
    specification = importlib.util.spec_from_file_location("claim", CLAIM)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def places(home: Path, models: Path) -> list[dict[str, str]]:
    return [
        {"option": "triton_home", "path": str(home), "note": str(home / "note")},
        {"option": "triton_model_repository", "path": str(models), "note": str(models / "note")},
    ]


def test_of_many_that_ask_together_exactly_one_gets_the_folder(tmp_path: Path) -> None:
    names = [f"host-{number}" for number in range(8)]
    asking = [
        subprocess.Popen(
            [
                *(sys.executable, str(CLAIM)),
                json.dumps(
                    {"names": [name], "places": places(tmp_path / name, tmp_path / "a/models")}
                ),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    answers = {
        name: json.loads(child.communicate()[0]) for name, child in zip(names, asking, strict=True)
    }
    (winner,) = [name for name, answer in answers.items() if answer["claimed"]]
    note = tmp_path / "a/models/note"
    assert note.read_text() == f"{winner}\n"
    for name in {*names} - {winner}:
        assert answers[name] == {
            "problems": [],
            "foreign": {str(note): winner},
            "claimed": False,
        }
    # Who lost keeps nothing, and a draft of a note stays nowhere.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", winner]
    assert [path.name for path in note.parent.iterdir()] == ["note"]


def test_what_is_its_own_already_is_no_change(claim: Any, tmp_path: Path) -> None:
    asked = places(tmp_path / "home", tmp_path / "models")
    assert claim.claim(["one"], asked)["claimed"]
    again = {"problems": [], "foreign": {}, "claimed": False}
    assert claim.claim(["one"], asked) == again
    assert claim.claim(["renamed", "one"], asked) == again
    assert (tmp_path / "home/note").read_text() == "one\n"


def test_without_hard_links_it_is_exclusive_as_well(
    claim: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(claim.os, "link", refuse)
    asked = places(tmp_path / "home", tmp_path / "models")
    assert claim.claim(["one"], asked)["claimed"]
    assert len(claim.claim(["two"], asked)["foreign"]) == 2
    assert (tmp_path / "home/note").read_text() == "one\n"


def test_a_folder_that_cannot_be_made_is_named_and_nothing_stays(
    claim: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        answer = claim.claim(["one"], places(tmp_path / "home", folder))
        (sentence,) = answer["problems"]
        assert sentence.startswith(f"triton_model_repository is {folder}, which cannot be made")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
    # What the sentence names: another folder.
    assert claim.claim(["one"], places(tmp_path / "home", tmp_path / "models"))["claimed"]


def test_an_old_python_can_read_it() -> None:
    ast.parse(CLAIM.read_text(encoding="utf-8"), feature_version=(3, 6))
