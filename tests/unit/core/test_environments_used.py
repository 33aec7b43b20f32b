# SPDX-License-Identifier: Apache-2.0
"""Environments are kept while a record or a retained copy refers to them, and removed then."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import LockTimeout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration import (
    environments_used,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    FolderRepository,
)


@dataclasses.dataclass
class Made:
    """An environment as it is listed."""

    digest: str
    python: str = "/bin/python"
    packages: tuple[str, ...] = ("a", "b")
    size: int = 9
    version: str = "3.11.7"


class Environments:
    """Those of a host, by digest."""

    def __init__(self, *digests: str) -> None:
        self.there = list(digests)
        self.pythons = set(digests)
        self.fails = False

    def present(self) -> list[Made]:
        return [Made(digest) for digest in self.there]

    def has_python(self, digest: str) -> bool:
        return digest in self.pythons

    def remove_unused(self, used: Collection[str]) -> list[str]:
        if self.fails:
            raise LockTimeout("somebody builds")
        gone = [digest for digest in self.there if digest not in used]
        self.there = [digest for digest in self.there if digest in used]
        return gone


def record(name: str, digest: str | None, beside: str | None = None) -> Record:
    made = Record(
        name, "id", f"models:/{name}/1", f"models:/{name}/1", "models:/m-1", "sklearn", (1,),
        Manifest.of(()).to_dict(), "d", "c", {}, "then", "me", transaction="id",
        served_as="pyfunc" if digest else "native", environment=digest,
    )  # fmt: skip
    if beside:
        old = dataclasses.replace(made, environment=beside)
        made = dataclasses.replace(made, beside=old.vouched_for([1]), triton_versions=(1, 2))
    return made


@pytest.fixture
def repository(tmp_path: Path) -> FolderRepository:
    (tmp_path / "models").mkdir()
    made = FolderRepository(str(tmp_path / "models"))
    made.store.ensure()
    made.store.write_record(record("churn", "one", beside="two"))
    made.store.write_record(record("resnet", None))
    return made


def remove(there: Environments, repository: FolderRepository) -> str | None:
    found: Any = there
    return environments_used.remove_unused(found, repository)


def test_what_no_record_refers_to_is_removed(repository: FolderRepository) -> None:
    there = Environments("one", "two", "three")
    assert remove(there, repository) is None
    assert there.there == ["one", "two"]


def test_what_a_retained_copy_needs_is_kept(repository: FolderRepository) -> None:
    copy = Path(repository.store.path, "retained/churn/20260101T000000-00000000")
    copy.mkdir(parents=True)
    (copy / "record.json").write_text(json.dumps(record("churn", "three").to_dict()))
    there = Environments("one", "two", "three", "four")
    remove(there, repository)
    assert there.there == ["one", "two", "three"]


@pytest.mark.parametrize("folder", ["staging/fraud", "journals/fraud.json"])
def test_nothing_is_removed_while_a_run_may_be_about_to_use_it(
    repository: FolderRepository, folder: str
) -> None:
    (Path(repository.store.path) / folder).mkdir(parents=True)
    there = Environments("three")
    assert remove(there, repository) is None
    assert there.there == ["three"]


def test_nothing_is_removed_where_a_record_cannot_be_read(repository: FolderRepository) -> None:
    (Path(repository.store.path) / "records/fraud.json").write_text("{")
    there = Environments("three")
    remove(there, repository)
    assert there.there == ["three"]


def test_what_cannot_be_removed_is_a_warning(repository: FolderRepository) -> None:
    there = Environments("three")
    there.fails = True
    assert remove(there, repository) == (
        "environments that no model needs were not removed (somebody builds)"
    )


def test_an_environment_that_a_version_needs_is_missed(repository: FolderRepository) -> None:
    needs = record("churn", "one", beside="two")

    def lost(there: Any) -> str | None:
        return environments_used.why_lost(there, needs)

    there = Environments("one", "two")
    assert lost(there) is None
    there.pythons.remove("one")
    assert lost(there) == "the Python of its environment one is gone"
    assert lost(Environments("one")) == "its environment two is gone"
    assert lost(None) is None


def test_info_lists_environments_with_size_and_users(repository: FolderRepository) -> None:
    there: Any = Environments("one", "three")
    assert environments_used.describe_all(there, repository) == [
        {"digest": "one", "python": "3.11.7", "packages": 2, "size": 9, "models": ["churn"]},
        {"digest": "three", "python": "3.11.7", "packages": 2, "size": 9, "models": []},
    ]
    assert environments_used.describe_all(None, repository) == []
