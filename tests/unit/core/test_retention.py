# SPDX-License-Identifier: Apache-2.0
"""Which retained copies go: what can be gone back to keeps its files, nothing else stays."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.retention import (
    superfluous,
    usable,
)


def record(number: int, digest: str | None = None, **more: Any) -> Record:
    uri = f"models:/fraud/{number}"
    made = Record(
        "fraud", f"id-{number}", uri, uri, "s", "triton", (number,), Manifest.of(()).to_dict(),
        digest or f"digest-{number}", "c", {}, "then", "me",
    )  # fmt: skip
    return dataclasses.replace(made, **more)


def holding(*records: Record, what: str = "model") -> dict[str, set[str]]:
    return {one.key: {"record.json", what} for one in records}


# As the repository lists them: the newest first.
OLD = [record(3), record(2), record(1)]


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (0, ["id-3", "id-2", "id-1"]),
        (1, ["id-2", "id-1"]),
        (2, ["id-1"]),
        (3, []),
        (9, []),
    ],
)
def test_the_newest_are_kept(keep: int, gone: list[str]) -> None:
    assert superfluous(OLD, record(4), holding(*OLD), keep) == gone


def test_without_a_live_deployment_the_same_are_kept() -> None:
    assert superfluous(OLD, None, holding(*OLD), 1) == ["id-2", "id-1"]


def test_the_copy_that_was_gone_back_to_goes_and_does_not_count() -> None:
    live = record(4, went_back_to="id-3")
    assert superfluous(OLD, live, holding(*OLD), 1) == ["id-3", "id-1"]
    assert superfluous(OLD, live, holding(*OLD), 3) == ["id-3"]


def test_a_copy_is_named_by_its_transaction() -> None:
    """What is changed in place keeps its deploy id: the two copies must not be taken for one."""
    one, two = record(1, "a", transaction="t-1"), record(1, "b", transaction="t-2")
    assert superfluous([two, one], record(4), holding(two, one), 1) == ["t-1"]
    live = record(4, went_back_to="id-1")
    assert superfluous([two, one], live, holding(two, one), 2) == [], "no copy has that name"


def test_a_copy_without_a_record_goes() -> None:
    inside = {**holding(*OLD), "half-made": {"model"}}
    assert superfluous(OLD, record(4), inside, 3) == ["half-made"]


def test_what_is_not_there_cannot_go() -> None:
    assert superfluous(OLD, record(4), {}, 0) == []


# -- manifests that are shared ---------------------------------------------------------------------


def test_files_that_a_kept_copy_needs_stay() -> None:
    """Two deployments of the same files, apart in options: the files lie in the older copy."""
    new, old = record(3, "same"), record(2, "same")
    inside = {"id-3": {"record.json"}, "id-2": {"record.json", "model"}}
    assert superfluous([new, old], record(4), inside, 1) == []


def test_files_that_the_live_deployment_has_need_no_copy() -> None:
    new, old = record(3, "same"), record(2, "same")
    inside = {"id-3": {"record.json"}, "id-2": {"record.json", "model"}}
    assert superfluous([new, old], record(4, "same"), inside, 1) == ["id-2"]


def test_a_record_alone_serves_no_other() -> None:
    new, old = record(3, "same"), record(2, "same")
    inside = {"id-3": {"record.json", "model"}, "id-2": {"record.json"}}
    assert superfluous([new, old], record(4), inside, 1) == ["id-2"]


def test_files_that_no_kept_copy_needs_go() -> None:
    old, older = record(2, "same"), record(1, "same")
    assert superfluous([record(3), old, older], record(4), holding(*OLD), 1) == ["id-2", "id-1"]


# -- versions side by side -------------------------------------------------------------------------


def test_version_folders_that_a_kept_copy_needs_stay() -> None:
    new = record(3, triton_versions=(2, 3))
    old = record(2, triton_versions=(1, 2))
    inside = {"id-3": {"record.json", "3"}, "id-2": {"record.json", "2"}}
    assert superfluous([new, old], record(4, triton_versions=(4,)), inside, 1) == []


def test_version_folders_that_are_live_need_no_copy() -> None:
    new = record(3, triton_versions=(2, 3))
    old = record(2, triton_versions=(1, 2))
    inside = {"id-3": {"record.json", "3"}, "id-2": {"record.json", "2"}}
    live = record(4, triton_versions=(2, 4))
    assert superfluous([new, old], live, inside, 1) == ["id-2"]


def test_version_folders_that_no_kept_copy_had_go() -> None:
    new = record(3, triton_versions=(3,))
    old = record(2, triton_versions=(1, 2))
    inside = {"id-3": {"record.json", "3"}, "id-2": {"record.json", "1"}}
    assert superfluous([new, old], record(4), inside, 1) == ["id-2"]


def test_nothing_that_holds_no_record_serves_another() -> None:
    new = record(3, triton_versions=(2, 3))
    inside = {"id-3": {"record.json", "model"}, "half-made": {"2", "model"}}
    assert superfluous([new], record(4), inside, 1) == ["half-made"]


def test_a_copy_whose_files_are_gone_takes_no_place() -> None:
    """Its files were those of a deployment that was damaged when it was replaced."""
    lost, whole = record(3), record(2)
    inside = {"id-3": {"record.json"}, "id-2": {"record.json", "model"}}
    assert usable([lost, whole], record(4), inside) == [whole]
    assert superfluous([lost, whole], record(4), inside, 1) == ["id-3"]
    assert usable([lost], record(4, manifest_digest=lost.manifest_digest), inside) == [lost]
