# SPDX-License-Identifier: Apache-2.0
"""What a user is told of a deployment, and of its proof."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest.mock import Mock

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.limits import (
    Limits,
    Turn,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.proven_files import (
    ProvenFiles,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.replacement import (
    Replacement,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.rollback import (
    Rollback,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.transaction import (
    Transaction,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    describe,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    Plan,
    Reconfigure,
    RollBack,
)

PROVEN = "2026-01-01T12:00:02.000000+00:00"
DESIRED = DesiredModel.from_options({"name": "fraud", "model_uri": "models:/fraud/1"})


def record(**more: Any) -> Record:
    uri = "models:/fraud/1"
    made = Record(
        *("fraud", "id-1", uri, uri, "models:/m-1", "triton", (1,), Manifest.of(()).to_dict()),
        *("digest", "c", DESIRED.request, "2026-01-01T00:00:00", "me"),
        author_config='backend: "onnxruntime"',
    )
    return dataclasses.replace(made, **more)


def test_proof_is_told() -> None:
    assert describe("fraud", record(verified=PROVEN))["verified"] == PROVEN
    unproven = describe("fraud", record())
    assert "verified" in unproven and unproven["verified"] is None


@pytest.mark.parametrize("code", ["the program 1/model.py", "", None])
def test_what_is_code_is_told_and_that_nobody_said(code: str | None) -> None:
    """A record of an earlier release does not have it."""
    made = Record.from_dict(record(code=code).to_dict())
    assert describe("fraud", made)["code"] == code
    earlier = {key: value for key, value in made.to_dict().items() if key != "code"}
    assert describe("fraud", Record.from_dict(earlier))["code"] is None


@pytest.mark.parametrize("step", ["reconfigure", "roll back"])
def test_what_is_put_in_place_anew_is_not_proven_yet(step: str) -> None:
    """The proof was of another configuration, or of an earlier load."""
    repository: Any = Mock()
    repository.put.return_value = None
    repository.fingerprint.return_value = {}
    repository.live.return_value = "models/fraud"
    repository.moves_out.return_value = []
    old = record(verified=PROVEN)
    observed = ObservedModel("fraud", record=old, folder=True, config=b"")
    limits = Limits()
    transaction = Transaction(
        Plan(DESIRED, observed, (), {}, {}),
        old,
        "id-2",
        ProvenFiles(repository, observed),
        limits,
        Turn(limits.loads),
        new=old,
    )
    replacement = Replacement(repository, Mock(), None)
    replacement.staged_config = Mock(return_value="staged")  # type: ignore[method-assign]
    if step == "reconfigure":
        replacement.reconfigure(transaction, Reconfigure("", old))
    else:
        Rollback(repository, replacement).roll_back(transaction, RollBack("", old, old))
    assert transaction.deployed.deploy_id == "id-2" and transaction.deployed.verified is None
