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
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    AlreadyDeployed,
    DeliveryError,
    ForeignModel,
    NotFound,
    RepositoryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    status_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    Heal,
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
ONE, TWO = "one:8000", "two:8000"


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


def on_two(one: int | None, two: int | None) -> tuple[ServedModel, ...]:
    """Two servers, each with this version of ours."""
    return (
        dataclasses.replace(served(one), url=ONE),
        dataclasses.replace(served(two), url=TWO),
    )


def there(version: int = 2, **more: Any) -> ObservedModel:
    return dataclasses.replace(
        ObservedModel("fraud", record=record(version), folder=True, served=(served(version),)),
        **more,
    )


LAYOUT = Layout("triton", (("model/1/a", "2/a", 5),), (), b"", (2,), (1,))
NOTHING = ObservedModel("fraud", served=(served(None),))
FOREIGN = ObservedModel("fraud", folder=True, served=(ServedModel(URL, (VersionRow(1, "READY"),)),))
EXAMPLE = {"x": [[1.0]]}
CHAMPION = "models:/fraud@champion"


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
            there(touched_files=("2/a",)),
            desired(),
            source(),
            [Reconfigure, Load, WriteRecord],
            id="file touched",
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
            [WriteRecord],
            id="rolled back already, and now it is chosen",
        ),
        pytest.param(
            there(record=record(rolled_back_from="id-3", went_back_to="id-1")),
            desired(state="rolled_back", rollback_to="id-1", undo=True),
            None,
            [],
            id="taken back already to the deployment that is named",
        ),
        pytest.param(
            there(record=record(went_back_to="id-1")),
            desired(state="rolled_back", rollback_to="id-1"),
            None,
            [],
            id="chosen already",
        ),
        pytest.param(
            there(record=record(rolled_back_from="id-3")),
            desired(),
            source(),
            [WriteRecord],
            id="rolled back, and asked for again",
        ),
        pytest.param(
            there(record=record(rolled_back_from="id-3")),
            dataclasses.replace(desired(), keep_source=True),
            source(),
            [],
            id="rolled back, and only options are given",
        ),
        pytest.param(
            there(record=record(model_uri="models:/fraud@champion", alias="champion")),
            desired(alias="champion"),
            source(),
            [],
            id="an alias that a controller has pinned",
        ),
        pytest.param(
            there(record=record(alias="champion")),
            desired(model_uri="models:/fraud@champion"),
            source(2, "models:/fraud@champion"),
            [],
            id="pinned by a controller with an older release, and now asked for by the alias",
        ),
        pytest.param(
            there(record=record(model_uri="models:/fraud/latest")),
            desired(alias="latest"),
            source(),
            [],
            id="latest that a controller has pinned",
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
            there(record=record(request={"version_folders": "auto"})),
            desired(),
            source(),
            [],
            id="a record from before there were the other options",
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


ANEW = dataclasses.replace(desired(), must_be_new=True)


@pytest.mark.parametrize(
    ("observed", "wanted", "kind", "says"),
    [
        pytest.param(
            FOREIGN,
            wanted,
            ForeignModel,
            "model 'fraud', plan: there is a folder of this name which this collection did not"
            " deploy; adopt: true takes it over. Nothing was changed.",
            id=f"somebody else's folder, {wanted.state}",
        )
        for wanted in (desired(), desired(state="absent"))
    ]
    + [
        pytest.param(
            dataclasses.replace(FOREIGN, folder=False),
            desired(),
            ForeignModel,
            "model 'fraud', plan: there is a served model of this name which this collection did"
            " not deploy; adopt: true takes it over. Nothing was changed.",
            id="somebody else's model, served from elsewhere",
        ),
        pytest.param(
            there(1),
            ANEW,
            AlreadyDeployed,
            "model 'fraud', plan: there already is a deployment of this name (models:/fraud/1)."
            " Nothing was changed.",
            id="new, and deployed already",
        ),
        pytest.param(
            FOREIGN,
            ANEW,
            AlreadyDeployed,
            "model 'fraud', plan: there already is a folder of this name in the repository."
            " Nothing was changed.",
            id="new, and a folder is there",
        ),
        pytest.param(
            dataclasses.replace(FOREIGN, folder=False),
            ANEW,
            AlreadyDeployed,
            "model 'fraud', plan: there already is a served model of this name. Nothing was"
            " changed.",
            id="new, and served already",
        ),
        pytest.param(
            NOTHING,
            desired(state="unloaded", model_uri=None),
            NotFound,
            "model 'fraud', plan: it is not deployed; model_uri says what to deploy without loading"
            " it. Nothing was changed.",
            id="nothing to unload",
        ),
        pytest.param(
            NOTHING,
            desired(state="rolled_back"),
            NotFound,
            "model 'fraud', roll back: it is not deployed, so that there is nothing to go back"
            " from. Nothing was changed.",
            id="nothing to go back from",
        ),
        pytest.param(
            there(),
            desired(state="rolled_back"),
            NotFound,
            "model 'fraud', roll back: no retained deployment to go back to (retained: none)."
            " models:/fraud/2 is in place as before.",
            id="nothing to go back to",
        ),
        pytest.param(
            there(3, retained=(record(2), record(1))),
            desired(state="rolled_back", rollback_to="9"),
            NotFound,
            "model 'fraud', roll back: no retained deployment 9 to go back to (retained:"
            " models:/fraud/2 (id-2), models:/fraud/1 (id-1)). models:/fraud/3 is in place as"
            " before.",
            id="not retained",
        ),
    ],
)
def test_refusals(
    observed: ObservedModel, wanted: DesiredModel, kind: type[DeliveryError], says: str
) -> None:
    with pytest.raises(kind) as refused:
        make_plan(observed, wanted, source(), LAYOUT)
    assert str(refused.value) == says


# -- what a user reads of a plan -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "wanted", "known", "actions"),
    [
        pytest.param(
            ObservedModel("fraud", served=on_two(None, None)),
            desired(verify={"inputs": {"x": [1]}}),
            source(),
            [
                "deploy models:/fraud/2 (2 files, 12 bytes)",
                "load on one:8000, two:8000",
                "verify by an inference",
                "write the record",
            ],
            id="first deployment",
        ),
        pytest.param(
            FOREIGN,
            desired(adopt=True),
            source(),
            [
                "take over models:/fraud/2 (2 files, 12 bytes)",
                "load on localhost:8000",
                "write the record",
            ],
            id="adoption",
        ),
        pytest.param(
            there(1),
            desired(model_uri=CHAMPION),
            source(2, CHAMPION),
            [
                "replace models:/fraud/1 by models:/fraud/2 (2 files, 12 bytes)",
                "load on localhost:8000",
                "note that it is asked for as models:/fraud@champion",
            ],
            id="the alias names another version",
        ),
        pytest.param(
            there(changed_files=("config.pbtxt",), served=on_two(2, 2)),
            desired(),
            source(),
            [
                "put back config.pbtxt, which changed on disk",
                "load on one:8000, two:8000",
                "write the record",
            ],
            id="config changed on disk",
        ),
        pytest.param(
            there(),
            desired(instance_kind="cpu"),
            source(),
            [
                "apply option instance_kind to config.pbtxt",
                "load on localhost:8000",
                "write the record",
            ],
            id="an option",
        ),
        pytest.param(
            there(modes_differ=True),
            desired(),
            source(),
            ["set owner, group and mode of its files", "write the record"],
            id="mode changed on disk",
        ),
        pytest.param(
            there(touched_files=("2/a",)),
            desired(),
            source(),
            [
                "load again, as 2/a was touched since it was loaded",
                "load on localhost:8000",
                "note the new times of its files",
            ],
            id="file touched",
        ),
        pytest.param(
            there(served=on_two(None, None)),
            desired(),
            source(),
            ["load on one:8000, two:8000"],
            id="servers were restarted",
        ),
        pytest.param(
            there(journal=FolderSwap("id", None, 1, ())),
            desired(),
            source(),
            ["recover from an interrupted run"],
            id="interrupted",
        ),
        pytest.param(
            there(journal=PendingLoad("id", "noon", None)),
            desired(),
            source(),
            ["wait for the load that was given up on at noon", "load on localhost:8000"],
            id="pending load",
        ),
        pytest.param(
            there(retained=(record(1),), served=on_two(2, 2)),
            desired(state="rolled_back"),
            None,
            [
                "go back from models:/fraud/2 to models:/fraud/1 of 2026-01-01T00:00:00",
                "load on one:8000, two:8000",
                "write the record",
            ],
            id="rollback",
        ),
        pytest.param(
            there(record=record(wanted="unloaded"), served=(served(None),)),
            desired(state="rolled_back", rollback_to="2"),
            None,
            ["load on localhost:8000", "note that it is to be loaded"],
            id="rollback to what is there and was to stay unloaded",
        ),
        pytest.param(
            there(served=on_two(2, 2)),
            desired(state="unloaded", model_uri=None),
            None,
            ["unload from one:8000, two:8000", "note that it is to be unloaded"],
            id="to be unloaded",
        ),
        pytest.param(
            there(),
            desired(state="unloaded"),
            source(),
            ["unload from localhost:8000", "note that it is to be unloaded"],
            id="to be there without being loaded",
        ),
        pytest.param(
            there(),
            desired(state="absent"),
            None,
            ["unload from localhost:8000", "remove its files, record and retained copies"],
            id="removal",
        ),
        pytest.param(
            there(),
            desired(model_uri="models:/fraud/latest"),
            source(2, "models:/fraud/latest"),
            ["note that it is asked for as models:/fraud/latest"],
            id="another name for what is there",
        ),
        pytest.param(
            there(),
            desired(alias="champion"),
            source(),
            ["note that it is asked for as models:/fraud@champion"],
            id="an alias that was pinned to what is there",
        ),
        pytest.param(
            there(),
            desired(deployment_set="blue"),
            source(),
            ["note that it belongs to the deployment set blue"],
            id="deployment set",
        ),
        pytest.param(
            there(),
            desired(depends_on=["tokenizer", "encoder"]),
            source(),
            ["note that it depends on tokenizer, encoder"],
            id="dependencies",
        ),
        pytest.param(
            there(record=record(depends_on=("tokenizer",))),
            desired(depends_on=[]),
            source(),
            ["note that it depends on no other model"],
            id="no dependencies",
        ),
    ],
)
def test_actions_are_said_in_the_words_of_a_user(
    observed: ObservedModel, wanted: DesiredModel, known: Source | None, actions: list[str]
) -> None:
    layout = dataclasses.replace(LAYOUT, files=(("a", "2/a", 5), ("b", "2/b", 7)))
    assert make_plan(observed, wanted, known, layout).actions == actions


@pytest.mark.parametrize(
    ("observed", "known", "wanted", "why"),
    [
        (
            there(),
            dataclasses.replace(source(2, CHAMPION), source="models:/m-other"),
            desired(model_uri=CHAMPION),
            "deploy again, as the artifact is another one,",
        ),
        (there(folder=False), source(), desired(), "deploy again, as its folder is gone,"),
        (
            there(changed_files=("2/a",)),
            source(),
            desired(),
            "deploy again, as 2/a changed on disk,",
        ),
        (
            there(changed_files=("2/a", "config.pbtxt", "2/b")),
            source(),
            desired(),
            "deploy again, as 2/a and 1 more changed on disk,",
        ),
        (
            there(changed_files=("2/a", "2/b", "2/c")),
            source(),
            desired(),
            "deploy again, as 2/a and 2 more changed on disk,",
        ),
        (there(), source(), desired(flavor="onnx"), "deploy again in another layout"),
    ],
    ids=["artifact", "folder", "one file", "two files", "three files", "layout"],
)
def test_why_the_same_version_is_deployed_again_is_said(
    observed: ObservedModel, known: Source, wanted: DesiredModel, why: str
) -> None:
    plan = make_plan(observed, wanted, known, LAYOUT)
    assert plan.actions[0] == f"{why} models:/fraud/2 (1 file, 5 bytes)"


def test_diff_shows_what_a_user_knows() -> None:
    plan = make_plan(there(1), desired(config={"max_batch_size": 4}), source(), LAYOUT)
    assert plan.diff() == {
        "before": "state: present\nsource: models:/fraud/1\n",
        "after": 'state: present\nsource: models:/fraud/2\nconfig: {"max_batch_size": 4}\n',
        "before_header": "model fraud",
        "after_header": "model fraud",
    }


def test_diff_shows_what_of_a_model_is_code() -> None:
    was, comes = "the program 1/model.py", "the program 2/model.py"
    observed = there(1, record=record(1, code=was))
    layout = dataclasses.replace(LAYOUT, code=comes)
    diff = make_plan(observed, desired(), source(), layout).diff()
    assert diff["before"].endswith(f"\ncode: {was}\n")
    assert diff["after"].endswith(f"\ncode: {comes}\n")
    data = make_plan(observed, desired(), source(), LAYOUT).diff()
    assert "code" in data["before"] and "code" not in data["after"]
    unloaded = make_plan(observed, desired(state="unloaded", model_uri=None)).diff()
    assert unloaded["after"].endswith(f"\ncode: {was}\n")


@pytest.mark.parametrize(
    ("observed", "wanted", "known", "before", "after"),
    [
        pytest.param(
            NOTHING,
            desired(),
            source(),
            "state: absent\n",
            "state: present\nsource: models:/fraud/2\n",
            id="first deployment",
        ),
        pytest.param(
            dataclasses.replace(FOREIGN, served=(*FOREIGN.served, ServedModel(TWO))),
            desired(adopt=True),
            source(),
            'state: not deployed by this collection\nserved: {"localhost:8000": [1]}\n',
            "state: present\nsource: models:/fraud/2\n",
            id="adoption",
        ),
        pytest.param(
            there(1),
            desired(model_uri=CHAMPION),
            source(2, CHAMPION),
            "state: present\nsource: models:/fraud/1\n",
            "state: present\nsource: models:/fraud/2\nmodel_uri: models:/fraud@champion\n"
            "alias: champion\n",
            id="an alias",
        ),
        pytest.param(
            there(record=record(model_uri=CHAMPION, alias="champion")),
            desired(state="unloaded", model_uri=None),
            None,
            "state: present\nsource: models:/fraud/2\nmodel_uri: models:/fraud@champion\n"
            "alias: champion\n",
            "state: unloaded\nsource: models:/fraud/2\nmodel_uri: models:/fraud@champion\n"
            "alias: champion\n",
            id="to be unloaded",
        ),
        pytest.param(
            there(record=record(wanted="unloaded"), served=(served(None),)),
            desired(),
            source(),
            "state: unloaded\nsource: models:/fraud/2\n",
            "state: present\nsource: models:/fraud/2\n",
            id="to be loaded again",
        ),
        pytest.param(
            there(retained=(record(1, request={"mode": "0640"}),)),
            desired(state="rolled_back"),
            None,
            "state: present\nsource: models:/fraud/2\n",
            "state: present\nsource: models:/fraud/1\nmode: 0640\n",
            id="rollback",
        ),
        pytest.param(
            there(),
            desired(state="absent"),
            None,
            "state: present\nsource: models:/fraud/2\n",
            "state: absent\n",
            id="removal",
        ),
        pytest.param(
            there(),
            desired(config={"version_policy": {"b": 1, "a": 2}}),
            source(),
            "state: present\nsource: models:/fraud/2\n",
            "state: present\nsource: models:/fraud/2\n"
            'config: {"version_policy": {"a": 2, "b": 1}}\n',
            id="an option, whose keys have one order whoever writes them",
        ),
    ],
)
def test_diff_shows_both_sides(
    observed: ObservedModel, wanted: DesiredModel, known: Source | None, before: str, after: str
) -> None:
    diff = make_plan(observed, wanted, known, LAYOUT).diff()
    assert (diff["before"], diff["after"]) == (before, after)


@pytest.mark.parametrize(
    ("more", "failed", "problems"),
    [
        ({"folder": False, "changed_files": ("2/a",)}, None, ["the folder is gone"]),
        (
            {
                "changed_files": ("2/a", "2/b"),
                "served": (ServedModel(ONE), dataclasses.replace(served(2, "id-1"), url=TWO)),
                "modes_differ": True,
            },
            None,
            [
                "2/a changed on disk",
                "2/b changed on disk",
                "not served by one:8000",
                "another deployment is served by two:8000",
                "permissions were changed",
            ],
        ),
        (
            {"changed_files": ("config.pbtxt",)},
            "output 'y' differs",
            [
                "config.pbtxt changed on disk",
                "does not answer as it should: output 'y' differs",
            ],
        ),
        ({"record": record(wanted="unloaded"), "served": (served(None),)}, None, None),
    ],
    ids=["no folder", "all at once", "wrong answers", "not to be served"],
)
def test_diff_shows_what_is_wrong_with_what_is_there(
    more: dict[str, Any], failed: str | None, problems: list[str] | None
) -> None:
    plan = make_plan(there(**more), desired(), source(), LAYOUT, failed_verification=failed)
    assert plan.before.get("problems") == problems
    assert "problems" not in plan.after


def test_rolling_forward_and_what_is_left_out_are_said() -> None:
    layout = dataclasses.replace(LAYOUT, warnings=("notes.txt is left out",))
    plan = make_plan(
        there(1, record=record(1, rolled_back_from="id-2")), desired(), source(), layout
    )
    assert plan.warnings == (
        "it was rolled back to models:/fraud/1 on 2026-01-01T00:00:00; this rolls it forward",
        "notes.txt is left out",
    )


@pytest.mark.parametrize("known", [None, source()])
def test_a_plan_says_whether_the_registry_was_asked(known: Source | None) -> None:
    assert make_plan(there(), desired(), known).resolved is (known is not None)


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
        ({"model_uri": CHAMPION}, source(2, CHAMPION), "models:/fraud/2"),
    ],
    ids=["kept", "an alias that nobody was asked about", "pinned", "asked", "an alias"],
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


def test_another_spelling_of_a_logged_model_is_shown_as_the_same_source() -> None:
    deployed = record(
        model_uri="models:/m-5",
        pinned_uri="models:/m-5",
        registry_name=None,
        registry_version=None,
        model_id="m-5",
    )
    plan = make_plan(there(record=deployed), desired(model_uri="models:/m-5/"))
    assert plan.changed
    assert plan.before["source"] == plan.after["source"] == "models:/m-5"


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


@pytest.mark.parametrize(
    ("folders", "limit", "wanted", "said"),
    [
        ((1,), 2, 2, "add version 2 side by side with 1 (1 file, 5 bytes)"),
        ((1, 2), 3, 3, "add version 3 side by side with 1, 2 (1 file, 5 bytes)"),
        ((1, 2), 2, 3, "add version 3 side by side with 2 (1 file, 5 bytes), retire version 1"),
        (
            (1, 2, 3),
            2,
            4,
            "add version 4 side by side with 3 (1 file, 5 bytes), retire version 1, 2",
        ),
        ((1, 2, 3), 3, 2, "make version 2 the highest, retire version 3"),
        ((2, 3), 2, 2, "make version 2 the highest, retire version 3"),
    ],
)
def test_which_versions_stay_come_and_go_is_said(
    folders: tuple[int, ...], limit: int, wanted: int, said: str
) -> None:
    deployed = record(
        folders[-1],
        triton_versions=folders,
        request={**record().request, "serve_versions": limit},
    )
    uri = f"models:/fraud/{wanted}"
    plan = make_plan(
        there(record=deployed),
        desired(model_uri=uri, serve_versions=limit),
        source(wanted, uri),
        dataclasses.replace(LAYOUT, versions=(wanted,)),
    )
    assert plan.actions[0] == said


# -- which servers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["READY", "LOADING", "UNLOADING", "UNAVAILABLE"])
def test_a_model_is_unloaded_from_servers_that_hold_any_of_it(state: str) -> None:
    elsewhere = ServedModel(TWO, (VersionRow(2, state),), "id-2")
    plan = make_plan(there(served=(served(), elsewhere)), desired(state="absent"))
    assert isinstance(plan.steps[0], Unload)
    assert plan.steps[0].servers == ((URL,) if state == "UNAVAILABLE" else (URL, TWO))


def test_what_is_on_its_way_out_need_not_be_unloaded_again() -> None:
    leaving = ServedModel(URL, (VersionRow(2, "UNLOADING"),), None)
    unloaded = there(record=record(wanted="unloaded"), served=(leaving,))
    for options in ({"model_uri": None}, {}):
        assert make_plan(unloaded, desired(state="unloaded", **options), source()).actions == []


@pytest.mark.parametrize(
    "wanted", [desired(), desired(state="rolled_back", rollback_to="2")], ids=["present", "back"]
)
def test_what_does_not_answer_as_it_should_is_loaded_again(wanted: DesiredModel) -> None:
    why = "output 'y' differs"
    plan = make_plan(there(served=on_two(2, 2)), wanted, failed_verification=why)
    assert [type(step) for step in plan.steps] == [Heal, Load]
    assert all(isinstance(one, (Heal, Load)) and one.servers == (ONE, TWO) for one in plan.steps)
    assert plan.actions[0] == (
        "load again, as it does not answer as it should (output 'y' differs)"
    )
    plan = make_plan(there(served=on_two(2, None)), wanted, failed_verification=why)
    assert plan.actions == ["load on two:8000"], "what is not there need not be healed"


IN_ARTIFACT = dataclasses.replace(LAYOUT, example=EXAMPLE)


@pytest.mark.parametrize(
    ("observed", "options", "known", "layout", "servers"),
    [
        pytest.param(
            ObservedModel("fraud", served=on_two(None, None)),
            {},
            source(),
            IN_ARTIFACT,
            (ONE, TWO),
            id="the artifact's example",
        ),
        pytest.param(
            NOTHING, {"verify": "auto"}, source(), IN_ARTIFACT, (URL,), id="automatically"
        ),
        pytest.param(NOTHING, {"verify": "none"}, source(), IN_ARTIFACT, None, id="not wanted"),
        pytest.param(
            there(1, record=record(1, example=EXAMPLE)),
            {},
            source(),
            LAYOUT,
            None,
            id="an example of the version that goes",
        ),
        pytest.param(
            there(record=record(example=EXAMPLE), served=on_two(2, 2)),
            {"instance_kind": "cpu"},
            None,
            None,
            (ONE, TWO),
            id="the example of what is configured anew",
        ),
        pytest.param(
            there(record=record(example=EXAMPLE), served=on_two(2, None)),
            {},
            None,
            None,
            (TWO,),
            id="only where it is loaded",
        ),
        pytest.param(
            there(retained=(record(1, example=EXAMPLE),), served=on_two(2, 2)),
            {"state": "rolled_back"},
            None,
            None,
            (ONE, TWO),
            id="the example of what comes back",
        ),
        pytest.param(
            there(record=record(example=EXAMPLE), retained=(record(1),)),
            {"state": "rolled_back"},
            None,
            None,
            None,
            id="what comes back has no example",
        ),
    ],
)
def test_what_is_loaded_answers_an_example_where_there_is_one(
    observed: ObservedModel,
    options: dict[str, Any],
    known: Source | None,
    layout: Layout | None,
    servers: tuple[str, ...] | None,
) -> None:
    plan = make_plan(observed, desired(**options), known, layout)
    verified = [step.servers for step in plan.steps if isinstance(step, Verify)]
    assert verified == ([servers] if servers else [])


# -- purging ---------------------------------------------------------------------------------------


PURGED = dataclasses.replace(desired(state="absent"), purged_from="blue")


def test_purging_a_set_removes_what_belongs_to_it() -> None:
    plan = make_plan(there(record=record(deployment_set="blue")), PURGED)
    assert [type(step) for step in plan.steps] == [Unload, Remove]


@pytest.mark.parametrize(
    ("observed", "shown"),
    [
        (there(record=record(deployment_set="green")), "state: present\nsource: models:/fraud/2\n"),
        (there(), "state: present\nsource: models:/fraud/2\n"),
        (
            FOREIGN,
            'state: not deployed by this collection\nserved: {"localhost:8000": [1]}\n',
        ),
        (NOTHING, "state: absent\n"),
    ],
    ids=["moved to another set", "of no set", "somebody else's", "gone"],
)
def test_purging_a_set_leaves_alone_what_no_longer_belongs_to_it(
    observed: ObservedModel, shown: str
) -> None:
    plan = make_plan(observed, PURGED)
    assert plan.steps == () and plan.observed == observed
    assert plan.diff() == {
        "before": shown,
        "after": shown,
        "before_header": "model fraud",
        "after_header": "model fraud",
    }


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


def test_what_is_to_stay_needs_no_question_once_it_is_there() -> None:
    wanted = dataclasses.replace(desired(model_uri=CHAMPION), keep_source=True)
    assert is_pinned(record(), wanted, "http://elsewhere") is True
    assert is_pinned(None, wanted, None) is False


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
    assert pinned_uri(desired(model_uri="models:/fraud/002"), found) == pinned, "however spelled"
    assert pinned_uri(desired(state="absent"), None) == ""


@pytest.mark.parametrize(
    ("asked", "summary"),
    [
        ("models:/fraud/3", "replace models:/fraud/2 by models:/fraud/3"),
        ("models:/other/2", "replace models:/fraud/2 by models:/other/2"),
        ("models:/m-3", "replace models:/fraud/2 by models:/m-3"),
        ("models:/fraud/2", None),
        ("models:/m-2", None),
        ("models:/fraud@champion", None),
    ],
)
def test_a_check_run_that_cannot_ask_says_what_a_number_says(
    asked: str, summary: str | None
) -> None:
    observed = there(record=record(model_id="m-2"))
    plan = make_plan(observed, desired(model_uri=asked))
    assert [step.summary for step in plan.steps if isinstance(step, ReplaceUnread)] == (
        [summary] if summary else []
    )
    if summary:
        assert plan.after["source"] == asked


def test_what_keeps_its_source_is_not_replaced_by_what_was_asked_for_once() -> None:
    wanted = dataclasses.replace(desired(model_uri="models:/fraud/3"), keep_source=True)
    assert not [s for s in make_plan(there(), wanted).steps if isinstance(s, ReplaceUnread)]


# -- what somebody loaded over a deployment --------------------------------------------------------


def answering(
    digest: str | None, answers: str | None = "2.51.0", known: tuple[str, str] | None = None
) -> ObservedModel:
    """A server whose configuration has this digest, and a record that has ``known``, if any."""
    one = dataclasses.replace(served(), config_digest=digest, answers=answers)
    kept = {URL: {"answers": known[0], "digest": known[1]}} if known else {}
    return there(record=record(served=kept), served=(one,))


@pytest.mark.parametrize(
    ("observed", "is_drift"),
    [
        pytest.param(answering("b", known=("2.51.0", "a")), True, id="another configuration"),
        pytest.param(answering("a", known=("2.51.0", "a")), False, id="the same"),
        pytest.param(answering("b", known=("2.50.0", "a")), False, id="another release"),
        pytest.param(answering("b", None, ("2.51.0", "a")), False, id="of an unknown release"),
        pytest.param(answering("b"), False, id="nothing is written down"),
    ],
)
@pytest.mark.parametrize(
    "wanted", [desired(), desired(state="rolled_back", rollback_to="2")], ids=["present", "back"]
)
def test_a_configuration_loaded_over_the_deployed_one_is_loaded_away(
    observed: ObservedModel, is_drift: bool, wanted: DesiredModel
) -> None:
    plan = make_plan(observed, wanted)
    kinds: list[type[Step]] = [Heal, Load, WriteRecord] if is_drift else []
    assert [type(step) for step in plan.steps] == kinds
    problems = [f"another configuration is served by {URL}"] if is_drift else []
    assert plan.before.get("problems", []) == problems
    drift = status_of(observed)["drift"]
    assert len(drift) == len(problems)
    assert all("loaded over the deployed one" in said for said in drift)


@pytest.mark.parametrize("entry", [3, [], {}, {"answers": "2.51.0"}, {"answers": 1, "digest": 2}])
def test_what_a_record_says_of_servers_in_another_form_is_passed_over(entry: object) -> None:
    observed = answering("b", known=("2.51.0", "a"))
    data = {**record().to_dict(), "served": {URL: entry}}
    assert not make_plan(
        dataclasses.replace(observed, record=Record.from_dict(data)), desired()
    ).steps
    assert Record.from_dict({**data, "served": entry if entry != {} else 7}).served in ({}, entry)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"config": {"max_batch_size": 4}}, [Reconfigure, Heal, Load, WriteRecord]),
        ({"state": "unloaded"}, [Unload, WriteRecord]),
        ({"state": "absent"}, [Unload, Remove]),
        ({"mode": "0600"}, [SetPermissions, Heal, Load, WriteRecord]),
    ],
)
def test_other_changes_take_it_away_too(change: dict[str, Any], kinds: list[type[Step]]) -> None:
    plan = make_plan(answering("b", known=("2.51.0", "a")), desired(**change))
    assert [type(step) for step in plan.steps] == kinds


def test_what_a_server_answers_after_a_load_is_written_down_where_it_is_not_known() -> None:
    one, two = on_two(2, None)
    servers = (
        dataclasses.replace(one, config_digest="a", answers="2.51.0"),
        dataclasses.replace(two, answers="2.60.0"),
    )
    known = {ONE: {"answers": "2.51.0", "digest": "a"}}
    plan = make_plan(there(record=record(served=known), served=servers), desired())
    assert plan.actions == ["load on two:8000", "note the configuration that two:8000 serves"]
    known[TWO] = {"answers": "2.60.0", "digest": "b"}
    plan = make_plan(there(record=record(served=known), served=servers), desired())
    assert plan.actions == ["load on two:8000"]


# -- files that changed, and a rollback that brings none -------------------------------------------


SAME_FILES = record(1, manifest_digest="digest-2", request=desired(config={"a": 1}).request)
BESIDE = record(2, triton_versions=(1, 2), request=desired(serve_versions=2).request)


@pytest.mark.parametrize(
    ("observed", "to", "says"),
    [
        (there(changed_files=("2/a",)), "2", "2/a changed on disk"),
        (there(folder=False), "2", "its folder is gone"),
        (
            there(changed_files=("2/a",), retained=(SAME_FILES,)),
            None,
            r'2/a changed .* deploy models:/fraud/1 instead \(state: present, config: {"a": 1}\)',
        ),
        (
            there(changed_files=("2/a",), record=BESIDE, retained=(record(1),)),
            None,
            "2/a changed on disk",
        ),
    ],
)
def test_a_rollback_that_would_leave_changed_files_in_place_is_refused(
    observed: ObservedModel, to: str | None, says: str
) -> None:
    with pytest.raises(RepositoryError, match=says):
        make_plan(observed, desired(state="rolled_back", rollback_to=to))


@pytest.mark.parametrize(
    "observed",
    [
        there(changed_files=("2/a",), retained=(record(1),)),
        there(changed_files=("config.pbtxt",), retained=(SAME_FILES,)),
        there(folder=False, retained=(record(1),)),
    ],
)
def test_a_rollback_that_brings_other_files_is_not(observed: ObservedModel) -> None:
    assert make_plan(observed, desired(state="rolled_back")).rollback is not None


def test_a_rollback_that_is_done_puts_back_what_present_puts_back() -> None:
    request = desired(mode="0640", serve_versions=2).request
    damaged = there(
        record=record(request=request, rolled_back_from="id-3"),
        changed_files=("config.pbtxt",),
        modes_differ=True,
    )
    plan = make_plan(damaged, desired(state="rolled_back"))
    assert [type(step) for step in plan.steps] == [Reconfigure, SetPermissions, Load, WriteRecord]
    # As it was deployed, whatever the list says by now.
    assert plan.desired.request == request
    touched = make_plan(
        there(touched_files=("2/a",)), desired(state="rolled_back", rollback_to="2")
    )
    assert [type(step) for step in touched.steps] == [Reconfigure, Load, WriteRecord]
