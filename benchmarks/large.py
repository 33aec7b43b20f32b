# SPDX-License-Identifier: Apache-2.0
"""How long does a large model of this host take, next to `cp`, `sync` and Triton's own load?

    .venv/control/bin/python benchmarks/large.py [--mib 2048] [--runs 3]

A model reads its weights while it loads. Deployments are updates with other weights, and the way
back is one to the retained copy; the floor of that is a load alone. Both sides are measured in
turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".dev"), str(ROOT / "tests"), str(Path(__file__).resolve().parent)]

import pairs  # noqa: E402
from support.bench import Bench, new_bench  # noqa: E402
from transfer import large_file  # noqa: E402

_PLAIN = "plain"
_READS = """
    def initialize(self, args):
        path = os.path.join(args["model_repository"], args["model_version"], "weights.bin")
        with open(path, "rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass
"""


def source(bench: Bench, name: str, identity: int, mib: int) -> Path:
    folder = bench.sample(identity, name).folder
    program = folder / "1" / "model.py"
    head, _def, rest = program.read_text().partition("    def initialize")
    rest = rest[rest.index("    def execute") :]
    program.write_text(f"import os\n{head}{_READS.lstrip(chr(10))}\n{rest}")
    large_file(folder / "1" / "weights.bin", mib)
    with open(folder / "1" / "weights.bin", "r+b") as stream:
        stream.write(identity.to_bytes(8, "big"))
    return folder


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


class Plain:
    """The same by hand: a copy on the same disk, synced, and a load."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.live = bench.repository / _PLAIN

    def load(self) -> None:
        os.utime(self.live / "1")
        status, said = self.bench.triton.load(_PLAIN, timeout=600)
        assert status == 200, said

    def deploy(self, folder: Path) -> None:
        staged = self.bench.folder / "staged"
        subprocess.run(["cp", "-r", str(folder), str(staged)], check=True)
        subprocess.run(["sync", str(staged / "1" / "weights.bin")], check=True)
        if self.live.exists():
            os.rename(self.live, self.bench.folder / "former")
        os.rename(staged, self.live)
        self.load()
        shutil.rmtree(self.bench.folder / "former", ignore_errors=True)


def measure(bench: Bench, mib: int, runs: int) -> tuple[pairs.Pairs, pairs.Pairs]:
    ours = [str(source(bench, "doubler", identity, mib)) for identity in (1, 2)]
    theirs = [source(bench, _PLAIN, identity, mib) for identity in (1, 2)]
    plain = Plain(bench)
    times: tuple[list[float], ...] = ([], [], [], [])
    for number in range(runs + 1):  # the first does not count
        bench.good(model_uri=ours[0])
        plain.deploy(theirs[0])
        os.sync()
        taken = (
            seconds(lambda: bench.good(model_uri=ours[1])),
            seconds(lambda: plain.deploy(theirs[1])),
            seconds(lambda: bench.good(state="rolled_back")),
            seconds(plain.load),
        )
        for one, kept in zip(taken, times, strict=True):
            if number:
                kept.append(one)
    deploy, floor, back, load = (tuple(one) for one in times)
    return pairs.Pairs(deploy, floor), pairs.Pairs(back, load)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder,
        new_bench(Path(folder) / "bench", target={"timeout": 600}) as bench,
    ):
        deploy, back = measure(bench, given.mib, given.runs)
    print(deploy.table("deployment", "cp, sync and load"))
    print(back.table("rollback", "load"))


if __name__ == "__main__":
    main()
