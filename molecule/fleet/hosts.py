# SPDX-License-Identifier: GPL-3.0-or-later
"""The three hosts of scenarios fleet and day2: what their stories do to them and ask of them.

A scenario has models of its own, and its list names those alone, so that one scenario goes on with
the hosts that another one leaves.
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
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
FOLDER = Path(os.environ["BED_FOLDER"])
BED = os.environ["BED_ID"]
sys.path.insert(0, str(PROJECT / "tests"))

from support import models  # noqa: E402

HOSTS = ("triton-1", "triton-2", "triton-3")
REGISTRY = "http://127.0.0.1:20225"
BALANCER = ("127.0.0.1", 20224)
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
)
# Until its input ends, HAProxy's states of the servers whenever one has changed.
WATCH = """\
import json, select, socket, sys
last = None
while True:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/run/haproxy/admin.sock")
    connection.sendall(b"show stat\\n")
    text = b""
    while part := connection.recv(65536):
        text += part
    rows = [line.split(",") for line in text.decode().splitlines()]
    states = {row[1]: row[17] for row in rows if row[0] == "triton" and "END" not in row[1]}
    if states != last:
        print(json.dumps(states), flush=True)
        last = states
    if select.select([sys.stdin], [], [], 0.05)[0]:
        break
"""
# Molecule wants colours, which would be among the words.
PLAIN = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
CLIENTS = 4
# Seconds from an answer to the next question: without a pause the clients would take the machine
# from those whom they ask.
PAUSE = 0.015


def playbook(name: str, *arguments: str) -> subprocess.Popen[str]:
    words = ["ansible-playbook", f"mlops.triton.{name}", *arguments]
    return subprocess.Popen(
        words,
        env=PLAIN,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def deploy(playbook_name: str = "deploy_models", *arguments: str) -> subprocess.Popen[str]:
    return playbook(playbook_name, "-i", os.environ["MOLECULE_INVENTORY_FILE"], *arguments)


def extra(**variables: object) -> tuple[str, str]:
    return "-e", json.dumps(variables)


def ends(run: subprocess.Popen[str], code: int, *words: str) -> str:
    output = run.communicate()[0]
    assert run.returncode == code, output
    assert all(word in output for word in words), (words, output)
    return output


def changes_nothing(run: subprocess.Popen[str], *words: str) -> None:
    output = ends(run, 0, *words)
    changed = [
        line
        for line in output.rpartition("PLAY RECAP")[2].splitlines()
        if "changed=" in line and "changed=0" not in line
    ]
    assert not changed, output


def docker(*words: str) -> str:
    return subprocess.run(
        ["docker", *words], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout.strip()


def container(host: str) -> str:
    return f"bed-{BED}-{host}"


def wait_until(question: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.2)


# ---- what is served ------------------------------------------------------------------------------


def ask(connection: http.client.HTTPConnection, name: str) -> int:
    """The identity in the answer of a model."""
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


def server_of(host: str) -> http.client.HTTPConnection:
    """Without the load balancer."""
    address = docker(
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        container(host),
    )
    return http.client.HTTPConnection(address, 8000, timeout=30)


@dataclass(frozen=True)
class Models:
    """Those of a scenario, all with one signature; the answers of a version carry its identity."""

    names: tuple[str, ...]

    def publish(
        self,
        identity: int,
        slow: Mapping[str, float] | None = None,
        broken: Mapping[str, str] | None = None,
    ) -> None:
        """The next version of each model becomes the champion; some take seconds to load, or fail
        to load with these words.
        """
        made = [
            models.make_python(
                FOLDER / f"sources/{identity}",
                name,
                identity=identity,
                load_delay=(slow or {}).get(name, 0),
                fail=(broken or {}).get(name),
            )
            for name in self.names
        ]
        listed = [
            {"name": sample.name, "path": str(sample.folder), "aliases": ["champion"]}
            for sample in made
        ]
        variables = extra(
            mlflow_models=listed,
            mlflow_tracking_uri=REGISTRY,
            ansible_python_interpreter=sys.executable,
            ansible_connection="local",
        )
        ends(playbook("publish_models", "-i", "localhost,", *variables), 0)
        (FOLDER / "models.json").write_text(json.dumps(self.wanted()))

    def wanted(self, uri: str = "models:/{}@champion") -> list[dict[str, object]]:
        """The list of the hosts. The model's own answer is the proof that it serves."""
        case = {"inputs": {"x": [[1, 2, 3]]}}
        return [
            {"name": name, "model_uri": uri.format(name), "verify": case} for name in self.names
        ]

    def served_by(self, host: str) -> dict[str, int]:
        """The identity of each model."""
        with contextlib.closing(server_of(host)) as connection:
            return {name: ask(connection, name) for name in self.names}

    def serves(self, host: str) -> set[int]:
        return set(self.served_by(host).values())

    def answers(self, host: str) -> bool:
        try:
            return bool(self.serves(host))
        except (OSError, http.client.HTTPException):
            return False

    def served(self, **wanted: int) -> None:
        """Each host serves one identity and is in service."""
        found = {host: self.serves(host) for host in HOSTS}
        assert found == {
            host: {wanted.get(host.replace("-", "_"), wanted.get("others"))} for host in HOSTS
        }, found
        with watched() as balancer:
            pass
        assert balancer.out() == set(), balancer.states

    @contextlib.contextmanager
    def clients(self, at_least: int = 0, pause: float = PAUSE) -> Iterator[Clients]:
        """Clients ask as long as the block runs, and on until there are so many requests; none of
        them fails.
        """
        asking = Clients(self.names, pause)
        asking.start()
        try:
            yield asking
            while asking.count < at_least:
                time.sleep(0.2)
        finally:
            asking.stop()
        assert not asking.failures, (len(asking.failures), asking.failures[:10])


# ---- who is in service ---------------------------------------------------------------------------


class Balancer:
    """HAProxy's states of the hosts' servers, from the first to the last."""

    def __init__(self) -> None:
        self.states: list[dict[str, str]] = []

    def out(self) -> set[str]:
        """The hosts that were out of service at some time, whatever the reason."""
        return {host for states in self.states for host in out_of(states)}

    def most_out(self) -> int:
        """So many were it at the same time."""
        return max(len(out_of(states)) for states in self.states)


def out_of(states: Mapping[str, str]) -> set[str]:
    # A server whose next check is about to tell the other way has a number behind it.
    return {host for host, state in states.items() if not state.startswith("UP")}


@contextlib.contextmanager
def watched() -> Iterator[Balancer]:
    """What the load balancer does with the hosts as long as the block runs."""
    words = ["docker", "exec", "-i", container("balancer"), "python3", "-c", WATCH]
    balancer = Balancer()
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        balancer.states.append(json.loads(watching.stdout.readline()))
        try:
            yield balancer
        finally:
            rest = watching.communicate("\n")[0]
            balancer.states += [json.loads(line) for line in rest.splitlines()]
    assert watching.returncode == 0


# ---- clients -------------------------------------------------------------------------------------


class Clients:
    """They ask one model after the other, through the load balancer, until they are told to
    stop.
    """

    def __init__(self, names: tuple[str, ...], pause: float) -> None:
        self.names = names
        self.pause = pause
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
                identity = ask(connection, self.names[turn % len(self.names)])
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with self._lock:
                    self.failures.append(f"{time.strftime('%X')} {error!r}")
            else:
                with self._lock:
                    self.answers[identity] += 1
            self._done.wait(self.pause)

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


# ---- a story -------------------------------------------------------------------------------------


def tell(own: Models, *chapters: Callable[[], str]) -> None:
    """What the words of the command line ask for: the next version, or the story, or some of it; a
    line for each chapter.
    """
    if sys.argv[1] == "publish":
        own.publish(int(sys.argv[2]))
        return
    for chapter in chapters:
        if sys.argv[2:] and chapter.__name__ not in sys.argv[2:]:
            continue
        begin = time.monotonic()
        print(f"{chapter.__name__}: {chapter()} ({time.monotonic() - begin:.0f} s)", flush=True)
