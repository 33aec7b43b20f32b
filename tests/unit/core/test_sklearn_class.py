# SPDX-License-Identifier: Apache-2.0
"""The class of what lies in a file of scikit-learn, from a few bytes of it. What scikit-learn and
skops really write is in tests/differential.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.sklearn_class import (
    class_of,
)
from hypothesis import given
from hypothesis import strategies as st

FOREST = "sklearn.ensemble._forest.RandomForestClassifier"
OUTLINE = b'{"__class__": "RandomForestClassifier", "__module__": "sklearn.ensemble._forest", '


def seen(data: bytes) -> str | None:
    return class_of(lambda start, size: data[start : start + size], len(data))


def archive(outline: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as made:
        made.writestr("1.npy", bytes(100_000))
        made.writestr("schema.json", outline + b'"content": {}}' + b" " * 50_000)
    return file.getvalue()


@pytest.fixture
def forest(monkeypatch: pytest.MonkeyPatch) -> object:
    for name in ("sklearn", "sklearn.ensemble"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = types.ModuleType("sklearn.ensemble._forest")
    kind = type("RandomForestClassifier", (), {"__module__": module.__name__})
    module.RandomForestClassifier = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made: object = kind()
    return made


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_names_its_class_first(forest: object, protocol: int) -> None:
    forest.__dict__["trees"] = [bytes(1000)] * 100
    data = pickle.dumps(forest, protocol)
    assert seen(data) == FOREST


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_names_its_class_first(kind: int) -> None:
    assert seen(archive(OUTLINE, kind)) == FOREST


def test_little_is_brought(forest: object) -> None:
    for data in (pickle.dumps([forest]), archive(OUTLINE)):
        assert sum(sizes_asked(data)) < 100_000


def sizes_asked(data: bytes) -> list[int]:
    asked: list[int] = []

    def look(start: int, size: int) -> bytes:
        asked.append(size)
        return data[start : start + size]

    class_of(look, len(data))
    return asked


def test_what_is_something_else_has_no_class() -> None:
    assert seen(pickle.dumps([1, 2])) is None
    assert seen(archive(b'{"__module__": "a", ')) is None
    assert seen(b"") is None
    assert class_of(lambda _start, _size: None, 10) is None


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x05", b"\x80\x02c", b"PK\x03\x04"]))
def test_whatever_lies_there_is_no_fault(data: bytes, head: bytes) -> None:
    seen(head + data)


@given(st.data())
def test_a_damaged_archive_is_no_fault(data: st.DataObject) -> None:
    whole = bytearray(archive(OUTLINE))
    for _change in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(len(whole) - 300, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    seen(bytes(whole))


def test_a_folder_of_this_host_gives_parts(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(bytes(range(100)))
    root = LocalRoot(str(tmp_path), 10)
    assert root.look("model.pkl", 10, 5) == bytes(range(10, 15))
    assert root.look("model.pkl", 95, 50) == bytes(range(95, 100))
