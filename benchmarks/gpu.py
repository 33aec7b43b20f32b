# SPDX-License-Identifier: Apache-2.0
"""What large models cost on a GPU, beside Triton's own work, and what their clients notice.

.venv/control/bin/python benchmarks/gpu.py [--only deliveries] [--sizes 2 8 30 45] [--json FILE]
.venv/control/bin/python benchmarks/gpu.py --cpu        # MiB instead of GiB, without a GPU

deliveries: models that take so many GiB of the GPU, and whose files are small
weights:    a model whose weights are a file, which it reads and copies to the GPU
memory:     two copies that do not fit on the card, of which a process takes the rest
stalls:     8 keep-alive clients of another model during loads over HTTP, and over gRPC
gpus:       a model on each of two GPUs

A floor is cp, sync and a load through Triton's own interface, in the same run; the column floors
says how many of it a row took.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".dev"), str(ROOT / "tests"), str(ROOT / "tools")]

from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (  # noqa: E402
    Result,
)
from support import servers  # noqa: E402
from support.deliveries import deliver_model  # noqa: E402

# As the role starts a server.
ARGS = ("--disable-auto-complete-config", "--http-thread-count=32")
CLIENTS = 8
NAME = "large"
CONFIG = """backend: "python"
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: {kind} count: 1 }} ]
"""
HEAD = (
    "| model | what | s | floors | failed | wrong | longest gap, s | peak, GiB | |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|---|"
)
BALLAST = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context, data = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
codes = [cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0)]
codes.append(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
codes.append(cuda.cuCtxSetCurrent(context))
codes.append(cuda.cuMemAlloc_v2(ctypes.byref(data), ctypes.c_size_t(int(sys.argv[1]))))
print(codes, flush=True)
sys.stdin.read()
"""


@dataclass
class Row:
    """A line of the table. Seconds; ``peak`` in GiB above what was used before."""

    model: str
    what: str
    seconds: float | None
    floor: float | None = None
    failed: int | None = None
    wrong: int | None = None
    gap: float | None = None
    peak: float | None = None
    note: str = ""

    def line(self) -> str:
        ratio = self.seconds / self.floor if self.seconds is not None and self.floor else None
        figures = [
            "" if value is None else f"{value:.{digits}f}"
            for value, digits in (
                (self.seconds, 2),
                (ratio, 2),
                (self.failed, 0),
                (self.wrong, 0),
                (self.gap, 2),
                (self.peak, 1),
            )
        ]
        return f"| {' | '.join([self.model, self.what, *figures, self.note])} |"


class Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class Cards:
    """The machine's GPUs by NVML; none in the mode without a GPU."""

    def __init__(self, cpu: bool) -> None:
        self.handles: list[ctypes.c_void_p] = []
        self.names: list[str] = []
        if cpu:
            return
        self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
        count = ctypes.c_uint()
        if self._nvml.nvmlInit_v2() or self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            raise SystemExit("NVML finds no GPU here; --cpu tries this script without one")
        for number in range(count.value):
            handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(96)
            self._nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle))
            self._nvml.nvmlDeviceGetName(handle, name, 96)
            self.handles.append(handle)
            self.names.append(name.value.decode())

    def memory(self, number: int = 0) -> Memory:
        found = Memory()
        if self.handles:
            self._nvml.nvmlDeviceGetMemoryInfo(self.handles[number], ctypes.byref(found))
        return found

    @property
    def used(self) -> int:
        return sum(self.memory(number).used for number in range(len(self.handles)))


@dataclass
class Seen:
    """What happened beside a piece of work."""

    seconds: float = 0.0
    peak: float | None = None
    failed: int = 0
    answers: list[tuple[float, float]] = field(default_factory=list)
    """When a client had an answer, and which number was in it."""
    gap: float = 0.0

    def of(self, number: float) -> list[float]:
        """When clients had the answers of this number."""
        return sorted(moment for moment, value in self.answers if value == number)


class Clients:
    """Keep-alive HTTP clients of one model."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        self._over = threading.Event()
        self._guard = threading.Lock()
        self.seen = Seen()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _n in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        time.sleep(0.3)
        with self._guard:
            self.seen = Seen()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        row = {"name": "x", "datatype": "FP32", "shape": [1], "data": [0.0]}
        body, headers = json.dumps({"inputs": [row]}), {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self._url, timeout=300)
        answered = time.perf_counter()
        while not self._over.is_set():
            try:
                connection.request("POST", f"/v2/models/{self._name}/infer", body, headers)
                response = connection.getresponse()
                text = response.read()
                good = response.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()
                good = False
            now = time.perf_counter()
            with self._guard:
                if good:
                    value = float(json.loads(text)["outputs"][0]["data"][0])
                    self.seen.answers.append((now, value))
                    self.seen.gap = max(self.seen.gap, now - answered)
                    answered = now
                else:
                    self.seen.failed += 1
            self._over.wait(0.01)


class Bench:
    """A server, its model repository, and sources of models; prints each row as it comes."""

    def __init__(
        self, folder: Path, triton: servers.Triton, given: argparse.Namespace, rows: list[Row]
    ) -> None:
        self.folder, self.triton, self.given, self.rows = folder, triton, given, rows
        self.cards = Cards(given.cpu)
        self.unit = 1 << (20 if given.cpu else 30)
        self._sources = 0

    def say(self, row: Row) -> Row:
        self.rows.append(row)
        print(row.line(), flush=True)
        if self.given.json:  # at once: a machine may be lent for some minutes
            rows = [asdict(one) for one in self.rows]
            text = json.dumps({"cards": self.cards.names, "rows": rows}, indent=1)
            self.given.json.write_text(text, encoding="utf-8")
        return row

    def title(self, size: float) -> str:
        return f"{size:g} {'MiB' if self.given.cpu else 'GiB'}"

    def seconds(self, size: float) -> float:
        """Of a load."""
        return float(size / self.given.rate * (0.01 if self.given.cpu else 1))

    # -- models ------------------------------------------------------------------------------------

    def source(
        self, number: int, size: float, *, weights: bool = False, gpus: str = "", name: str = NAME
    ) -> Path:
        """The folder of a model; ``number`` is what tells its answers from others'."""
        self._sources += 1
        place = self.folder / "sources" / str(self._sources) / name
        (place / "1").mkdir(parents=True)
        code = (ROOT / "benchmarks/gpu_model.py").read_text(encoding="utf-8")
        (place / "1/model.py").write_text(
            code.replace("NUMBER = 0\n", f"NUMBER = {number}\n"), encoding="utf-8"
        )
        parameters = {
            "bytes": int(size * self.unit),
            "seconds": self.seconds(size),
            "place": "cpu" if self.given.cpu else "gpu",
        }
        kind = "KIND_CPU" if self.given.cpu else f"KIND_GPU gpus: [ {gpus or 0} ]"
        lines = [
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
            for key, value in parameters.items()
        ]
        text = CONFIG.format(kind=kind) + "".join(lines)
        (place / "config.pbtxt").write_text(text, encoding="utf-8")
        if weights:
            block, left = os.urandom(64 << 20), int(size * self.unit)
            with (place / "1/weights.bin").open("wb") as stream:
                while left > 0:
                    left -= stream.write(block[:left])
        return place

    # -- work --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watched(self, name: str | None = None) -> Iterator[Seen]:
        """Time it, sample the memory, and with ``name`` let clients ask that model meanwhile."""
        before, over, seen = self.cards.used, threading.Event(), Seen()
        most = [before]

        def sample() -> None:
            while not over.wait(0.02):
                most.append(max(most.pop(), self.cards.used))

        sampler = threading.Thread(target=sample, daemon=True)
        with Clients(self.triton.url, name) if name else contextlib.nullcontext() as clients:
            sampler.start()
            begin = time.perf_counter()
            yield seen
            seen.seconds = time.perf_counter() - begin
            if clients:
                time.sleep(0.3)
        over.set()
        sampler.join()
        if clients:
            seen.failed, seen.gap = clients.seen.failed, clients.seen.gap
            seen.answers = clients.seen.answers
        seen.peak = (most[0] - before) / 2**30 if self.cards.handles else None

    def deliver(self, *, http_loads: bool = False, drained: bool = False, **options: Any) -> Result:
        target: dict[str, Any] = {
            "model_repository": str(self.triton.repository),
            "triton_url": self.triton.url,
            "timeout": 300,
            "drained": drained,
        }
        if self.given.metrics:
            target["metrics_url"] = self.triton.metrics_url
        if not http_loads:
            target["load_url"] = f"grpc://{self.triton.grpc_url}"
        return deliver_model(target, options.pop("name", NAME), **options)

    def good(self, **options: Any) -> Result:
        done = self.deliver(**options)
        if done.error:
            raise SystemExit(f"{options}: {done.error}")
        return done

    def gone(self, name: str = NAME) -> None:
        self.good(name=name, state="absent")
        self.ended(name)

    def ended(self, name: str) -> None:
        while self.triton.stub_pids(name):
            time.sleep(0.05)

    def floor(self, source: Path, title: str) -> tuple[float, float]:
        """Seconds of cp, sync and Triton's load of a model that is not there, and of the load."""
        place = self.triton.repository / source.name
        with self.watched() as seen:
            subprocess.run(["cp", "-r", str(source), str(place)], check=True)
            subprocess.run(["sync", "-f", str(place)], check=True)
            begin = time.perf_counter()
            status, body = self.triton.load(source.name, timeout=600)
            loaded = time.perf_counter() - begin
        if status != 200:
            raise SystemExit(f"{title}: {body}")
        self.say(
            Row(title, "floor: cp + sync + load", seen.seconds, peak=seen.peak,
                note=f"load alone {loaded:.2f} s")
        )  # fmt: skip
        self.triton.unload(source.name)
        self.ended(source.name)
        shutil.rmtree(place)
        return seen.seconds, loaded

    def row(
        self, title: str, what: str, floor: float | None, wrong: float | None = None,
        clients: bool = True, fails: bool = False, **options: Any,
    ) -> Result:  # fmt: skip
        """Deliver, and print a row. ``wrong``: this number's answers are wrong ones."""
        with self.watched(NAME if clients else None) as seen:
            done = self.deliver(**options)
        note = " ".join(str(done.error).split())[:400] if done.error else ""
        if bool(done.error) is not fails:
            note = f"UNEXPECTED: {note or 'it succeeded'}"
        row = Row(title, what, seen.seconds, floor, peak=seen.peak, note=note.replace("|", "/"))
        if clients:
            row.failed, row.gap = seen.failed, seen.gap
            moments = [] if wrong is None else seen.of(wrong)
            row.wrong = None if wrong is None else len(moments)
            if moments:
                row.note = f"wrong for {moments[-1] - moments[0]:.2f} s; {row.note}"
        self.say(row)
        return done


def answers(number: float) -> dict[str, Any]:
    return {"inputs": {"x": [1.0]}, "outputs": {"y": [1.0 + number]}}


def life(bench: Bench, size: float, title: str, **kind: Any) -> None:
    """All of a model's life, with clients of the model itself."""
    one, two = (bench.source(number, size, **kind) for number in (1, 2))
    # Its own weights would take more of the disk than a machine may have.
    bad = bench.source(3, size, **{**kind, "weights": False})
    if kind.get("weights"):
        os.link(one / "1/weights.bin", bad / "1/weights.bin")
    floor, loaded = bench.floor(one, title)
    first = {"model_uri": str(one), "verify": answers(1)}
    second = {"model_uri": str(two), "verify": answers(2)}
    third = {"model_uri": str(bad), "verify": answers(4)}
    bench.row(title, "deploy", floor, clients=False, **first)
    bench.row(title, "unchanged", None, **first)
    bench.row(title, "update", floor, **second)
    bench.row(title, "rollback (floor: load)", loaded, state="rolled_back", verify=answers(1))
    bench.row(title, "failed verify", floor, wrong=3, fails=True, **third)
    aside = {"verify_aside": True}
    bench.row(title, "failed verify, aside", floor, wrong=3, fails=True, **third, **aside)
    bench.row(title, "update, aside", floor, **second, **aside)
    bench.gone()
    for path in (one, two, bad):
        shutil.rmtree(path.parent)


def deliveries(bench: Bench) -> None:
    for size in bench.given.sizes:
        life(bench, size, bench.title(size))


def weights(bench: Bench) -> None:
    size = bench.given.weights
    life(bench, size, f"{bench.title(size)} file", weights=True)


@contextlib.contextmanager
def ballast(bench: Bench, room: float) -> Iterator[None]:
    """A process that leaves so many GiB of the first card free."""
    size = int(bench.cards.memory().free - room * bench.unit) if bench.cards.handles else 0
    if size <= 0:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-c", BALLAST, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        if any(json.loads(process.stdout.readline())):
            raise SystemExit("the card cannot be filled")
        yield
    finally:
        process.kill()
        process.wait()


def memory(bench: Bench) -> None:
    size = bench.given.sizes[-1]
    title = f"{bench.title(size)}, {bench.title(bench.given.room)} free"
    cpu = bench.given.cpu
    one, two, bad = (bench.source(number, size) for number in (1, 2, 3))
    first = {"model_uri": str(one), "verify": answers(1)}
    second = {"model_uri": str(two), "verify": answers(2)}
    with ballast(bench, bench.given.room):
        floor, loaded = bench.floor(one, title)
        bench.row(title, "deploy", floor, clients=False, **first)
        tight = not cpu
        bench.row(title, "update, overlap", floor, fails=tight, **second)
        bench.row(title, "update, auto, in service", floor, fails=tight, swap="auto", **second)
        drained = {"drained": True}
        bench.good(**first, **drained, swap="unload_first")
        bench.row(title, "update, auto, drained", floor, swap="auto", **second, **drained)
        bench.row(
            title, "rollback, unload_first (floor: load)", loaded, state="rolled_back",
            swap="unload_first", verify=answers(1), **drained,
        )  # fmt: skip
        bench.row(title, "update, unload_first", floor, swap="unload_first", **second, **drained)
        bench.row(
            title, "failed verify, unload_first", floor, wrong=3, fails=True, model_uri=str(bad),
            verify=answers(4), swap="unload_first", **drained,
        )  # fmt: skip
        bench.gone()


def stalls(bench: Bench) -> None:
    """Clients of another model, which nothing is done to."""
    steady = bench.source(7, 0.1, name="steady")
    slow = bench.source(1, bench.given.stalls, name=NAME)
    title = bench.title(bench.given.stalls)
    bench.good(name="steady", model_uri=str(steady), verify=answers(7))

    def nothing() -> None:
        time.sleep(bench.seconds(bench.given.stalls))

    ways: dict[str, Callable[[], object]] = {
        "no load": nothing,
        "load over gRPC": lambda: bench.good(model_uri=str(slow), verify=answers(1)),
        "load over HTTP": lambda: bench.good(
            model_uri=str(slow), verify=answers(1), http_loads=True
        ),
    }
    for way, work in ways.items():
        for _run in range(bench.given.runs):
            with bench.watched("steady") as seen:
                work()
            bench.say(
                Row(title, way, seen.seconds, failed=seen.failed, gap=seen.gap,
                    note=f"{len(seen.answers)} answers")
            )  # fmt: skip
            if way != "no load":
                bench.gone()
    bench.gone("steady")


def gpus(bench: Bench) -> None:
    if len(bench.cards.handles) < 2 and not bench.given.cpu:
        print("gpus: this machine has one GPU", flush=True)
        return
    size = bench.given.stalls
    for names in ("0", "0, 1"):
        life(bench, size, f"{bench.title(size)} on GPU {names}", gpus=names)


PARTS: dict[str, Callable[[Bench], None]] = {
    "deliveries": deliveries,
    "weights": weights,
    "memory": memory,
    "stalls": stalls,
    "gpus": gpus,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", type=float, default=[2, 8, 30, 45], help="in GiB")
    parser.add_argument("--weights", type=float, default=8, help="GiB of the file")
    parser.add_argument("--stalls", type=float, default=8, help="GiB, for stalls and gpus")
    parser.add_argument("--room", type=float, default=80, help="GiB that memory leaves free")
    parser.add_argument("--rate", type=float, default=3, help="GiB in a second of a load")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--json", type=Path, help="the rows so far are there at any time")
    parser.add_argument(
        "--no-metrics", dest="metrics", action="store_false", help="without metrics_url"
    )
    parser.add_argument("--cpu", action="store_true", help="without a GPU, MiB instead of GiB")
    given = parser.parse_args()
    rows: list[Row] = []
    for part in given.only:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            folder = Path(name)
            with servers.triton_server(folder / "triton", extra_args=ARGS) as triton:
                bench = Bench(folder, triton, given, rows)
                print(f"\n{part}: {', '.join(bench.cards.names) or 'no GPU'}\n\n{HEAD}", flush=True)
                for _run in range(1 if part == "stalls" else given.runs):
                    PARTS[part](bench)
    return int(any(row.note.startswith("UNEXPECTED") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
