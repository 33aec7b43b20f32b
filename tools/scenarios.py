# SPDX-License-Identifier: Apache-2.0
"""Runs Molecule's scenarios, two at a time, because each of them waits most of the time.

    python tools/scenarios.py NAME …

What a scenario said is printed when it is over; a line for each tells at the end how it went.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

LANES = 2


class Scenarios:
    """Those at work, which an interruption ends."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._over = False
        self._guard = threading.Lock()

    def run(self, name: str) -> tuple[str, int, float]:
        """(name, exit code, seconds)."""
        begin = time.monotonic()
        with tempfile.TemporaryFile() as log:
            with self._guard:
                if self._over:
                    return name, -signal.SIGTERM, 0.0
                print(f"molecule: {name} begins", flush=True)
                child = subprocess.Popen(["molecule", "test", "-s", name], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                self._running.append(child)
            code = child.wait()
            log.seek(0)
            with self._guard:
                sys.stdout.flush()
                sys.stdout.buffer.write(log.read())
                print(f"molecule: {name} ended with {code}", flush=True)
        return name, code, time.monotonic() - begin

    def end(self) -> None:
        with self._guard:
            self._over = True
            for child in self._running:
                child.terminate()


def interrupted(*_arguments: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    if not sys.argv[1:]:
        print("which scenarios?", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, interrupted)
    os.environ["PYTHONUNBUFFERED"] = "1"
    scenarios = Scenarios()
    with ThreadPoolExecutor(LANES) as pool:
        try:
            done = list(pool.map(scenarios.run, sys.argv[1:]))
        except BaseException:
            scenarios.end()
            raise
    for name, code, seconds in done:
        print(f"molecule: {name:<20} {'passed' if code == 0 else f'FAILED with {code}'} ({seconds:.0f} s)")
    return 1 if any(code for _name, code, _seconds in done) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
