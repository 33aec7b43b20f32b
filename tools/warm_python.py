# SPDX-License-Identifier: Apache-2.0
"""A Python for Ansible's modules that has imported already what they import.

    python warm_python.py PROGRAM DESCRIPTOR   # makes this program, which works until stdin ends;
                                               # writes a byte to the descriptor when it does

A module of this collection spends 1.6 of its 2 seconds of processor time on importing MLflow, and
each of Ansible's own 0.3 s on Ansible's own code. ``interpreter`` names a program that Ansible
takes for a Python: modules that it is told to run get a process of their own, forked from one that
has imported these libraries; this Python itself runs all else. This collection's code comes out of
the module's zip, as ever. What a fresh process does is tested where no test asks for this: on the
hosts of Molecule's scenarios, in quickstart and in the README's examples.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
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
import traceback
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    "ansible.module_utils.basic",
    "ansible.module_utils.urls",
    "google.protobuf.text_format",
    "mlflow",
    "numpy",
    "tritonclient.http",
    "yaml",
)
"""What modules import sooner or later; none of them is used before the fork."""

# Ansible's words are "python AnsiballZ_name.py", or none with pipelining; it also asks a Python for
# its facts.
PROGRAM = """\
#!/bin/sh
'''exec' {quoted} -IS "$0" "$@"
' '''
import json, os, signal, socket, sys
words = sys.argv[1:]
if words and (len(words) > 1 or not os.path.basename(words[0]).startswith("AnsiballZ_")):
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
    """The path of the program; its server ends with this process."""
    # Path names of sockets may have 107 bytes.
    folder = tempfile.TemporaryDirectory(prefix="warm-")
    program = Path(folder.name, "python")
    server = start(program)

    def end() -> None:
        server.communicate()
        folder.cleanup()

    atexit.register(end)
    return str(program)


def start(program: Path) -> subprocess.Popen[bytes]:
    """Make the program; what it needs works until the standard input of this process is closed."""
    ready, told = os.pipe()
    server = subprocess.Popen(
        # Without this folder on its path.
        [sys.executable, "-P", __file__, str(program), str(told)],
        stdin=subprocess.PIPE,
        pass_fds=[told],
    )
    os.close(told)
    with os.fdopen(ready, "rb") as pipe:
        assert pipe.read(1), "the server of warm Pythons did not start"
    return server


class Server:
    """Forks a process for each module; ends it with SIGKILL when the one that asked is gone."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._end)
        self._over = False

    def serve(self) -> None:
        while not self._over:
            for key, _events in self._selector.select():
                if self._selector.get_map().get(key.fd) is key:
                    key.data()

    def _end(self) -> None:
        self._over = True

    def _accept(self) -> None:
        connection, _peer = self._listener.accept()
        head, descriptors, _flags, _address = socket.recv_fds(connection, 8, 3)
        size, message = int.from_bytes(head, "big"), b""
        while len(message) < size and (piece := connection.recv(size - len(message))):
            message += piece
        if len(message) < size or not size:
            connection.close()
        else:
            self._start(connection, descriptors, json.loads(message))
        for descriptor in descriptors:
            os.close(descriptor)

    def _start(self, connection: socket.socket, descriptors: list[int], asked: list[Any]) -> None:
        process = os.fork()
        if not process:
            # Connections of others that stayed open here would hide that their owners are gone.
            for key in list(self._selector.get_map().values()):
                if key.fileobj is not sys.stdin:
                    os.close(key.fd)
            self._selector.close()
            connection.close()
            run_module(descriptors, *asked)
        connection.sendall(process.to_bytes(8, "big"))
        ended = os.pidfd_open(process)

        def finish() -> None:
            self._selector.unregister(ended)
            self._selector.unregister(connection)
            os.close(ended)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            # As a shell tells of a signal.
            with contextlib.suppress(OSError), connection:
                connection.sendall(bytes([code if code >= 0 else 128 - code]))

        self._selector.register(ended, selectors.EVENT_READ, finish)
        # The other end never writes again: what can be read is its end. The process ends then, and
        # is seen to end.
        self._selector.register(
            connection, selectors.EVENT_READ, lambda: os.kill(process, signal.SIGKILL)
        )


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
        sys.path.insert(0, str(Path(words[0]).parent) if words else "")
        if words:
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
    program, ready = Path(sys.argv[1]), int(sys.argv[2])
    for library in LIBRARIES:
        importlib.import_module(library)
    path = str(program.with_suffix(".socket"))
    server = Server(path)
    words = {"python": sys.executable, "path": path, "quoted": shlex.quote(sys.executable)}
    program.write_text(PROGRAM.format_map(words), encoding="utf-8")
    program.chmod(0o755)
    os.write(ready, b"1")
    os.close(ready)
    server.serve()


if __name__ == "__main__":
    main()
