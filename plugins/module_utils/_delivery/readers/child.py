# SPDX-License-Identifier: Apache-2.0
"""The process that reads a model file: it is started for that, imports what it needs, gives up
every right, sets itself bounds, reads, answers and ends.

What the kernel or this user's rights do not let it give up, it goes on without: the bounds hold in
any case.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import resource
import signal
import struct
from collections.abc import Callable
from typing import Any

from ..errors import ArtifactError, MissingLibrary, OtherAnswers
from ..formats.given_file import GivenFile
from ..outside import JsonDict

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWIPC, _CLONE_NEWNET = 0x08000000, 0x40000000
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
# The version of the call's structures.
_CAPABILITIES = 0x20080522
# Of each version of Landlock, the rights that it knows; later ones know those as well.
_LANDLOCK_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 5: 0xFFFF}
_LANDLOCK_NET_SINCE, _LANDLOCK_NET = 4, 3
_NOBODY = 65534
_MOST_FILES = 64
_LONGEST_MESSAGE = 4000
# Made before memory can be short.
NO_MEMORY = b'{"ended": "memory"}'


def main(request: JsonDict, tasks: Any) -> None:
    """Do what was asked.

    Args:
        request: from the process that started this one.
        tasks: the module that has the task.
    """
    answer_to = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # a library's own words are no answer
        os.dup2(nowhere, standard)
    os.close(nowhere)
    try:
        answer = json.dumps(_answer(request, tasks)).encode()
    except MemoryError:
        answer = NO_MEMORY
    while answer:
        answer = answer[os.write(answer_to, answer) :]


def _answer(request: JsonDict, tasks: Any) -> JsonDict:
    arguments = request["arguments"]
    tasks.prepare(request["task"], arguments)
    task: Callable[[GivenFile, JsonDict], Any] = getattr(tasks, request["task"])
    file = GivenFile.of(request["name"], request["file"])
    give_up(request)
    try:
        found, data = task(file, arguments)
        if data is not None:
            _write(request["out"], data)
    except MissingLibrary as error:
        told = {key: str(value) for key, value in error.facts.items()}
        return {"error": "MissingLibrary", "message": error.message, "told": told}
    except (OtherAnswers, ArtifactError) as error:
        kind = "OtherAnswers" if isinstance(error, OtherAnswers) else "ArtifactError"
        message = error.message[:_LONGEST_MESSAGE]
        return {"error": kind, "message": message, "step": error.step}
    except MemoryError:
        raise
    except Exception as error:  # a reader's own fault, or one of a library
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return {
            "error": "ArtifactError",
            "message": f"{file} cannot be read ({text})",
            "step": None,
        }
    return {"found": found, "wrote": data is not None}


def _write(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left[: 1 << 26]) :]


def give_up(bounds: JsonDict) -> None:
    """Give up what can be given up, and set the bounds."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Where memory is short, this process goes and not another. Later it might not say so: the
    # files of a process that cannot be dumped are root's.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    used = _mapped()
    if os.geteuid() == 0:
        libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
        _become_nobody()
        # A container's root may have no right to become anybody else, and others all the same.
        libc.capset(struct.pack("=Ii", _CAPABILITIES, 0), bytes(24))
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != bounds["parent"]:
        os._exit(1)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        _close_files(libc)
    signal.alarm(bounds["seconds"])
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, bounds["cpu"]),
        (resource.RLIMIT_FSIZE, bounds["output"]),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_AS, used + bounds["memory"]),
    ):
        with contextlib.suppress(ValueError, OSError):
            _soft, hard = resource.getrlimit(what)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            # At the second of the two bounds the kernel would not say why it ends the process.
            last = most + (what == resource.RLIMIT_CPU and most != hard)
            resource.setrlimit(what, (most, last))


def _mapped() -> int:
    """Bytes of address space that are in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _become_nobody() -> None:
    try:
        entry = pwd.getpwnam("nobody")
        user, group = entry.pw_uid, entry.pw_gid
    except KeyError:
        user = group = _NOBODY
    # Where root is one of a namespace only, there may be nobody else in it.
    with contextlib.suppress(OSError):
        os.setgroups([])
    with contextlib.suppress(OSError):
        os.setgid(group)
    with contextlib.suppress(OSError):
        os.setuid(user)


def _close_files(libc: Any) -> None:
    """No file of this host can be opened any more, where the kernel has Landlock."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return
    rights = max(value for since, value in _LANDLOCK_RIGHTS.items() if since <= version)
    attributes = struct.pack("<Q", rights)
    if version >= _LANDLOCK_NET_SINCE:
        attributes += struct.pack("<Q", _LANDLOCK_NET)
    rules = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules >= 0:
        libc.syscall(_LANDLOCK_RESTRICT, rules, 0)
        os.close(rules)
