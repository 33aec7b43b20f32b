# SPDX-License-Identifier: Apache-2.0
"""Which models a model needs, uses and pins: its user says, or its ensemble is made of them."""

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
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.dependencies import (
    needs_of,
    order_plans,
    pins_of,
    uses_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.outcome import Planned
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import Plan
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    make_plan,
)

NONE: frozenset[str] = frozenset()


def ensemble(*names: str, versions: tuple[int, ...] = ()) -> str:
    pinned = dict(zip(names, versions))
    steps = " ".join(
        f'step {{ model_name: "{name}" model_version: {pinned.get(name, -1)} }}' for name in names
    )
    return f'platform: "ensemble"\nensemble_scheduling {{ {steps} }}\n'


def overlay(*names: str) -> dict[str, Any]:
    return {"ensemble_scheduling": {"step": [{"model_name": name} for name in names]}}


def desired(**options: Any) -> DesiredModel:
    return DesiredModel.from_options({"name": "both", "model_uri": "models:/both/2", **options})


def record(author: str = "", version: int = 1, **more: Any) -> Record:
    uri = f"models:/both/{version}"
    made = Record(
        "both", f"id-{version}", uri, uri, f"s-{version}", "triton", (version,),
        Manifest.of(()).to_dict(), "d", "c", desired().request, "then", "me",
        author_config=author, registry_name="both", registry_version=version,
    )  # fmt: skip
    return dataclasses.replace(made, **more)


def plan(
    wanted: DesiredModel, there: Record | None, author: str | None = None, *retained: Record
) -> Plan:
    """The plan for it; ``author`` is the configuration in the artifact of version 2, None where
    nothing has to be fetched.
    """
    source = Source(parse_model_uri("models:/both/2"), "both", 2, None, "s-2", "x:/y", None, None)
    layout = Layout("triton", (("a", "2/a", 1),), (), (author or "").encode(), (2,), (2,))
    observed = ObservedModel(
        "both", record=there, folder=there is not None, served=(ServedModel("u"),),
        retained=retained,
    )  # fmt: skip
    return make_plan(
        observed, wanted, None if author is None else source, None if author is None else layout
    )


# -- needs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["absent", "unloaded"])
def test_what_is_not_served_needs_nothing(state: str) -> None:
    there = record(ensemble("one"), depends_on=("two",))
    wanted = desired(state=state, depends_on=["two"])
    assert needs_of(wanted, None, there) == NONE
    assert needs_of(wanted, plan(wanted, there), there) == NONE


def test_members_of_the_ensemble_that_comes() -> None:
    wanted = desired()
    assert needs_of(wanted, plan(wanted, None, ensemble("one", "two")), None) == {"one", "two"}


def test_the_ensemble_that_comes_counts_and_not_the_one_that_is_there() -> None:
    wanted, there = desired(), record(ensemble("old"))
    assert needs_of(wanted, plan(wanted, there, ensemble("new")), there) == {"new"}
    assert needs_of(wanted, plan(wanted, there, 'backend: "python"'), there) == NONE


def test_the_configuration_option_changes_the_members() -> None:
    wanted = desired(config=overlay("other"))
    assert needs_of(wanted, plan(wanted, None, ensemble("one")), None) == {"other"}
    assert needs_of(wanted, plan(wanted, None, 'backend: "python"'), None) == {"other"}
    cleared = desired(config={"ensemble_scheduling": None})
    assert needs_of(cleared, plan(cleared, None, ensemble("one")), None) == NONE


def test_what_its_user_says_is_added() -> None:
    wanted = desired(depends_on=["tokenizer"])
    assert needs_of(wanted, plan(wanted, None, ensemble("one")), None) == {"one", "tokenizer"}
    assert needs_of(wanted, None, None) == {"tokenizer"}


def test_what_its_user_does_not_say_stays_as_recorded() -> None:
    there = record(depends_on=("tokenizer",))
    assert needs_of(desired(), None, there) == {"tokenizer"}
    assert needs_of(desired(depends_on=[]), None, there) == NONE, "an empty list is said"
    assert needs_of(desired(depends_on=["other"]), None, there) == {"other"}


def test_a_model_that_stays_as_it_is_needs_what_it_is_made_of() -> None:
    there = record(ensemble("one"), version=2)
    wanted = desired()
    assert needs_of(wanted, plan(wanted, there), there) == {"one"}
    assert needs_of(wanted, None, there) == {"one"}
    assert needs_of(wanted, None, None) == NONE


def test_an_option_that_is_to_be_applied_to_what_stays() -> None:
    there = record(ensemble("one"), version=2, request={"config": overlay("old")})
    wanted = desired(config=overlay("new"))
    assert needs_of(wanted, plan(wanted, there), there) == {"new"}
    assert needs_of(desired(), plan(desired(), there), there) == {"one"}, "it is taken away again"


def test_a_rollback_needs_what_the_deployment_that_comes_back_was_made_of() -> None:
    back = record(ensemble("old"), 1, request={**desired().request, "config": overlay("older")})
    there = record(ensemble("new"), 2, depends_on=("tokenizer",))
    wanted = desired(state="rolled_back")
    assert needs_of(wanted, plan(wanted, there, None, back), there) == {"older", "tokenizer"}
    plain = dataclasses.replace(back, request=desired().request)
    assert needs_of(wanted, plan(wanted, there, None, plain), there) == {"old", "tokenizer"}


# -- uses ------------------------------------------------------------------------------------------


def test_what_is_not_there_or_stays_unloaded_uses_nothing() -> None:
    assert uses_of(None) == NONE
    assert uses_of(record(ensemble("one"), depends_on=("two",), wanted="unloaded")) == NONE


def test_what_is_deployed_uses_what_it_is_made_of() -> None:
    assert uses_of(record(ensemble("one", "two"), depends_on=("three",))) == {"one", "two", "three"}
    assert uses_of(record(ensemble("one"), request={"config": overlay("two")})) == {"two"}
    assert uses_of(record('backend: "python"')) == NONE


# -- pins ------------------------------------------------------------------------------------------


def test_versions_that_an_ensemble_asks_for() -> None:
    wanted = desired()
    brought = plan(wanted, None, ensemble("one", "two", "three", versions=(1, -1, 7)))
    assert pins_of(brought) == {"one", "three"}
    assert pins_of(plan(wanted, None, ensemble("one"))) == NONE
    assert pins_of(plan(wanted, None, 'backend: "python"')) == NONE


def test_a_plan_that_brings_nothing_pins_nothing() -> None:
    there = record(ensemble("one", versions=(3,)), version=2)
    assert pins_of(plan(desired(), there)) == NONE


# -- the order of a list ---------------------------------------------------------------------------


def to_deploy(name: str, author: str = "", **options: Any) -> Planned:
    """A model that is not there yet."""
    wanted = desired(name=name, **options)
    return Planned(wanted, plan(wanted, None, author))


def unchanged(name: str, *needs: str) -> Planned:
    """A model with nothing to do, whose user said earlier what it needs."""
    wanted = desired(name=name)
    made = plan(wanted, record(version=2, depends_on=needs))
    return Planned(wanted, dataclasses.replace(made, steps=()))


def to_remove(name: str, there: Record) -> Planned:
    wanted = desired(name=name, state="absent")
    return Planned(wanted, plan(wanted, there))


def in_order(*planned: Planned) -> dict[str, Planned]:
    return {one.desired.name: one for one in planned}


def test_a_list_deploys_first_what_others_are_made_of_or_are_said_to_need() -> None:
    listed = in_order(
        to_deploy("both", ensemble("one", "two")),
        to_deploy("one", depends_on=["two"]),
        unchanged("known", "one"),
        to_deploy("two"),
    )
    order = order_plans(listed, ())
    assert order.after == {"both": {"one", "two"}, "one": {"two"}, "known": {"one"}, "two": NONE}
    assert order.stays == listed.keys()
    assert order.refused == {}


def test_what_comes_back_is_there_for_others() -> None:
    wanted = desired(name="one", state="rolled_back")
    back = Planned(wanted, plan(wanted, record(version=2), None, record()))
    order = order_plans(in_order(to_deploy("both", ensemble("one")), back), ())
    assert order.after == {"both": {"one"}, "one": NONE}


def test_a_list_removes_last_what_others_still_use() -> None:
    wanted = desired(name="idle", state="unloaded")
    listed = in_order(
        to_remove("one", record()),
        to_remove("user", record(ensemble("one"))),
        Planned(wanted, plan(wanted, record(depends_on=("one",)))),
    )
    order = order_plans(listed, ())
    assert order.after == {"one": {"user", "idle"}, "user": NONE, "idle": NONE}
    assert order.stays == NONE


def test_a_foreign_ensemble_that_is_removed_goes_before_its_members() -> None:
    wanted = desired(name="theirs", state="absent", adopt=True)
    observed = ObservedModel("theirs", folder=True, config=ensemble("one").encode())
    theirs = Planned(wanted, make_plan(observed, wanted))
    order = order_plans(in_order(to_remove("one", record()), theirs), ())
    assert order.after == {"one": {"theirs"}, "theirs": NONE}


@pytest.mark.parametrize("others", [(), ("other",)], ids=["alone", "among others"])
def test_a_model_waits_for_one_of_which_is_known_that_it_failed(others: tuple[str, ...]) -> None:
    listed = in_order(to_deploy("user", depends_on=["one"]), *map(to_deploy, others))
    order = order_plans(listed, ["one"])
    assert order.after == {"user": {"one"}, "one": NONE, **dict.fromkeys(others, NONE)}
    assert order.why_not("user", ["one"]) == "it depends on 'one', which failed in this run"


def test_a_list_in_which_nothing_is_to_be_done_has_every_model_and_no_order() -> None:
    order = order_plans(in_order(unchanged("user", "one"), unchanged("one")), ())
    assert order.after == {"user": NONE, "one": NONE}
    assert sorted(order.sequence()) == ["one", "user"]


def test_a_configuration_that_cannot_be_meant_does_not_stop_the_list() -> None:
    """Its own plan fails, and says why; what its user says is known all the same."""
    broken = to_deploy(
        "both",
        ensemble("one"),
        config={"ensemble_scheduling": "no message"},
        depends_on=["two"],
    )
    order = order_plans(in_order(broken, to_deploy("one"), to_deploy("two")), ())
    assert order.after == {"both": {"two"}, "one": NONE, "two": NONE}


@pytest.mark.parametrize(
    "damaged",
    [record("ensemble_scheduling {"), record(ensemble("one"), request={"config": {"x": "y"}})],
    ids=["configuration", "option"],
)
def test_a_record_that_cannot_be_meant_does_not_stop_the_list(damaged: Record) -> None:
    """What its user said it uses is known all the same."""
    listed = in_order(
        to_remove("user", dataclasses.replace(damaged, depends_on=("two",))),
        to_remove("one", record()),
        to_remove("two", record()),
        to_deploy("three"),
    )
    order = order_plans(listed, ())
    assert order.after == {"user": NONE, "one": NONE, "two": {"user"}, "three": NONE}
    assert order.refused == {}


@pytest.mark.parametrize("others", [(), ("other",)], ids=["alone", "among others"])
def test_a_model_that_is_said_to_depend_on_itself_is_refused(others: tuple[str, ...]) -> None:
    listed = in_order(to_deploy("a", depends_on=["a"]), *map(to_deploy, others))
    assert order_plans(listed, ()).refused == {"a": "it is said to depend on itself"}
