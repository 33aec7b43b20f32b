# SPDX-License-Identifier: Apache-2.0
"""A small file takes little memory and time, whatever it says, and its refusal is a sentence."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.metadata import (
    _parsed,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    MissingLibrary,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats import sklearn_archive
from ansible_collections.mlops.triton.plugins.module_utils._delivery.readers.runner import (
    Bounds,
    Task,
    ask,
)
from support import hostile_files, strange_tasks

pytest.importorskip("ansible", reason="these take a minute, and once is enough")
# Beyond what Python and the libraries have when they begin.
MEMORY = 160 << 20
BOUNDS = Bounds(MEMORY, cpu=20, seconds=60, output=1 << 24, answer=1 << 20)
SAID_BY_NO_READER = ("was ended", "makes no sense", "MemoryError", "is read by a process")


def refusal(path: Path, flavor: str) -> str:
    arguments = {"flavor": flavor, "model_class": None}
    try:
        ask(Task("", "served"), str(path), path.name, arguments, BOUNDS)
    except ArtifactError as error:
        return error.message
    except MissingLibrary:
        pytest.skip("treelite is not here")
    return ""


@pytest.mark.parametrize("words", hostile_files.SKLEARN)
def test_a_hostile_pickle_or_archive_is_refused(tmp_path: Path, words: str) -> None:
    pytest.importorskip("treelite")
    path = tmp_path / "model.pkl"
    path.write_bytes(hostile_files.SKLEARN[words]())
    message = refusal(path, "sklearn")
    assert message and not any(said in message for said in SAID_BY_NO_READER), message


def test_an_archive_that_was_packed_too_well_is_read_when_it_is_not_packed(tmp_path: Path) -> None:
    """As the refusal advises. skops itself packs nothing unless it is told to."""
    node = {"__loader__": "NdArrayNode", "type": "numpy", "file": "a.npy", "__id__": 1}
    count = 9 << 20
    files = {"a.npy": hostile_files.npy(count) + bytes(8 * count)}
    path = tmp_path / "model.skops"
    path.write_bytes(hostile_files.skops(node, files))
    with pytest.raises(ArtifactError, match="without a compression"):
        sklearn_archive.read_outline(str(path))
    path.write_bytes(hostile_files.skops(node, files, zipfile.ZIP_STORED))
    array: Any = sklearn_archive.read_outline(str(path)).root
    assert array.shape == (count,)


@pytest.mark.parametrize("words", hostile_files.OTHERS)
def test_another_hostile_file_is_refused(tmp_path: Path, words: str) -> None:
    flavor, make = hostile_files.OTHERS[words]
    path = tmp_path / "model.bin"
    path.write_bytes(make())
    message = refusal(path, flavor)
    assert message and not any(said in message for said in SAID_BY_NO_READER), message


@pytest.mark.parametrize(
    "text",
    [
        hostile_files.aliases(),
        b"a: &a [*a]",
        b"a: " + b"[" * 5000,
        b"a: " + b"{b: " * 5000,
        b"- " * 5000,
        b"[" + b"a," * 100000 + b"]",
    ],
    ids=["aliases", "itself", "lists", "mappings", "items", "values"],
)
def test_a_hostile_mlmodel_is_refused(tmp_path: Path, text: bytes) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "MLmodel"
    path.write_bytes(text)
    # In a process with bounds, as this one would swallow whatever it takes.
    task = Task(strange_tasks.__name__, "mlmodel")
    found = ask(task, str(path), "MLmodel", {}, BOUNDS).found.data
    assert found["refused"].startswith("read the artifact: its MLmodel cannot be read: ")


def test_what_mlmodel_names_twice_is_read() -> None:
    pytest.importorskip("yaml")
    text = b"a: &a {x: 1, y: [2, 3]}\nb: *a\nflavors: {onnx: {data: model.onnx}}\n"
    found: Any = _parsed({"MLmodel": text})
    assert found["a"] == found["b"] == {"x": "1", "y": ["2", "3"]}
