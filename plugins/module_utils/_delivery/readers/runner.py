# SPDX-License-Identifier: Apache-2.0
"""Starts a process that reads one file, and says how it ended where it gave no answer.

The process is started, not forked, so that threads and locks of this one do not matter. It gets the
file as an open descriptor: what lies where only root may look is read all the same. It is given
nothing else: no environment, no other descriptor.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from ..domain.fields import Fields, WrongShape, read_json
from ..errors import ArtifactError, DeliveryError, MissingLibrary, OtherAnswers
from ..formats.sklearn_archive import room_of
from ..outside import JsonDict
from . import child

_MIB = 1 << 20
_MOST_VALUES = 1 << 20
_CHUNK = 1 << 16
# More is mapped, for which a descriptor stays open: a list may have thousands of small models.
_MOST_COPIED = 16 * _MIB
# How an archive of skops begins.
_PACKED = b"PK\x03\x04"
# The child sets its own alarm; this is for one that cannot.
_GRACE = 5
_START = (
    "import importlib, json, sys;"
    "request = json.load(sys.stdin.buffer);"
    "sys.path[:] = request['path'];"
    "tasks = importlib.import_module(request['module']);"
    "importlib.import_module(request['package'] + '.child').main(request, tasks)"
)
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Bounds:
    """What a reader may use: bytes of memory over what it has when it begins, seconds of processor
    time and of all, bytes that it may write and bytes that it may say.
    """

    memory: int
    cpu: int
    seconds: int
    output: int
    answer: int

    @classmethod
    def for_file(cls, size: int, unpacked: int = 0) -> Bounds:
        """A forest as JSON takes some ten times the bytes of its file, and a second for 20 MiB. One
        of a packed archive takes some three times the bytes that it unpacks to, and two seconds for
        a MiB that is packed.
        """
        mib = size // _MIB
        times = 8 if unpacked else 1
        return cls(
            memory=512 * _MIB + max(16 * size, 4 * unpacked),
            cpu=60 + 2 * mib * times,
            seconds=180 + 6 * mib * times,
            output=16 * _MIB + max(8 * size, unpacked),
            answer=min(_MIB + 8 * size, 64 * _MIB),
        )


@dataclass(frozen=True)
class Task:
    """A function of a module, as the child finds it."""

    module: str
    name: str


@dataclass(frozen=True)
class Answer:
    """What a task returned; ``data`` is what it wrote."""

    found: Fields
    data: memoryview | None


def ask(
    task: Task, path: str, shown: str, arguments: JsonDict, bounds: Bounds | None = None
) -> Answer:
    """Have a file read.

    Args:
        shown: what the file is called in sentences.

    Raises:
        ArtifactError: what the task raised, or that it was ended, and why.
        MissingLibrary: what the task raised.
        DeliveryError: no process could be started.
    """
    with open(path, "rb") as file, _scratch() as out, _scratch() as request:
        if bounds is None:
            size = os.fstat(file.fileno()).st_size
            packed = task.name == "served" and file.read(len(_PACKED)) == _PACKED
            bounds = Bounds.for_file(size, room_of(size) if packed else 0)
        package, folder = _package()
        words = {
            "package": package,
            "path": [entry for entry in sys.path if os.path.isabs(entry)] + [folder],
            "module": task.module or f"{package}.tasks",
            "task": task.name,
            "name": shown,
            "arguments": arguments,
            "file": file.fileno(),
            "out": out.fileno(),
            "parent": os.getpid(),
            "memory": bounds.memory,
            "cpu": bounds.cpu,
            "seconds": bounds.seconds,
            "output": bounds.output,
        }
        request.write(json.dumps(words).encode())
        request.seek(0)
        said = _converse(request, (file.fileno(), out.fileno()), shown, bounds)
        return _judge(said, out, shown, bounds)


def _package() -> tuple[str, str]:
    """The name under which the child imports this package, and the folder, or place in a zip, that
    it lies in. This package imports nothing from outside of the core, so that the name may be
    another one than here.
    """
    inside = __package__.split(".")[-2:] if __package__ else []
    folder = os.path.abspath(__file__)
    for _level in range(len(inside) + 1):
        folder = os.path.dirname(folder)
    return ".".join(inside), folder


def _scratch() -> BinaryIO:
    """A file without a name, in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("reader", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    return tempfile.TemporaryFile()


def _converse(request: BinaryIO, descriptors: tuple[int, int], shown: str, bounds: Bounds) -> bytes:
    """All that the child says, when it has ended well."""
    program = sys.executable
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    try:
        process = subprocess.Popen(
            [program, "-I", "-S", "-B", "-X", "utf8", "-c", _START],
            stdin=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            cwd="/",
            env=environment | _ENVIRONMENT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise DeliveryError(
            f"{shown} is read by a process of its own, and {program or 'Python'} cannot be started"
            f" ({error})",
            step="read the model",
        ) from error
    end = time.monotonic() + bounds.seconds + _GRACE
    try:
        said = _read(process, end, shown, bounds)
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
    finally:
        _end(process)
    code = process.returncode
    if code == -signal.SIGKILL and time.monotonic() >= end:
        _refuse(shown, f"it needed more than {bounds.seconds} seconds")
    if code:
        _refuse_ended(code, shown, bounds)
    return said


def _read(process: subprocess.Popen[bytes], end: float, shown: str, bounds: Bounds) -> bytes:
    pipe, said = process.stdout, bytearray()
    if pipe is None:  # never: it was asked for
        return b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, end - time.monotonic())):
            piece = os.read(pipe.fileno(), _CHUNK)
            if not piece:
                break
            said += piece
            if len(said) > bounds.answer:
                _refuse(shown, f"it answered with more than {bounds.answer} bytes")
    return bytes(said)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever happened: nothing of it lives on."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def _refuse(shown: str, why: str) -> NoReturn:
    raise ArtifactError(
        f"{shown} cannot be read: the reader was ended because {why}: the file is damaged or"
        " hostile"
    )


def _refuse_ended(code: int, shown: str, bounds: Bounds) -> NoReturn:
    if code == -signal.SIGXCPU:
        _refuse(shown, f"it needed more than {bounds.cpu} seconds of processor time")
    if code == -signal.SIGALRM:
        _refuse(shown, f"it needed more than {bounds.seconds} seconds")
    if code == -signal.SIGXFSZ:
        _refuse(shown, f"it wrote more than {bounds.output} bytes")
    if code == -signal.SIGKILL:
        raise ArtifactError(
            f"{shown} cannot be read: this host ended the reader (SIGKILL), as it does where its"
            " memory runs out"
        )
    if code < 0:
        name = next((one.name for one in signal.Signals if one == -code), f"signal {-code}")
        _refuse(shown, f"it did what no program may ({name})")
    raise DeliveryError(
        f"{shown} is read by a process of its own, which {sys.executable} ended with {code} before"
        " it had read anything",
        step="read the model",
    )


def _judge(said: bytes, out: BinaryIO, shown: str, bounds: Bounds) -> Answer:
    if said == child.NO_MEMORY:
        _refuse(shown, f"it needed more than {bounds.memory // _MIB} MiB of memory")
    try:
        fields = Fields(read_json(said, _MOST_VALUES))
        if "error" in fields.data:
            raise _error(fields)
        found = Fields(fields.mapping("found"))
    except WrongShape as error:
        raise nonsense(shown, error) from None
    if fields.data.get("wrote") is not True:
        return Answer(found, None)
    size = os.fstat(out.fileno()).st_size
    if not 0 < size <= bounds.output:
        raise nonsense(shown, f"it wrote {size} bytes")
    return Answer(found, _written(out, size))


def _written(out: BinaryIO, size: int) -> memoryview:
    """What the child wrote. Nothing that it left behind can change it any more."""
    if size <= _MOST_COPIED:
        return memoryview(os.pread(out.fileno(), size, 0))
    with suppress(OSError, AttributeError):  # a file, or a system without seals
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(out.fileno(), fcntl.F_ADD_SEALS, seals)
    # Older kernels map what is sealed for one process alone.
    private = mmap.mmap(out.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    return memoryview(private)


def nonsense(shown: str, why: object) -> ArtifactError:
    return ArtifactError(
        f"{shown} cannot be read: the reader's answer makes no sense ({str(why)[:200]}): the file"
        " is damaged or hostile"
    )


def _error(fields: Fields) -> DeliveryError:
    kind, message = fields.text("error"), fields.text("message")
    if kind == "MissingLibrary":
        told = {key: str(value) for key, value in fields.mapping("told").items()}
        library, traceback = told.get("library"), told.get("import_traceback")
        return MissingLibrary(message, library=library, import_traceback=traceback)
    known = {"ArtifactError": ArtifactError, "OtherAnswers": OtherAnswers}
    if kind not in known:
        raise fields.wrong("error", "a known one")
    return known[kind](message, step=fields.text_or_none("step"))
