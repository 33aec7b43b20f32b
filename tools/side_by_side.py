# SPDX-License-Identifier: Apache-2.0
"""Runs commands two at a time, because each of them waits most of the time, or uses one processor.

    python tools/side_by_side.py "COMMAND WORD …" …

What a command said is printed when it is over; a line for each tells at the end how it went. One
that fails stops no other.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

LANES = 2


class Commands:
    """Those at work, which an interruption ends."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._over = False
        self._guard = threading.Lock()

    def run(self, command: str) -> tuple[str, int, float]:
        """(command, exit code, seconds)."""
        begin = time.monotonic()
        with tempfile.TemporaryFile() as log:
            with self._guard:
                if self._over:
                    return command, -signal.SIGTERM, 0.0
                print(f"--- {command}: begins", flush=True)
                child = subprocess.Popen(
                    shlex.split(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
                self._running.append(child)
            code = child.wait()
            log.seek(0)
            with self._guard:
                sys.stdout.flush()
                sys.stdout.buffer.write(log.read())
                print(f"--- {command}: ended with {code}", flush=True)
        return command, code, time.monotonic() - begin

    def end(self) -> None:
        with self._guard:
            self._over = True
            for child in self._running:
                child.terminate()


def interrupted(*_arguments: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    if not sys.argv[1:]:
        print("which commands?", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, interrupted)
    os.environ["PYTHONUNBUFFERED"] = "1"
    commands = Commands()
    with ThreadPoolExecutor(LANES) as pool:
        try:
            done = list(pool.map(commands.run, sys.argv[1:]))
        except BaseException:
            commands.end()
            raise
    for command, code, seconds in done:
        print(
            f"--- {command:<32} {'passed' if code == 0 else f'FAILED with {code}'}"
            f" ({seconds:.0f} s)"
        )
    return 1 if any(code for _command, code, _seconds in done) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
