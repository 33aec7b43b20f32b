# SPDX-License-Identifier: Apache-2.0
"""Versions side by side: what is kept, retired and wanted are all that there is, and no more than
may be.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.versions import (
    loaded_versions,
    must_be_ready,
    plan_side_by_side,
    serves,
    version_to_ask,
)
from hypothesis import assume, event, given
from hypothesis import strategies as st

VERSIONS = st.integers(1, 9)
SETS = st.sets(VERSIONS, min_size=1, max_size=6).map(lambda found: tuple(sorted(found)))
LIMITS = st.integers(1, 5)


def record(versions: tuple[int, ...], registered: int | None, limit: int = 1) -> Record:
    return Record(
        "fraud", "id", "u", "u", "s", "triton", versions, Manifest.of(()).to_dict(), "d", "c",
        {"serve_versions": limit}, "then", "me", registry_version=registered,
    )  # fmt: skip


def desired(limit: int) -> DesiredModel:
    return DesiredModel.from_options(
        {"name": "fraud", "model_uri": "models:/fraud/1", "serve_versions": limit}
    )


def layout(*versions: int, flavor: str = "triton") -> Layout:
    return Layout(flavor, (), (), b"", versions, versions)


def there(versions: tuple[int, ...], registered: int | None) -> ObservedModel:
    return ObservedModel("fraud", record=record(versions, registered), folder=True)


@given(SETS, st.data(), LIMITS, VERSIONS)
def test_what_is_there_is_kept_retired_or_wanted(
    versions: tuple[int, ...], data: st.DataObject, limit: int, wanted: int
) -> None:
    registered = data.draw(st.sampled_from(versions))
    placed = plan_side_by_side(there(versions, registered), desired(limit), wanted, layout(wanted))
    below = [version for version in versions if version < wanted]
    if placed is None:
        event("the whole folder")
        assert limit == 1 or (wanted not in versions and not below)
        return
    event(f"{len(placed.kept)} kept, {len(placed.retired)} retired, fetch {placed.fetch}")
    assert placed.wanted == wanted
    parts = [*placed.kept, *placed.retired, wanted]
    assert len(parts) == len(set(parts)), "each version has one fate"
    assert set(parts) == {*versions, wanted}
    assert placed.fetch == (wanted not in versions)
    # What Triton serves by "latest" is the highest: nothing above the wanted one may stay.
    assert max(parts[: len(placed.kept)], default=0) < wanted
    assert len(placed.kept) + 1 <= limit
    assert list(placed.kept) == below[-(limit - 1) :]
    assert placed.kept or not placed.fetch


@given(SETS, st.data(), st.integers(2, 5), VERSIONS)
def test_the_whole_folder_is_replaced_where_versions_say_nothing_of_each_other(
    versions: tuple[int, ...], data: st.DataObject, limit: int, wanted: int
) -> None:
    registered = data.draw(st.sampled_from(versions))
    good = there(versions, registered)
    assume(plan_side_by_side(good, desired(limit), wanted, layout(wanted)) is not None)
    for observed in (
        dataclasses.replace(good, record=None),
        dataclasses.replace(good, folder=False),
        dataclasses.replace(good, changed_files=("config.pbtxt", "1/a")),
        there(versions, None),
        there(versions, max(versions) + 1),
    ):
        assert plan_side_by_side(observed, desired(limit), wanted, layout(wanted)) is None
    assert plan_side_by_side(good, desired(1), wanted, layout(wanted)) is None
    assert plan_side_by_side(good, desired(limit), wanted, None) is None
    assert plan_side_by_side(good, desired(limit), wanted + 1, layout(wanted)) is None
    assert plan_side_by_side(good, desired(limit), wanted, layout(wanted, wanted + 1)) is None
    assert plan_side_by_side(good, desired(limit), wanted, layout(wanted, flavor="onnx")) is None
    changed = dataclasses.replace(good, changed_files=("config.pbtxt",))
    assert plan_side_by_side(changed, desired(limit), wanted, layout(wanted)) is not None, (
        "a configuration is written anew anyway"
    )


@given(st.sets(VERSIONS), SETS, LIMITS, st.sampled_from(["id", "other", None, ""]))
def test_what_a_server_must_have_ready(
    ready: set[int], versions: tuple[int, ...], limit: int, served_id: str | None
) -> None:
    there = record(versions, versions[-1], limit)
    found = serves(tuple(sorted(ready)), served_id, there)
    if limit > 1:
        assert must_be_ready(there) == set(versions)
        assert found == (served_id == "id" and ready == set(versions))
    else:
        assert must_be_ready(there) == set(), "an artifact's own policy may load only some"
        assert found == (served_id == "id" and ready != set() and ready <= set(versions))
    assert not serves(tuple(sorted(ready)), served_id, None)


@given(SETS)
def test_a_record_from_before_versions_were_served_side_by_side_asks_for_any_of_them(
    versions: tuple[int, ...],
) -> None:
    old = dataclasses.replace(record(versions, None), request={})
    assert must_be_ready(old) == set()
    assert all(serves((version,), "id", old) for version in versions)


@given(SETS)
def test_a_deployment_that_was_taken_over_carries_no_id(versions: tuple[int, ...]) -> None:
    taken = dataclasses.replace(record(versions, None), deploy_id="")
    assert serves(versions, None, taken) and serves(versions, "", taken)
    assert not serves(versions, "id", taken)


SPECIFIC = "version_policy { specific { versions: [ 1 ] } }"


@pytest.mark.parametrize(
    ("author", "request_", "loaded"),
    [
        ("", {}, (2,)),
        ("", {"serve_versions": 2}, (1, 2)),
        ("version_policy { all { } }", {}, (1, 2)),
        (SPECIFIC, {}, (1,)),
        (SPECIFIC, {"config": {"version_policy": None}}, (2,)),
        ("", {"config": {"version_policy": {"specific": {"versions": [1]}}}}, (1,)),
        ("version_policy {", {}, (1, 2)),
    ],
    ids=["usual", "side by side", "all", "specific", "taken away", "asked for", "unreadable"],
)
def test_the_highest_version_that_the_policy_loads_is_asked(
    author: str, request_: dict[str, Any], loaded: tuple[int, ...]
) -> None:
    deployed = dataclasses.replace(record((1, 2), 2), author_config=author, request=request_)
    assert loaded_versions(deployed) == loaded
    assert version_to_ask(deployed) == loaded[-1]
