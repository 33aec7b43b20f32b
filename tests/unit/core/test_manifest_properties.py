# SPDX-License-Identifier: Apache-2.0
"""No path of a manifest leads out of the model's folder, whatever somebody writes into it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
    confine,
    files_outside_versions,
    join,
    select_versions,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from hypothesis import event, example, given
from hypothesis import strategies as st

PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "a", "1", "...", "..a", "a..", " ", "~", "C:", "-", "%2e%2e"]),
    st.text(max_size=5),
)
PATHS = st.one_of(
    st.lists(PARTS, max_size=6).map("/".join),
    st.lists(PARTS, max_size=6).map(lambda parts: "/" + "/".join(parts)),
    st.lists(PARTS, max_size=4).map("\\".join),
    st.text(st.sampled_from("./\\\0a~"), max_size=12),
    st.text(max_size=20),
)
GOOD = st.lists(st.sampled_from(["1", "2", "10", "a", "b.onnx"]), min_size=1, max_size=3)


@given(PATHS)
@example("..")
@example("a/../..")
@example("./..")
@example("/etc/passwd")
@example("//etc")
@example(".")
@example("a\0")
def test_what_is_accepted_stays_inside(path: str) -> None:
    try:
        confined = confine(path)
    except ArtifactError:
        event("refused")
        return
    event("accepted")
    root = os.path.realpath(tempfile.gettempdir())
    assert Path(root, confined).parts == (*Path(root).parts, *confined.split("/"))
    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate is no name of a file
        assert os.path.realpath(os.path.join(root, confined)).startswith(root + os.sep)
    assert confined == os.path.normpath(confined)
    assert confine(confined) == confined, "what is confined is confined again"
    assert "\\" not in confined and "\0" not in confined


@given(GOOD)
def test_ordinary_paths_are_accepted_as_they_are(parts: list[str]) -> None:
    assert confine("/".join(parts)) == "/".join(parts)
    assert confine("./" + "//".join(parts) + "/") == "/".join(parts)


@given(PATHS)
def test_a_manifest_is_confined_where_it_is_read(path: str) -> None:
    """Files and folders alike, in what was written as JSON."""
    try:
        confined = confine(path)
    except ArtifactError:
        confined = None
    file = {"path": path, "size": 1, "sha256": None}
    for files, folders in (([file], []), ([], [path])):
        data = json.loads(json.dumps({"schema": 1, "files": files, "folders": folders}))
        if confined is None:
            with pytest.raises(ArtifactError):
                Manifest.from_dict(data)
            continue
        found = Manifest.from_dict(data)
        assert [entry.path for entry in found.files] + list(found.folders) == [confined]


ENTRIES = st.builds(
    FileEntry,
    GOOD.map("/".join),
    st.integers(0, 1 << 50),
    st.sampled_from([None, "a" * 64, "b" * 64]),
)
MANIFESTS = st.builds(
    Manifest.of,
    st.lists(ENTRIES, max_size=5, unique_by=lambda entry: entry.path),
    st.sets(GOOD.map("/".join), max_size=3),
)
CHOICES = st.sets(st.sampled_from([1, 2, 10]), max_size=3).map(tuple)


@given(MANIFESTS)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    found = Manifest.from_dict(json.loads(json.dumps(manifest.to_dict())))
    assert found == manifest
    assert found.digest == manifest.digest
    assert manifest.differences(found) == []


@given(MANIFESTS, MANIFESTS)
def test_manifests_differ_where_a_file_does(one: Manifest, other: Manifest) -> None:
    """A sha256 that nobody knows is no difference; each file is named once."""
    lines = one.differences(other)
    files, others = ({entry.path: entry for entry in made.files} for made in (one, other))
    different = {
        path
        for path in {*files, *others}
        if path not in files
        or path not in others
        or files[path].size != others[path].size
        or (files[path].sha256 and others[path].sha256 and files[path] != others[path])
    }
    assert sorted(line.split(" ", 1)[0] for line in lines) == sorted(different)
    if one.digest == other.digest:
        assert one == other


@given(MANIFESTS, CHOICES)
def test_versions_and_what_lies_beside_them_are_all(
    manifest: Manifest, versions: tuple[int, ...]
) -> None:
    inside, outside = (
        select_versions(manifest, versions), files_outside_versions(manifest, versions)
    )  # fmt: skip
    assert Manifest.of([*inside.files, *outside]).files == manifest.files
    assert all(entry.path.split("/")[0] in map(str, versions) for entry in inside.files)
    assert join(manifest, inside) == manifest


@given(MANIFESTS, MANIFESTS)
def test_the_second_of_two_manifests_wins(one: Manifest, other: Manifest) -> None:
    both = join(one, other)
    found = {entry.path: entry for entry in both.files}
    expected = {entry.path: entry for entry in one.files}
    expected.update({entry.path: entry for entry in other.files})
    assert found == expected
    assert set(both.folders) == {*one.folders, *other.folders}
