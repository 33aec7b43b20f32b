# SPDX-License-Identifier: Apache-2.0
"""What is forked from a warm Python is told and answers as a fresh one, and ends with whoever asked
for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_python

# What warm_python imports for a use takes seconds; here it is nothing.
SERVER = """\
import sys; sys.path.insert(0, {tools!r}); import warm_python
warm_python.USES["modules"] = warm_python.Use(("json",), packages=("shown", "failing"))
warm_python.USES["playbooks"] = warm_python.Use(
    ("setting",), program="script", forgotten=("setting",), asked=("SETTING_",)
)
warm_python.__file__ = {file!r}
warm_python.main()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of the server and of what it forks."""
    file = tmp_path / "server.py"
    tools = str(Path(warm_python.__file__).parent)
    file.write_text(SERVER.format(tools=tools, file=str(file)))
    monkeypatch.setattr(warm_python, "__file__", str(file))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "setting.py").write_text("import os; given = os.environ.get('SETTING_ONE')")
    return tmp_path


@contextlib.contextmanager
def started(use: str) -> Iterator[str]:
    program, end = warm_python.begin(use, sys.executable)
    try:
        warm_python.wait_for(program)
        yield str(program)
    finally:
        end()


def said(*words: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        words,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip()


def test_packages_of_the_path_are_run_with_their_words(here: Path) -> None:
    (here / "shown.py").write_text("import os, sys; print(sys.argv[1:], os.environ['TOLD'])")
    (here / "failing.py").write_text("import sys; sys.exit(3)")
    with started("modules") as program:
        assert said(program, "-m", "shown", "a b", TOLD="so") == (0, "['a b'] so")
        assert said(program, "-m", "failing") == (3, "")


def test_what_ends_takes_along_what_it_has_started(here: Path) -> None:
    (here / "shown.py").write_text(
        "import os, subprocess, time\n"
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    )
    with (
        started("modules") as program,
        subprocess.Popen([program, "-m", "shown"], stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout
        sleeper = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        end = time.monotonic() + 60
        while is_alive(sleeper) and time.monotonic() < end:
            time.sleep(0.02)
        assert not is_alive(sleeper)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_what_reads_the_environment_at_once_reads_its_own(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "script").write_text("import setting; print(setting.given)")
    monkeypatch.setenv("SETTING_ONE", "first")
    with started("playbooks") as program:
        for given in ("first", "second", "first", "second", "third"):
            assert said(program, str(here / "script"), SETTING_ONE=given) == (0, given)


def test_all_else_is_run_by_a_fresh_python(here: Path) -> None:
    with started("playbooks") as program:
        code = "import sys; print('json' in sys.modules, sys.executable)"
        assert said(program, "-c", code) == (0, f"False {sys.executable}")


def test_a_server_that_cannot_start_is_not_waited_for(here: Path) -> None:
    (here / "setting.py").write_text("raise SystemExit(1)")
    with pytest.raises(AssertionError, match="made no"), started("playbooks"):
        pass
