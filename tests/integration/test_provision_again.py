# SPDX-License-Identifier: Apache-2.0
"""Playbook provision on hosts that serve already: what restarts a server goes host by host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import LoadPending
from support import models, servers
from support.deliveries import deliver_model
from support.local_hosts import LocalHosts, host, make_hooks, said, variables

pytestmark = [pytest.mark.long, pytest.mark.takes(300)]

HOSTS = ("one", "two")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHosts]:
    folder = tmp_path_factory.mktemp("f")
    make_hooks(folder)
    sample = models.make_python(folder / "source")
    made = LocalHosts(folder, sample, variables(folder))
    made.variables["triton_models"] = [{"name": sample.name, "model_uri": str(sample.folder)}]
    for name in HOSTS:
        made.add(name)
    try:
        first = made.play("site")
        assert first.returncode == 0, first.stdout + first.stderr
        # The role knows the gRPC of its servers.
        assert "go over HTTP" not in said(first)
        # Nothing ran before, so that nothing was restarted; the hooks are of the delivery.
        assert [line.split()[:2] for line in made.hooks()] == [
            [name, what] for name in HOSTS for what in ("leaves", "returns")
        ]
        yield made
    finally:
        for name in made.hosts:
            made.stop(name)


def test_where_nothing_is_due_no_host_leaves(fleet: LocalHosts) -> None:
    before = fleet.servers()
    done = fleet.play("provision")
    assert done.returncode == 0, said(done)
    assert fleet.servers() == before and fleet.hooks() == []
    assert "changed=0" in done.stdout and "changed=1" not in done.stdout


def test_a_server_that_hangs_on_a_model_is_restarted_where_that_is_allowed(
    fleet: LocalHosts,
) -> None:
    name, own, before = fleet.sample.name, fleet.hosts["one"], fleet.servers()
    endless = models.make_python(fleet.folder / "endless", name, identity=2, load_delay=3600)
    place = {
        "model_repository": own["triton_model_repository"],
        "triton_url": f"127.0.0.1:{own['triton_http_port']}",
    }
    gave_up = deliver_model({**place, "load_timeout": 1}, name, model_uri=str(endless.folder))
    assert isinstance(gave_up.error, LoadPending), repr(gave_up.error)
    failed = fleet.play("deploy_models", "--limit", "one", triton_load_timeout=1)
    assert failed.returncode == 2 and "hangs on this name" in said(failed)
    assert "triton_restart_hanging" in said(failed) and fleet.servers() == before
    fleet.hooks()
    allowed = {"triton_load_timeout": 5, "triton_restart_hanging": True}
    done = fleet.play("deploy_models", "--limit", "one", **allowed)
    assert done.returncode == 0, said(done)
    assert [line.split()[:2] for line in fleet.hooks()] == [["one", "leaves"], ["one", "returns"]]
    after = fleet.servers()
    assert after["two"] == before["two"] and len(after["one"]) == 1
    assert after["one"] != before["one"] and fleet.answers("one")


def test_check_mode_tells_the_restart_and_restarts_nothing(fleet: LocalHosts) -> None:
    before = fleet.servers()
    done = fleet.play("provision", "--check", triton_admin_key={"secret": "Sesame-4715"})
    assert done.returncode == 0, said(done)
    for name in HOSTS:
        assert f"The server of {name} runs with something else than what is wanted" in said(done)
    assert fleet.servers() == before and fleet.hooks() == []


def test_a_changed_admin_key_restarts_one_host_after_the_other(fleet: LocalHosts) -> None:
    before = fleet.servers()
    fleet.variables["triton_admin_key"] = {"secret": "Sesame-4716"}
    done = fleet.play("provision")
    assert done.returncode == 0, said(done)
    # Each host finds all models ready when it leaves, and has its own again when it returns.
    assert fleet.hooks() == [
        f"{name} {what} 200,200" for name in HOSTS for what in ("leaves", "returns")
    ]
    after = fleet.servers()
    assert all(len(after[name]) == 1 and after[name] != before[name] for name in HOSTS)
    assert all(fleet.answers(name) for name in HOSTS)
    again = fleet.play("provision")
    assert again.returncode == 0, said(again)
    assert fleet.servers() == after and fleet.hooks() == []
    assert "Sesame-4716" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "slip",
    [{"triton_serail": 1}, {"triton_in_service_tasks": "nowhere.yml"}],
    ids=["a misspelt variable", "a hook that is not there"],
)
def test_nothing_is_restarted_where_one_host_failed_before(
    fleet: LocalHosts, slip: dict[str, Any]
) -> None:
    before = fleet.servers()
    own = fleet.hosts["two"]
    fleet.hosts["two"] = {**own, **slip}
    done = fleet.play("provision", triton_http_threads=6)
    fleet.hosts["two"] = own
    assert done.returncode != 0, said(done)
    assert fleet.servers() == before and fleet.hooks() == []
    assert all(fleet.answers(name) for name in HOSTS)


@pytest.mark.parametrize(
    ("threads", "extra"),
    [
        (5, {"triton_defer_restart": "false", "triton_restart_due": "false"}),
        (6, {"triton_defer_restart": "true", "triton_restart_due": "true"}),
    ],
)
def test_no_extra_variable_takes_the_turns_away(
    fleet: LocalHosts, threads: int, extra: dict[str, str]
) -> None:
    before = fleet.servers()
    fleet.variables["triton_http_threads"] = threads
    done = fleet.play("provision", extra=extra)
    assert done.returncode == 0, said(done)
    assert fleet.hooks() == [
        f"{name} {what} 200,200" for name in HOSTS for what in ("leaves", "returns")
    ]
    after = fleet.servers()
    assert all(len(after[name]) == 1 and after[name] != before[name] for name in HOSTS)


def test_a_host_that_fails_ends_the_run_and_those_after_it_keep_their_server(
    fleet: LocalHosts,
) -> None:
    """Its model cannot load after the restart, so that it stays out of service until that is
    mended.
    """
    before = fleet.servers()
    broken = fleet.folder / "models-one" / fleet.sample.name / "1" / "model.py"
    text = broken.read_text()
    settings = (fleet.folder / "two/server.json").read_text()
    broken.write_text("no python\n" + text)
    fleet.variables["triton_http_threads"] = 8
    for _again in range(2):
        done = fleet.play("provision")
        assert done.returncode == 2, said(done)
        assert f"Model {fleet.sample.name}" in said(done) and "It stays out of service" in said(
            done
        )
        assert "The server of two has to be restarted, and was not" in said(done)
        assert [line.split()[:2] for line in fleet.hooks()] == [["one", "leaves"]]
        assert fleet.servers()["two"] == before["two"] and fleet.answers("two")
        # A server that dies meanwhile starts with what it had.
        assert (fleet.folder / "two/server.json").read_text() == settings
    for _again in range(2):  # The second finds nothing to do.
        mended = fleet.play("deploy_models", "--limit", "one")
        assert mended.returncode == 0, said(mended)
        assert "provision left one out of service, and it stays there" in said(mended)
        assert "returns" not in [line.split()[1] for line in fleet.hooks()]
    done = fleet.play("provision")
    assert done.returncode == 0, said(done)
    assert [line.split()[:2] for line in fleet.hooks()] == [
        [name, what] for name in HOSTS for what in ("leaves", "returns")
    ]
    assert all(fleet.answers(name) for name in HOSTS)


def test_a_host_that_was_left_out_is_taken_in_by_the_next_run(fleet: LocalHosts) -> None:
    fleet.variables["triton_http_threads"] = 9
    done = fleet.play("provision", fails="one returns")
    assert done.returncode == 2
    assert "its models are ready. It stays out of service" in said(done)
    fleet.hooks()
    done = fleet.play("provision")
    assert done.returncode == 0, said(done)
    assert [line.split()[:2] for line in fleet.hooks()] == [
        [name, what] for name in HOSTS for what in ("leaves", "returns")
    ]


def test_a_model_that_was_not_ready_before_keeps_no_host_out(fleet: LocalHosts) -> None:
    fleet.play("deploy_models")
    key = {"admin-key": "Sesame-4716"}
    url = f"http://127.0.0.1:{fleet.hosts['one']['triton_http_port']}/v2/repository/models"
    broken = fleet.folder / "models-one" / fleet.sample.name / "1" / "model.py"
    text = broken.read_text()
    broken.write_text("no python\n" + text)
    assert servers.http(f"{url}/{fleet.sample.name}/unload", {}, headers=key)[0] == 200
    fleet.hooks()
    fleet.variables["triton_http_threads"] = 10
    done = fleet.play("provision", "--limit", "one")
    broken.write_text(text)
    assert done.returncode == 0, said(done)
    assert [line.split()[:2] for line in fleet.hooks()] == [["one", "leaves"], ["one", "returns"]]
    assert fleet.play("deploy_models").returncode == 0


def test_a_server_that_does_not_run_is_started_at_once(fleet: LocalHosts) -> None:
    assert fleet.play("provision").returncode == 0
    fleet.hooks()
    fleet.stop("two")
    done = fleet.play("provision", "--limit", "two")
    assert done.returncode == 0, said(done)
    assert fleet.hooks() == [] and fleet.answers("two")


def test_two_inventory_names_do_not_share_a_home_or_models(fleet: LocalHosts) -> None:
    before, own = fleet.servers(), fleet.hosts["one"]
    fleet.add("other", triton_home=own["triton_home"])
    done = fleet.play("provision", "--limit", "other", triton_min_free=999999999)
    # Whose folder it is comes first: more room would not help.
    assert said(done).index("belongs to the inventory host one") < said(done).index("MiB are free")
    for arguments in ((), ("--check",)):
        fleet.add("other", triton_home=own["triton_home"])
        done = fleet.play("provision", *arguments, "--limit", "other")
        assert done.returncode == 2
        assert "which belongs to the inventory host one, and this is other" in said(done)
        fleet.add("other", triton_model_repository=own["triton_model_repository"])
        done = fleet.play("provision", *arguments, "--limit", "other")
        assert done.returncode == 2
        assert "triton_model_repository is" in said(done) and "inventory host one" in said(done)
        assert not (fleet.folder / "other").exists()
    del fleet.hosts["other"]
    assert fleet.servers() == before


@pytest.mark.parametrize("shared", ["triton_home", "triton_model_repository"])
def test_of_two_names_that_begin_together_one_gets_what_both_want(
    fleet: LocalHosts, shared: str
) -> None:
    names, want = ("left", "right"), str(fleet.folder / f"both-{shared}")
    for name in names:
        fleet.add(name, **{shared: want})
    try:
        done = fleet.play("provision", "--limit", ",".join(names))
        assert done.returncode == 2, said(done)
        note = "inventory-host" if shared == "triton_home" else ".mlops-triton-host"
        winner = (Path(want) / note).read_text().strip()
        (loser,) = {*names} - {winner}
        assert f"{shared} is {want}, which belongs to the inventory host {winner}, and this is" in (
            said(done)
        )
        port = fleet.hosts[winner]["triton_http_port"]
        assert servers.http(f"http://127.0.0.1:{port}/v2/health/live")[0] == 200
        own = {"triton_home", "triton_model_repository"} - {shared}
        assert not any(Path(fleet.hosts[loser][option]).exists() for option in own)
        again = fleet.play("provision", "--limit", winner)
        assert again.returncode == 0, said(again)
        assert "changed=0" in again.stdout
    finally:
        for name in names:
            home = fleet.hosts.pop(name)["triton_home"]
            host.stop_processes_of(f"{home}:triton", 10)


def test_a_renamed_host_takes_over_what_was_its_own(fleet: LocalHosts) -> None:
    before = fleet.servers()
    own = fleet.hosts.pop("one")
    fleet.hosts["renamed"] = {**own, "triton_former_name": "one"}
    done = fleet.play("provision", "--limit", "renamed")
    assert done.returncode == 0, said(done)
    del fleet.hosts["renamed"]["triton_former_name"]
    done = fleet.play("provision", "--limit", "renamed")
    assert done.returncode == 0, said(done)
    fleet.hosts["one"] = fleet.hosts.pop("renamed")
    assert fleet.servers()["one"] == before["one"] and fleet.hooks() == []
    for note in (
        fleet.folder / "one/inventory-host",
        fleet.folder / "models-one/.mlops-triton-host",
    ):
        assert note.read_text() == "renamed\n"
        # As an earlier release left it.
        note.unlink()
    assert fleet.play("provision", "--limit", "one").returncode == 0


def test_numbers_and_bools_of_the_command_line_are_texts_and_mean_the_same(
    fleet: LocalHosts,
) -> None:
    del fleet.variables["triton_http_threads"]
    numbers = {
        "triton_http_threads": 10,
        "triton_min_free": 16,
        "triton_log_files": 4,
        "triton_log_size": 50,
        "triton_shutdown_timeout": 5,
        "triton_start_timeout": 60,
        "triton_manage_venvs": "false",
        "triton_create_user": "false",
        "triton_client_s3": "false",
        "triton_install_nvidia_toolkit": "false",
        **{key: fleet.hosts["one"][key] for key in fleet.hosts["one"] if key.endswith("_port")},
    }
    fleet.variables["triton_http_threads"] = 10
    assert fleet.play("provision").returncode == 0
    before = fleet.servers()
    done = fleet.play("provision", "--limit", "one", extra=numbers)
    assert done.returncode == 0, said(done)
    assert fleet.servers() == before
    off = fleet.play("provision", "--limit", "one", "--check", extra={"triton_metrics_port": 0})
    assert off.returncode == 0, said(off)
    settings = json.loads((fleet.folder / "one/server.json").read_text())
    assert settings["metrics_port"] == fleet.hosts["one"]["triton_metrics_port"]
