# SPDX-License-Identifier: Apache-2.0
"""A new deployment is proven under another name before it takes the place of the old one: no client
gets an answer of one that fails, on a real Triton.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import LoadHangs
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from support.bench import FAST, NAME, QUESTION, VERIFY, Bench, new_bench
from support.deliveries import deliver_models
from support.models import make_ensemble

ASIDE = {"verify": VERIFY, "verify_aside": True}
CANDIDATE = f"{NAME}.mlops-candidate"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with new_bench(tmp_path_factory.mktemp("aside") / "bench") as made:
        yield made


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    """With version 1 in place."""
    shared.good(model_uri=shared.source(1), verify=VERIFY)
    yield shared
    shared.good(state="absent")
    assert shared.left_behind(models_there=()) == []


@contextlib.contextmanager
def asking(bench: Bench) -> Iterator[Counter[str]]:
    """A client that asks all the time; what it was answered, counted."""
    seen: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            status, body = bench.triton.infer(NAME, QUESTION)
            if status != 200:
                seen[f"failed: {status} {body}"] += 1
                continue
            answer = {one["name"]: one["data"] for one in body["outputs"]}
            right = answer["y"] == [2.0, 5.0, -8.0]
            seen["right" if right else "wrong"] += 1

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield seen
    finally:
        over.set()
        client.join()


def actions(result: Result) -> list[str]:
    assert result.plan
    return result.plan.actions


def candidate_rows(bench: Bench) -> list[Any]:
    return [row for row in bench.triton.index() if row["name"] == CANDIDATE]


def nothing_is_left(bench: Bench, identity: int) -> None:
    bench.check_agreement(identity)
    assert candidate_rows(bench) == []
    assert bench.triton.stub_pids(CANDIDATE) == []
    assert bench.triton.infer(CANDIDATE, QUESTION)[0] in (400, 404)


def test_no_client_gets_an_answer_of_a_deployment_that_fails_aside(bench: Bench) -> None:
    wrong = bench.source(2, wrong=True)
    with asking(bench) as seen:
        result = bench.deliver(model_uri=wrong, **ASIDE)
    said = str(result.error)
    assert CANDIDATE in said
    assert "before it served" in said
    assert "instead of [2.0, 5.0, -8.0]" in said
    assert "is in place as before" in said
    assert set(seen) == {"right"}, seen
    nothing_is_left(bench, 1)


def test_without_it_clients_get_wrong_answers_until_the_old_one_is_back(bench: Bench) -> None:
    """The price of the default that the documentation names."""
    wrong = bench.source(2, wrong=True, infer_delay=0.05)
    with asking(bench) as seen:
        assert bench.deliver(model_uri=wrong, verify=VERIFY).error is not None
    assert seen["wrong"], seen
    nothing_is_left(bench, 1)


def test_what_is_proven_aside_takes_the_place(bench: Bench) -> None:
    new = bench.source(2)
    plan = bench.good(model_uri=new, check=True, **ASIDE)
    assert any(CANDIDATE in said and "second load" in said for said in actions(plan)), actions(plan)
    with asking(bench) as seen:
        done = bench.good(model_uri=new, **ASIDE)
    assert actions(done) == actions(plan)
    assert set(seen) == {"right"}, seen
    nothing_is_left(bench, 2)
    assert bench.good(model_uri=new, **ASIDE).changed is False


def test_a_rollback_and_a_configuration_are_proven_aside(bench: Bench) -> None:
    bench.good(model_uri=bench.source(2), keep=1)
    loads = bench.triton.loads(CANDIDATE)
    bench.good(state="rolled_back", **ASIDE)
    nothing_is_left(bench, 1)
    bench.good(
        model_uri=str(bench.folder / f"sources/{NAME}-1/{NAME}"),
        config={"max_batch_size": 4},
        **ASIDE,
    )
    nothing_is_left(bench, 1)
    assert bench.triton.loads(CANDIDATE) == loads + 2
    # What Triton applies in place initialises nothing, and is not tried.
    done = bench.good(
        model_uri=str(bench.folder / f"sources/{NAME}-1/{NAME}"),
        config={"max_batch_size": 4, "instance_group": [{"kind": "KIND_CPU", "count": 2}]},
        **ASIDE,
    )
    assert not any(CANDIDATE in said for said in actions(done))
    assert bench.triton.loads(CANDIDATE) == loads + 2


def test_a_deployment_that_does_not_load_leaves_nothing(bench: Bench) -> None:
    result = bench.deliver(model_uri=bench.source(2, fail="no such weights"), **ASIDE)
    assert "no such weights" in str(result.error)
    nothing_is_left(bench, 1)


@pytest.mark.parametrize("verify", [None, "none"])
def test_what_proves_nothing_is_refused(bench: Bench, verify: str | None) -> None:
    result = bench.deliver(model_uri=bench.source(2), verify=verify, verify_aside=True)
    assert "verify_aside: true proves nothing" in str(result.error)
    nothing_is_left(bench, 1)
    # What the message says helps.
    bench.good(model_uri=bench.source(2), verify=verify, verify_aside=False)


def test_what_a_user_has_under_the_candidates_name_stays(bench: Bench) -> None:
    theirs = bench.repository / CANDIDATE
    theirs.mkdir()
    (theirs / "notes.txt").write_text("mine")
    result = bench.deliver(model_uri=bench.source(2), **ASIDE)
    assert "which this collection did not make" in str(result.error)
    assert (theirs / "notes.txt").read_text() == "mine"
    with pytest.raises(Exception, match="is reserved"):
        bench.deliver(name=CANDIDATE, model_uri=bench.source(2))
    (theirs / "notes.txt").unlink()
    theirs.rmdir()
    bench.good(model_uri=bench.source(2), **ASIDE)
    nothing_is_left(bench, 2)


def test_an_ensemble_is_not_proven_with_members_that_change_with_it(bench: Bench) -> None:
    uri = str(make_ensemble(bench.folder / "ensemble", "both", [bench.sample(1)]).folder)
    verify = {key: VERIFY[key] for key in ("inputs", "outputs")}
    ensemble = {"name": "both", "model_uri": uri, "verify": verify, "verify_aside": True}
    member = {"name": NAME, "model_uri": bench.source(2)}
    try:
        bench.good(**ensemble)  # with the members that serve
        changed = {**ensemble, "config": {"max_batch_size": 4}}
        for check in (True, False):
            results = deliver_models(bench.target, [member, changed], check)
            assert any("the two one after the other" in str(one.error) for one in results)
        assert bench.identity() == 1
        assert [one.error for one in deliver_models(bench.target, [member])] == [None]
        bench.good(**changed)
    finally:
        bench.good(name="both", state="absent")


def test_a_run_killed_anywhere_in_a_trial_leaves_nothing(bench: Bench) -> None:
    """Each second time the server is started anew, which ends the trial before the next run."""
    old = str(bench.folder / f"sources/{NAME}-1/{NAME}")
    new = bench.source(2, wrong=True)  # each run that is not killed fails aside
    effects = bench.run(model_uri=new, **ASIDE)["effects"]
    first = next(n for n, (_kind, where) in enumerate(effects, 1) if "/journals/" in where)
    saw_it_served = 0
    for point in range(first, len(effects) + 1):
        killed = bench.run({"kill": [point, "after"]}, model_uri=new, **ASIDE)
        where = " ".join(killed["effects"][-1])
        assert killed["code"] == -9, where
        saw_it_served += bool(bench.triton.stub_pids(CANDIDATE))
        assert [row["name"] for row in _status(bench)] == [NAME], where
        if point % 2:
            bench.crash()
        assert bench.identity() == 1, where
        bench.good(model_uri=old, verify=VERIFY)
        nothing_is_left(bench, 1)
        assert bench.good(model_uri=old, verify=VERIFY).changed is False, where
    assert saw_it_served


def test_a_rollback_that_was_killed_in_its_trial_can_be_asked_for_again(bench: Bench) -> None:
    """Its files are the candidate's meanwhile, and still those of a retained deployment."""
    new, back = bench.source(2, version=2), {"state": "rolled_back", "keep": 1, **ASIDE}
    bench.good(model_uri=new)
    effects = bench.run(**back)["effects"]
    loads = next(n for n, effect in enumerate(effects, 1) if effect == ["load", CANDIDATE])
    for starts_anew in (False, True):
        bench.good(model_uri=new, keep=1)
        assert bench.run({"kill": [loads, "after"]}, **back)["code"] == -9
        if starts_anew:
            bench.crash()
        assert bench.good(check=True, **back).changed
        bench.good(**back)
        nothing_is_left(bench, 1)


def test_a_model_may_write_files_of_its_own_while_it_is_proven(bench: Bench) -> None:
    sample = bench.sample(2)
    program = sample.folder / "1" / "model.py"
    begins = "    def initialize(self, args):\n"
    writes = begins + (
        "        there = os.path.join(args['model_repository'], args['model_version'])\n"
        "        open(os.path.join(there, 'engine.cache'), 'w').write(args['model_name'])\n"
    )
    program.write_text(program.read_text().replace(begins, writes))
    bench.good(model_uri=str(sample.folder), **ASIDE)
    # What it wrote as a candidate does not come with it.
    assert (bench.repository / NAME / "1" / "engine.cache").read_text() == NAME
    assert bench.good(model_uri=str(sample.folder), **ASIDE).changed is False


def test_a_load_of_a_candidate_that_goes_on_is_ended_by_the_next_run(bench: Bench) -> None:
    slow = bench.source(2, load_delay=3)
    limits = {"timeout": 1, "load_timeout": 1}
    result = bench.deliver(model_uri=slow, target=limits, **ASIDE)
    assert "the next run ends that" in str(result.error)
    assert (bench.repository / CANDIDATE / "1" / "model.py").exists()
    assert bench.identity() == 1
    bench.good(model_uri=str(bench.folder / f"sources/{NAME}-1/{NAME}"), verify=VERIFY)
    nothing_is_left(bench, 1)


def test_a_candidate_that_hangs_is_found_out_in_seconds(bench: Bench) -> None:
    slow, old = bench.source(2, load_delay=25), str(bench.folder / f"sources/{NAME}-1/{NAME}")
    limits = {"timeout": 2, "load_timeout": 8}
    assert "the next run ends that" in str(
        bench.deliver(model_uri=slow, target=limits, **ASIDE).error
    )
    began = time.monotonic()
    result = bench.deliver(model_uri=old, verify=VERIFY, target=limits)
    assert time.monotonic() - began < 6
    assert isinstance(result.error, LoadHangs)
    assert result.to_dict()["hanging"] == [bench.triton.url]
    said = str(result.error)
    assert said.startswith(f"model '{NAME}'") and f"as {CANDIDATE}, which was to be" in said
    assert "restart of the server helps" in said
    assert bench.identity() == 1
    bench.crash()
    bench.good(model_uri=old, verify=VERIFY)
    nothing_is_left(bench, 1)


def _status(bench: Bench) -> list[Any]:
    from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration import (
        delivery,
        target,
    )

    with delivery.Delivery(target.Target.from_options(bench.target)) as opened:
        return opened.status()


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Bench]:
    args = (*FAST, "--strict-readiness=true")
    with new_bench(tmp_path / "strict", extra_args=args) as made:
        made.good(model_uri=made.source(1), verify=VERIFY)
        yield made


def test_a_strict_server_is_refused_and_stays_ready(
    strict: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = strict.deliver(model_uri=strict.source(2), **ASIDE)
    assert "--strict-readiness=false" in str(result.error)
    nothing_is_left(strict, 1)

    # Its process cannot be seen: the server of another host.
    path = "ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.readiness"
    monkeypatch.setattr(f"{path}._said_by_process", lambda _address: None)
    failed = strict.deliver(model_uri=strict.source(2, fail="broken", load_delay=0.5), **ASIDE)
    assert "broken" in str(failed.error)
    assert "was not ready while the candidate was loaded" in str(failed.error)
    assert "stays not ready" not in str(failed.error)
    assert strict.triton.call("v2/health/ready")[0] == 200
    nothing_is_left(strict, 1)
    done = strict.good(model_uri=strict.source(3, load_delay=0.5), **ASIDE)
    assert any("was not ready while" in said for said in done.warnings), done.warnings
    nothing_is_left(strict, 3)
