# SPDX-License-Identifier: Apache-2.0
"""What make's programs leave alone, and leave behind: tools/venvs.py, docker_bed.py, minutes.sh."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.core_environment import NOT_IN_CORE

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))


def test_environments_are_not_made_by_a_python_inside_of_them(tmp_path: Path) -> None:
    """Where .venv/control is active, its python3 is the first on the PATH, and is to be remade."""
    inside = tmp_path / "inside"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(inside)], check=True)
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import venvs"
    made_by = subprocess.run(
        [str(inside / "bin/python"), "-c", f"{code}; print(venvs.base_python())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert not Path(made_by).is_relative_to(inside)
    assert os.path.realpath(made_by) == os.path.realpath(sys.executable)


def processes_of(mark: str) -> list[int]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MARK={mark}".encode() in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
        except OSError:
            continue
    return found


def wait_until(holds: object, seconds: float = 60) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_interrupted_command_of_the_bed_leaves_no_process(tmp_path: Path) -> None:
    begin = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); import docker_bed;"
        "signal.signal(signal.SIGTERM, docker_bed.interrupted);"
        "docker_bed.carry_out(sys.argv[2:], dict(os.environ))"
    )
    # The shell does not pass a signal on, and its child is in a session of its own.
    command = ["sh", "-c", "setsid sleep 300; true"]
    mark = str(tmp_path)
    bed = subprocess.Popen(
        [sys.executable, "-c", begin, str(TOOLS), *command],
        env={**os.environ, "MARK": mark},
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(processes_of(mark)) == 3)
    bed.send_signal(signal.SIGTERM)
    assert bed.wait(60) != 0
    wait_until(lambda: not processes_of(mark))


def test_minutes_are_noted_for_each_target_with_its_exit_code(tmp_path: Path) -> None:
    notes = tmp_path / "notes of minutes"
    done = subprocess.run(
        [TOOLS / "minutes.sh", "/bin/sh", "lint", "-c", "exit 3"],
        env={**os.environ, "MINUTES": str(notes)},
        check=False,
    )
    assert done.returncode == 3
    target, begin, end, code = notes.read_text().split()
    assert (target, code) == ("lint", "3")
    assert int(begin) <= int(end)


def test_what_unit_core_does_not_run_is_run_beside_it() -> None:
    """`make test` runs tests of the core once: those that skip in the core's environment, here."""
    asked = {
        name
        for path in (ROOT / "tests/unit/core").glob("test_*.py")
        for name in re.findall(r'importorskip\(\s*"([a-z_]+)', path.read_text(encoding="utf-8"))
    }
    code = (
        "import importlib.util, sys;"
        " print(*[one for one in sys.argv[1:] if not importlib.util.find_spec(one)])"
    )
    core = ROOT / ".venv/core/bin/python"
    if not core.exists():
        return
    lacks = subprocess.run(
        [str(core), "-c", code, *asked], check=True, capture_output=True, text=True, cwd="/"
    ).stdout.split()
    assert set(lacks) <= set(NOT_IN_CORE)
