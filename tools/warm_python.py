# SPDX-License-Identifier: Apache-2.0
"""Pythons that have imported already what processes of tests import.

    python warm_python.py PROGRAM USE   # makes this program, which works until stdin ends

PROGRAM is taken for a Python. What ``USES`` names gets a process of its own, forked from one that
has imported its libraries; a fresh Python runs all else.

- ``modules``: a module of this collection spends 1.6 of its 2 seconds of processor time on
  importing MLflow, and each of Ansible's own 0.3 s on Ansible's own code; so does a command of
  MLflow's. This collection's code comes out of the module's zip, as ever.
- ``playbooks``: ansible-playbook spends 0.6 s on its imports, and 0.5 s on the zip of a module of
  this collection, which processes from here have in common.
- ``mlflow``: ``mlflow server`` imports MLflow twice, in the command and in its worker, for 10 s.

What a fresh process does is tested where no test asks for this: on the hosts of Molecule's
scenarios, in quickstart and in the README's examples.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn


@dataclass(frozen=True)
class Use:
    """What processes do.

    Attributes:
        libraries: what they import sooner or later; none of them is used before the fork.
        packages: what ``-m`` runs in a fork.
        program: the name of a script that is run in a fork.
        forgotten: packages that are imported anew after the fork, because they read the
            environment at once; what they import is warm.
        asked: beginnings of the names of variables which ``forgotten`` read. With them they are
            imported once for each environment, and not in each process.
        is_own_python: whether what a process starts with its own Python is forked too.
        first: a program beside this one that a process runs before all else.
    """

    libraries: tuple[str, ...]
    packages: tuple[str, ...] = ()
    program: str = ""
    forgotten: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    is_own_python: bool = False
    first: str = ""

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """What ``forgotten`` have read of it."""
        return {name: value for name, value in given.items() if name.startswith(self.asked)}

    def load(self) -> None:
        for library in self.libraries:
            importlib.import_module(library)
        # Else the first collection of each process would write to all of it.
        gc.freeze()

    def forget(self) -> None:
        """The next import of them, or of what they hold, begins anew."""
        inside = tuple(f"{package}." for package in self.forgotten)
        for name in [name for name in sys.modules if f"{name}.".startswith(inside)]:
            del sys.modules[name]
            parent, _dot, child = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)


USES = {
    "modules": Use(
        (
            "ansible.module_utils.basic",
            "ansible.module_utils.urls",
            "google.protobuf.text_format",
            "mlflow.cli",
            "numpy",
            "tritonclient.http",
            "yaml",
        ),
        packages=("mlflow",),
        # They look for plugins.
        forgotten=("mlflow.cli", "mlflow.deployments"),
    ),
    "playbooks": Use(
        (
            "ansible.cli.playbook",
            "ansible.plugins.callback.default",
            "ansible.plugins.connection.local",
            "ansible.plugins.inventory.ini",
            "ansible.plugins.inventory.yaml",
            "ansible.plugins.strategy.linear",
        ),
        program="ansible-playbook",
        forgotten=("ansible",),
        asked=("ANSIBLE_", "HOME", "NO_COLOR", "TMPDIR"),
        first="warm_playbook.py",
    ),
    "mlflow": Use(
        ("mlflow.cli", "mlflow.server.fastapi_app", "uvicorn.main"),
        packages=("mlflow", "uvicorn"),
        forgotten=("mlflow.server",),
        is_own_python=True,
    ),
}

# Ansible's words are "python AnsiballZ_name.py", or none with pipelining; it also asks a Python for
# its facts.
PROGRAM = """\
#!/bin/sh
'''exec' {quoted} -IS "$0" "$@"
' '''
import json, os, signal, socket, sys
words = sys.argv[1:]
name = os.path.basename(words[0]) if words else ""
is_module = not words or len(words) == 1 and name.startswith("AnsiballZ_")
is_program = name == {program!r} or name == "-m" and words[1] in {packages!r}
if not is_module and not is_program:
    os.execv({python!r}, [{python!r}, *words])
mask = os.umask(0)
message = json.dumps([words, os.getcwd(), mask, dict(os.environ)]).encode()
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
server.sendall(message)
process = int.from_bytes(server.recv(8, socket.MSG_WAITALL), "big")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(process, number))
answer = server.recv(1)
if not answer:
    sys.exit("the server of " + {path!r} + " ended before the module did")
sys.exit(answer[0])
"""


@functools.cache
def interpreter() -> str:
    """The path of the program for modules; its server ends with this process, or is shared."""
    if given := shared("modules"):
        return str(given)
    program, end = begin("modules", sys.executable)
    atexit.register(end)
    wait_for(program)
    return str(program)


def variable(use: str) -> str:
    """Of the environment; it names a program for the processes below."""
    return f"WARM_PYTHON_{use.upper()}"


def shared(use: str) -> Path | None:
    """The program that whoever started this process shares, when it is there; None for none."""
    given = os.environ.get(variable(use))
    if given:
        wait_for(Path(given))
    return Path(given) if given else None


def begin(
    use: str, python: str, environment: Mapping[str, str] | None = None
) -> tuple[Path, Callable[[], None]]:
    """A program that will be there in some seconds, and what ends its server."""
    # Path names of sockets may have 107 bytes.
    folder = tempfile.TemporaryDirectory(prefix="warm-")
    program = Path(folder.name, "python")
    with open(program.with_suffix(".alive"), "w", encoding="utf-8") as alive:
        # As long as the server lives, or what it has forked.
        fcntl.flock(alive, fcntl.LOCK_EX)
        server = subprocess.Popen(
            # Without this folder on its path.
            [python, "-P", __file__, str(program), use],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=[alive.fileno()],
        )

    def end() -> None:
        server.communicate()
        folder.cleanup()

    return program, end


def wait_for(program: Path) -> None:
    """Until it is there; a server that failed has said why."""
    with open(program.with_suffix(".alive"), encoding="utf-8") as alive:
        while not program.exists():
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
                assert program.exists(), f"the server of warm Pythons made no {program}"
            time.sleep(0.02)


class Server:
    """Forks a process for each module; ends it with SIGKILL when the one that asked is gone.

    What is no module has a process group of its own, which ends with it.
    """

    def __init__(self, program: Path, use: Use, source: socket.socket) -> None:
        """``source`` listens, or is where another server hands over what it was asked."""
        self._program, self._use, self._source = program, use, source
        self._environment = use.environment(os.environ)
        self._others: dict[str, socket.socket] = {}
        self._groups: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(source, selectors.EVENT_READ, self._take)
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._end)
        self._over = False

    def serve(self) -> None:
        while not self._over:
            for key, _events in self._selector.select():
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
        for group in self._groups:
            end_group(group)

    def _end(self) -> None:
        self._over = True

    def _take(self) -> None:
        if self._source.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            connection, _peer = self._source.accept()
            message, descriptors = receive(connection, 3)
        else:
            message, descriptors = receive(self._source, 4)
            if not message:
                self._end()
                return
            connection = socket.socket(fileno=descriptors.pop(0))
        asked = json.loads(message) if message else None
        if asked and self._use.asked and self._use.environment(asked[3]) != self._environment:
            self._hand_over(message, self._use.environment(asked[3]), [connection, *descriptors])
        elif asked:
            self._start(connection, descriptors, asked)
        else:
            connection.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def _hand_over(self, message: bytes, environment: dict[str, str], given: list[Any]) -> None:
        """To the server of this environment, which begins now if there is none."""
        key = json.dumps(sorted(environment.items()))
        if key not in self._others:
            self._others[key], source = socket.socketpair()
            if not os.fork():
                self._leave([self._others[key], *given])
                # Not the temporary folder of this server.
                atexit._clear()
                self._use.forget()
                for name in self._use.environment(os.environ):
                    del os.environ[name]
                os.environ.update(environment)
                self._use.load()
                Server(self._program, self._use, source).serve()
                sys.exit()
            source.close()
        descriptors = [one if isinstance(one, int) else one.fileno() for one in given]
        # Where that server is gone, whoever asked sees an end without an answer.
        with contextlib.suppress(OSError), given[0]:
            socket.send_fds(self._others[key], [len(message).to_bytes(8, "big")], descriptors)
            self._others[key].sendall(message)

    def _leave(self, given: list[Any]) -> None:
        """In a fork: connections of others that stayed open here would hide that their owners are
        gone.
        """
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not sys.stdin:
                os.close(key.fd)
        self._selector.close()
        for one in given:
            os.close(one if isinstance(one, int) else one.detach())

    def _start(self, connection: socket.socket, descriptors: list[int], asked: list[Any]) -> None:
        words = asked[0]
        has_group = bool(words) and not Path(words[0]).name.startswith("AnsiballZ_")
        process = os.fork()
        if not process:
            if has_group:
                os.setpgid(0, 0)
            self._leave([connection, *self._others.values()])
            if not self._use.asked:
                self._use.forget()
            if self._use.is_own_python:
                sys.executable = str(self._program)
            if self._use.first:
                runpy.run_path(str(Path(__file__).with_name(self._use.first)))
            run_module(descriptors, *asked)
        if has_group:
            # Here too, because its end may be asked for before it has come to that.
            with contextlib.suppress(OSError):
                os.setpgid(process, process)
            self._groups.add(process)
        connection.sendall(process.to_bytes(8, "big"))
        ended = os.pidfd_open(process)

        def kill() -> None:
            if has_group:
                end_group(process)
            else:
                os.kill(process, signal.SIGKILL)

        def finish() -> None:
            self._selector.unregister(ended)
            self._selector.unregister(connection)
            os.close(ended)
            if has_group:
                kill()
                self._groups.discard(process)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            # As a shell tells of a signal.
            with contextlib.suppress(OSError), connection:
                connection.sendall(bytes([code if code >= 0 else 128 - code]))

        self._selector.register(ended, selectors.EVENT_READ, finish)
        # The other end never writes again: what can be read is its end. The process ends then, and
        # is seen to end.
        self._selector.register(connection, selectors.EVENT_READ, kill)


def receive(source: socket.socket, count: int) -> tuple[bytes, list[int]]:
    """A message and its descriptors; an empty message is the end of the other side."""
    head, descriptors, _flags, _address = socket.recv_fds(source, 8, count)
    size, message = int.from_bytes(head, "big"), b""
    while len(message) < size and (piece := source.recv(size - len(message))):
        message += piece
    return (message if len(message) == size else b""), descriptors


def end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def run_module(
    descriptors: list[int], words: list[str], folder: str, mask: int, environment: dict[str, str]
) -> NoReturn:
    """What ``python MODULE`` does, in this process."""
    code = 1
    try:
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.chdir(folder)
        os.umask(mask)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = words or [""]
        sys.path[:0] = [
            str(Path(words[0]).parent) if words and words[0] != "-m" else "",
            *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)),
        ]
        if words[:1] == ["-m"]:
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words:
            runpy.run_path(words[0], run_name="__main__")
        else:
            exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 0xFF)


def main() -> None:
    program, use = Path(sys.argv[1]), USES[sys.argv[2]]
    use.load()
    path = str(program.with_suffix(".socket"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    words = {
        "python": sys.executable,
        "path": path,
        "quoted": shlex.quote(sys.executable),
        "packages": use.packages,
        "program": use.program,
    }
    # Whoever waits for it may use it at once.
    new = program.with_suffix(".new")
    new.write_text(PROGRAM.format_map(words), encoding="utf-8")
    new.chmod(0o755)
    new.rename(program)
    Server(program, use, listener).serve()


if __name__ == "__main__":
    main()
