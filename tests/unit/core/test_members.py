# SPDX-License-Identifier: Apache-2.0
"""An ensemble is not brought over members that it does not fit, nor a member under an ensemble that
it does not fit; of what is not known for certain, nothing is said.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.members import (
    Member,
    why_members_do_not_fit,
)
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
    ArtifactError,
    ConfigError,
    NeedsOther,
    PolicyRefused,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.members import (
    is_kept_ensemble,
    judge_ensembles,
    refuse_strangers,
    said_to_need,
    warn_of_nowhere,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.outcome import Planned
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    make_plan,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy


def member(
    backend: str = "python", kind: str = "FP32", dims: str = "3", batch: int = 8, more: str = ""
) -> str:
    return (
        f"backend: '{backend}' max_batch_size: {batch}"
        f" input {{ name: 'x' data_type: TYPE_{kind} dims: [ {dims} ] }}"
        f" output {{ name: 'y' data_type: TYPE_{kind} dims: [ {dims} ] }} {more}"
    )


def ensemble(
    *, key: str = "x", made: str = "y", kind: str = "FP32", dims: str = "3", batch: int = 8,
    version: int = -1, more: str = "",
) -> str:  # fmt: skip
    return (
        f"platform: 'ensemble' max_batch_size: {batch}"
        f" input {{ name: 'a' data_type: TYPE_{kind} dims: [ {dims} ] }}"
        f" output {{ name: 'b' data_type: TYPE_{kind} dims: [ {dims} ] }}"
        f" ensemble_scheduling {{ step {{ model_name: 'm' model_version: {version}"
        f" input_map {{ key: '{key}' value: 'a' }} output_map {{ key: '{made}' value: 'b' }} }}"
        f" }} {more}"
    )


def judged(whole: str, part: str | None, folders: tuple[int, ...] = (1,)) -> str | None:
    config = config_pbtxt.parse(part.encode()) if part is not None else None
    found = {"m": Member(config, folders)}
    return why_members_do_not_fit(config_pbtxt.parse(whole.encode()), found)


TWO_INPUTS = member(more="input { name: 'z' data_type: TYPE_FP32 dims: 3 %s }")


@pytest.mark.parametrize(
    ("whole", "part", "says"),
    [
        (ensemble(key="zz"), member(), "1 of the ensemble maps the input 'zz' of 'm', which has x"),
        (ensemble(made="zz"), member(), "maps the output 'zz' of 'm', which has y"),
        (ensemble(kind="INT32"), member(), "'a' is TYPE_INT32 for the ensemble and TYPE_FP32 for"),
        (ensemble(dims="4"), member(), "the shape [-1, 4] for the ensemble and [-1, 3] for 'm'"),
        (ensemble(dims="3, 3"), member(), "has the shape [-1, 3, 3]"),
        (ensemble(), TWO_INPUTS % "", "leaves out the input 'z' of 'm': name it in input_map"),
        (ensemble(batch=16), member(), "its max_batch_size is 16, and that of its member 'm' is 8"),
    ],
)
def test_what_does_not_fit_is_told_with_what_to_do(whole: str, part: str, says: str) -> None:
    assert says in str(judged(whole, part))


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        (ensemble(), member()),
        (ensemble(dims="-1"), member()),
        (ensemble(), member(dims="-1")),
        (ensemble(), TWO_INPUTS % "optional: true"),
        (ensemble(batch=4), member()),
        (ensemble(), member(batch=0, dims="-1, 3")),
        (ensemble(batch=0, dims="-1, 3"), member()),
        (ensemble(key="zz", kind="INT32", dims="7", batch=16), None),
        (ensemble(key="zz", made="yy"), "backend: 'python'"),
        (ensemble(key="zz"), "backend: 'onnxruntime' output { name: 'y' }"),
        (ensemble(), "backend: 'tensorrt' input { name: 'x' } output { name: 'y' }"),
        (ensemble(key="zz"), member("tensorrt").replace("'x'", "'zz'", 1)),
        (ensemble(key="more"), member("my_own", more="input { name: 'more' optional: true }")
         .replace("input {", "input { optional: true", 1)),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_fits_or_is_not_known_is_left_to_triton(whole: str, part: str | None) -> None:
    assert judged(whole, part) is None


def test_what_a_member_of_unknown_configuration_says_first_is_not_compared() -> None:
    """It may be of any size, and then the others need not agree."""
    step = "step { model_name: '%s' model_version: -1 input_map { key: 'x' value: '%s' } %s }"
    made = "output_map { key: 'y' value: '%s' }"
    text = " ".join(
        (
            "platform: 'ensemble' max_batch_size: 8 ensemble_scheduling {",
            step % ("unknown", "a", made % "t"),
            step % ("three", "t", made % "b"),
            step % ("four", "t", made % "c"),
            "}",
        )
    )
    parts = {
        name: Member(config_pbtxt.parse(member(dims=dims).encode()))
        for name, dims in (("three", "3"), ("four", "4"))
    }
    config = config_pbtxt.parse(text.encode())
    assert why_members_do_not_fit(config, parts) is None
    known = {**parts, "unknown": parts["three"]}
    assert "'t' has the shape" in str(why_members_do_not_fit(config, known))


@pytest.mark.parametrize(
    ("part", "folders", "says"),
    [
        (None, (), None),
        (None, (2, 3), None),
        (
            None,
            (1, 2),
            "version 3 of 'm', which has 1, 2: pin one of these, or write model_version",
        ),
        (member(), (1, 2, 3), None),
        (member(), (3, 4), "which has 3, 4 and of these loads 4 alone: pin what it loads, write"),
        (member(more="version_policy { all { } }"), (3, 4), None),
        (member(more="version_policy { specific { versions: 3 } }"), (3, 4), None),
    ],
)
def test_a_pin_is_lost_where_the_member_is_known_not_to_load_the_version(
    part: str | None, folders: tuple[int, ...], says: str | None
) -> None:
    reason = judged(ensemble(version=3), part, folders)
    assert reason is None if says is None else says in str(reason)


# -- in a list, and beside it ----------------------------------------------------------------------

SERVED = ServedModel("u", (VersionRow(1, "READY", ""),), "id")


def record(name: str, author: str, **more: Any) -> Record:
    made = Record(
        name, "id", f"models:/{name}/1", f"models:/{name}/1", "s-1", "triton", (1,),
        Manifest.of(()).to_dict(), "d", "c", DesiredModel("x").request, "then", "me",
        author_config=author, registry_name=name, registry_version=1,
    )  # fmt: skip
    return dataclasses.replace(made, **more)


def to_bring(name: str, author: str, there: Record | None = None, **options: Any) -> Planned:
    """Version 2 with this configuration comes, where nothing else is asked for."""
    state = options.get("state", "present")
    given = {} if state in ("absent", "rolled_back") else {"model_uri": f"models:/{name}/2"}
    wanted = DesiredModel.from_options({"name": name, **given, **options})
    uri = parse_model_uri(f"models:/{name}/2")
    source = Source(uri, name, 2, None, "s-2", "x:/y", None, None)
    layout = Layout("triton", (("a", "2/a", 1),), (), author.encode(), (2,), (2,))
    observed = ObservedModel(
        name, record=there, folder=there is not None,
        served=(SERVED if there else ServedModel("u"),),
        retained=(record(name, author, deploy_id="old"),),
    )  # fmt: skip
    return Planned(wanted, make_plan(observed, wanted, source, layout))


def errors(*planned: Planned, there: tuple[Record, ...] = (), nowhere: str = "") -> dict[str, str]:
    listed = {one.desired.name: one for one in planned}
    made = judge_ensembles(listed, {one.name: one for one in there}, nowhere.split())
    assert made.keys() == listed.keys()
    kinds = {name: type(one.error) for name, one in made.items() if one.error}
    assert set(kinds.values()) <= {ConfigError, NeedsOther, ArtifactError}
    return {name: one.error.message for name, one in made.items() if one.error}


def test_an_ensemble_is_judged_against_the_list_and_against_what_is_deployed() -> None:
    good, wrong = to_bring("e", ensemble()), to_bring("e", ensemble(dims="4"))
    deployed = record("m", member())
    assert errors(good, to_bring("m", member())) == {}
    assert errors(good, there=(deployed,)) == {}
    assert list(errors(wrong, to_bring("m", member()))) == ["e"]
    assert list(errors(wrong, there=(deployed,))) == ["e"]
    assert errors(wrong) == {}, "nothing is known of it"
    moved = to_bring("m", member(dims="4"), deployed)
    assert errors(wrong, moved, there=(deployed,)) == {}, "what comes counts"


def test_a_member_that_fails_is_told_of_and_not_what_needs_it() -> None:
    failed = Planned(to_bring("m", "").desired, error=ArtifactError("x", step="y"))
    assert errors(to_bring("e", ensemble(dims="4")), failed) == {"m": "x"}


def test_a_member_that_is_nowhere_is_told_of() -> None:
    said = errors(to_bring("e", ensemble()), nowhere="m")
    assert said["e"] == (
        "its member 'm' is neither in the list, nor in the repository, nor served: deploy it in the"
        " same list, or before"
    )
    back = to_bring("e", ensemble(), record("e", ensemble(key="q")), state="rolled_back")
    assert list(errors(back, nowhere="m")) == ["e"]
    gone = to_bring("m", "", state="absent")
    assert "the list says that it is to be absent" in errors(to_bring("e", ensemble()), gone)["e"]


@pytest.mark.parametrize("listed", [True, False])
def test_a_member_that_is_to_stay_unloaded_is_not_loaded_by_its_ensemble(listed: bool) -> None:
    there = record("m", member(), wanted="unloaded")
    also = (to_bring("m", member(), there, state="unloaded"),) if listed else ()
    said = errors(to_bring("e", ensemble()), *also, there=(there,))["e"]
    assert said == (
        "its member 'm' is to stay unloaded, and would be loaded with it: set that to present in"
        " the same list, or before"
    )
    loaded = to_bring("m", member(), there)
    assert errors(to_bring("e", ensemble()), loaded, there=(there,)) == {}
    assert errors(to_bring("e", ensemble(), state="unloaded"), there=(there,)) == {}


def test_a_member_is_not_brought_under_a_deployed_ensemble_that_it_does_not_fit() -> None:
    there, user = record("m", member()), record("e", ensemble())
    wrong = to_bring("m", member(dims="4"), there)
    said = errors(wrong, there=(there, user))["m"]
    assert said.startswith("'e' is deployed, uses it, and could not be loaded any more: its tensor")
    assert errors(to_bring("m", member(), there), there=(there, user)) == {}
    assert errors(to_bring("m", member(batch=4), there), there=(there, user)).keys() == {"m"}


def test_a_deployed_ensemble_does_not_count_where_it_goes_or_never_fitted() -> None:
    there = record("m", member())
    wrong = to_bring("m", member(dims="4"), there)
    for user in (record("e", ensemble(key="q")), record("e", ensemble(), wanted="unloaded")):
        assert errors(wrong, there=(there, user)) == {}
    user = record("e", ensemble())
    assert errors(wrong, to_bring("e", "", user, state="absent"), there=(there, user)) == {}
    assert errors(wrong, to_bring("e", ensemble(dims="4"), user), there=(there, user)) == {}
    failed = Planned(to_bring("e", "").desired, error=ArtifactError("x", step="y"))
    assert errors(wrong, failed, there=(there, user)).keys() == {"e", "m"}


def test_what_depends_on_names_and_is_nowhere_is_warned_about() -> None:
    one = to_bring("one", member(), depends_on=["gone", "m"])
    gone = to_bring("two", "", record("two", member()), state="absent", depends_on=["other"])
    listed = {"one": one, "two": gone}
    assert said_to_need(listed) == {"gone", "m"}
    warned = warn_of_nowhere(listed, ["gone", "other"])
    assert warned["one"].warnings == (
        "depends_on names 'gone', which is neither in the list, nor in the repository, nor served",
    )
    assert warned["two"] == gone and warned["one"].error is None


# -- under a policy --------------------------------------------------------------------------------

ALLOWED = Policy(("onnxruntime", "ensemble"))


def strangers(
    *planned: Planned, there: tuple[Record, ...] = (), policy: Policy = ALLOWED
) -> dict[str, str]:
    listed = {one.desired.name: one for one in planned}
    made = refuse_strangers(
        listed, {one.name: one for one in there}, policy, lambda _record, _config: None
    )
    assert made.keys() == listed.keys()
    found = {name: one.error for name, one in made.items() if one.error is not listed[name].error}
    assert all(isinstance(one, PolicyRefused) for one in found.values())
    return {name: str(error) for name, error in found.items()}


def test_an_ensemble_may_call_what_is_in_the_list_or_was_deployed_by_us() -> None:
    comes = to_bring("e", ensemble())
    assert is_kept_ensemble(comes) and not is_kept_ensemble(to_bring("m", member()))
    assert strangers(comes, to_bring("m", member())) == {}
    assert strangers(comes, there=(record("m", member("onnxruntime")),)) == {}
    said = strangers(comes)["e"]
    assert "its member 'm' is neither brought by the list nor deployed by this collection" in said
    assert "allowed_backends is set: deploy it in the same list, or before" in said


def test_an_ensemble_that_stays_is_judged_and_one_that_goes_is_not() -> None:
    deployed = record("e", ensemble(), registry_version=2, source="s-2", pinned_uri="models:/e/2")
    stays = to_bring("e", ensemble(), deployed)
    assert list(strangers(stays)) == ["e"]
    assert strangers(to_bring("e", ensemble(), deployed, state="absent")) == {}
    assert list(strangers(to_bring("e", ensemble(), deployed, state="rolled_back"))) == ["e"]


def test_what_a_member_is_and_calls_is_judged_too() -> None:
    comes = to_bring("outer", ensemble().replace("'m'", "'e'"))
    inner, ours = record("e", ensemble()), record("m", member("onnxruntime"))
    assert strangers(comes, there=(inner, ours)) == {}
    assert (
        "'e' is an ensemble, and its member 'm' is neither"
        in (strangers(comes, there=(inner,))["outer"])
    )
    program = record("m", member("python"))
    refused = strangers(comes, there=(inner, program), policy=Policy(model_code="refused"))["outer"]
    assert (
        "its member 'm' is deployed, and is refused itself: the program counts as code" in refused
    )
    circle = record("e", ensemble().replace("'m'", "'outer'"))
    assert strangers(comes, there=(circle,)) == {}


def test_a_member_of_the_list_that_failed_is_judged_as_it_stands() -> None:
    comes, failed = to_bring("e", ensemble()), to_bring("m", member())
    failed = dataclasses.replace(failed, plan=None, error=ConfigError("it failed", step="plan"))
    assert strangers(comes, failed) == {}, "which its own failure takes care of"
    program = record("m", member("python"))
    assert list(strangers(comes, failed, there=(program,))) == ["e"]
    deployed = record("e", ensemble(), registry_version=2, source="s-2", pinned_uri="models:/e/2")
    stays = Planned(
        DesiredModel.from_options({"name": "e", "state": "rolled_back"}),
        to_bring("e", ensemble(), deployed, state="rolled_back").plan,
    )
    assert stays.plan is not None
    unchanged = dataclasses.replace(stays, plan=dataclasses.replace(stays.plan, steps=()))
    assert list(strangers(unchanged, failed)) == ["e"], "it would call somebody else's"
    assert list(strangers(comes, to_bring("m", member(), state="absent"))) == ["e"]
