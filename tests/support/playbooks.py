# SPDX-License-Identifier: Apache-2.0
"""Runs of ansible-playbook, with this Python and this checkout."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warm_python import interpreter, shared

from .servers import ROOT


class ProcessList:
    """The command lines of all processes that run while the block does, as far as a look every few
    milliseconds sees them.
    """

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProcessList:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            for command_line in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(command_line.read_bytes())

    def holding(self, text: str) -> list[bytes]:
        return [line for line in self.seen if text.encode() in line]


@dataclass
class Playbook:
    """What came of a run of ansible-playbook."""

    rc: int
    output: str
    registered: list[dict[str, Any]] = field(default_factory=list)


def environment(**more: str) -> dict[str, str]:
    """The caller's, less what would change how Ansible or MLflow behave."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ANSIBLE_", "MLFLOW_", "TRITON_"))
    }
    return {
        **kept,
        "ANSIBLE_CONFIG": str(ROOT / "tests/ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "NO_PROXY": "127.0.0.1,localhost",
        # This checkout, and not what somebody installed into ~/.ansible/collections, which goes
        # before.
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / '.dev'}:{ROOT / '.cache/collections'}",
        "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}",
        **more,
    }


def ansible_playbook() -> list[str]:
    """Words of a command: with a Python that is warm, where tests are spread over processes."""
    warm = shared("playbooks")
    return [*([str(warm)] if warm else []), str(Path(sys.executable).parent / "ansible-playbook")]


def run_playbook(folder: Path, plays: Any, *arguments: str, **more: str) -> Playbook:
    """Run plays (a file, text, or plain data) against localhost with this Python."""
    path = plays if isinstance(plays, Path) else folder / "playbook.yml"
    if not isinstance(plays, Path):
        path.write_text(plays if isinstance(plays, str) else json.dumps(plays), encoding="utf-8")
    inventory = folder / "inventory.ini"
    if not inventory.exists():
        inventory.write_text(
            f"localhost ansible_connection=local ansible_python_interpreter={interpreter()!r}\n",
            encoding="utf-8",
        )
    done = subprocess.run(
        [
            *ansible_playbook(),
            "-i",
            str(inventory),
            str(path),
            *arguments,
        ],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return Playbook(done.returncode, done.stdout + done.stderr)


def run_task(
    folder: Path, module: str, options: dict[str, Any], *arguments: str, **more: str
) -> dict[str, Any]:
    """Run one module through ansible-playbook; returns its result."""
    written = folder / "result.json"
    written.unlink(missing_ok=True)
    tasks = [
        {
            "name": "Do",
            f"mlops.triton.{module}": options,
            "register": "done",
            "ignore_errors": True,
        },
        {
            "name": "Write",
            "ansible.builtin.copy": {
                "content": "{{ done | to_json }}",
                "dest": str(written),
                "mode": "0600",
            },
            "check_mode": False,
            "diff": False,
        },
    ]
    done = run_playbook(
        folder, [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}], *arguments, **more
    )
    assert written.exists(), done.output
    return {**json.loads(written.read_text(encoding="utf-8")), "_output": done.output}
