# SPDX-License-Identifier: Apache-2.0
"""What Triton's Python backend loads as ``model.py``: it starts the process that has the model, in
the model's own environment, and passes requests on to it.

Standard library, and what the backend gives. Any Python from 3.8 on, with whatever numpy.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from . import pyfunc_wire as wire

SCHEMA = 1
PREFIX = "mlops_triton: "
RESPONSE = "response"
"""The output of a model whose answer is one document."""
ASKS = "mlops_triton_asks"
"""A request with this parameter learns what kind of value the model returned: by dimensions of size
1 behind the shapes of its outputs, one for the first of ``KINDS``. Triton has no other room for it
before 25.02.
"""
KINDS = ("frame", "series", "array", "list", "dict")
LINES_OF_ERROR = 12
MOST_LINE = 1000
LOG_LINES = 200
"""Lines that a worker may log at once; after that ``LOG_LINES_A_SECOND``."""
LOG_LINES_A_SECOND = 20
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
STEADY = 60.0
"""Seconds after which a worker that ends is started again at once."""
SECONDS_TO_END = 2.0
FOLDER = "mlops-triton-worker-"
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "RAYON_NUM_THREADS",
)
# Of the stub's Python, or of the registry: none of it is the model's business.
DROPPED = ("PYTHON", "VIRTUAL_ENV", "CONDA", "UV_", "PIP_", "MLFLOW_TRACKING_", "MLFLOW_S3_")

# The version folder is the worker's package; the model's folder does not stay on its path.
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "worker = __import__(sys.argv[2] + '.pyfunc_worker', fromlist=['main']); "
    "del sys.path[0]; sys.exit(worker.main())"
)

# DLPack: numbers from the stub's memory, whatever numpy the stub has.
TYPES = {
    "BOOL": (6, 8),
    "INT8": (0, 8),
    "INT16": (0, 16),
    "INT32": (0, 32),
    "INT64": (0, 64),
    "UINT8": (1, 8),
    "UINT16": (1, 16),
    "UINT32": (1, 32),
    "UINT64": (1, 64),
    "FP16": (2, 16),
    "FP32": (2, 32),
    "FP64": (2, 64),
}


class Failure(Exception):
    """A sentence for whoever asked."""


# --- tensors of Triton ----------------------------------------------------------------------------


class _Tensor(ctypes.Structure):
    """DLManagedTensor of DLPack."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Tensor))
_Tensor._fields_ = [
    ("data", ctypes.c_void_p),
    ("device_type", ctypes.c_int32),
    ("device_id", ctypes.c_int32),
    ("ndim", ctypes.c_int32),
    ("code", ctypes.c_uint8),
    ("bits", ctypes.c_uint8),
    ("lanes", ctypes.c_uint16),
    ("shape", ctypes.POINTER(ctypes.c_int64)),
    ("strides", ctypes.POINTER(ctypes.c_int64)),
    ("byte_offset", ctypes.c_uint64),
    ("manager", ctypes.c_void_p),
    ("deleter", _Deleter),
]
_NAME = b"dltensor"
_CPU = 1
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
_lent: dict[int, tuple[Any, ...]] = {}
"""What Triton still reads, by its address."""


def _take_back(pointer: Any) -> None:
    _lent.pop(ctypes.addressof(pointer.contents), None)


_taken_back = _Deleter(_take_back)


def numbers_of(tensor: Any) -> tuple[Any, memoryview]:
    """(what keeps them alive, the bytes) of a tensor that Triton made; they lie in its memory."""
    capsule = tensor.to_dlpack()
    found = ctypes.cast(_pointer_of(capsule, _NAME), ctypes.POINTER(_Tensor)).contents
    count = 1
    for place in range(found.ndim):
        count *= found.shape[place]
    size = count * found.bits * found.lanes // 8
    if not size:
        return capsule, memoryview(b"")
    raw = (ctypes.c_char * size).from_address(found.data + found.byte_offset)
    return capsule, memoryview(raw).cast("B")


def numbers_for_triton(triton_type: str, shape: Sequence[int], raw: memoryview) -> Any:
    """A capsule of DLPack over these bytes, which stay where they are."""
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    strides, step = (ctypes.c_int64 * len(shape))(), 1
    for place in reversed(range(len(shape))):
        strides[place] = step
        step *= shape[place]
    code, bits = TYPES[triton_type]
    if step * bits // 8 != raw.nbytes:
        raise Failure("its answer does not have the size of its shape")
    data = (ctypes.c_char * raw.nbytes).from_buffer(raw) if raw.nbytes else ctypes.c_char()
    made = _Tensor(
        ctypes.addressof(data), _CPU, 0, len(shape), code, bits, 1, sizes, strides, 0, None
    )
    made.deleter = _taken_back
    address = ctypes.addressof(made)
    _lent[address] = (made, sizes, strides, data, raw)
    return _new_capsule(address, _NAME, None)


def is_numpy_sound(pb: Any) -> bool:
    """The backend was built for one release of numpy's interface; with another one its arrays hold
    other numbers, or its process dies.
    """
    raw = memoryview(bytearray(bytes(range(8)) * 2))
    tensor = pb.Tensor.from_dlpack("x", numbers_for_triton("UINT8", (2, 8), raw))
    found = tensor.as_numpy()
    return bool(
        found.shape == (2, 8)
        and found.strides == (8, 1)
        and found.ravel().tolist() == list(range(8)) * 2
    )


# --- the worker's process -------------------------------------------------------------------------


class Home:
    """HOME and TMPDIR of a worker. A lock says that it is in use; what a killed process left is
    removed by the next one.
    """

    def __init__(self) -> None:
        self._remove_left()
        self.folder = tempfile.mkdtemp(prefix=FOLDER)
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        for name in ("home", "tmp"):
            os.mkdir(os.path.join(self.folder, name), 0o700)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def remove(self) -> None:
        if self._lock >= 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    @staticmethod
    def _remove_left() -> None:
        above = tempfile.gettempdir()
        for name in os.listdir(above):
            if not name.startswith(FOLDER):
                continue
            path = os.path.join(above, name)
            with contextlib.suppress(OSError):
                there = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if os.fstat(there).st_uid == os.getuid():
                        fcntl.flock(there, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(there)


def environment_of(args: dict[str, str], home: Home) -> dict[str, str]:
    """Variables of the worker: the server's, without those of its Python and its libraries."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    libraries = [
        each
        for each in told.pop("LD_LIBRARY_PATH", "").split(":")
        if each and not each.endswith("nvidia_pytriton.libs")
    ]
    if libraries:
        told["LD_LIBRARY_PATH"] = ":".join(libraries)
    threads = str(max(1, processors() // count_instances(args)))
    for name in THREADS:
        told.setdefault(name, threads)
    told.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    told.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # Its own processes write no bytecode into the model's folder either.
    told.update(PYTHONDONTWRITEBYTECODE="1", PYTHONNOUSERSITE="1", PYTHONUNBUFFERED="1")
    told.update(HOME=home.path("home"), TMPDIR=home.path("tmp"))
    told["CUDA_VISIBLE_DEVICES"] = visible_gpu(args, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return told


def visible_gpu(args: dict[str, str], given: str | None) -> str:
    """The GPU of this instance, which Triton counts among those that the server sees."""
    if args.get("model_instance_kind") != "GPU":
        return ""
    number = int(args.get("model_instance_device_id") or 0)
    seen = [each.strip() for each in (given or "").split(",") if each.strip()]
    return seen[number] if number < len(seen) else str(number)


def processors() -> int:
    """Those that this process may use, by affinity and by the quota of its control group."""
    count = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max") as file:
        quota, period = file.read().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    return count


def count_instances(args: dict[str, str]) -> int:
    groups = json.loads(args["model_config"]).get("instance_group") or []
    return max(1, sum(int(each.get("count") or 1) for each in groups))


class Log:
    """Passes what a worker prints on to the server's log, bounded in rate; keeps the last lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._left = float(LOG_LINES)
        self._at = time.monotonic()
        self.dropped = 0
        self._last: collections.deque[str] = collections.deque(maxlen=LINES_OF_ERROR)

    def begin(self) -> None:
        self._last.clear()

    def last_lines(self) -> str:
        return " | ".join(self._last)

    def take(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MOST_LINE:
            lines.append(self._rest)
            self._rest = b""
        self._fill()
        for line in lines:
            self._line(line)

    def end(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = b""
        self.say_dropped()

    def _fill(self) -> None:
        now = time.monotonic()
        self._left = min(LOG_LINES, self._left + (now - self._at) * LOG_LINES_A_SECOND)
        self._at = now

    def _line(self, line: bytes) -> None:
        text = line[:MOST_LINE].decode("utf-8", "replace")
        text = "".join(each if each.isprintable() else " " for each in text).strip()
        if not text:
            return
        self._last.append(text)
        if self._left < 1:
            self.dropped += 1
            return
        self._left -= 1
        self.say_dropped()
        self._write(text)

    def say_dropped(self) -> None:
        if self.dropped:
            self._write(f"({self.dropped} more lines were left out)")
            self.dropped = 0

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"{PREFIX}{self._name}: {text}\n".encode())


class Process:
    """One process that has, or is to have, the model."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Log) -> None:
        ours, theirs = socket.socketpair()
        self.log = log
        self.reason = ""
        """Why it was ended, where it did not end by itself."""
        self.ended = threading.Event()
        self.channel = wire.Channel(ours)
        self._socket = ours
        self._output, output = os.pipe()
        try:
            number = theirs.fileno()
            self._child = subprocess.Popen(
                [*command, str(number), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=environment["TMPDIR"],
                pass_fds=[number],
                start_new_session=True,
            )
        except BaseException:
            self.channel.close()
            os.close(self._output)
            raise
        finally:
            theirs.close()
            os.close(output)
        self.pid = self._child.pid

    def close(self) -> None:
        """Tells it that nothing more is asked."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        """With all that it started, unless that has left its session."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def watch(self, ready: Any, seconds: float) -> str:
        """Reads its output until it has ended; how it ended, in words.

        ``ready`` is called with its first message, or with why there was none.
        """
        waits, deadline = True, time.monotonic() + seconds
        poll, end = select.poll(), self._open_end()
        for each in (self._output, self._socket.fileno(), *end):
            poll.register(each, select.POLLIN)
        while self._is_alive():
            pause = 1000 if self.log.dropped else None
            seen = {each for each, _event in poll.poll(pause if end and not waits else 200)}
            if not seen:
                self.log.say_dropped()
            if self._output in seen and not self._read():
                poll.unregister(self._output)
            if waits and self._socket.fileno() in seen:
                waits = False
                poll.unregister(self._socket)
                ready(self._first_message())
            elif waits and time.monotonic() > deadline:
                waits = False
                ready(f"it was not ready within {seconds:g} s (start_timeout)")
                self.kill()
        for each in end:
            os.close(each)
        self._read_rest()
        # Before its number is free for another process.
        self.kill()
        code = self._child.wait()
        os.close(self._output)
        return how_it_ended(code)

    def _open_end(self) -> list[int]:
        """A descriptor that says when it ends, where Python has that (3.9)."""
        with contextlib.suppress(OSError, AttributeError):
            return [os.pidfd_open(self.pid)]
        return []

    def _is_alive(self) -> bool:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is None

    def _read(self) -> bool:
        data = os.read(self._output, 65536)
        self.log.take(data)
        return bool(data)

    def _read_rest(self) -> None:
        os.set_blocking(self._output, False)
        with contextlib.suppress(OSError):
            for _read in range(64):
                if not self._read():
                    break
        self.log.end()

    def _first_message(self) -> Any:
        try:
            return self.channel.receive(time.monotonic() + 5)[0]
        except (wire.Ended, wire.WireError, wire.TookTooLong):
            return None


def how_it_ended(code: int) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        why = ", as it does when memory is short" if name == "SIGKILL" else ""
        return f"it was ended by signal {-code} ({name}){why}"
    return f"it was ended by signal {-code}"


class Supervisor(threading.Thread):
    """Starts the worker, and starts it again when it ends. One thread for all of them, which lives
    as long as the stub: the kernel ends a worker with the thread that started it.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], name: str) -> None:
        super().__init__(name="mlops_triton worker", daemon=True)
        self._command, self._environment = command, environment
        self._log = Log(name)
        self._seconds = 0.0
        self._process: Process | None = None
        self._was_ready = False
        self._tried = threading.Event()
        self._closing = threading.Event()
        self.asking = threading.Lock()
        """Held by whoever uses the channel."""
        self.serving: Process | None = None
        """The worker that is ready."""
        self.fault = ""
        """Why there is none."""

    def begin(self, start_timeout: float) -> None:
        """Waits for the first worker. Raises Failure."""
        self._seconds = start_timeout
        self.start()
        self._tried.wait()
        if not self._was_ready:
            self.join()
            raise Failure(self.fault)

    def run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                self._run_once()
            except Exception as err:
                self._gone(f"its process cannot be started: {err}")
            if not self._was_ready or self._closing.is_set():
                return
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            if self._closing.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run_once(self) -> None:
        self._log.begin()
        process = self._process = Process(self._command, self._environment, self._log)
        if self._closing.is_set():
            process.kill()

        def ready(message: Any) -> None:
            if isinstance(message, str):
                process.reason = message
            elif isinstance(message, dict) and message.get("protocol") == wire.PROTOCOL:
                self._was_ready = True
                self.serving = process
                self._tried.set()
            elif isinstance(message, dict) and "error" in message:
                process.reason = str(message["error"])

        ended = process.watch(ready, self._seconds)
        had_answered = self.serving is not None
        self.serving = None
        said = self._log.last_lines()
        why = process.reason or ended
        self._gone(why if had_answered or not said else f"{why}; it said last: {said}")
        process.ended.set()
        # Who uses it has seen its end by now, or sees it at once.
        with self.asking:
            process.channel.close()

    def _gone(self, fault: str) -> None:
        self.fault = fault
        self._tried.set()

    def end_worker(self, process: Process, reason: str = "") -> str:
        """How it ended: by itself, or now, for this reason."""
        process.reason = reason
        if reason or not process.ended.wait(SECONDS_TO_END):
            process.kill()
            process.ended.wait(SECONDS_TO_END)
        return self.fault

    def close(self) -> None:
        self._closing.set()
        process = self._process
        if process is None or not self.is_alive():
            return
        if self.serving is None:
            process.kill()
        process.close()
        self.join(SECONDS_TO_END)
        if self.is_alive():
            process.kill()
            self.join(SECONDS_TO_END)


# --- the model of Triton --------------------------------------------------------------------------


class TritonPythonModel:
    """One instance of a model, with a worker of its own. No ``auto_complete_config``: what a model
    takes and gives is in its configuration.
    """

    def initialize(self, args: dict[str, str]) -> None:
        import triton_python_backend_utils as pb

        self._pb: Any = pb
        self._name = args["model_name"]
        folder = os.path.dirname(os.path.abspath(__file__))
        self._home = Home()
        try:
            self._read_settings(os.path.join(folder, "pyfunc.json"), args)
            self._supervisor = Supervisor(
                [
                    *(self._settings["python"], "-I", "-B", "-c", START),
                    *os.path.split(folder),
                    os.path.join(folder, "pyfunc.json"),
                ],
                environment_of(args, self._home),
                self._name,
            )
            self._supervisor.begin(float(self._settings["start_timeout"]))
        except (Failure, OSError, ValueError, KeyError) as err:
            self._home.remove()
            raise pb.TritonModelException(self._sentence(f"cannot be served: {err}")) from None

    def _read_settings(self, path: str, args: dict[str, str]) -> None:
        with open(path, encoding="utf-8") as file:
            self._settings = json.load(file)
        if self._settings["schema"] != SCHEMA:
            raise Failure(f"pyfunc.json has schema {self._settings['schema']}, not {SCHEMA}")
        config = json.loads(args["model_config"])
        self._types = {
            each["name"]: each["data_type"].replace("TYPE_STRING", "TYPE_BYTES")[len("TYPE_") :]
            for each in config["input"]
        }
        self._outputs = [each["name"] for each in self._settings["outputs"]]
        self._params = {each["name"] for each in self._settings.get("params") or []}
        self._joins = bool(
            self._settings["form"] == "tensors"
            and self._settings["batched"]
            and self._settings["independent_rows"]
        )
        texts = [each["data_type"] for each in (*config["input"], *config["output"])]
        if "TYPE_STRING" in texts and not is_numpy_sound(self._pb):
            import numpy

            raise Failure(
                f"it takes or gives text, and this Triton's Python backend cannot exchange text "
                f"by numpy {numpy.__version__}; install numpy<2 for the server's Python"
            )

    def is_ready(self) -> bool:
        """Asked by Triton since March 2026; older ones say READY while there is no worker."""
        return self._supervisor.serving is not None

    def finalize(self) -> None:
        if hasattr(self, "_supervisor"):
            self._supervisor.close()
            self._home.remove()

    def execute(self, requests: list[Any]) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        calls = self._calls(requests)
        for params, places in calls:
            # An answer stays where the worker wrote it until Triton has it, unless another comes.
            copies = len(calls) > 1 or len(places) > 1
            given = [requests[place] for place in places]
            for place, answer in zip(places, self._answers(given, params, copies)):
                answers[place] = answer
        return answers

    def _calls(self, requests: list[Any]) -> list[tuple[dict[str, Any], list[int]]]:
        """(params, places of requests) of each call of the model."""
        calls: dict[Any, tuple[dict[str, Any], list[int]]] = {}
        for place, request in enumerate(requests):
            params: dict[str, Any] = {}
            if self._params:
                told = json.loads(request.parameters() or "{}")
                params = {name: told[name] for name in sorted(self._params & set(told))}
            key: Any = place
            if self._joins and len(requests) > 1:
                shapes = [(each.name(), *each.shape()[1:]) for each in request.inputs()]
                key = (json.dumps(params), *sorted(shapes))
            calls.setdefault(key, (params, []))[1].append(place)
        return list(calls.values())

    def _answers(self, requests: list[Any], params: dict[str, Any], copies: bool) -> list[Any]:
        try:
            header, parts = self._ask(requests, params)
            if "error" not in header:
                return self._responses(requests, header, parts, copies)
            if len(requests) > 1:
                # One of them spoils no other.
                alone = [self._answers([each], params, True) for each in requests]
                return [answer for answers in alone for answer in answers]
            return [self._refusal(str(header["error"]))]
        except Failure as err:
            return [self._refusal(str(err)) for _request in requests]
        except (wire.WireError, LookupError, TypeError, ValueError) as err:
            text = f"its process gave an answer that is none ({type(err).__name__}: {err})"
            return [self._refusal(text) for _request in requests]

    def _refusal(self, text: str) -> Any:
        error = self._pb.TritonError(self._sentence(text))
        return self._pb.InferenceResponse(output_tensors=[], error=error)

    def _sentence(self, text: str) -> str:
        return f"{PREFIX}model {self._name!r}: {text}"

    def _ask(self, requests: list[Any], params: dict[str, Any]) -> Any:
        """The worker's answer. Raises Failure."""
        supervisor = self._supervisor
        kept, tensors, parts = self._input(requests)
        header: dict[str, Any] = {"tensors": tensors, "params": params}
        if self._joins:
            header["rows"] = sum(_rows(each) for each in requests)
        seconds = float(self._settings["predict_timeout"])
        with supervisor.asking:
            process = supervisor.serving
            if process is None:
                raise Failure(
                    f"it has no process at the moment, which is started again ({supervisor.fault})"
                )
            try:
                process.channel.send(header, parts)
                answer = process.channel.receive(time.monotonic() + seconds)
                process.channel.done()
                return answer
            except wire.TookTooLong:
                why = f"it did not answer within {seconds:g} s (predict_timeout)"
            except wire.WireError as err:
                why = f"its process said what is no answer ({err})"
            except wire.Ended:
                why = ""
            finally:
                del kept
        ended = supervisor.end_worker(process, why)
        raise Failure(
            f"{ended}; its process is started again"
            if why
            else f"its process ended while it answered: {ended}; it is started again"
        )

    def _input(self, requests: list[Any]) -> tuple[list[Any], list[Any], list[list[memoryview]]]:
        """(what keeps the bytes alive, tensors as the worker is told, their bytes)."""
        kept: list[Any] = []
        tensors: list[Any] = []
        parts: list[list[memoryview]] = []
        for name in [each.name() for each in requests[0].inputs()]:
            kind = self._types[name]
            pieces, rows, shape = [], 0, []
            for request in requests:
                tensor = self._pb.get_input_tensor_by_name(request, name)
                shape = list(tensor.shape())
                rows += shape[0] if shape else 0
                if kind == "BYTES":
                    raw = wire.pack_texts(tensor.as_numpy().reshape(-1).tolist())
                else:
                    capsule, raw = numbers_of(tensor)
                    kept.append(capsule)
                pieces.append(raw)
            if self._settings["form"] == "json":
                pieces = [memoryview(each) for each in wire.unpack_texts(pieces[0], 1)]
            tensors.append([name, kind, [rows, *shape[1:]] if shape else []])
            parts.append(pieces)
        return kept, tensors, parts

    def _responses(
        self, requests: list[Any], header: dict[str, Any], parts: list[memoryview], copies: bool
    ) -> list[Any]:
        if self._settings["form"] == "json":
            texts = wire.pack_texts([bytes(parts[0])])
            shape = [1, *_kind_dims(requests[0], header)]
            return [self._response([self._tensor(RESPONSE, "BYTES", shape, texts, False)])]
        rows = [_rows(each) for each in requests]
        asked = [_kind_dims(each, header) for each in requests]
        outputs: list[list[Any]] = [[] for _request in requests]
        told = header["tensors"]
        if [each[0] for each in told] != self._outputs or len(parts) != len(told):
            raise ValueError("other outputs than its configuration has")
        for (name, kind, shape), raw in zip(told, parts):
            pieces = [raw] if len(requests) == 1 else _split(kind, shape, raw, rows)
            for place, piece in enumerate(pieces):
                mine = shape if len(requests) == 1 else [rows[place], *shape[1:]]
                whole = [*mine, *asked[place]]
                outputs[place].append(self._tensor(name, kind, whole, piece, copies))
        return [self._response(each) for each in outputs]

    def _response(self, tensors: list[Any]) -> Any:
        return self._pb.InferenceResponse(output_tensors=tensors)

    def _tensor(self, name: str, kind: str, shape: list[int], raw: memoryview, copies: bool) -> Any:
        if kind != "BYTES":
            mine = memoryview(bytearray(raw)) if copies else raw
            capsule = numbers_for_triton(kind, shape, mine)
            return self._pb.Tensor.from_dlpack(name, capsule)
        import numpy as np

        count = 1
        for each in shape:
            count *= each
        values = np.empty(count, dtype=object)
        values[:] = wire.unpack_texts(raw, count)
        return self._pb.Tensor(name, values.reshape(shape))


def _rows(request: Any) -> int:
    return int(request.inputs()[0].shape()[0])


def _kind_dims(request: Any, header: dict[str, Any]) -> list[int]:
    """The dimensions that say what the model returned, where the request asks for it."""
    if ASKS not in (request.parameters() or "") or header.get("answer") not in KINDS:
        return []
    return [1] * (KINDS.index(header["answer"]) + 1)


def _split(kind: str, shape: list[int], raw: memoryview, rows: list[int]) -> list[memoryview]:
    """The bytes of each request's rows. Raises ValueError."""
    total = sum(rows)
    if shape[:1] != [total]:
        raise ValueError("other rows than were asked")
    if kind == "BYTES":
        each_row = 1
        for each in shape[1:]:
            each_row *= each
        texts = wire.unpack_texts(raw, total * each_row)
        cut, pieces = 0, []
        for count in rows:
            pieces.append(wire.pack_texts(texts[cut : cut + count * each_row]))
            cut += count * each_row
        return pieces
    size = raw.nbytes // total if total else 0
    cut, pieces = 0, []
    for count in rows:
        pieces.append(raw[cut : cut + count * size])
        cut += count * size
    return pieces
