# SPDX-License-Identifier: Apache-2.0
"""Whole lists on real servers: order, parallelism, purge, policy, and what a check run says of
them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import effects
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    DeliveryError,
    InvalidOption,
    VerificationFailed,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (
    StateStore,
)
from support.models import Sample, make_ensemble, make_onnx, make_python
from support.modules import publish_by_module, run_module
from support.playbooks import run_task
from support.servers import MLflow, Triton, triton_server

pytestmark = pytest.mark.long


class Lists:
    """Deliver lists of models to one repository of a running Triton."""

    def __init__(self, folder: Path, triton: Triton, **target: Any) -> None:
        self.folder = folder
        self.triton = triton
        self.target: dict[str, Any] = {
            "model_repository": str(triton.repository),
            "triton_url": triton.url,
            "timeout": 60,
            **target,
        }
        self.changes: list[tuple[str, str]] = []
        self.at_once: dict[str, int] = {}
        self._now: dict[str, int] = {}
        self._lock = threading.Lock()

    def _seen(self, moment: str, kind: str, subject: str) -> None:
        with self._lock:
            self._now[kind] = self._now.get(kind, 0) + (1 if moment == "before" else -1)
            self.at_once[kind] = max(self.at_once.get(kind, 0), self._now[kind])
            if moment == "after" and kind in ("load", "unload"):
                self.changes.append((kind, subject))

    def deliver(
        self,
        models: Sequence[dict[str, Any]],
        check: bool = False,
        purge: str | None = None,
        set_name: str | None = None,
        limit: float | None = None,
        **target: Any,
    ) -> list[Result]:
        self.changes, self.at_once, self._now = [], {}, {}
        with (
            effects.observe(self._seen),
            Delivery(Target.from_options({**self.target, **target})) as delivery,
        ):
            wanted = [
                DesiredModel.from_options({**model, "deployment_set": set_name}) for model in models
            ]
            return delivery.deliver(wanted, check=check, purge=purge, purge_limit=limit)

    def good(self, models: Sequence[dict[str, Any]], **options: Any) -> list[Result]:
        results = self.deliver(models, **options)
        assert not [str(result.error) for result in results if result.error]
        return results

    def answers(self, sample: Sample) -> bool:
        status, body = self.triton.infer(sample.name, sample.request())
        return status == 200 and not sample.differences(body)

    def names(self) -> set[str]:
        """What lies in the repository."""
        return {path.name for path in self.triton.repository.iterdir() if path.is_dir()}

    def sample(self, name: str, **options: Any) -> Sample:
        return make_python(self.folder / f"{name}-{options.get('identity', 1)}", name, **options)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with triton_server(
        tmp_path_factory.mktemp("server"), extra_args=["--disable-auto-complete-config"]
    ) as triton:
        yield triton


@pytest.fixture
def lists(server: Triton, tmp_path: Path) -> Iterator[Lists]:
    """An empty repository."""
    made = Lists(tmp_path, server)
    yield made
    with Delivery(Target.from_options({**made.target, "lock_timeout": 5})) as delivery:
        names = sorted(made.names() | {row["name"] for row in server.index()})
        assert not [
            str(r.error)
            for r in delivery.deliver(
                [DesiredModel(name, state="absent", adopt=True) for name in names]
            )
            if r.error
        ]


def entry(sample: Sample, **options: Any) -> dict[str, Any]:
    return {"name": sample.name, "model_uri": str(sample.folder), **options}


def before(changes: list[tuple[str, str]], first: tuple[str, str], second: tuple[str, str]) -> bool:
    return changes.index(first) < changes.index(second)


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_ensemble_among_its_members(protocol: str, lists: Lists) -> None:
    """Named first, loaded last; the check run says the same; removed first. With one more user,
    which names what it calls.
    """
    lists.target["triton_url"] = (
        lists.triton.url if protocol == "HTTP" else f"grpc://{lists.triton.grpc_url}"
    )
    one, two, caller = lists.sample("one"), lists.sample("two"), lists.sample("a-caller")
    both = make_ensemble(lists.folder, "both", [one, two])
    wanted = [entry(caller, depends_on=["both"]), entry(both), entry(two), entry(one)]

    check = lists.deliver(wanted, check=True)
    assert lists.changes == [] and lists.names() == set()
    done = lists.good(wanted)
    assert [result.name for result in done] == ["a-caller", "both", "two", "one"]
    assert [result.to_dict()["diff"] for result in check] == [
        result.to_dict()["diff"] for result in done
    ]
    assert [result.to_dict()["actions"] for result in check] == [
        result.to_dict()["actions"] for result in done
    ]
    assert all(
        before(lists.changes, ("load", member), ("load", "both")) for member in ("one", "two")
    )
    assert before(lists.changes, ("load", "both"), ("load", "a-caller"))
    assert lists.answers(both) and lists.answers(caller)

    assert not any(result.changed for result in lists.good(wanted)) and lists.changes == []
    newer = lists.sample("one", identity=2)
    assert [result.changed for result in lists.good([*wanted[:3], entry(newer)])] == [
        False,
        False,
        False,
        True,
    ]
    assert lists.answers(both) and lists.answers(newer)

    out = lists.good([{**model, "state": "absent"} for model in reversed(wanted)])
    assert all(result.changed for result in out) and lists.names() == set()
    assert before(lists.changes, ("unload", "a-caller"), ("unload", "both"))
    assert all(
        before(lists.changes, ("unload", "both"), ("unload", member)) for member in ("one", "two")
    )


def test_member_that_fails(lists: Lists) -> None:
    """Its users are left as they are and say so; what is apart is delivered, and what is unchanged
    is no failure.
    """
    one, two = lists.sample("one"), lists.sample("two")
    both, apart = make_ensemble(lists.folder, "both", [one, two]), lists.sample("apart")
    idle = make_ensemble(lists.folder, "idle", [one])
    lists.good([entry(one), entry(two), entry(both), entry(idle)])
    broken, caller = lists.sample("one", identity=2, fail="no weights"), lists.sample("caller")
    changed = {"max_batch_size": 4}
    wanted = [
        entry(both, config=changed),
        entry(broken),
        entry(two),
        entry(idle),
        entry(apart),
        entry(caller, depends_on=["both"]),
    ]
    done = {result.name: result for result in lists.deliver(wanted)}
    assert "no weights" in str(done["one"].error)
    assert "it depends on 'one', which failed in this run" in str(done["both"].error)
    assert "it depends on 'both', which failed in this run" in str(done["caller"].error)
    assert all("othing was changed" in str(done[name].error) for name in ("both", "caller"))
    assert [done[name].changed for name in ("two", "idle", "apart")] == [False, False, True]
    assert not [done[name].error for name in ("two", "idle", "apart") if done[name].error]
    assert (
        lists.answers(both)
        and lists.answers(one)
        and lists.answers(apart)
        and "caller" not in lists.names()
    )
    assert lists.triton.model_config("both")["max_batch_size"] == 8


def test_circles_and_removals_that_would_break_others(lists: Lists) -> None:
    samples = {name: lists.sample(name) for name in ("a", "b", "c", "apart", "needed")}
    wanted = [
        entry(samples["a"], depends_on=["b"]),
        entry(samples["b"], depends_on=["a"]),
        entry(samples["c"], depends_on=["c"]),
        entry(samples["apart"], depends_on=["needed"]),
        entry(samples["needed"]),
    ]
    for check in (True, False):
        done = {result.name: result for result in lists.deliver(wanted, check=check)}
        assert all("depend on each other (" in str(done[name].error) for name in ("a", "b")), [
            str(done[name].error) for name in done
        ]
        assert "itself" in str(done["c"].error)
        assert not done["apart"].error and not done["needed"].error
    assert lists.names() == {"apart", "needed"}
    for check in (True, False):
        kept = {
            result.name: result
            for result in lists.deliver(
                [wanted[3], {"name": "needed", "state": "absent"}], check=check
            )
        }
        assert (
            "'apart' of the same list depends on it" in str(kept["needed"].error)
            and not kept["apart"].error
        )
    assert lists.answers(samples["needed"])
    freed = lists.good(
        [entry(samples["apart"], depends_on=[]), {"name": "needed", "state": "absent"}]
    )
    assert [result.changed for result in freed] == [True, True] and lists.names() == {"apart"}


def test_many_users_of_a_member_that_failed_are_removed(lists: Lists) -> None:
    """Triton 2.51 crashes, or serves one of them on, where it unloads two at once."""
    member = lists.sample("member")
    users = [make_ensemble(lists.folder, f"user{number}", [member]) for number in range(10)]
    model = lists.triton.repository / "member" / "1" / "model.py"
    for _time in range(4):
        lists.good([entry(member), *map(entry, users)])
        good = model.read_text()
        model.write_text("raise ValueError")
        # Later than what the list has just loaded again, as the file had been written anew.
        later = time.time() + 2
        os.utime(model, (later, later))
        assert lists.triton.load("member")[0] != 200
        model.write_text(good)
        lists.good([{"name": user.name, "state": "absent"} for user in users])
        assert lists.names() == {"member"}
        assert [row["name"] for row in lists.triton.index() if row["state"] == "READY"] == [
            "member"
        ]


def test_removal_waits_for_a_user_that_fails(lists: Lists) -> None:
    """What an ensemble still uses, because its update failed, is not taken away from it."""
    one, two = lists.sample("one"), lists.sample("two")
    both = make_ensemble(lists.folder, "both", [one, two])
    lists.good([entry(one), entry(two), entry(both)])
    broken = make_ensemble(lists.folder / "broken", "both", [one])
    case = {"inputs": broken.inputs, "outputs": both.expected(both.inputs)}
    wanted = [entry(one), {"name": "two", "state": "absent"}, entry(broken, verify=case)]
    done = {r.name: r for r in lists.deliver(wanted)}
    assert isinstance(done["both"].error, VerificationFailed), repr(done["both"].error)
    assert "'both' still uses it, having failed in this run" in str(done["two"].error)
    assert lists.answers(both)
    good = make_ensemble(lists.folder / "good", "both", [one])
    assert [
        result.changed
        for result in lists.good([entry(one), {"name": "two", "state": "absent"}, entry(good)])
    ] == [False, True, True]
    assert lists.answers(good) and "two" not in lists.names()


def test_versions_that_an_ensemble_of_the_list_pins(lists: Lists, mlflow: MLflow) -> None:
    """A member whose version the ensemble names keeps its folder, also where both are new; the
    check run knows it.
    """
    member = lists.sample("pinned-member")
    ensemble = make_ensemble(lists.folder, "pinning", [member], pinned=1)
    options = {"tracking_uri": mlflow.url}
    for dummy in range(2):  # so that the registry's version is 2, and the folder 1
        (member.folder / "1" / f"note-{dummy}.txt").write_text("another version")
        publish_by_module(mlflow, member.name, member.folder)
    wanted = [{"name": member.name, "model_uri": f"models:/{member.name}/2"}, entry(ensemble)]
    check = lists.deliver(wanted, check=True, **options)
    done = lists.good(wanted, **options)
    assert [result.to_dict()["actions"] for result in check] == [
        result.to_dict()["actions"] for result in done
    ]
    assert done[0].record is not None and done[0].record.triton_versions == (1,)
    assert lists.answers(ensemble)
    assert not any(result.changed for result in lists.good(wanted, **options))


def test_limits_are_kept_and_used(lists: Lists) -> None:
    slow = [lists.sample(f"slow-{number}", load_delay=0.7) for number in range(5)]
    lists.good([entry(sample) for sample in slow], parallel_loads=2, parallel_downloads=3)
    assert lists.at_once["load"] == 2
    lists.good([entry(sample, state="absent") for sample in slow], parallel_loads=1)
    assert lists.at_once["unload"] == 1
    for key in ("parallel_loads", "parallel_downloads"):
        with pytest.raises(InvalidOption, match=f"{key} must be at least 1"):
            lists.deliver([], **{key: 0})


# -- members and their users -----------------------------------------------------------------------


def with_example(sample: Sample) -> Sample:
    """The same model, which brings an example of its input."""
    (sample.folder / "input_example.json").write_text(json.dumps(sample.inputs))
    return sample


def with_other_output(sample: Sample) -> Sample:
    """The same model, whose output has the name ``w``: no ensemble that asks for ``y`` can use
    it.
    """
    for path in (sample.folder / "config.pbtxt", sample.folder / "1" / "model.py"):
        path.write_text(path.read_text().replace('"y"', '"w"'))
    return sample


def without_backend(sample: Sample) -> Sample:
    """The same model, whose backend Triton tells from its file: whether an ensemble fits it, only
    the load shows.
    """
    path = sample.folder / "config.pbtxt"
    path.write_text(path.read_text().replace('backend: "python"\n', ""))
    return sample


def asks_for(ensemble: Sample, output: str) -> Sample:
    """The same ensemble, whose steps ask for another output."""
    path = ensemble.folder / "config.pbtxt"
    path.write_text(
        path.read_text().replace('output_map { key: "y"', f'output_map {{ key: "{output}"')
    )
    return ensemble


def actions(results: Sequence[Result]) -> list[list[str]]:
    return [result.to_dict()["actions"] for result in results]


def test_a_member_is_not_taken_away_from_a_deployed_ensemble(lists: Lists) -> None:
    """Removed, unloaded, deployed without being loaded, or purged: refused in a check run too,
    with the ensemble named. In one list, or after the ensemble, it goes.
    """
    one, two = lists.sample("one"), lists.sample("two")
    both = make_ensemble(lists.folder, "both", [one, two])
    caller = lists.sample("caller")
    lists.good([entry(one), entry(two)], set_name="nightly")
    lists.good([entry(both), entry(caller, depends_on=["two"])])
    for asked, named in (
        ({"name": "one", "state": "absent"}, "'both' is deployed and uses it"),
        ({"name": "one", "state": "unloaded"}, "'both' is deployed and uses it"),
        (entry(one, state="unloaded"), "'both' is deployed and uses it"),
        ({"name": "two", "state": "absent"}, "'both', 'caller' are deployed and use it"),
    ):
        for check in (True, False):
            (result,) = lists.deliver([asked], check=check)
            assert named in str(result.error), result.error
            assert "othing was changed" in str(result.error) and lists.changes == []
    for check in (True, False):
        kept = lists.deliver([entry(two)], set_name="nightly", purge="nightly", check=check)
        assert [bool(result.error) for result in kept] == [False, True]
    assert lists.answers(both)

    lists.good([{"name": "both", "state": "unloaded"}, {"name": "one", "state": "unloaded"}])
    lists.good([entry(one), entry(both)])
    lists.good([{"name": "one", "state": "absent"}, {"name": "both", "state": "absent"}])
    lists.good([{"name": "caller", "state": "absent"}])
    lists.good([{"name": "two", "state": "absent"}])
    assert lists.names() == set()


def test_an_ensemble_that_fails_in_the_list_does_not_lose_its_member(lists: Lists) -> None:
    one = lists.sample("one")
    both = make_ensemble(lists.folder, "both", [one])
    lists.good([entry(one), entry(both)])
    nowhere = {"name": "both", "model_uri": str(lists.folder / "nowhere")}
    done = lists.deliver([nowhere, {"name": "one", "state": "absent"}])
    assert all(result.error for result in done), done
    assert lists.answers(both)


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
@pytest.mark.parametrize("fault", ["does not answer", "has another output"])
def test_a_member_goes_back_where_a_deployed_ensemble_fails_with_it(
    lists: Lists, fault: str, protocol: str
) -> None:
    """The ensemble is of another list. It answers before, so that it has to answer after."""
    if protocol == "gRPC":
        lists.target["triton_url"] = f"grpc://{lists.triton.grpc_url}"
    one, two = lists.sample("one"), lists.sample("two")
    both = with_example(make_ensemble(lists.folder, "both", [one, two]))
    above = with_example(make_ensemble(lists.folder, "above", [both]))
    above = dataclasses.replace(above, expected=both.expected)
    lists.good([entry(one), entry(two), entry(both), entry(above)])
    if fault == "does not answer":
        broken = lists.sample("one", identity=2, fail_infer="no such row")
    else:
        broken = without_backend(with_other_output(lists.sample("one", identity=2)))
    check = lists.good([entry(broken)], check=True)
    (done,) = lists.deliver([entry(broken)])
    assert actions(check) == actions([done])
    assert "verify above, both, which use it" in done.to_dict()["actions"]
    assert isinstance(done.error, VerificationFailed) and not done.changed
    assert "model 'one', verify its users: 'above', which uses it" in str(done.error)
    assert f"{one.folder} is in place as before" in str(done.error)
    assert lists.answers(one) and lists.answers(both) and lists.answers(above)
    assert not any(r.changed for r in lists.good([entry(one), entry(two), entry(both)]))

    good = lists.sample("one", identity=3)
    assert lists.good([entry(good)])[0].changed and lists.answers(both)


def test_a_user_that_did_not_answer_before_is_not_held_against_a_member(lists: Lists) -> None:
    one = lists.sample("one", fail_infer="no such row")
    user = with_example(make_ensemble(lists.folder, "user", [one]))
    lists.good([entry(one), entry(user, verify="none")])
    assert not lists.answers(user)
    still = lists.sample("one", identity=2, fail_infer="no such row")
    assert lists.good([entry(still)])[0].changed
    mended = lists.sample("one", identity=3)
    assert lists.good([entry(mended)])[0].changed and lists.answers(user)


def test_a_member_goes_back_where_an_unchanged_user_of_the_list_does_not_verify(
    lists: Lists,
) -> None:
    """With the case that the list gives, which no record has."""
    one = lists.sample("one")
    user = make_ensemble(lists.folder, "user", [one])
    case = {"inputs": user.inputs, "outputs": user.expected(user.inputs)}
    lists.good([entry(one), entry(user, verify=case)])
    wrong = lists.sample("one", identity=2, wrong=True)
    done = {r.name: r for r in lists.deliver([entry(user, verify=case), entry(wrong)])}
    assert "'user', which uses it, answered before" in str(done["one"].error)
    assert "instead of" in str(done["one"].error)
    assert not done["user"].error and not done["user"].changed
    assert lists.answers(one) and lists.answers(user)


def test_a_member_and_its_ensemble_change_together(lists: Lists) -> None:
    """Neither would work with the other's old version. One download, one load each; the second
    run changes nothing.
    """
    one = lists.sample("one")
    user = with_example(make_ensemble(lists.folder, "user", [one]))
    lists.good([entry(one), entry(user)])
    renamed = with_other_output(lists.sample("one", identity=2))
    adapted = with_example(
        asks_for(make_ensemble(lists.folder / "adapted", "user", [renamed]), "w")
    )
    wanted = [entry(adapted), entry(renamed)]
    check = lists.good(wanted, check=True)
    done = lists.good(wanted)
    assert actions(check) == actions(done) and all(result.changed for result in done)
    assert lists.changes == [("load", "one"), ("load", "user")]
    assert lists.answers(adapted)
    assert not any(result.changed for result in lists.good(wanted))


@pytest.mark.parametrize("loads", [1, 4])
def test_a_member_and_its_ensemble_are_taken_back_together(lists: Lists, loads: int) -> None:
    """Also where the ensemble is what fails; what is apart stays, and a third user of the member is
    taken back with them.
    """
    one, apart = lists.sample("one"), lists.sample("apart")
    user = with_example(make_ensemble(lists.folder, "user", [one]))
    lists.good([entry(one), entry(user)])
    renamed = without_backend(with_other_output(lists.sample("one", identity=2)))
    failing = with_example(make_ensemble(lists.folder / "failing", "user", [renamed]))
    other = asks_for(make_ensemble(lists.folder, "other", [renamed]), "w")
    wanted = [entry(failing), entry(other), entry(renamed), entry(apart)]
    done = {r.name: r for r in lists.deliver(wanted, parallel_loads=loads)}
    assert done["apart"].changed and lists.answers(apart)
    assert all(done[name].error for name in ("one", "user", "other"))
    assert "one" in done and not any(done[name].changed for name in ("one", "user", "other"))
    assert "taken back together with 'user', which failed" in str(done["one"].error)
    assert f"{one.folder} is in place as before" in str(done["one"].error)
    assert f"{user.folder} is in place as before" in str(done["user"].error)
    assert lists.answers(one) and lists.answers(user) and "other" not in lists.names()
    assert not any(r.changed for r in lists.good([entry(one), entry(user), entry(apart)]))


def test_members_that_share_an_ensemble_are_proven_together(lists: Lists) -> None:
    """The one that is at fault is not told; neither of them stays."""
    one, two = lists.sample("one"), lists.sample("two")
    both = with_example(make_ensemble(lists.folder, "both", [one, two]))
    lists.good([entry(one), entry(two), entry(both)])
    good, broken = lists.sample("one", identity=2), lists.sample("two", identity=2, fail_infer="no")
    done = lists.deliver([entry(good), entry(broken)])
    assert all(result.error and not result.changed for result in done)
    assert lists.answers(one) and lists.answers(two) and lists.answers(both)


def test_a_rollback_of_a_member_asks_its_ensemble(lists: Lists) -> None:
    old = without_backend(lists.sample("one"))
    new = with_other_output(lists.sample("one", identity=2))
    lists.good([entry(old)])
    lists.good([entry(new)])
    user = with_example(asks_for(make_ensemble(lists.folder, "user", [new]), "w"))
    lists.good([entry(user)])
    (done,) = lists.deliver([{"name": "one", "state": "rolled_back"}])
    assert "'user', which uses it, answered before" in str(done.error)
    assert lists.answers(user)


# -- purge -----------------------------------------------------------------------------------------


def test_purge(lists: Lists) -> None:
    """What the same set deployed and no longer lists goes, users first; nothing else ever does."""
    one, two = lists.sample("one"), lists.sample("two")
    both, foreign = make_ensemble(lists.folder, "both", [one, two]), lists.sample("foreign")
    other, none = lists.sample("of-another-set"), lists.sample("of-no-set")
    lists.good([entry(one), entry(two), entry(both)], set_name="nightly")
    lists.good([entry(other)], set_name="nightly-2")
    lists.good([entry(none)])
    make_python(lists.triton.repository, foreign.name)
    everything = {"one", "two", "both", other.name, none.name, foreign.name}

    assert (
        lists.good([entry(one), entry(two), entry(both)], set_name="nightly", purge="nightly")[
            -1
        ].name
        == "both"
    )
    assert lists.changes == [] and lists.names() == everything
    kept = {
        r.name: r
        for r in lists.deliver([entry(one), entry(both)], set_name="nightly", purge="nightly")
    }
    assert "'both' of the same list depends on it" in str(kept["two"].error) and lists.answers(both)

    check = lists.deliver([entry(one)], set_name="nightly", purge="nightly", check=True)
    assert lists.names() == everything
    done = lists.good([entry(one)], set_name="nightly", purge="nightly")
    assert [result.name for result in done] == ["one", "both", "two"]
    assert [result.to_dict()["diff"] for result in check] == [
        result.to_dict()["diff"] for result in done
    ]
    assert before(lists.changes, ("unload", "both"), ("unload", "two"))
    assert lists.names() == everything - {"both", "two"}
    assert len(lists.good([entry(one)], set_name="nightly", purge="nightly")) == 1

    lists.good([entry(one)], set_name="weekly")  # it belongs to another list now
    assert lists.good([], set_name="nightly", purge="nightly") == []
    assert lists.answers(one)
    with pytest.raises(DeliveryError, match="the list is empty"):
        lists.deliver([], set_name="weekly", purge="weekly")
    (only,) = lists.good([], set_name="weekly", purge="weekly", limit=100)
    assert only.changed and lists.names() == everything - {"both", "two", "one"}


@pytest.mark.parametrize("check", [True, False])
def test_a_list_that_did_not_load_takes_nothing_away(check: bool, lists: Lists) -> None:
    samples = [lists.sample(f"of-many-{number}") for number in range(8)]
    everything = [entry(sample) for sample in samples]
    lists.good(everything, set_name="nightly")
    for listed, reason, limit in (
        ([], "all 8 models .* the list is empty", 100),
        (everything[:3], "5 of 8 models .* more than a half", 63),
    ):
        with pytest.raises(DeliveryError, match=reason) as refused:
            lists.deliver(listed, set_name="nightly", purge="nightly", check=check)
        assert f"purge_limit: {limit}" in str(refused.value)
        assert "Nothing was changed" in str(refused.value)
        # The remedy that is named, and one below it.
        with pytest.raises(DeliveryError, match=f"purge_limit is {limit - 1}"):
            lists.deliver(listed, set_name="nightly", purge="nightly", check=check, limit=limit - 1)
        planned = lists.good(listed, set_name="nightly", purge="nightly", check=True, limit=limit)
        assert sum(one.changed for one in planned) == 8 - len(listed)
        for wrong in (float("nan"), -1, 101):
            with pytest.raises(DeliveryError, match="is not a percentage"):
                lists.deliver(listed, set_name="nightly", purge="nightly", check=check, limit=wrong)
    assert lists.names() == {sample.name for sample in samples}
    assert all(map(lists.answers, samples))
    # Half of them, and up to three of few, may go.
    lists.good(everything[:4], set_name="nightly", purge="nightly", check=check)
    if not check:
        lists.good(everything[:1], set_name="nightly", purge="nightly")
        assert lists.names() == {samples[0].name}


def test_a_model_that_failed_is_told_as_it_stands(lists: Lists) -> None:
    """Whether its options, its source or its load failed, in check mode too."""
    there, foreign = lists.sample("there"), lists.sample("somebodys")
    lists.good([entry(there)])
    make_python(lists.triton.repository, foreign.name)
    options = {"model_repository": lists.target["model_repository"], "triton_url": lists.triton.url}
    bad = lists.sample("there", identity=2, fail="no such weights")
    for wanted, check in (
        (entry(there, keep=-1), True),
        ({"name": "there", "model_uri": "/no/such/folder"}, True),
        ({"name": "there", "model_uri": "/no/such/folder"}, False),
        (entry(bad), False),
    ):
        new = {"name": "new", "model_uri": "/no/such/folder"}
        done = run_module(
            "triton_models",
            {**options, "models": [wanted, entry(foreign), new]},
            check=check,
        )
        told = {one["name"]: (one["failed"], one["model"]["state"]) for one in done["models"]}
        assert told == {
            "there": (True, "present"), "somebodys": (True, "foreign"), "new": (True, "absent")
        }, done  # fmt: skip
        assert done["models"][0]["model"]["triton_versions"] == [1]
    record = Path(StateStore(str(lists.triton.repository)).path) / "records/there.json"
    text = record.read_text()
    record.write_text("{}")
    done = run_module("triton_models", {**options, "models": [entry(there)]})
    assert done["models"][0]["model"]["state"] == "unknown"
    record.write_text(text)


def test_what_is_only_noted_is_told_apart(lists: Lists) -> None:
    sample = lists.sample("noted")
    lists.good([entry(sample)], set_name="blue")
    (result,) = lists.good([entry(sample)], set_name="green")
    assert "it belonged to the deployment set blue" in str(result.warnings)
    done = result.to_dict()
    assert done["changed"] and done["actions"] == done["noted"] != []
    assert lists.changes == []
    other = lists.good([entry(sample, config={"max_batch_size": 4})], set_name="green")[0].to_dict()
    assert set(other["actions"]) > set(other["noted"]) and lists.changes


def test_purge_in_a_task(lists: Lists) -> None:
    """It needs a name, spares an entry that could not be read, and shows what it removes."""
    options = {"model_repository": lists.target["model_repository"], "triton_url": lists.triton.url}
    samples = [lists.sample(name) for name in ("one", "two", "three")]
    named = {**options, "deployment_set": "nightly", "purge": True}
    first = run_module("triton_models", {**named, "models": [entry(sample) for sample in samples]})
    assert first["changed"], first
    refused = run_module("triton_models", {**options, "models": [], "purge": True})
    assert refused["failed"] and "deployment_set" in refused["msg"]
    wanted = [entry(samples[1], keep=-1), entry(samples[0])]
    check = run_task(
        lists.folder, "triton_models", {**named, "models": wanted}, "--check", "--diff"
    )
    done = run_module("triton_models", {**named, "models": wanted}, diff=True)
    assert [model["name"] for model in done["models"]] == ["two", "one", "three"]
    assert [(model["name"], model["changed"], model["failed"]) for model in check["models"]] == [
        ("two", False, True),
        ("one", False, False),
        ("three", True, False),
    ]
    assert (
        check["diff"] == done["diff"]
        and check["models"][2]["actions"] == done["models"][2]["actions"]
    )
    assert done["failures"] == check["failures"] and "keep cannot be negative" in done["msg"]
    assert lists.names() == {"one", "two"}


# -- policy ----------------------------------------------------------------------------------------


def test_policy_refuses_before_anything_is_brought(lists: Lists, mlflow: MLflow) -> None:
    python, network = lists.sample("code"), make_onnx(lists.folder, "network-of-policy")
    hidden = make_onnx(lists.folder / "hidden", "hidden")
    (hidden.folder / "1" / "libtriton_onnxruntime.so").write_bytes(b"\x7fELF")
    runtime = make_onnx(
        lists.folder / "runtime", "runtime", config='backend: "onnxruntime"\nruntime: "model.py"\n'
    )
    unnamed = make_python(lists.folder / "unnamed", "unnamed", config="max_batch_size: 8")
    publish_by_module(mlflow, network.name, network.folder)
    published = {"name": network.name, "model_uri": f"models:/{network.name}/1"}
    cases: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
        (
            {"allowed_backends": ["onnxruntime"]},
            entry(python),
            "it needs the backend python, and allowed_backends has onnxruntime",
        ),
        (
            {"allowed_backends": ["onnxruntime"]},
            entry(hidden),
            "it brings '1/libtriton_onnxruntime.so'",
        ),
        ({"allowed_backends": ["onnxruntime"]}, entry(runtime), "has the field runtime"),
        ({"allowed_backends": ["onnxruntime"]}, entry(unnamed), "it needs the backend python"),
        (
            {"allowed_backends": ["python"]},
            entry(python, config={"backend": "identity"}),
            "it needs the backend identity",
        ),
        ({"allowed_backends": []}, published, "allowed_backends has none"),
        ({"max_size": "100"}, entry(python), "bytes, and max_size allows 100"),
        ({"require_digest": True}, entry(network), "it has no manifest of its publisher"),
        (
            {"require_digest": True, "max_size": "1MiB", "allowed_backends": ["onnxruntime"]},
            published,
            None,
        ),
    ]
    for policy, model, words in cases:
        for check in (True, False):
            (result,) = lists.deliver([model], check=check, tracking_uri=mlflow.url, **policy)
            assert words in str(result.error) if words else result.error is None, (
                policy,
                str(result.error),
            )
            assert words is None or "othing was changed" in str(result.error)
        assert lists.names() == ({network.name} if words is None else set()), policy
    with pytest.raises(InvalidOption, match="max_size 'much'"):
        lists.deliver([], max_size="much")


def test_policy_on_what_is_deployed(lists: Lists, mlflow: MLflow) -> None:
    """It fails and is left alone; it can be removed; a rollback to what is not allowed is refused;
    a forged manifest too.
    """
    old, new = lists.sample("fraud"), make_onnx(lists.folder / "new", "fraud")
    lists.good([entry(old)])
    (result,) = lists.deliver([entry(old)], allowed_backends=["onnxruntime"])
    assert "the backend python" in str(result.error) and lists.answers(old) and lists.changes == []
    lists.good([entry(new)], allowed_backends=["onnxruntime"])
    (back,) = lists.deliver(
        [{"name": "fraud", "state": "rolled_back"}], allowed_backends=["onnxruntime"]
    )
    assert "the backend python" in str(back.error) and lists.answers(new)
    lists.good([{"name": "fraud", "state": "rolled_back"}])
    assert lists.answers(old)
    lists.good([{"name": "fraud", "state": "absent"}], allowed_backends=["onnxruntime"])

    published = make_onnx(lists.folder / "published", "forged")
    publish_by_module(mlflow, "forged", published.folder)
    model = {"name": "forged", "model_uri": "models:/forged/1"}
    with Delivery(Target.from_options({**lists.target, "tracking_uri": mlflow.url})) as delivery:
        delivery.registry.set_version_tag("forged", 1, "triton.digest", "0" * 64)
    (forged,) = lists.deliver([model], tracking_uri=mlflow.url, require_digest=True)
    assert "names another manifest" in str(forged.error) and lists.names() == set()


# -- what does not answer --------------------------------------------------------------------------


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[str, list[int]]]:
    """Accepts connections and says nothing; yields its address and the connections so far."""
    accepted: list[int] = []
    held: list[socket.socket] = []
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])
                    accepted.append(1)

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", accepted
        for connection in held:
            connection.close()


@pytest.mark.parametrize("what", ["@champion", "/1"])
def test_silent_registry_is_waited_for_once(what: str, lists: Lists) -> None:
    with silent_server() as (address, accepted):
        local = lists.sample("local")
        wanted = [
            *(
                {"name": f"n{number}", "model_uri": f"models:/n{number}{what}"}
                for number in range(30)
            ),
            entry(local),
        ]
        done = lists.deliver(wanted, tracking_uri=f"http://{address}", timeout=2)
        assert len(accepted) <= 20, "each model waited for it"
    said = [str(result.error) for result in done[:-1]]
    assert all(
        "did not answer within 2 s" in text and "othing was changed" in text for text in said
    )
    assert done[-1].error is None and lists.answers(local)


def stopped(pid: int) -> bool:
    """A signal is sent in no time, and obeyed by all threads a little later."""
    return all(
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "T"
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def test_silent_server_is_waited_for_once(lists: Lists) -> None:
    """Frozen in the middle of a list: what was loaded stays, the rest fails at once and leaves
    nothing.
    """
    samples = [lists.sample(f"m{number}") for number in range(6)]
    frozen = threading.Event()

    def freeze(moment: str, kind: str, subject: str) -> None:
        if (moment, kind) == ("after", "load") and not frozen.is_set():
            frozen.set()
            os.kill(lists.triton.pid, signal.SIGSTOP)
            while not stopped(lists.triton.pid):
                time.sleep(0.01)

    try:
        with effects.observe(freeze):
            done = lists.deliver(
                [entry(sample) for sample in samples],
                timeout=3,
                parallel_loads=1,
                parallel_downloads=1,
            )
    finally:
        os.kill(lists.triton.pid, signal.SIGCONT)
    said = [str(result.error) for result in done]
    assert all(result.error for result in done)
    assert sum("did not answer within 3 s before" in text for text in said) >= 3, said
    assert lists.names() == set()
    lists.good([entry(sample) for sample in samples])
    assert all(lists.answers(sample) for sample in samples)


def test_server_that_is_not_there(lists: Lists) -> None:
    with pytest.raises(DeliveryError, match="cannot be reached"):
        lists.deliver([entry(lists.sample("any"))], triton_url="127.0.0.1:9")
    options = {"model_repository": lists.target["model_repository"]}
    urls = [lists.triton.url, "127.0.0.1:9"]
    done = run_module("triton_models", {**options, "models": [], "triton_url": urls}, check=True)
    assert done["unreached"] == ["127.0.0.1:9"]
