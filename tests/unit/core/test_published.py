# SPDX-License-Identifier: Apache-2.0
"""The publisher's manifest may be anybody's: it is read as it was written or refused in a sentence,
and nothing of the artifact is used that it does not claim.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.checked import (
    checked,
    refuse_other_bytes,
    refuse_other_files,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.metadata import (
    read_artifact,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import published
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.provenance import (
    Claim,
    Provenance,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.published import (
    PublishedManifest,
    folder_of_schema_1,
    read_published,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from hypothesis import given
from hypothesis import strategies as st

ZEROS = "0" * 64
ENTRY = {"path": "a/b", "size": 3, "sha256": ZEROS}
NAMES = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1, max_size=6
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ENTRIES = st.builds(
    FileEntry,
    PATHS,
    st.integers(0, 2**63),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
MANIFESTS = st.builds(
    PublishedManifest.of,
    st.lists(ENTRIES, max_size=6, unique_by=lambda entry: entry.path),
    st.just(()),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["schema", "files", "folders", "path", "size", "sha256", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def document(**more: Any) -> dict[str, Any]:
    return {"schema": 2, "files": [ENTRY], "folders": [], **more}


def entry(**more: Any) -> dict[str, Any]:
    return document(files=[{**ENTRY, **more}])


def why_not(body: bytes) -> str:
    with pytest.raises(ArtifactError) as refusal:
        read_published(body)
    assert refusal.value.step == "read the manifest"
    before, _colon, reason = refusal.value.message.partition(": ")
    assert before == "its manifest triton-manifest.json cannot be read"
    return reason


@given(MANIFESTS)
def test_what_is_written_is_read(manifest: PublishedManifest) -> None:
    found = read_published(manifest.to_bytes())
    assert found == manifest and found.digest == manifest.digest


@given(MANIFESTS, MANIFESTS)
def test_other_claims_have_another_digest(one: PublishedManifest, other: PublishedManifest) -> None:
    assert (one == other) == (one.digest == other.digest)


@given(JSON | st.fixed_dictionaries({"schema": JSON, "files": st.lists(JSON), "folders": JSON}))
def test_any_document_is_a_manifest_or_a_sentence(data: Any) -> None:
    body = json.dumps(data).encode()
    try:
        schema = read_published(body).schema
    except ArtifactError:
        assert why_not(body)
    else:
        assert schema in (1, 2)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_sentence(body: bytes) -> None:
    assert why_not(body)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "it is not a JSON object"),
        (document(schema=3), "it has schema 3, and this version of the collection reads 1 and 2"),
        (document(schema="2"), "schema is not a whole number"),
        (document(schema=True), "schema is not a whole number"),
        ({"files": [], "folders": []}, "schema is missing"),
        (document(files={}), "files is not a list"),
        (document(files=["a"]), "file 1: is not a JSON object"),
        (document(folders=[1]), "folders is not a list of texts"),
        (entry(size=-1), "file 1: size is not a whole number"),
        (entry(size=True), "file 1: size is not a whole number"),
        (entry(size=1.0), "file 1: size is not a whole number"),
        (entry(size="1"), "file 1: size is not a whole number"),
        (entry(sha256=None), "file 1: sha256 is not a text"),
        (entry(sha256="0" * 63), "file 1: sha256 is not 64 hexadecimal digits in small letters"),
        (entry(sha256="A" * 64), "file 1: sha256 is not 64 hexadecimal digits in small letters"),
        (
            entry(sha256="\N{ARABIC-INDIC DIGIT ZERO}" * 64),
            "file 1: sha256 is not 64 hexadecimal digits in small letters",
        ),
        (entry(path="../x"), "the path '../x' does not stay inside the model"),
        (entry(path="/x"), "the path '/x' does not stay inside the model"),
        (entry(path="a//b"), "the path 'a//b' is not written as 'a/b'"),
        (entry(path="./a"), "the path './a' is not written as 'a'"),
        (entry(path="a/"), "the path 'a/' is not written as 'a'"),
        (entry(path="\ud800"), "the path '\\ud800' is no text"),
        (entry(path="x" * 5000), "it has a path of 5000 characters"),
        (document(files=[ENTRY, ENTRY]), "it lists 'a/b' more than once"),
        (document(folders=["a/b"]), "it lists 'a/b' more than once"),
        (document(folders=["../x"]), "the path '../x' does not stay inside the model"),
    ],
)
def test_what_is_no_manifest(data: Any, words: str) -> None:
    assert why_not(json.dumps(data).encode()) == words


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"schema": 2' + b"0" * 5000 + b"}"])
def test_what_no_parser_can_take(body: bytes) -> None:
    assert why_not(body).startswith("it is not JSON: ")


def test_more_files_than_anybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_MOST_FILES", 2)
    assert why_not(json.dumps(document(folders=["a", "c"])).encode()) == (
        "it lists more than 2 files and folders"
    )


# -- what former releases wrote --------------------------------------------------------------------


def test_the_former_manifest_has_the_digest_that_its_tag_has() -> None:
    former = Manifest.of([FileEntry("1/model.onnx", 3, ZEROS)], ["empty"])
    found = read_published(json.dumps(former.to_dict()).encode())
    assert not found.covers_all and found.digest == former.digest
    assert found.claims("network") == {"network/1/model.onnx": Claim(ZEROS, 3)}
    assert found.folders_in_artifact("network") == ("network/empty",)


@pytest.mark.parametrize(
    ("data", "files", "folder"),
    [
        ("network", ["network/1/m", "other/1/m"], "network"),
        (None, ["a/x", "network/1/m", "z/x"], "network"),
        ("gone", ["network/1/m", "MLmodel"], "network"),
        (["network"], ["network/1/m"], "network"),
        (None, ["1/m"], "1"),
        (None, ["MLmodel"], ""),
    ],
)
def test_the_folder_of_a_former_manifest(data: Any, files: list[str], folder: str) -> None:
    former = PublishedManifest((FileEntry("1/m", 1, ZEROS),), (), 1)
    assert folder_of_schema_1(former, data, dict.fromkeys(files, 1)) == folder


# -- what is compared with it ----------------------------------------------------------------------


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact whose manifest lists all of it but one file."""
    (tmp_path / "network" / "1").mkdir(parents=True)
    (tmp_path / "network" / "1" / "model.onnx").write_bytes(b"weights")
    (tmp_path / "MLmodel").write_text("flavors: {triton: {data: network}}")
    entries = [
        FileEntry(path, len(data), hashlib.sha256(data).hexdigest())
        for path in ("MLmodel", "network/1/model.onnx")
        for data in [(tmp_path / path).read_bytes()]
    ]
    manifest = PublishedManifest.of(entries)
    (tmp_path / "triton-manifest.json").write_bytes(manifest.to_bytes())
    (tmp_path / "more").write_bytes(b"?")
    return tmp_path


def test_each_file_that_is_used_is_compared(artifact: Path, tmp_path: Path) -> None:
    root = LocalRoot(str(artifact), 10)
    found = read_artifact(root)
    assert found.provenance and found.provenance.schema == 2
    files = checked(root, found.provenance)
    target = str(tmp_path / "target")
    assert files.fetch({"network/1/model.onnx": target})["network/1/model.onnx"].size == 7
    assert found.read("network/1/model.onnx") == b"weights"
    (artifact / "network/1/model.onnx").write_bytes(b"weighty")
    for use in (
        lambda: files.fetch({"network/1/model.onnx": f"{target}2"}),
        lambda: found.read("network/1/model.onnx"),
    ):
        with pytest.raises(ArtifactError, match=r": network/1/model.onnx has sha256"):
            use()
    for use in (lambda: files.fetch({"more": f"{target}3"}), lambda: found.read("more")):
        with pytest.raises(ArtifactError, match=r"more is not in triton-manifest\.json"):
            use()
    assert not Path(f"{target}3").exists()


@pytest.mark.parametrize("text", ["flavors: {onnx: {data: more}}", "{"])
def test_mlmodel_is_compared_before_it_is_believed(artifact: Path, text: str) -> None:
    (artifact / "MLmodel").write_text(text.ljust(34))
    with pytest.raises(ArtifactError, match=r"not what was published: MLmodel has sha256"):
        read_artifact(LocalRoot(str(artifact), 10))


@pytest.mark.parametrize("path", ["MLmodel", "network/1/model.onnx"])
def test_what_is_listed_and_missing_is_missed(artifact: Path, path: str) -> None:
    (artifact / path).unlink()
    with pytest.raises(ArtifactError, match=f"not what was published: {path} is missing"):
        read_artifact(LocalRoot(str(artifact), 10))


def test_folders_that_nobody_published_are_none(artifact: Path) -> None:
    """An empty version folder is a version of an ensemble."""
    (artifact / "network" / "2").mkdir()
    assert read_artifact(LocalRoot(str(artifact), 10)).folders == ()


def test_sizes_that_a_store_does_not_list_are_found_out_later() -> None:
    claims = Provenance("d", 2, {"a": Claim(ZEROS, 3)})
    refuse_other_files(claims, {"a": None, "b": 1})
    with pytest.raises(ArtifactError, match="a has 4 bytes instead of 3"):
        refuse_other_files(claims, {"a": 4})


def test_a_former_manifest_says_nothing_of_what_lies_beside_the_model() -> None:
    former = Provenance("d", 1, {"network/1/m": Claim(ZEROS, 1)})
    refuse_other_bytes(former, "MLmodel", b"anything")
    with pytest.raises(ArtifactError, match="network/1/n is not in"):
        refuse_other_bytes(former, "network/1/n", b"")
    # A signature without a manifest covers what it names, and nothing else.
    with pytest.raises(ArtifactError, match="MLmodel is not in"):
        refuse_other_bytes(Provenance(claims=former.claims), "MLmodel", b"")


def test_what_differs_is_listed_up_to_a_few() -> None:
    claims = Provenance("d", 2, {f"f{number}": Claim(ZEROS, 1) for number in range(7)})
    with pytest.raises(ArtifactError) as refusal:
        refuse_other_files(claims, {})
    assert refusal.value.message.endswith("f4 is missing; 2 more")


def test_many_small_values_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take thirty times the memory of their text; a manifest of as many files as may be does
    not have as many values.
    """
    listed = [{**ENTRY, "path": f"1/{number}"} for number in range(250_000)]
    assert len(read_published(json.dumps(document(files=listed)).encode()).files) == 250_000
    monkeypatch.delattr(json, "loads")
    for small in (b"{},", b"[],", b"1,"):
        assert why_not(small * 3_000_000) == "it holds more than 2000000 values"
