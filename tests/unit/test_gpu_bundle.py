# SPDX-License-Identifier: Apache-2.0
"""Parts of a bundle become the same archive again, and say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpu import bundle

DATA = bytes(range(256)) * 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    archive = tmp_path / "wheels.tar"
    archive.write_bytes(DATA)
    bundle.cut(archive, tmp_path / "parts", 1000)
    return tmp_path / "parts"


def joined(folder: Path) -> bytes:
    archive = folder.parent / "joined.tar"
    bundle.join(folder, archive)
    return archive.read_bytes()


def test_parts_are_joined(folder: Path) -> None:
    assert [path.name for path in sorted(folder.iterdir())] == ["part1", "part2", "part3"]
    assert joined(folder) == DATA


@pytest.mark.parametrize("piece", [None, b"something else"], ids=["missing", "damaged"])
def test_a_part_that_does_not_belong_is_named(folder: Path, piece: bytes | None) -> None:
    place = folder / "part2" / "piece"
    place.unlink()
    if piece:
        place.write_bytes(piece)
    words = rf"{place} is {'damaged' if piece else 'missing'}.*: part 2 of 3 has to be copied here"
    with pytest.raises(SystemExit, match=words):
        joined(folder)


def test_a_bundle_for_another_python_is_refused(folder: Path) -> None:
    for path in folder.glob(f"part*/{bundle.LIST}"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**facts, "python": "3.7"}), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"the bundle is for Python 3\.7, and this is 3\."):
        joined(folder)


def test_without_parts_it_says_where_they_are_made(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no part of a bundle in"):
        joined(tmp_path / "parts")
