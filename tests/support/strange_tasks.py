# SPDX-License-Identifier: Apache-2.0
"""What a reader of model files could do if its file took it over, for tests alone."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import time
from typing import Any, NoReturn

from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts import metadata
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError


def has_landlock() -> bool:
    return bool(ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1)


_status = -1
_goes_first = -1


def prepare(task: str, _arguments: dict[str, Any]) -> None:
    """What is in /proc cannot be opened afterwards: the place is kept open."""
    global _status, _goes_first
    if task == "mlmodel":
        importlib.import_module("yaml")
    _status = os.open("/proc/self/status", os.O_RDONLY)
    _goes_first = os.open("/proc/self/oom_score_adj", os.O_RDONLY)


def _told() -> dict[str, str]:
    text = os.pread(_status, 1 << 16, 0).decode()
    os.close(_status)
    return dict(line.split(":\t", 1) for line in text.splitlines())


def rights(file: Any, _arguments: dict[str, Any]) -> tuple[dict[str, Any], None]:
    told = _told()
    try:
        if os.fork() == 0:
            os._exit(0)
        forked = True
    except OSError:
        forked = False
    return {
        "read": os.pread(file.descriptor, 100, 0).decode(),
        "ids": [*os.getresuid(), *os.getresgid()],
        "groups": os.getgroups(),
        "capabilities": int(told["CapEff"], 16),
        "no_new_privileges": int(told["NoNewPrivs"]),
        "environment": repr(dict(os.environ)),
        "folder": os.getcwd(),
        "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
        "first_to_go": int(os.pread(_goes_first, 10, 0)),
        "descriptors": sum(_is_open(number) for number in range(64)),
        "forked": forked,
    }, None


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def opens(_file: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], None]:
    try:
        os.close(os.open(arguments["path"], os.O_RDONLY))
    except PermissionError:
        return {"opened": False}, None
    return {"opened": True}, None


def copies(file: Any, _arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    return {}, os.pread(file.descriptor, 100, 0)


def eats_memory(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    held = []
    while True:
        held.append(bytearray(1 << 20))


def copies_much(_file: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    return {}, bytes(arguments["size"])


def is_killed(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def _answer_pipe() -> int:
    """The descriptor that is a pipe."""
    return next(
        n for n in range(64) if _is_open(n) and (os.fstat(n).st_mode & 0o170000) == 0o010000
    )


def prints_for_ever(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    out = _answer_pipe()
    while True:
        os.write(out, b"x" * (1 << 16))


def writes_for_ever(_file: Any, _arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    return {}, b"x" * (4 << 20)


def talks_nonsense(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    os.write(_answer_pipe(), b"{]")
    os._exit(0)


def answers_a_number(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    os.write(_answer_pipe(), b'{"found": 3, "wrote": false}')
    os._exit(0)


def claims_bytes(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    os.write(_answer_pipe(), b'{"found": {}, "wrote": true}')
    os._exit(0)


def has_a_fault(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    raise ZeroDivisionError("division by zero")


def burns(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    while True:
        pass


def sleeps(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    while True:
        time.sleep(1)


def sleeps_deaf(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)


def misses(_file: Any, _arguments: dict[str, Any]) -> NoReturn:
    # The child knows the core by another name than this process.
    errors = importlib.import_module("_delivery.errors")
    raise errors.MissingLibrary("the Python library 'treelite' is needed", library="treelite")


def mlmodel(file: Any, _arguments: dict[str, Any]) -> tuple[dict[str, Any], None]:
    """Reads it as a plan does."""
    try:
        metadata._parsed({"MLmodel": os.pread(file.descriptor, 1 << 20, 0)})
    except ArtifactError as error:
        return {"refused": str(error)}, None
    return {"refused": ""}, None
