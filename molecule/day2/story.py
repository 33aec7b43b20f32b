# SPDX-License-Identifier: GPL-3.0-or-later
"""Days of operation on the hosts of scenario fleet: what an operator asks for, forgets and gets
wrong after the first day.

    story.py publish IDENTITY     the next version of each model
    story.py verify [CHAPTER …]   the whole story, or some of it; prints a line for each chapter
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fleet"))

from hosts import (
    FOLDER,
    HOSTS,
    PLAIN,
    REGISTRY,
    Models,
    changes_nothing,
    container,
    deploy,
    docker,
    ends,
    extra,
    server_of,
    tell,
    wait_until,
    watched,
)

FLEET = Models(("churn", "fraud"))
# Where nothing has to show the order of the hosts, they take their turns at the same time.
AT_ONCE = extra(triton_serial=[len(HOSTS)])
KEY = {"name": "admin-key", "secret": "changed-on-day-2"}


def version(name: str) -> int:
    """The registry version that is the champion now."""
    where = f"{REGISTRY}/api/2.0/mlflow/registered-models/alias?name={name}&alias=champion"
    with urllib.request.urlopen(where, timeout=30) as answer:
        return int(json.load(answer)["model_version"]["version"])


def table(output: str) -> list[str]:
    """The lines of the table of a run, and its lines on hosts that are in trouble."""
    found = re.search(r'"msg": (\[\s+"host  .*?\n    \])', output, re.DOTALL)
    assert found, output
    return [re.sub(" +", " ", line) for line in json.loads(found[1])]


def troubles(output: str) -> dict[str, str]:
    parts = [line.partition(": ") for line in table(output)]
    return {host: text for host, colon, text in parts if colon and host in HOSTS}


def started() -> dict[str, str]:
    """When the server of each host was started."""
    words = ["systemctl", "show", "triton", "--property=ExecMainStartTimestampMonotonic", "--value"]
    return {host: docker("exec", container(host), *words) for host in HOSTS}


def told_of(host: str) -> dict[str, dict[str, object]]:
    """What module triton_model_info says of the models of a host, asked whether they answer."""
    variables = {
        "triton_url": "127.0.0.1:8000",
        "model_repository": "/opt/triton_models",
        "names": list(FLEET.names),
        "verify": True,
    }
    words = ["ansible", "-i", os.environ["MOLECULE_INVENTORY_FILE"], host]
    words += ["-m", "mlops.triton.triton_model_info", "-a", json.dumps(variables)]
    words += ["-e", "ansible_python_interpreter=/opt/venvs/client/bin/python"]
    done = subprocess.run(words, env=PLAIN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.partition("=>")[2])["models"]
    return {model["name"]: model for model in found}


def goes_back_and_forth() -> str:
    first = version("churn")
    FLEET.publish(2)
    ends(deploy("deploy_models", *AT_ONCE), 0, "changed, verified")
    FLEET.served(others=2)
    back = extra(triton_models_to_roll_back=list(FLEET.names))
    one = ("--limit", HOSTS[0])
    ends(deploy("rollback_models", *one, *back), 0)
    FLEET.served(triton_1=1, others=2)
    ends(deploy("rollback_models", *one, *back, *extra(triton_rollback_to=first + 1)), 0)
    FLEET.served(others=2)
    with watched() as balancer:
        output = ends(deploy("deploy_models", *one), 0)
    assert table(output)[1:] == [
        f"{HOSTS[0]} {n} {first + 1} present unchanged" for n in FLEET.names
    ]
    assert not balancer.out(), balancer.states
    ends(deploy("rollback_models", *AT_ONCE, *back), 0)
    FLEET.served(others=1)
    # They have no example of their own: the list's case came back with the deployment.
    told = told_of(HOSTS[0])
    assert {model["answers"] for model in told.values()} == {True}, told
    return "the deployment before, a named one, the list again, and back: the first is served"


def begins_nowhere() -> str:
    nobody = FLEET.wanted("models:/{}@nobody")
    runs = {
        "nobody": deploy("deploy_models", *extra(triton_models=nobody)),
        "127.0.0.1:9": deploy("deploy_models", *extra(mlflow_tracking_uri="http://127.0.0.1:9")),
        "nowhere.yml": deploy("deploy_models", *extra(triton_out_of_service_tasks="nowhere.yml")),
    }
    with watched() as balancer:
        for word, run in runs.items():
            found = troubles(ends(run, 2))
            assert [*found] == [*HOSTS], found
            assert all(word in text for text in found.values()), (word, found)
    assert not balancer.out(), balancer.states
    FLEET.served(others=1)
    return "no such alias, no registry, no such hook: said of each host, and nothing begins"


def finds_a_server_stopped() -> str:
    stopped = HOSTS[-1]
    docker("exec", container(stopped), "systemctl", "stop", "triton")
    wait_until(lambda: out_of_service() == {stopped})
    with watched() as balancer:
        found = troubles(ends(deploy(), 2))
    assert "does not answer" in found[stopped], found
    assert balancer.out() == {stopped}, balancer.states
    docker("exec", container(stopped), "systemctl", "start", "triton")
    wait_until(lambda: not out_of_service())
    FLEET.served(others=1)
    return "one Triton is down: nothing is changed on the others"


def out_of_service() -> set[str]:
    with watched() as balancer:
        pass
    return balancer.out()


def keeps_what_is_good() -> str:
    before = version("fraud") - 1
    FLEET.publish(3, broken={"fraud": "no such weights"})
    batches = extra(triton_on_failure="keep_good", triton_serial=[1, 2])
    output = ends(deploy("deploy_models", *batches), 2, "no such weights")
    for host in HOSTS:
        assert FLEET.served_by(host) == {"churn": 3, "fraud": 1}
        good, bad = (line for line in table(output) if line.startswith(f"{host} "))
        assert good == f"{host} churn {version('churn')} present changed, verified"
        assert bad.startswith(f"{host} fraud {before} present failed: "), bad
    assert [*troubles(output)] == [*HOSTS], output
    assert not out_of_service()
    lines = len(output.splitlines())
    assert lines < 250, output
    return f"a bad model beside a good one: the good one is served on all hosts; {lines} lines said"


def notes_what_is_asked_for() -> str:
    wanted = FLEET.wanted()
    wanted[0]["model_uri"] = f"models:/churn/{version('churn')}"
    wanted[1]["model_uri"] = f"models:/fraud/{version('fraud') - 2}"
    with watched() as balancer:
        asked = extra(triton_models=wanted, triton_deployment_set="day2")
        output = ends(deploy("deploy_models", *asked), 0)
    assert all("unchanged" in line for line in table(output)[1:]), output
    assert not balancer.out(), balancer.states
    return "the versions by number, in another deployment set: nobody leaves service"


def purges_on_request_alone() -> str:
    empty = extra(triton_models=[], triton_purge=True, triton_deployment_set="day2")
    refused = deploy("deploy_models", *empty)
    shown = deploy("deploy_models", "--check", *empty, *extra(triton_purge_limit=100))
    found = troubles(ends(refused, 2))
    assert [*found] == [*HOSTS], found
    assert all("the list is empty" in text for text in found.values()), found
    lines = table(ends(shown, 0))[1:]
    assert len(lines) == len(HOSTS) * len(FLEET.names), lines
    assert all("would change: unload" in line for line in lines), lines
    assert {str(FLEET.served_by(host)) for host in HOSTS} == {"{'churn': 3, 'fraud': 1}"}
    return "an empty list is refused, and with a limit it tells what would go"


def restarts_one_after_the_other() -> str:
    running, key = started(), extra(triton_admin_key=KEY)
    # A second name for a host.
    second = FOLDER / "second.yml"
    place = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 20222}
    second.write_text(json.dumps({"triton": {"hosts": {"triton-4": place}}}))
    refused = deploy("provision", "-i", str(second), *key)
    shown = deploy("provision", "--check", *key)
    ends(refused, 2, f"belongs to the inventory host {HOSTS[1]}")
    output = ends(shown, 0)
    assert output.count("and would be restarted") == len(HOSTS), output
    assert started() == running
    with FLEET.clients(pause=0.1) as asking, watched() as balancer:
        ends(deploy("provision", *key), 0)
    assert balancer.out() == set(HOSTS), balancer.states
    assert balancer.most_out() == 1, balancer.states
    after = started()
    assert not set(after.items()) & set(running.items()), after
    assert {host: guarded(host) for host in HOSTS} == dict.fromkeys(HOSTS, True)
    with watched() as again:
        url = extra(triton_url="http://127.0.0.1:8000")
        changes_nothing(deploy("provision", *key, *url))
    assert not again.out(), again.states
    assert started() == after
    return (
        f"a new admin key: told by --check, then one host at a time, {asking.count} requests"
        f" meanwhile, {len(asking.failures)} failed; a second name for a host is refused"
    )


def guarded(host: str) -> bool:
    """Whether the repository's interface wants the key, and takes it."""
    codes = []
    with contextlib.closing(server_of(host)) as connection:
        for headers in ({}, {KEY["name"]: KEY["secret"]}):
            connection.request("POST", "/v2/repository/index", headers=headers)
            answer = connection.getresponse()
            answer.read()
            codes.append(answer.status)
    return codes == [http.client.FORBIDDEN, http.client.OK]


if __name__ == "__main__":
    tell(
        FLEET,
        goes_back_and_forth,
        begins_nowhere,
        finds_a_server_stopped,
        keeps_what_is_good,
        notes_what_is_asked_for,
        purges_on_request_alone,
        restarts_one_after_the_other,
    )
