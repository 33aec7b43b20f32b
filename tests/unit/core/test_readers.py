# SPDX-License-Identifier: Apache-2.0
"""The process that reads model files has no rights, and whatever becomes of it is one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    DeliveryError,
    MissingLibrary,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.readers.runner import (
    Bounds,
    Task,
    ask,
)
from support import strange_tasks

BOUNDS = Bounds(memory=256 << 20, cpu=60, seconds=60, output=1 << 20, answer=1 << 20)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.bin"
    path.write_bytes(b"a model's bytes")
    path.chmod(0o600)
    return str(path)


def have(task: str, model: str, bounds: Bounds = BOUNDS, **arguments: object) -> Any:
    module = strange_tasks.__name__
    return ask(Task(module, task), model, "model.bin", arguments, bounds)


def test_a_reader_has_no_rights(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    monkeypatch.setenv("PYTHONPATH", str(Path(model).parent))
    found = have("rights", model).found.data
    assert found["read"] == "a model's bytes"
    if os.geteuid() == 0:
        assert 0 not in found["ids"] and found["groups"] == []
        assert found["capabilities"] == 0
    assert found["no_new_privileges"] == 1
    assert "canary" not in found["environment"] and "PYTHONPATH" not in found["environment"]
    assert found["folder"] == "/" and found["core"] == [0, 0]
    # Standard ones lead nowhere, then the file, the place for bytes, the answer.
    assert found["descriptors"] <= 7  # and one that this test keeps open
    assert found["first_to_go"] == 1000
    assert found["forked"] is False


@pytest.mark.skipif(not strange_tasks.has_landlock(), reason="this kernel has no Landlock")
def test_a_reader_can_open_no_file(model: str) -> None:
    assert have("opens", model, path=model).found.data == {"opened": False}
    assert have("opens", model, path="/etc/passwd").found.data == {"opened": False}


def test_it_reads_what_only_its_parent_may_open(model: str) -> None:
    Path(model).parent.chmod(0o700)
    assert have("rights", model).found.data["read"] == "a model's bytes"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("eats_memory", r"needed more than 256 MiB of memory: the file is damaged or hostile"),
        ("is_killed", r"it did what no program may \(SIGSEGV\)"),
        ("prints_for_ever", "answered with more than 1048576 bytes"),
        ("writes_for_ever", "it wrote more than 1048576 bytes|File too large"),
        ("talks_nonsense", "the reader's answer makes no sense"),
        ("answers_a_number", "the reader's answer makes no sense"),
        ("claims_bytes", "the reader's answer makes no sense"),
        ("has_a_fault", r"model.bin cannot be read \(ZeroDivisionError: division by zero\)"),
    ],
)
def test_however_it_ends_is_a_sentence(model: str, task: str, said: str) -> None:
    with pytest.raises(ArtifactError, match=said) as caught:
        have(task, model)
    assert "model.bin" in caught.value.message


@pytest.mark.parametrize(
    ("task", "bounds", "said"),
    [
        ("burns", Bounds(256 << 20, 1, 60, 1, 1 << 20), "more than 1 seconds of processor time"),
        ("sleeps", Bounds(256 << 20, 60, 1, 1, 1 << 20), "needed more than 1 seconds"),
        ("sleeps_deaf", Bounds(256 << 20, 60, 1, 1, 1 << 20), "needed more than 1 seconds"),
    ],
)
def test_one_that_does_not_end_is_ended(model: str, task: str, bounds: Bounds, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        have(task, model, bounds)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nothing of it is left


def test_an_interruption_ends_it_too(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.mlops.triton.plugins.module_utils._delivery.readers import runner

    def interrupted(process: Any, *_more: object) -> bytes:
        assert process.poll() is None
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        have("sleeps", model)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_many_threads_read_at_once(model: str) -> None:
    answers: list[str] = []

    def one() -> None:
        answers.append(have("rights", model).found.data["read"])

    threads = [threading.Thread(target=one) for _number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["a model's bytes"] * 6


def test_bytes_come_back_without_a_file(model: str) -> None:
    answer = have("copies", model)
    assert answer.data is not None and bytes(answer.data) == b"a model's bytes"
    assert os.listdir(Path(model).parent) == ["model.bin"]


BIG = Bounds(memory=256 << 20, cpu=60, seconds=60, output=64 << 20, answer=1 << 20)


def test_what_was_read_is_not_changed_afterwards(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that the reader left behind would still have the descriptor."""
    from ansible_collections.mlops.triton.plugins.module_utils._delivery.readers import runner

    kept: list[int] = []
    make = runner._scratch

    def scratch() -> Any:
        file = make()
        kept.append(os.dup(file.fileno()))
        return file

    monkeypatch.setattr(runner, "_scratch", scratch)
    data = have("copies_much", model, BIG, size=20 << 20).data
    out, _request = kept
    with pytest.raises(PermissionError):
        os.pwrite(out, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(out, 0)
    assert len(data) == 20 << 20 and data[0] == 0
    for descriptor in kept:
        os.close(descriptor)


def test_answers_keep_no_descriptors(model: str) -> None:
    """A list has more models than a process may have files."""
    before = len(os.listdir("/proc/self/fd"))
    answers = [have("copies", model) for _number in range(3)]
    assert len(os.listdir("/proc/self/fd")) == before and len(answers) == 3


ROOT_WITHOUT_SETUID = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from support import strange_tasks
from ansible_collections.mlops.triton.plugins.module_utils._delivery.readers import runner
bounds = runner.Bounds(256 << 20, 60, 60, 1 << 20, 1 << 20)
task = runner.Task(strange_tasks.__name__, "rights")
print(json.dumps(dict(runner.ask(task, sys.argv[3], "model.bin", {}, bounds).found.data)))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv"
)
def test_a_root_that_cannot_become_another_user_keeps_no_right(model: str) -> None:
    root = Path(__file__).resolve().parents[3]
    without = "-setuid,-setgid"
    words = ["setpriv", f"--bounding-set={without}", f"--inh-caps={without}", sys.executable, "-c"]
    paths = [str(root / ".dev"), str(root / "tests"), model]
    said = subprocess.run(
        [*words, ROOT_WITHOUT_SETUID, *paths], check=True, capture_output=True, text=True
    )
    found = json.loads(said.stdout)
    assert 0 in found["ids"], "it became nobody, so that this proves nothing"
    assert found["capabilities"] == 0


def test_a_library_that_is_missing_is_told(model: str) -> None:
    with pytest.raises(MissingLibrary, match="treelite") as caught:
        have("misses", model)
    assert caught.value.facts["library"] == "treelite"


def test_a_python_that_cannot_be_started_is_told(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DeliveryError, match="/nowhere/python cannot be started"):
        have("rights", model)


def test_it_does_not_outlive_its_parent(tmp_path: Path, model: str) -> None:
    """The parent is killed, so that nothing of it can end the reader."""
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from support import strange_tasks\n"
        "from ansible_collections.mlops.triton.plugins.module_utils._delivery.readers"
        " import runner\n"
        "bounds = runner.Bounds(256 << 20, 60, 60, 1, 1 << 20)\n"
        "task = runner.Task(strange_tasks.__name__, 'sleeps')\n"
        "runner.ask(task, sys.argv[3], sys.argv[4], {}, bounds)\n"
    )
    root = Path(__file__).resolve().parents[3]
    name = f"reader-of-{tmp_path.name}-{os.getpid()}"
    words = [sys.executable, "-c", program, str(root / ".dev"), str(root / "tests"), model, name]
    parent = subprocess.Popen(words)
    try:
        assert _until(lambda: len(_children(parent.pid)) == 1)
        [reader] = _children(parent.pid)
        assert _until(lambda: _is_bound(reader))
    finally:
        parent.kill()
        parent.wait()
    assert _until(lambda: not _lives(reader))


def _children(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8")
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found


def _is_bound(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return "NoNewPrivs:\t1" in status


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _until(holds: Any) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False
