# SPDX-License-Identifier: Apache-2.0
"""What is wanted and what is there → what is done. One row for each behaviour; nothing is read or
written.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.journal import (
    FolderSwap,
    PendingLoad,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served import (
    ServedModel,
    VersionRow,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import DeliveryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    Load,
    Plan,
    PutSideBySide,
    Reconfigure,
    Recover,
    Remove,
    Replace,
    ReplaceUnread,
    RollBack,
    SetPermissions,
    Step,
    Unload,
    Verify,
    WriteRecord,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    is_pinned,
    make_plan,
    pinned_uri,
)

URL = "localhost:8000"


def desired(**options: Any) -> DesiredModel:
    return DesiredModel.from_options({"name": "fraud", "model_uri": "models:/fraud/2", **options})


def source(version: int = 2, text: str = "models:/fraud/2") -> Source:
    return Source(
        parse_model_uri(text),
        "fraud",
        version,
        None,
        f"models:/m-{version}",
        "mlflow-artifacts:/x",
        None,
        None,
    )


def record(version: int = 2, **more: Any) -> Record:
    uri = f"models:/fraud/{version}"
    return dataclasses.replace(
        Record(
            "fraud",
            f"id-{version}",
            uri,
            uri,
            f"models:/m-{version}",
            "triton",
            (version,),
            Manifest.of(()).to_dict(),
            f"digest-{version}",
            "c",
            desired(model_uri=uri).request,
            "2026-01-01T00:00:00",
            "me",
            registry_name="fraud",
            registry_version=version,
        ),
        **more,
    )


def served(version: int | None = 2, deploy_id: str | None = None) -> ServedModel:
    if version is None:
        return ServedModel(URL)
    return ServedModel(URL, (VersionRow(version, "READY"),), deploy_id or f"id-{version}")


def there(version: int = 2, **more: Any) -> ObservedModel:
    return dataclasses.replace(
        ObservedModel("fraud", record=record(version), folder=True, served=(served(version),)),
        **more,
    )


LAYOUT = Layout("triton", (("model/1/a", "2/a", 5),), (), b"", (2,), (1,))
NOTHING = ObservedModel("fraud", served=(served(None),))
FOREIGN = ObservedModel("fraud", folder=True, served=(ServedModel(URL, (VersionRow(1, "READY"),)),))


@pytest.mark.parametrize(
    ("observed", "wanted", "known", "actions"),
    [
        pytest.param(
            NOTHING, desired(), source(), [Replace, Load, WriteRecord], id="first deployment"
        ),
        pytest.param(
            NOTHING,
            desired(verify={"inputs": {"x": [1]}}),
            source(),
            [Replace, Load, Verify, WriteRecord],
            id="verified",
        ),
        pytest.param(there(), desired(), source(), [], id="unchanged"),
        pytest.param(
            there(), desired(), None, [], id="unchanged, the record answers for a pinned version"
        ),
        pytest.param(
            there(1), desired(), source(), [Replace, Load, WriteRecord], id="another version"
        ),
        pytest.param(
            there(),
            desired(),
            dataclasses.replace(source(), source="models:/m-other"),
            [Replace, Load, WriteRecord],
            id="the registry was set up anew: same number, other content",
        ),
        pytest.param(
            there(folder=False),
            desired(),
            source(),
            [Replace, Load, WriteRecord],
            id="folder deleted",
        ),
        pytest.param(
            there(changed_files=("2/a",)),
            desired(),
            source(),
            [Replace, Load, WriteRecord],
            id="file changed on disk",
        ),
        pytest.param(
            there(changed_files=("config.pbtxt",)),
            desired(),
            source(),
            [Reconfigure, Load, WriteRecord],
            id="config changed on disk",
        ),
        pytest.param(
            there(touched_files=("2/a",)), desired(), source(), [WriteRecord], id="file touched"
        ),
        pytest.param(
            there(modes_differ=True),
            desired(),
            source(),
            [SetPermissions, WriteRecord],
            id="mode changed on disk",
        ),
        pytest.param(
            there(), desired(mode="0640"), source(), [SetPermissions, WriteRecord], id="mode option"
        ),
        pytest.param(
            there(),
            desired(config={"max_batch_size": 4}),
            source(),
            [Reconfigure, Load, WriteRecord],
            id="config option",
        ),
        pytest.param(
            there(),
            desired(instance_kind="cpu"),
            source(),
            [Reconfigure, Load, WriteRecord],
            id="instance kind",
        ),
        pytest.param(
            there(),
            desired(version_folders="artifact"),
            source(),
            [Replace, Load, WriteRecord],
            id="another layout",
        ),
        pytest.param(
            there(served=(served(None),)),
            desired(),
            source(),
            [Load],
            id="unloaded behind our back",
        ),
        pytest.param(
            there(served=(served(2, "id-1"),)),
            desired(),
            source(),
            [Load],
            id="files right, served id old",
        ),
        pytest.param(
            there(record=record(wanted="unloaded"), served=(served(None),)),
            desired(),
            source(),
            [Load, WriteRecord],
            id="was to stay unloaded",
        ),
        pytest.param(
            there(), desired(state="unloaded"), source(), [Unload, WriteRecord], id="to be unloaded"
        ),
        pytest.param(
            there(),
            desired(model_uri="models:/fraud@champion"),
            source(2, "models:/fraud@champion"),
            [WriteRecord],
            id="an alias that names what is there",
        ),
        pytest.param(there(), desired(state="absent"), None, [Unload, Remove], id="removal"),
        pytest.param(NOTHING, desired(state="absent"), None, [], id="removal of nothing"),
        pytest.param(
            dataclasses.replace(NOTHING, served=(served(2),)),
            desired(state="absent"),
            None,
            [Unload],
            id="removal of what is only in memory and carries an id of ours",
        ),
        pytest.param(
            FOREIGN, desired(adopt=True), source(), [Replace, Load, WriteRecord], id="adoption"
        ),
        pytest.param(
            FOREIGN,
            desired(adopt=True, state="absent"),
            None,
            [Unload, Remove],
            id="removal of somebody else's, when asked",
        ),
        pytest.param(
            there(journal=FolderSwap("id", None, 1, ())),
            desired(),
            source(),
            [Recover],
            id="interrupted",
        ),
        pytest.param(
            there(journal=PendingLoad("id", "noon", None)),
            desired(),
            source(),
            [Recover, Load],
            id="pending load",
        ),
        pytest.param(
            there(retained=(record(1),)),
            desired(state="rolled_back"),
            None,
            [RollBack, Load, WriteRecord],
            id="rollback",
        ),
        pytest.param(
            there(record=record(rolled_back_from="id-3"), retained=(record(1),)),
            desired(state="rolled_back"),
            None,
            [],
            id="rolled back already",
        ),
        pytest.param(
            there(record=record(rolled_back_from="id-3", went_back_to="id-1")),
            desired(state="rolled_back", rollback_to="id-1"),
            None,
            [],
            id="rolled back already to the deployment that is named",
        ),
        pytest.param(
            there(record=record(wanted="unloaded"), served=(served(None),)),
            desired(state="rolled_back", rollback_to="2"),
            None,
            [Load, WriteRecord],
            id="rollback to what is there and was to stay unloaded",
        ),
        pytest.param(
            there(), desired(config={}), source(), [], id="options that are empty change nothing"
        ),
        pytest.param(
            there(retained=(record(1),)),
            desired(state="rolled_back", rollback_to="2"),
            None,
            [],
            id="rollback to what is there",
        ),
    ],
)
def test_actions(
    observed: ObservedModel, wanted: DesiredModel, known: Source | None, actions: list[type[Step]]
) -> None:
    plan = make_plan(observed, wanted, known, LAYOUT)
    assert [type(step) for step in plan.steps] == actions
    assert plan.changed == bool(actions)
    assert all(step.summary for step in plan.steps)


@pytest.mark.parametrize(
    ("observed", "wanted", "says"),
    [
        (FOREIGN, desired(), "adopt: true"),
        (FOREIGN, desired(state="absent"), "adopt: true"),
        (NOTHING, desired(state="rolled_back"), "not deployed"),
        (there(), desired(state="rolled_back"), "retained: none"),
        (
            there(retained=(record(1),)),
            desired(state="rolled_back", rollback_to="9"),
            "no retained deployment 9",
        ),
    ],
)
def test_refusals(observed: ObservedModel, wanted: DesiredModel, says: str) -> None:
    with pytest.raises(DeliveryError, match=says):
        make_plan(observed, wanted, source(), LAYOUT)


def test_diff_shows_what_a_user_knows() -> None:
    plan = make_plan(there(1), desired(config={"max_batch_size": 4}), source(), LAYOUT)
    assert plan.diff() == {
        "before": "state: present\nsource: models:/fraud/1\n",
        "after": 'state: present\nsource: models:/fraud/2\nconfig: {"max_batch_size": 4}\n',
        "before_header": "model fraud",
        "after_header": "model fraud",
    }


def test_rolling_forward_is_said() -> None:
    plan = make_plan(
        there(1, record=record(1, rolled_back_from="id-2")), desired(), source(), LAYOUT
    )
    assert "rolls it forward" in plan.warnings[0]


@pytest.mark.parametrize(
    ("there", "options"),
    [
        (record(1), {}),
        (record(2, rolled_back_from="id-3"), {}),
        (record(1, rolled_back_from="id-2"), {"state": "unloaded"}),
        (None, {}),
    ],
    ids=["never rolled back", "nothing to replace", "not to be served", "nothing there"],
)
def test_what_is_not_rolled_forward_is_not_said_to_be(
    there: Record | None, options: dict[str, Any]
) -> None:
    observed = ObservedModel(
        "fraud", record=there, folder=there is not None, served=(served(None),)
    )
    assert make_plan(observed, desired(**options), source(), LAYOUT).warnings == ()


@pytest.mark.parametrize(
    ("options", "known", "shown"),
    [
        ({"keep_source": True, "model_uri": "models:/fraud@champion"}, None, "models:/fraud/2"),
        ({"model_uri": "models:/fraud@champion"}, None, "models:/fraud@champion"),
        ({}, None, "models:/fraud/2"),
        ({"model_uri": "models:/fraud/3"}, source(3, "models:/fraud/3"), "models:/fraud/3"),
    ],
    ids=["kept", "an alias that nobody was asked about", "pinned", "asked"],
)
def test_diff_shows_what_will_be_in_place(
    options: dict[str, Any], known: Source | None, shown: str
) -> None:
    named = {key: value for key, value in options.items() if key != "keep_source"}
    wanted = dataclasses.replace(
        desired(instance_kind="cpu", **named), keep_source="keep_source" in options
    )
    plan = make_plan(there(), wanted, known, LAYOUT)
    assert plan.changed
    assert plan.after["source"] == shown


@pytest.mark.parametrize(
    ("uri", "tracking", "pinned"),
    [
        ("models:/fraud/2", None, True),
        ("models:/fraud/3", None, False),
        ("models:/fraud@champion", None, False),
        ("models:/fraud/2", "http://elsewhere", False),
    ],
)
def test_only_a_version_of_the_same_registry_needs_no_question(
    uri: str, tracking: str | None, pinned: bool
) -> None:
    assert is_pinned(record(), desired(model_uri=uri), tracking) is pinned


def test_two_versions_stay_side_by_side() -> None:
    observed = there(1, record=record(1, request={**record(1).request, "serve_versions": 2}))
    plan: Plan = make_plan(observed, desired(serve_versions=2), source(), LAYOUT)
    step = plan.replacement
    assert isinstance(step, PutSideBySide) and step.record == observed.record
    assert (step.versions.wanted, step.versions.kept, step.versions.retired) == (2, (1,), ())
    assert plan.actions[0].startswith("add version 2 side by side with 1")


def test_steps_carry_what_they_need() -> None:
    step = make_plan(NOTHING, desired(), source(), LAYOUT).replacement
    assert isinstance(step, Replace)
    assert (step.asked, step.source, step.layout) == (desired().uri, source(), LAYOUT)
    back = make_plan(there(retained=(record(1),)), desired(state="rolled_back")).rollback
    assert back and (back.record, back.target) == (record(), record(1))
    plan = make_plan(there(changed_files=("config.pbtxt",)), desired(), source())
    assert isinstance(plan.steps[0], Reconfigure) and plan.steps[0].record == record()
    assert plan.servers == {URL}


@pytest.mark.parametrize("known", [None, source()])
def test_a_check_run_without_libraries_plans_what_cannot_be_carried_out(
    known: Source | None,
) -> None:
    plan = make_plan(NOTHING, desired(), known)
    assert [type(step) for step in plan.steps] == [ReplaceUnread, Load, WriteRecord]
    assert plan.replacement is None and plan.actions[0] == "deploy models:/fraud/2"


@pytest.mark.parametrize(
    ("more", "pinned"),
    [
        ({"registry_name": None, "registry_version": None, "model_id": "m-5"}, True),
        ({"registry_name": None, "registry_version": None, "model_id": "m-6"}, False),
        ({"model_id": "m-5"}, False),
    ],
    ids=["the same", "another", "came as a version"],
)
def test_a_logged_model_needs_no_question_where_it_is_the_same(
    more: dict[str, Any], pinned: bool
) -> None:
    assert is_pinned(record(**more), desired(model_uri="models:/m-5"), None) is pinned


@pytest.mark.parametrize(
    ("found", "pinned"),
    [
        (source(3), "models:/fraud/3"),
        (dataclasses.replace(source(), registry_version=None), "models:/fraud/2"),
        (None, "models:/fraud/2"),
    ],
)
def test_the_exact_thing_that_a_uri_means(found: Source | None, pinned: str) -> None:
    assert pinned_uri(desired(), found) == pinned
    assert pinned_uri(desired(state="absent"), None) == ""
