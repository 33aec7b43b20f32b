# SPDX-License-Identifier: Apache-2.0
"""Models that do not load, load wrongly, hang, or take the server down: the good one before them
goes on.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.journal import (
    FolderSwap,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    LoadFailed,
    LoadHangs,
    LoadPending,
    NotFound,
    ServerError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from support.bench import NAME, VERIFY, Bench, Supervisor
from support.rows import Row
from support.servers import Triton, free_ports, is_alive


def refused(bench: Bench, result: Result, *words: str, served: int = 1) -> str:
    """The update failed, says why in these words, and the deployment before it is in place, in
    memory and on disk.
    """
    assert result.error is not None
    text = str(result.error)
    for word in words:
        assert word in text, text
    assert "\n" not in text
    bench.check_agreement(served)
    bench.crash()
    bench.check_agreement(served)
    return text


def over(bench: Bench, transport: str) -> dict[str, Any]:
    return {
        "triton_url": f"grpc://{bench.triton.grpc_url}" if transport == "gRPC" else bench.triton.url
    }


@pytest.mark.parametrize("transport", ["HTTP", "gRPC"])
def test_fails_in_initialize(transport: str, bench: Bench, row: Row) -> None:
    """broken model: initialize raises (asked over {transport})."""
    bench.good(model_uri=bench.source(1))
    failed = bench.deliver(
        model_uri=bench.source(2, fail="no weights for you"), target=over(bench, transport)
    )
    text = refused(bench, failed, "no weights for you", "is in place as before", "serves version 1")
    row.saw(f"the old one serves, also after a restart: {text}")


@pytest.mark.parametrize(
    ("way", "codes"),
    [
        ("under the number of the version that serves", (0, 1)),
        ("under another number", (0,)),
        ("aside", (0,)),
    ],
)
def test_stop_after_a_failed_load(way: str, codes: tuple[int, ...], bench: Bench, row: Row) -> None:
    """SIGTERM after a load that failed {way}.

    Triton keeps a part of a version that failed in the place of one of the same number, whatever
    is loaded or unloaded afterwards, and waits for it at its end until its own time-out.
    """
    options: dict[str, Any] = {"version_folders": "artifact"}
    bench.good(model_uri=bench.source(1), **options)
    if way == "aside":
        options |= {"verify": VERIFY, "verify_aside": True}
    number = 2 if way == "under another number" else 1
    bad = bench.source(2, version=number, fail="no weights for you")
    assert "no weights for you" in str(bench.deliver(model_uri=bad, **options).error)
    bench.check_agreement(1)
    settings = bench.triton.settings
    code = bench.triton.stop(settings["exit_timeout"] + 15)  # as long as the role's supervisors
    assert code in codes, bench.triton.log_tail()
    bench.triton.start()
    bench.check_agreement(1)
    row.saw(f"it ends by itself with {code}, before a supervisor would kill it")


def test_first_deployment_fails(bench: Bench, row: Row) -> None:
    """broken model, nothing before it."""
    failed = bench.deliver(model_uri=bench.source(1, fail="no weights for you"))
    assert isinstance(failed.error, LoadFailed), repr(failed.error)
    assert "no weights for you" in str(failed.error)
    assert str(failed.error).endswith(
        "Nothing of it was left in the repository, and no server serves it."
    )
    bench.check_agreement(None)
    bench.good(model_uri=bench.source(2))
    bench.check_agreement(2)
    row.saw(f"nothing is left: {failed.error}")


@pytest.mark.parametrize(
    "verify", [VERIFY, {"inputs": VERIFY["inputs"]}], ids=["wrong answer", "error"]
)
def test_fails_its_verification(verify: dict[str, Any], bench: Bench, row: Row) -> None:
    """broken model: loads, and the verification by inference fails."""
    bench.good(model_uri=bench.source(1), verify=VERIFY)
    broken = {"wrong": True} if "outputs" in verify else {"fail_infer": "the tokenizer is missing"}
    failed = bench.deliver(model_uri=bench.source(2, **broken), verify=verify)
    text = refused(
        bench,
        failed,
        "output 'y'" if "outputs" in verify else "the tokenizer is missing",
        "is in place as before",
    )
    row.saw(f"the old one serves: {text}")


CONFIGS = {
    "does not parse": ('backend: "python"\nmax_batch_size: oops', "does not parse in line 2"),
    "unknown field": ('backend: "python"\nmax_bach_size: 8', "max_bach_size"),
    "another name": ('name: "other"\nbackend: "python"', "names the model 'other'"),
    "no version folder": ("full", "no version folder"),
    "no backend": (
        'backend: "nope"\nmax_batch_size: 8\n',
        "model configuration; this server has no such backend",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configuration_that_triton_would_refuse(case: str, bench: Bench, row: Row) -> None:
    """broken model: {case}."""
    bench.good(model_uri=bench.source(1))
    config, said = CONFIGS[case]
    sample = bench.sample(2, config=config)
    if case == "no version folder":
        shutil.move(sample.folder / "1", sample.folder / "one")
    loads = bench.triton.loads(NAME)
    before = bench.triton.log_text().count(f"loading: {NAME}:")
    failed = bench.deliver(model_uri=str(sample.folder))
    asked = bench.triton.log_text().count(f"loading: {NAME}:") - before
    if case != "no backend":
        assert asked == 0, "Triton was asked to load it"
    assert bench.triton.loads(NAME) == loads or case == "no backend"
    text = refused(bench, failed, said)
    row.saw(f"{'found before loading' if case != 'no backend' else 'Triton refused it'}: {text}")


@pytest.mark.parametrize("transport", ["HTTP", "gRPC"])
def test_a_load_that_takes_longer_is_proven_by_the_next_run(
    transport: str, bench: Bench, row: Row
) -> None:
    """load that outlasts load_timeout (asked over {transport}), then the same is asked for."""
    bench.good(model_uri=bench.source(1), verify=VERIFY)
    slow, pid, loads = bench.source(2, load_delay=4), bench.triton.pid, bench.triton.loads(NAME)
    text = given_up_on(
        bench.deliver(model_uri=slow, target={"load_timeout": 1, **over(bench, transport)})
    )
    journal = bench.store.journal(NAME)
    assert isinstance(journal, FolderSwap) and journal.load
    assert source_on_disk(bench) == 2, "files were moved under a load"
    assert any(f"pending since {journal.load.since}" in said for said in bench.drift())
    planned = bench.deliver(check=True, model_uri=slow, verify=VERIFY)
    waits = f"wait for the load that began at {journal.load.since}"
    assert planned.plan and planned.plan.actions[0] == waits
    assert "folder" in planned.plan.diff()["after"] or slow in planned.plan.diff()["after"]
    settled = bench.good(model_uri=slow, verify=VERIFY, target=over(bench, transport))
    assert settled.plan and settled.plan.actions[0] == waits
    assert settled.record and settled.record.verified
    assert bench.triton.loads(NAME) == loads + 1, "it was loaded a second time"
    bench.check_agreement(2, retained=1)
    assert bench.good(model_uri=slow, verify=VERIFY).changed is False
    assert bench.triton.pid == pid
    row.saw(f"{text} The next run: {', '.join(settled.plan.actions)}")


def given_up_on(result: Result) -> str:
    """The load took longer than it may, which is said in these words."""
    assert isinstance(result.error, LoadPending), repr(result.error)
    text = str(result.error)
    assert f"model '{NAME}', load: Triton at " in text
    assert "was still loading after 1 s; a load cannot be cancelled and goes on. " in text
    assert "stay while the load goes on, and " in text
    assert "; the next run waits for the load, and proves or takes back what it brought; " in text
    assert result.changed is False
    return text


WISHES: dict[str, tuple[dict[str, Any], int | None]] = {
    "the one before": ({"model_uri": 1}, 1),
    "another one": ({"model_uri": 3}, 3),
    "its removal": ({"state": "absent"}, None),
    "unloading": ({"state": "unloaded"}, 1),
    "a rollback": ({"state": "rolled_back"}, 0),
}


@pytest.mark.parametrize("wish", WISHES)
def test_a_load_that_takes_longer_is_taken_back(wish: str, bench: Bench, row: Row) -> None:
    """load that outlasts load_timeout, then {wish} is asked for."""
    asked, served = WISHES[wish]
    for number in (0, 1) if served == 0 else (1,):
        bench.good(model_uri=bench.source(number))
    pid = bench.triton.pid
    given_up_on(bench.deliver(model_uri=bench.source(2, load_delay=3), target={"load_timeout": 1}))
    brings = {"model_uri": bench.source(served)} if served and "model_uri" in asked else {}
    settled = bench.good(**{**asked, **brings})
    assert settled.plan and settled.plan.actions[0].startswith("wait for the load that began at")
    assert bench.store.journal(NAME) is None
    if wish == "unloading":
        assert (source_on_disk(bench), bench.identity()) == (1, None)
    else:
        bench.check_agreement(served)
    assert bench.triton.pid == pid
    row.saw(f"{', '.join(settled.plan.actions)}")


def test_a_load_that_ends_and_fails_its_verification_is_taken_back(bench: Bench, row: Row) -> None:
    """load that outlasts load_timeout, and fails its verification in the next run."""
    bench.good(model_uri=bench.source(1), verify=VERIFY)
    wrong = bench.source(2, load_delay=2, wrong=True)
    given_up_on(bench.deliver(model_uri=wrong, verify=VERIFY, target={"load_timeout": 1}))
    failed = bench.deliver(model_uri=wrong, verify=VERIFY)
    row.saw(refused(bench, failed, "output 'y'", "is in place as before"))


def test_a_first_deployment_whose_load_takes_longer(bench: Bench, row: Row) -> None:
    """first load that outlasts load_timeout."""
    slow, loads = bench.source(1, load_delay=3), bench.triton.loads(NAME)
    given_up_on(bench.deliver(model_uri=slow, target={"load_timeout": 1}))
    assert bench.record() is None
    settled = bench.good(model_uri=slow, must_be_new=True)
    bench.check_agreement(1)
    assert bench.triton.loads(NAME) == loads + 1, "it was loaded a second time"
    row.saw(f"the next run: {', '.join(settled.plan.actions if settled.plan else ())}")


def test_a_load_that_hangs_is_found_out(bench: Bench, row: Row) -> None:
    """load that hangs for good: the next run says so in seconds, and a restart helps."""
    old = bench.source(1)
    bench.good(model_uri=old)
    endless = bench.source(2, load_delay=3600)
    given_up_on(bench.deliver(model_uri=endless, target={"load_timeout": 1}))
    for asked in ({"model_uri": old}, {"model_uri": endless}, {"state": "absent"}):
        failed = bench.deliver(target={"load_timeout": 1}, **asked)
        assert isinstance(failed.error, LoadHangs), repr(failed.error)
        assert failed.to_dict()["hanging"] == [bench.triton.url]
        assert "hangs on this name" in str(failed.error)
        assert "Only a restart of the server helps" in str(failed.error)
        assert source_on_disk(bench) == 2, "files were moved under a load"
    beside = bench.sample(1, name="beside")
    bench.good(name="beside", model_uri=str(beside.folder))
    bench.crash()
    assert bench.identity() == 1
    bench.good(model_uri=old)
    bench.check_agreement_of(NAME, 1)
    row.saw(f"{failed.error} After a restart the old one serves.")


def source_on_disk(bench: Bench) -> int:
    """The number of the model whose code lies in the repository."""
    text = (bench.repository / NAME / "1" / "model.py").read_text()
    (number,) = re.findall(r"^IDENTITY = (\d+)$", text, re.MULTILINE)
    return int(number)


def test_a_version_that_stays_lacks_the_file_of_the_one_that_comes(bench: Bench, row: Row) -> None:
    """version beside another whose folder lacks the file that the new configuration names."""
    first = bench.sample(1)
    config = (first.folder / "config.pbtxt").read_text() + 'default_model_filename: "main.py"\n'
    second = bench.sample(2, config=config)
    (second.folder / "1" / "model.py").rename(second.folder / "1" / "main.py")
    versions = {"registry": {"1": str(first.folder), "2": str(second.folder)}}
    options = {"model_uri": "models:/fraud/1", "serve_versions": 2}
    done = bench.run(versions, **options)["result"]
    assert not done["failed"], done["msg"]
    loads = bench.triton.loads(NAME)
    failed = bench.run(versions, **{**options, "model_uri": "models:/fraud/2"})["result"]
    assert failed["failed"] and "version folder 1 has no main.py" in failed["msg"], failed["msg"]
    assert bench.triton.loads(NAME) == loads, "Triton was asked to load it"
    bench.check_agreement(1)
    row.saw(failed["msg"])


def test_stub_that_dies_in_initialize(bench: Bench, row: Row) -> None:
    """stub that dies in initialise, five times, under a supervisor."""
    old = bench.source(1)
    bench.good(model_uri=old)
    crashing = bench.source(2, crash=True)
    said = []
    with Supervisor(bench.triton) as supervisor:
        for _attempt in range(5):
            failed = bench.deliver(model_uri=crashing, target={"timeout": 5, "load_timeout": 5})
            assert isinstance(failed.error, ServerError), repr(failed.error)
            assert failed.error.step == "load"
            said.append(type(failed.error).__name__)
            assert "IDENTITY = 1\n" in (bench.repository / NAME / "1" / "model.py").read_text()
            healed = bench.deliver(model_uri=old, target={"timeout": 5, "load_timeout": 5})
            if healed.error is not None:
                # Triton's own load hangs for ever: only a restart ends it, and the error says that
                # it is pending.
                assert "still loading" in str(healed.error), str(healed.error)
                bench.triton.kill()
                time.sleep(1)
                bench.good(model_uri=old)
                said[-1] += " and a hang until a restart"
            bench.check_agreement(1)
        restarts = supervisor.restarts
    row.saw(
        f"{', '.join(said)}; {restarts} restarts of the server; each time the old one was on disk"
        " and served again"
    )


@pytest.mark.parametrize(
    ("transport", "supervised"), [("HTTP", True), ("HTTP", False), ("gRPC", True)]
)
def test_server_killed_during_an_update(
    transport: str, supervised: bool, bench: Bench, row: Row
) -> None:
    """server killed in the middle of a load (over {transport}, with a supervisor: {supervised})."""
    bench.good(model_uri=bench.source(1))
    pid = bench.triton.pid
    new = bench.source(2, load_delay=2)
    run = bench.begin(
        0,
        {
            "target": {
                "timeout": 10 if supervised else 3,
                "load_timeout": 10 if supervised else 3,
                **over(bench, transport),
            }
        },
        model_uri=new,
    )
    deadline = time.monotonic() + 10
    while "IDENTITY = 2\n" not in (bench.repository / NAME / "1" / "model.py").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    started = time.monotonic()
    if supervised:
        with Supervisor(bench.triton):
            os.kill(pid, signal.SIGKILL)
            failed = run.result(60)["result"]
    else:
        os.kill(pid, signal.SIGKILL)
        failed = run.result(60)["result"]
    seconds = time.monotonic() - started
    assert failed["failed"]
    assert failed["error"] == "ServerError", failed["msg"]
    assert "cannot be reached" in failed["msg"] or "went down during the load" in failed["msg"]
    assert supervised or "down" in failed["msg"], failed["msg"]
    assert "IDENTITY = 1\n" in (bench.repository / NAME / "1" / "model.py").read_text()
    if supervised:
        assert bench.identity() == 1
        bench.check_agreement(1)
    else:
        bench.triton.kill()
        bench.triton.start()
        bench.check_agreement(1)
    bench.good(model_uri=new)
    bench.check_agreement(2, retained=1)
    row.saw(f"failed after {seconds:.1f} s: {failed['msg']} The next run succeeded")


@pytest.mark.parametrize("transport", ["HTTP", "gRPC"])
@pytest.mark.parametrize("wrapper", [True, False], ids=["wrapper", "no wrapper"])
def test_server_alone_is_killed_during_an_update(
    wrapper: bool, transport: str, bench: Bench, row: Row
) -> None:
    """server alone killed in a load (over {transport}), up at once (start wrapper: {wrapper})."""
    bench.good(model_uri=bench.source(1))
    start = bench.triton.start if wrapper else bench.triton.start_without_wrapper
    # Its backend process lives on without its server, with the connection of the load.
    new = bench.source(2, load_delay=40, holds=True)
    run = bench.begin(0, {"target": over(bench, transport)}, model_uri=new)
    stubs = wait_for_new_stub(bench)
    started = time.monotonic()
    with Supervisor(bench.triton, spares=True, start=start):
        os.kill(bench.triton.pid, signal.SIGKILL)
        failed = run.result(60)["result"]
    seconds = time.monotonic() - started
    assert failed["error"] == "ServerError", failed["msg"]
    assert "load: Triton at " in failed["msg"], failed["msg"]
    assert "went down during the load" in failed["msg"] or "cannot be reached" in failed["msg"]
    assert "serves version 1" in failed["msg"]
    assert seconds < 10, "it waited for an answer that cannot come"
    bench.check_agreement(1)
    living = [pid for pid in stubs if is_alive(pid)]
    assert not living or not wrapper, "the start wrapper ends what a former server left"
    bench.triton.kill()
    bench.triton.start()
    bench.good(model_uri=bench.source(3))
    bench.check_agreement(3, retained=1)
    row.saw(f"failed after {seconds:.1f} s of 20: {failed['msg']} The next run succeeded")


def wait_for_new_stub(bench: Bench) -> list[int]:
    """Until the model's new instance has been loading for a while; its processes, old and new."""
    old = bench.triton.stub_pids(NAME)
    deadline = time.monotonic() + 10
    while not set(bench.triton.stub_pids(NAME)) - set(old):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1)
    return bench.triton.stub_pids(NAME)


def test_server_that_stays_down(bench: Bench, row: Row) -> None:
    """server alone killed in a load, and nobody starts it again."""
    bench.good(model_uri=bench.source(1))
    new = bench.source(2, load_delay=40, holds=True)
    run = bench.begin(0, {"target": {"timeout": 6, "load_timeout": 6}}, model_uri=new)
    wait_for_new_stub(bench)
    started = time.monotonic()
    bench.triton.desert()
    failed = run.result(60)["result"]
    seconds = time.monotonic() - started
    assert "went down during the load" in failed["msg"], failed["msg"]
    assert "was not up again within 6 s" in failed["msg"], failed["msg"]
    assert seconds < 10, "it waits once for the server, and not for an answer before"
    bench.triton.kill()
    bench.triton.start()
    bench.check_agreement(1)
    row.saw(f"failed after {seconds:.1f} s: {failed['msg']}")


def test_slow_load_of_a_living_server(bench: Bench, row: Row) -> None:
    """slow load on a server with one HTTP thread, which answers nothing meanwhile."""
    settings = {**bench.triton.settings, "extra_args": ["--disable-auto-complete-config"]}
    settings["http_threads"] = 1
    bench.triton.kill()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.triton, "settings", settings)
        bench.triton.start()
        started = time.monotonic()
        bench.good(model_uri=bench.source(1, load_delay=9, holds=True))
        seconds = time.monotonic() - started
        assert seconds >= 9
        bench.check_agreement(1)
        opened = len(os.listdir(f"/proc/{bench.triton.pid}/fd"))
    bench.triton.kill()
    row.saw(f"waited for, {seconds:.1f} s; the server has {opened} files open")


def test_stubs_of_another_living_server(bench: Bench, base: Path, row: Row) -> None:
    """two servers of one repository, of which one is killed alone and started again."""
    bench.good(model_uri=bench.source(1, load_delay=1))
    settings = {**bench.triton.settings, "shm_region_prefix": "mlops_triton_other"}
    settings.update(zip(("http_port", "grpc_port"), free_ports(2)))
    other = Triton(base / "other", settings=settings)
    try:
        other.start()
        living, left = other.stub_pids(NAME), bench.triton.stub_pids(NAME)
        assert len(living) == len(left) == 1
        # Stopped, they cannot see that their server is gone.
        for pid in [*living, *left]:
            os.kill(pid, signal.SIGSTOP)
        bench.triton.desert()
        bench.triton.start()
        assert [is_alive(pid) for pid in living] == [True]
        assert [is_alive(pid) for pid in left] == [False]
        os.kill(living[0], signal.SIGCONT)
        assert other.infer(NAME, bench.sample(1).request())[0] == 200
    finally:
        other.stop()
    assert f"process {left[0]} of doubler_0" in bench.triton.log_text()
    bench.check_agreement(1)
    row.saw("what the killed server had left was ended, and the other one answers")


def test_stub_killed(bench: Bench, row: Row) -> None:
    """stub killed: READY, and each inference is an error."""
    source = bench.source(1)
    bench.good(model_uri=source, verify=VERIFY)
    for pid in bench.triton.stub_pids(NAME):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert bench.triton.infer(NAME, bench.sample(1).request())[0] != 200
    assert any(one.get("state") == "READY" for one in bench.triton.index())
    source = bench.source(1)
    assert bench.deliver(check=True, model_uri=source, verify=VERIFY).changed
    healed = bench.good(model_uri=source, verify=VERIFY)
    bench.check_agreement(1)
    assert bench.deliver(model_uri=source, verify=VERIFY).changed is False
    row.saw(f"found by verify: {', '.join(healed.plan.actions) if healed.plan else ''}")


def test_update_with_a_dead_stub(bench: Bench, row: Row) -> None:
    """stub killed, then an update to a broken model."""
    bench.good(model_uri=bench.source(1), verify=VERIFY)
    for pid in bench.triton.stub_pids(NAME):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    failed = bench.deliver(model_uri=bench.source(2, fail="no weights"), verify=VERIFY)
    assert isinstance(failed.error, LoadFailed), repr(failed.error)
    assert "no weights" in str(failed.error)
    assert f"{bench.triton.url} serves version 1" in str(failed.error)
    bench.good(model_uri=str(bench.folder / "sources" / f"{NAME}-1" / NAME), verify=VERIFY)
    bench.check_agreement(1)
    row.saw(f"{failed.error} Then healed by the next run")


def test_rollback_that_does_not_load(bench: Bench, row: Row) -> None:
    """rollback to a deployment that no longer loads."""
    flag = bench.folder / "flag"
    flag.unlink(missing_ok=True)
    sample = bench.sample(1)
    with open(sample.folder / "1" / "model.py", "a") as stream:
        stream.write(
            f"if os.path.exists({str(flag)!r}):\n    raise RuntimeError('the licence has"
            " expired')\n"
        )
    bench.good(model_uri=str(sample.folder))
    bench.good(model_uri=bench.source(2))
    flag.touch()
    failed = bench.deliver(state="rolled_back")
    assert "the licence has expired" in str(failed.error)
    bench.check_agreement(2, retained=1)
    flag.unlink()
    bench.good(state="rolled_back")
    bench.check_agreement(1, retained=1)
    row.saw(f"{failed.error} When it loads again, the rollback is made")


def test_rollback_to_a_damaged_copy(bench: Bench, row: Row) -> None:
    """rollback to a retained copy that was changed."""
    bench.good(model_uri=bench.source(1))
    bench.good(model_uri=bench.source(2))
    (copy,) = bench.store.retained_records(NAME)
    path = os.path.join(bench.store.retained(NAME, copy.deploy_id), "model", "1", "model.py")
    with open(path, "a") as stream:
        stream.write("# surprise\n")
    failed = bench.deliver(state="rolled_back")
    assert "is not what was deployed" in str(failed.error)
    bench.check_agreement(2, retained=1)
    shutil.rmtree(os.path.dirname(os.path.dirname(path)))
    gone = bench.deliver(state="rolled_back")
    assert isinstance(gone.error, NotFound), repr(gone.error)
    assert f"the files of {copy.pinned_uri} are no longer retained" in str(gone.error)
    bench.check_agreement(2)
    row.saw(f"{failed.error} When the copy's files are gone: {gone.error}")


def test_unloaded_survives_a_restart(bench: Bench, row: Row) -> None:
    """unloaded on purpose, then a restart, then an update that stays unloaded."""
    bench.good(model_uri=bench.source(1))
    bench.good(state="unloaded")
    bench.crash()
    assert bench.identity() is None
    bench.good(state="unloaded", model_uri=bench.source(2))
    assert bench.identity() is None
    bench.crash()
    assert bench.identity() is None
    bench.good(model_uri=str(bench.folder / "sources" / f"{NAME}-2" / NAME))
    bench.check_agreement(2, retained=1)
    row.saw("it stayed unloaded, and came back when it was asked for")
