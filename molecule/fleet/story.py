# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to the fleet of this scenario: versions are rolled out while clients ask without a
pause, and things break.

    story.py publish IDENTITY     the next version of each model; the answers of a version carry its
    identity
    story.py verify [CHAPTER …]   the whole story, or some of it; prints a line for each chapter
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
BED = os.environ["BED_ID"]
sys.path.insert(0, str(PROJECT / "tests"))

from support import models  # noqa: E402

HOSTS = ("triton-1", "triton-2", "triton-3")
NAMES = tuple(f"model-{number}" for number in range(10))
REGISTRY = "http://127.0.0.1:20225"
BALANCER = ("127.0.0.1", 20224)
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
)
QUESTION = """\
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/haproxy/admin.sock")
connection.sendall(b"show stat\\n")
while part := connection.recv(65536):
    print(part.decode(), end="")
"""
CLIENTS = 4
REQUESTS = 10_000
# Seconds from an answer to the next question: without a pause the clients would take the machine
# from those whom they ask.
PAUSE = 0.015


def playbook(name: str, *arguments: str) -> subprocess.Popen[str]:
    words = ["ansible-playbook", f"mlops.triton.{name}", *arguments]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )


def publish(
    identity: int, slow: Mapping[str, float] | None = None, broken: Mapping[str, str] | None = None
) -> None:
    """The next version of each model becomes the champion; some take seconds to load, or fail to
    load with these words.
    """
    made = [
        models.make_python(
            FOLDER / f"sources/{identity}",
            name,
            identity=identity,
            load_delay=(slow or {}).get(name, 0),
            fail=(broken or {}).get(name),
        )
        for name in NAMES
    ]
    listed = [
        {"name": sample.name, "path": str(sample.folder), "aliases": ["champion"]}
        for sample in made
    ]
    with playbook(
        "publish_models",
        "-i",
        "localhost,",
        "-e",
        "ansible_connection=local",
        "-e",
        json.dumps(
            {
                "mlflow_models": listed,
                "mlflow_tracking_uri": REGISTRY,
                "ansible_python_interpreter": sys.executable,
            }
        ),
    ) as run:
        output = run.communicate()[0]
    assert run.returncode == 0, output
    # The model's own answer is the proof that it serves.
    case = {"inputs": {"x": [[1, 2, 3]]}}
    (FOLDER / "models.json").write_text(
        json.dumps(
            [{"name": n, "model_uri": f"models:/{n}@champion", "verify": case} for n in NAMES]
        )
    )


def deploy(playbook_name: str = "deploy_models", *arguments: str) -> subprocess.Popen[str]:
    return playbook(playbook_name, "-i", os.environ["MOLECULE_INVENTORY_FILE"], *arguments)


def ends(run: subprocess.Popen[str], code: int, *words: str) -> str:
    output = run.communicate()[0]
    assert run.returncode == code, output
    assert all(word in output for word in words), (words, output)
    return output


def docker(*words: str) -> str:
    return subprocess.run(
        ["docker", *words], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout.strip()


def container(host: str) -> str:
    return f"bed-{BED}-{host}"


# ---- what is served ------------------------------------------------------------------------------


def ask(connection: http.client.HTTPConnection, name: str) -> int:
    connection.request(
        "POST", f"/v2/models/{name}/infer", BODY, {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise OSError(f"{name}: {answer.status} {text[:200]!r}")
    return int(
        next(
            output["data"][0]
            for output in json.loads(text)["outputs"]
            if output["name"] == "identity"
        )
    )


def serves(host: str) -> set[int]:
    """The identities of all models of a host, asked without the load balancer."""
    address = docker(
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        container(host),
    )
    connection = http.client.HTTPConnection(address, 8000, timeout=30)
    with contextlib.closing(connection):
        return {ask(connection, name) for name in NAMES}


def served(**wanted: int) -> None:
    """Each host serves one identity and is in service."""
    found = {host: serves(host) for host in HOSTS}
    assert found == {
        host: {wanted.get(host.replace("-", "_"), wanted.get("others"))} for host in HOSTS
    }, found
    states = {host: state(host) for host in HOSTS}
    assert all(value == "UP" for value in states.values()), states


def state(host: str) -> str:
    rows = [
        line.split(",")
        for line in docker("exec", container("balancer"), "python3", "-c", QUESTION).splitlines()
    ]
    return next(row[17] for row in rows if row[:2] == ["triton", host])


# ---- clients -------------------------------------------------------------------------------------


class Clients:
    """They ask one model after the other, through the load balancer, until they are told to
    stop.
    """

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True)
            for number in range(CLIENTS)
        ]

    def _ask(self, turn: int) -> None:
        connection = http.client.HTTPConnection(*BALANCER, timeout=60)
        while not self._done.is_set():
            turn += 1
            try:
                identity = ask(connection, NAMES[turn % len(NAMES)])
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with self._lock:
                    self.failures.append(f"{time.strftime('%X')} {error!r}")
            else:
                with self._lock:
                    self.answers[identity] += 1
            self._done.wait(PAUSE)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        return sum(self.answers.values()) + len(self.failures)


@contextlib.contextmanager
def clients(at_least: int = 0) -> Iterator[Clients]:
    """Clients ask as long as the block runs, and on until there are so many requests; none of them
    fails.
    """
    asking = Clients()
    asking.start()
    try:
        yield asking
        while asking.count < at_least:
            time.sleep(0.2)
    finally:
        asking.stop()
    assert not asking.failures, (len(asking.failures), asking.failures[:10])


# ---- the story -----------------------------------------------------------------------------------


def rolls_out() -> str:
    publish(2)
    with clients(REQUESTS) as asking:
        output = ends(deploy(), 0, "changed, verified")
        assert asking.answers[1] and asking.answers[2], asking.answers
    served(others=2)
    return (
        f"10 models on 3 hosts, {asking.count} requests meanwhile, {len(asking.failures)} failed;"
        f" {len(output.splitlines())} lines said"
    )


def breaks_on_the_canary() -> str:
    publish(3, broken={"model-5": "no such weights"})
    with clients() as asking:
        ends(deploy(), 2, "no such weights", "rolled back", "not reached")
    assert set(asking.answers) <= {2, 3}
    served(others=2)
    return (
        "a model that breaks on the first host: it serves what it did before, the others were not"
        " reached"
    )


def dies_in_the_middle() -> str:
    before = serves("triton-3")
    publish(4, slow={"model-0": 6})
    with clients() as asking:
        run = deploy()
        said = wait_for_turn(run, "triton-2")
        listing = (
            "exec",
            container("triton-2"),
            "find",
            "/opt/triton_models",
            "-mindepth",
            "2",
            "-maxdepth",
            "2",
            "-name",
            "[0-9]*",
        )
        found = docker(*listing)
        wait_until(lambda: docker(*listing) != found)
        docker("kill", container("triton-2"))
        output = said + ends(run, 2, "cannot be reached")
    assert serves("triton-1") == {4} and serves("triton-3") == before, output
    docker("start", container("triton-2"))
    wait_until(lambda: answers("triton-2"))
    left = serves("triton-2")
    assert left <= {*before, 4}, left
    ends(deploy(), 0)
    served(others=4)
    return (
        f"a host that dies in the middle: {asking.count} requests meanwhile, {len(asking.failures)}"
        " failed; the next run repairs it"
    )


def wait_for_turn(run: subprocess.Popen[str], host: str) -> str:
    """Until the delivery to a host begins, hosts taking their turns in the order of their names;
    returns what the run said so far.

    A host has just been drained then: without lines for skipped hosts Ansible names a task when it
    has its first result.
    """
    said, turns = "", 0
    for line in run.stdout or ():
        said += line
        turns += line.startswith("TASK [Drain the host's servers in HAProxy]")
        if turns > HOSTS.index(host):
            return said
    raise AssertionError(f"nothing was delivered to {host}:\n{said}")


def wait_until(question: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.2)


def answers(host: str) -> bool:
    try:
        return bool(serves(host))
    except (OSError, http.client.HTTPException):
        return False


def runs_out_of_disk() -> str:
    publish(5)
    filler = "/opt/triton_models/.filler"
    fill = (
        "exec",
        container("triton-3"),
        "sh",
        "-c",
        f"dd if=/dev/zero of={filler} bs=4k 2>/dev/null || true",
    )
    docker(*fill)
    ends(deploy(), 2, "make room", "not reached")
    served(others=4)
    docker("exec", container("triton-3"), "rm", filler)
    with clients() as asking:
        run = deploy("deploy_models", "-e", "triton_on_failure=rollback_all")
        wait_for_turn(run, "triton-2")
        docker(*fill)
        ends(run, 2, "make room", "rolled back")
    assert set(asking.answers) == {4, 5}, asking.answers
    served(others=4)
    docker("exec", container("triton-3"), "rm", filler)
    ends(deploy(), 0)
    served(others=5)
    return (
        "a disk that is full before the run: nothing is changed; one that becomes full, with"
        f" rollback_all: all hosts serve what they did before, {asking.count} requests meanwhile,"
        f" {len(asking.failures)} failed; the next run repairs it"
    )


def changes_nothing() -> str:
    output = ends(deploy("site"), 0, "unchanged")
    changed = [
        line
        for line in output.rpartition("PLAY RECAP")[2].splitlines()
        if "changed=" in line and "changed=0" not in line
    ]
    assert not changed, output
    return "site once more: nothing is changed"


def main() -> None:
    if sys.argv[1] == "publish":
        publish(int(sys.argv[2]))
        return
    for chapter in (
        rolls_out,
        breaks_on_the_canary,
        dies_in_the_middle,
        runs_out_of_disk,
        changes_nothing,
    ):
        if sys.argv[2:] and chapter.__name__ not in sys.argv[2:]:
            continue
        begin = time.monotonic()
        print(f"{chapter.__name__}: {chapter()} ({time.monotonic() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
