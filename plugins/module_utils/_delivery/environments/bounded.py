# SPDX-License-Identifier: Apache-2.0
"""Runs a program that has no rights of its own: with bounds on time, memory and what it says, as
another user where this process is root, and never longer than this process lives.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from .. import rights
from ..errors import DeliveryError

_MOST = 256 << 10
"""Bytes that are kept of what it says: of the output the first ones, of the errors the last."""
_CHUNK = 1 << 16
# Rights are given up, then the bounds are set, then the program takes this one's place. It is
# opened before, so that it may lie where only root may look.
_START = """
import ctypes, json, os, resource, signal, sys
want = json.loads(sys.argv[1])
words = want["words"]
program = words[0]
if want["by_descriptor"]:
    found = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    if os.pread(found, 4, 0) == b"\\x7fELF":
        program = found
try:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
except OSError:
    pass
libc = ctypes.CDLL(None, use_errno=True)
if want["user"] is not None:
    os.setgroups(want["groups"])
    os.setgid(want["group"])
    os.setuid(want["user"])
libc.prctl(1, signal.SIGKILL, 0, 0, 0)
libc.prctl(38, 1, 0, 0, 0)
if os.getppid() != want["parent"]:
    os._exit(1)
for what, most in want["limits"]:
    _soft, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))
os.umask(0o022)
os.chdir(want["folder"])
try:
    os.execve(program, words, dict(os.environ))
except OSError as error:
    sys.stderr.write(f"{words[0]}: {error.strerror}")
    sys.exit(126)
"""


@dataclass(frozen=True)
class User:
    """As whom a program runs."""

    user: int
    group: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a program ended. ``code`` is negative for a signal; ``late``: it was given up on."""

    code: int
    output: bytes
    errors: str
    late: bool = False


@dataclass(frozen=True)
class Bounds:
    seconds: float
    limits: tuple[tuple[int, int], ...] = ()
    """Numbers of ``resource``, and the most of each."""


class Run(Protocol):
    """How a program is run: ``run``, or that of a container."""

    def __call__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        bounds: Bounds,
        user: User | None = None,
        *,
        folder: str = "/",
        by_descriptor: bool = False,
    ) -> Ended: ...


def run(
    words: Sequence[str],
    environment: Mapping[str, str],
    bounds: Bounds,
    user: User | None = None,
    *,
    folder: str = "/",
    by_descriptor: bool = False,
) -> Ended:
    """Run a program, and all that it starts, to the end.

    Args:
        words: the program's path and its arguments, which any user may see.
        environment: all of it.
        by_descriptor: it may lie where ``user`` may not look.

    Raises:
        DeliveryError: it cannot be started.
    """
    want = {
        "words": list(words),
        "user": user.user if user else None,
        "group": user.group if user else None,
        "groups": list(user.groups) if user else [],
        "parent": os.getpid(),
        "limits": list(bounds.limits),
        "folder": folder,
        "by_descriptor": by_descriptor,
    }
    try:
        # Where this Python lies, the owner of the folder may not look.
        with rights.being_itself():
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _START, json.dumps(want)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=dict(environment),
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        raise DeliveryError(
            f"{sys.executable or 'Python'} cannot be started ({error})", step=STEP
        ) from error
    end = time.monotonic() + bounds.seconds
    try:
        output, errors, late = _listen(process, end)
    finally:
        _end(process)
    return Ended(process.returncode, output, errors.decode(errors="replace"), late)


STEP = "build the environment"


def _listen(process: subprocess.Popen[bytes], end: float) -> tuple[bytes, bytes, bool]:
    """What it says until it has ended; what it started may go on, and is not waited for."""
    said = {"output": bytearray(), "errors": bytearray()}
    late = False
    with selectors.DefaultSelector() as selector:
        for name, pipe in (("output", process.stdout), ("errors", process.stderr)):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, name)
        over = False
        while selector.get_map():
            # Once it has ended, only what it has said already is read.
            left = 0.0 if over else min(0.1, end - time.monotonic())
            if left < 0:
                late = True
                break
            ready = selector.select(left)
            for key, _events in ready:
                piece = os.read(key.fd, _CHUNK)
                if not piece:
                    selector.unregister(key.fileobj)
                _keep(said[key.data], piece, first=key.data == "output")
            if over and not ready:
                break
            over = over or process.poll() is not None
        while not late and process.poll() is None:
            late = time.monotonic() > end
            time.sleep(0.01)
    return bytes(said["output"]), bytes(said["errors"]), late


def _keep(said: bytearray, piece: bytes, *, first: bool) -> None:
    said += piece
    too_many = len(said) - _MOST
    if too_many > 0 and first:
        del said[_MOST:]
    elif too_many > 0:
        del said[:too_many]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of its session lives on."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()
