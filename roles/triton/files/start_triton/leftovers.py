# SPDX-License-Identifier: Apache-2.0
"""Processes of the Python backend whose server is gone: they are ended before the next one starts.

A server that is killed does not end them. Each looks every 0.3 s whether its server lives, but not
while a model's library holds the interpreter's lock, nor where nobody takes note that the server
has ended. Until then they keep memory of the host and of GPUs, which the next server may lack, and
the connections that the server had accepted before it started them: a client that waits for an
answer to one of those is not told that there will be none.

A stub's command line names its model's file, its server's process id and the folder of its backend
(``triton_python_backend_stub <model file> <shared memory> <size> <size> <server> <backend> …``), in
Triton 2.51 and later alike. So nothing has to be written down at the start of a server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from .settings import Settings

NAME = "triton_python_backend_stub"
SECONDS = 10.0
"""For which an ended process is waited for: giving back the memory of a GPU takes a while."""
PROC = Path("/proc")
SHARED = Path("/dev/shm")


class Stub(NamedTuple):
    """One process of the Python backend, as its command line describes it."""

    pid: int
    model_file: Path
    shared: str
    server: int
    backend: Path
    instance: str


def end_leftovers(settings: Settings) -> list[str]:
    """End what a former server of this repository has left; returns one sentence per process. To be
    called as the server's user.
    """
    ended, sentences = [], []
    for stub in find_leftovers(settings):
        said = f"process {stub.pid} of {stub.instance}, which a server that is gone had left,"
        try:
            os.kill(stub.pid, signal.SIGKILL)  # it ignores SIGTERM
        except ProcessLookupError:
            continue
        except OSError as err:
            sentences.append(f"{said} cannot be ended ({err.strerror})")
            continue
        ended.append(stub.pid)
        # Its server would have removed this memory of the host, which outlives all processes.
        with contextlib.suppress(OSError):
            os.unlink(SHARED / Path(stub.shared).name)
        sentences.append(f"{said} is ended")
    deadline = time.monotonic() + SECONDS
    while any(map(_lives, ended)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return sentences


def find_leftovers(settings: Settings) -> list[Stub]:
    """Stubs of this repository, and of this user, whose server is gone.

    A living server of the same repository is an ancestor of its stubs; those of a dead one were
    given to another parent.
    """
    stubs = []
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        # A process may end between two questions, and those of others may be hidden.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.geteuid():
                stub = read_stub(int(entry.name))
                if stub and _is_of(stub, settings) and not _has_server(stub):
                    stubs.append(stub)
    return stubs


def read_stub(pid: int) -> Stub | None:
    """None where it is something else. Raises OSError where it is gone."""
    raw = Path(PROC, str(pid), "cmdline").read_bytes()
    words = [os.fsdecode(word) for word in raw.split(b"\0")]
    if len(words) < 9 or Path(words[0]).name != NAME or not words[5].isdigit():
        return None
    return Stub(pid, Path(words[1]), words[2], int(words[5]), Path(words[6]), words[8])


def _is_of(stub: Stub, settings: Settings) -> bool:
    """The model's file is ``<repository>/<model>/<version>/<file>``. Where the repository is in S3,
    it lies in a folder of Triton that says nothing; the folder of backends then tells one
    installation from another.
    """
    if not settings.in_s3:
        places = stub.model_file.parents
        return len(places) > 3 and _same(places[2], Path(settings.model_repository))
    backends = settings.backend_directory
    return backends is not None and _same(stub.backend, Path(backends, "python"))


def _same(one: Path, other: Path) -> bool:
    """A relative path says nothing: it is one from where that server was started."""
    return one.is_absolute() and os.path.realpath(str(one)) == os.path.realpath(str(other))


def _has_server(stub: Stub) -> bool:
    """Also true where that cannot be known. Raises OSError where the stub is gone.

    A container's processes have numbers of their own, and are seen from the host under others: its
    stub does not name its server by a number that means anything here.
    """
    if len(_status(stub.pid, "NSpid")) != 1:
        return True
    pid = stub.pid
    while pid > 1:
        pid = int(_status(pid, "PPid")[0])
        if pid == stub.server:
            return True
    return False


def _status(pid: int, field: str) -> list[str]:
    """The words of a line of /proc/<pid>/status; none where the kernel does not write it."""
    for line in Path(PROC, str(pid), "status").read_text(errors="replace").splitlines():
        name, _colon, words = line.partition(":")
        if name == field:
            return words.split()
    return []


def _lives(pid: int) -> bool:
    try:
        return _status(pid, "State")[:1] != ["Z"]
    except OSError:
        return False
