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
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import Plan
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    is_pinned,
    make_plan,
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
            NOTHING, desired(), source(), ["replace", "load", "record"], id="first deployment"
        ),
        pytest.param(
            NOTHING,
            desired(verify={"inputs": {"x": [1]}}),
            source(),
            ["replace", "load", "verify", "record"],
            id="verified",
        ),
        pytest.param(there(), desired(), source(), [], id="unchanged"),
        pytest.param(
            there(), desired(), None, [], id="unchanged, the record answers for a pinned version"
        ),
        pytest.param(
            there(1), desired(), source(), ["replace", "load", "record"], id="another version"
        ),
        pytest.param(
            there(),
            desired(),
            dataclasses.replace(source(), source="models:/m-other"),
            ["replace", "load", "record"],
            id="the registry was set up anew: same number, other content",
        ),
        pytest.param(
            there(folder=False),
            desired(),
            source(),
            ["replace", "load", "record"],
            id="folder deleted",
        ),
        pytest.param(
            there(changed_files=("2/a",)),
            desired(),
            source(),
            ["replace", "load", "record"],
            id="file changed on disk",
        ),
        pytest.param(
            there(changed_files=("config.pbtxt",)),
            desired(),
            source(),
            ["reconfigure", "load", "record"],
            id="config changed on disk",
        ),
        pytest.param(
            there(touched_files=("2/a",)), desired(), source(), ["record"], id="file touched"
        ),
        pytest.param(
            there(modes_differ=True),
            desired(),
            source(),
            ["permit", "record"],
            id="mode changed on disk",
        ),
        pytest.param(
            there(), desired(mode="0640"), source(), ["permit", "record"], id="mode option"
        ),
        pytest.param(
            there(),
            desired(config={"max_batch_size": 4}),
            source(),
            ["reconfigure", "load", "record"],
            id="config option",
        ),
        pytest.param(
            there(),
            desired(instance_kind="cpu"),
            source(),
            ["reconfigure", "load", "record"],
            id="instance kind",
        ),
        pytest.param(
            there(),
            desired(version_folders="artifact"),
            source(),
            ["replace", "load", "record"],
            id="another layout",
        ),
        pytest.param(
            there(served=(served(None),)),
            desired(),
            source(),
            ["load"],
            id="unloaded behind our back",
        ),
        pytest.param(
            there(served=(served(2, "id-1"),)),
            desired(),
            source(),
            ["load"],
            id="files right, served id old",
        ),
        pytest.param(
            there(record=record(wanted="unloaded"), served=(served(None),)),
            desired(),
            source(),
            ["load", "record"],
            id="was to stay unloaded",
        ),
        pytest.param(
            there(), desired(state="unloaded"), source(), ["unload", "record"], id="to be unloaded"
        ),
        pytest.param(
            there(),
            desired(model_uri="models:/fraud@champion"),
            source(2, "models:/fraud@champion"),
            ["record"],
            id="an alias that names what is there",
        ),
        pytest.param(there(), desired(state="absent"), None, ["unload", "remove"], id="removal"),
        pytest.param(NOTHING, desired(state="absent"), None, [], id="removal of nothing"),
        pytest.param(
            dataclasses.replace(NOTHING, served=(served(2),)),
            desired(state="absent"),
            None,
            ["unload"],
            id="removal of what is only in memory and carries an id of ours",
        ),
        pytest.param(
            FOREIGN, desired(adopt=True), source(), ["replace", "load", "record"], id="adoption"
        ),
        pytest.param(
            FOREIGN,
            desired(adopt=True, state="absent"),
            None,
            ["unload", "remove"],
            id="removal of somebody else's, when asked",
        ),
        pytest.param(
            there(journal={"op": "swap"}), desired(), source(), ["recover"], id="interrupted"
        ),
        pytest.param(
            there(journal={"op": "pending", "since": "noon"}),
            desired(),
            source(),
            ["recover", "load"],
            id="pending load",
        ),
        pytest.param(
            there(retained=(record(1),)),
            desired(state="rolled_back"),
            None,
            ["roll back", "load", "record"],
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
            there(retained=(record(1),)),
            desired(state="rolled_back", rollback_to="2"),
            None,
            [],
            id="rollback to what is there",
        ),
    ],
)
def test_actions(
    observed: ObservedModel, wanted: DesiredModel, known: Source | None, actions: list[str]
) -> None:
    plan = make_plan(observed, wanted, known, LAYOUT)
    assert [step.action.value for step in plan.steps] == actions
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


def test_two_versions_stay_beside_each_other() -> None:
    observed = there(1, record=record(1, request={**record(1).request, "serve_versions": 2}))
    plan: Plan = make_plan(observed, desired(serve_versions=2), source(), LAYOUT)
    assert plan.beside and (plan.beside.wanted, plan.beside.kept, plan.beside.retired) == (
        2,
        (1,),
        (),
    )
    assert plan.actions[0].startswith("add version 2 side by side with 1")
