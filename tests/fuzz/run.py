# SPDX-License-Identifier: Apache-2.0
"""Feeds the parsers of foreign bytes what nobody wrote, with atheris, and says what came of it.

    python tests/fuzz/run.py --runs 1000000 --jobs 4       # of all parsers together
    python tests/fuzz/run.py --seconds 60 pickle onnx      # of each of these

One line for a parser: executions, seconds, peak memory, and crashes: exceptions that are no errors
of ours, hangs, and memory above the bound. What led to one lies in .cache/fuzz/<parser>/, or below
the folder that FUZZ_FOUND names.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOUND = ROOT / ".cache/fuzz"
if str(HERE.parent) not in sys.path:
    sys.path.append(str(HERE.parent))
NAMES = sorted(path.name for path in (HERE / "corpus").iterdir() if path.is_dir())
LONGEST = 16384
MEMORY_MIB = 1024
HANG_SECONDS = 20


@dataclass
class Outcome:
    executions: int = 0
    seconds: int = 0
    peak_mib: int = 0
    crashes: int = 0
    said: str = ""


def fuzz_one(name: str, arguments: list[str]) -> None:
    """In this process, until libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["_delivery"], enable_loader_override=False):
        from fuzz import parsers

    def test(data: bytes) -> None:
        parsers.refused(name, data)

    atheris.Setup([sys.argv[0], *arguments], test)
    atheris.Fuzz()


def run_shard(name: str, shard: int, runs: int, seconds: int) -> Outcome:
    folder = Path(os.environ.get("FUZZ_FOUND") or FOUND) / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    words = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--one",
        name,
        "--",
        f"-runs={runs}" if runs else "-runs=-1",
        f"-max_total_time={seconds}" if seconds else "-max_total_time=0",
        f"-max_len={LONGEST}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={HANG_SECONDS}",
        f"-artifact_prefix={folder}/",
        f"-seed={shard + 1}",
        "-print_final_stats=1",
        str(folder / "corpus"),
        str(HERE / "corpus" / name),
    ]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    told = done.stderr + done.stdout
    counted = [int(one) for one in re.findall(r"number_of_executed_units:\s*([0-9]+)", told)]
    peak = [int(one) for one in re.findall(r"peak_rss_mb:\s*([0-9]+)", told)]
    spent = [int(one) for one in re.findall(r"Done [0-9]+ runs in ([0-9]+) second", told)]
    failed = done.returncode != 0
    return Outcome(
        sum(counted), max(spent, default=0), max(peak, default=0), int(failed),
        told[-6000:] if failed else "",
    )  # fmt: skip


def run_parser(
    name: str, runs: int, seconds: int, shards: int, pool: ThreadPoolExecutor
) -> Outcome:
    each = -(-runs // shards) if runs else 0
    outcomes = pool.map(lambda shard: run_shard(name, shard, each, seconds), range(shards))
    whole = Outcome()
    for one in outcomes:
        whole.executions += one.executions
        whole.seconds = max(whole.seconds, one.seconds)
        whole.peak_mib = max(whole.peak_mib, one.peak_mib)
        whole.crashes += one.crashes
        whole.said = whole.said or one.said
    print(
        f"{name}: {whole.executions} executions in {whole.seconds} s, {whole.peak_mib} MiB at most,"
        f" {whole.crashes} crashes",
        flush=True,
    )
    return whole


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parsers", nargs="*", metavar="PARSER", help=", ".join(NAMES))
    parser.add_argument("--runs", type=int, default=0, help="executions, of all parsers together")
    parser.add_argument("--seconds", type=int, default=0, help="for each parser, at most")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    names = given.parsers or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no such parser: {', '.join(unknown)}")
    runs, seconds = -(-given.runs // len(names)), given.seconds
    if not runs and not seconds:
        seconds = 60
    shards = -(-given.jobs // len(names))
    with ThreadPoolExecutor(given.jobs) as pool, ThreadPoolExecutor(len(names)) as drivers:
        done = list(drivers.map(lambda name: run_parser(name, runs, seconds, shards, pool), names))
    for name, one in zip(names, done, strict=True):
        if one.crashes:
            print(f"\n--- {name}\n{one.said}")
    total = sum(one.executions for one in done)
    print(f"together: {total} executions, {sum(one.crashes for one in done)} crashes")
    return int(any(one.crashes for one in done))


if __name__ == "__main__":
    sys.exit(main())
