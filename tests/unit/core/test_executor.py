# SPDX-License-Identifier: Apache-2.0
"""What carrying out a plan leaves on the disk of a repository that no server reads."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from unittest.mock import patch

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import disk
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.config_pbtxt import (
    config_for,
    digest_without_id,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import OWN_FILES
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    Manifest,
    select_versions,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import RepositoryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.executor import (
    Executor,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import Plan
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    make_plan,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository import folder
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    FolderRepository,
    manifest_of_folder,
)


class Deployed:
    """A model with a record, as a run left it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "models/fraud/1/weights"
        self.file.parent.mkdir(parents=True)
        self.file.write_text("deployed")
        self.config = folder / "models/fraud/config.pbtxt"
        config = config_for("", "fraud", "id", {})
        self.config.write_bytes(config)
        self.repository = FolderRepository(str(folder / "models"))
        self.repository.store.ensure()
        live = self.repository.live("fraud")
        manifest = manifest_of_folder(live, ignore=OWN_FILES)
        self.write(
            Record(
                "fraud", "id", "models:/fraud/1", "models:/fraud/1", "models:/m-1", "triton", (1,),
                manifest.to_dict(), manifest.digest, digest_without_id(config, "id") or "",
                {}, "then", "me",
                fingerprint=disk.fingerprint(live), transaction="id",
            )
        )  # fmt: skip

    def write(self, record: Record) -> None:
        # As every reader has it: through JSON.
        self.repository.store.write_record(
            Record.from_dict(json.loads(json.dumps(record.to_dict())))
        )

    def run(self, **options: object) -> list[str]:
        """Bring it to a state; returns what was done."""
        plan = self.plan(**options)
        self.apply(plan)
        return plan.actions

    def plan(self, **options: object) -> Plan:
        store, stored = self.repository.store, self.repository.read("fraud")
        retained = tuple(store.retained_records("fraud"))
        observed = ObservedModel.of("fraud", stored, (), (), retained)
        return make_plan(observed, DesiredModel.from_options({"name": "fraud", **options}))

    def apply(self, plan: Plan) -> None:
        Executor(self.repository, [], lambda source: pytest.fail("nothing to fetch")).apply(plan)


@pytest.fixture
def deployed(tmp_path: Path) -> Deployed:
    return Deployed(tmp_path)


def test_a_file_that_changed_is_still_seen_when_a_model_is_to_stay_unloaded(
    deployed: Deployed,
) -> None:
    deployed.file.write_text("changed by hand")
    assert deployed.run(state="unloaded") == ["note that it is to be unloaded"]
    assert deployed.repository.read("fraud").changed_files == ("1/weights",)


def test_a_rollback_that_changes_nothing_else_leaves_no_changed_file_in_place(
    deployed: Deployed,
) -> None:
    record = deployed.repository.store.record("fraud")
    assert record is not None
    deployed.write(
        dataclasses.replace(record, wanted="unloaded", rolled_back_from="another deployment")
    )
    deployed.file.write_text("changed by hand")
    with pytest.raises(RepositoryError, match="1/weights changed on disk"):
        deployed.run(state="rolled_back")
    assert deployed.repository.read("fraud").changed_files == ("1/weights",)


def test_a_version_that_is_retained_is_read_only_where_it_looks_otherwise(
    deployed: Deployed, tmp_path: Path
) -> None:
    """The inode and the times of a file tell; a rename of its folder changes neither."""
    record = deployed.repository.store.record("fraud")
    assert record is not None
    part = select_versions(Manifest.from_dict(record.manifest), (1,))
    retained = tmp_path / "retained" / "1"
    retained.parent.mkdir()
    deployed.file.parent.rename(retained)
    weights = retained / "weights"

    def holds(*known: Record) -> tuple[bool, bool]:
        with patch.object(folder, "hash_file", wraps=disk.hash_file) as hashed:
            return deployed.repository.holds(str(retained), part, known), hashed.called

    assert holds(record) == (True, False)
    assert holds() == (True, True)
    times = weights.stat()
    weights.write_text("Deployed")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert holds(record) == (False, True)
    weights.write_text("deployed")
    assert holds(record) == (True, True)


def test_a_file_that_changes_while_a_run_works_is_seen_by_the_next(deployed: Deployed) -> None:
    """The record has how files looked when they were proven, and not how they look at its end."""
    plan = deployed.plan(state="unloaded")
    deployed.file.write_text("changed meanwhile")
    deployed.apply(plan)
    assert deployed.repository.read("fraud").changed_files == ("1/weights",)


def test_a_file_that_is_gone_is_told_of_and_not_its_folder(deployed: Deployed) -> None:
    deployed.file.unlink()
    assert deployed.repository.read("fraud").changed_files == ("1/weights",)


def test_what_was_taken_over_without_a_configuration_has_none(deployed: Deployed) -> None:
    record = deployed.repository.store.record("fraud")
    assert record is not None
    deployed.config.unlink()
    fingerprint = {
        path: look for path, look in record.fingerprint.items() if path != "config.pbtxt"
    }
    digest = digest_without_id(b"", "") or ""
    deployed.write(
        dataclasses.replace(record, deploy_id="", config_digest=digest, fingerprint=fingerprint)
    )
    there = deployed.repository.read("fraud")
    assert there.changed_files == there.touched_files == ()


def test_permission_bits_are_recorded_when_they_were_set(deployed: Deployed) -> None:
    deployed.file.chmod(0o777)
    deployed.run(state="unloaded")
    assert deployed.repository.read("fraud").modes_differ


def test_new_times_of_files_are_noted(deployed: Deployed) -> None:
    deployed.file.write_text("deployed")
    assert deployed.repository.read("fraud").touched_files == ("1/weights",)
    deployed.run(state="unloaded")
    assert deployed.repository.read("fraud").touched_files == ()


@pytest.mark.parametrize("key", ["owner", "group"])
def test_another_owner_than_was_asked_for_is_seen(key: str, deployed: Deployed) -> None:
    there = deployed.file.stat()
    mine = str(there.st_uid if key == "owner" else there.st_gid)
    for asked, differs in ((mine, False), ("54321", True), ("no-such-name", False)):
        record = deployed.repository.store.record("fraud")
        assert record is not None
        deployed.write(dataclasses.replace(record, request={key: asked}))
        assert deployed.repository.read("fraud").modes_differ is differs
