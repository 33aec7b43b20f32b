# SPDX-License-Identifier: Apache-2.0
"""Time two commands in turn, A B A B …, and compare them pair by pair, so that a machine whose
speed drifts does not decide.

    python benchmarks/pairs.py -n 5 --a 'ansible-playbook a.yml' --b 'ansible-playbook b.yml'
"""

from __future__ import annotations

import argparse
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(frozen=True)
class Pairs:
    """Wall seconds of the runs of A and B, in the order in which they were made."""

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(x / y for x, y in zip(self.a, self.b, strict=True))

    def table(self, name_a: str, name_b: str) -> str:
        rows = [(name_a, self.a, " s"), (name_b, self.b, " s"), ("ratio", self.ratios, " times")]
        width = max(len(row[0]) for row in rows)
        figures = (("min", min), ("median", statistics.median), ("max", max))
        return "\n".join(
            f"{name:<{width}}  "
            + "  ".join(f"{label} {figure(values):.3f}{unit}" for label, figure in figures)
            for name, values, unit in rows
        )


def measure(a: Run, b: Run, runs: int = 5, warm_up: int = 1) -> Pairs:
    """Run A and B in turn; the first ``warm_up`` pairs do not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(warm_up + runs):
        for taken, run in zip(times, (a, b), strict=True):
            begin = time.perf_counter()
            run()
            if number >= warm_up:
                taken.append(time.perf_counter() - begin)
    return Pairs(tuple(times[0]), tuple(times[1]))


def command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """A run of a program whose output is thrown away; one that fails ends the measurement."""

    def run() -> None:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(
                f"{shlex.join(words)} ended with"
                f" {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}"
            )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", "--runs", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--a", required=True)
    parser.add_argument("--b", required=True)
    given = parser.parse_args()
    pairs = measure(
        command(shlex.split(given.a)), command(shlex.split(given.b)), given.runs, given.warm_up
    )
    print(pairs.table("A", "B"))
    print(
        "peak memory of one process:"
        f" {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
