# SPDX-License-Identifier: Apache-2.0
"""What does a no-change run of site.yml cost on a fleet, next to the same plays with each task
replaced by a ping?

    .venv/control/bin/python benchmarks/fleet.py -i inventory [--runs 5] [--playbook
    mlops.triton.site]

The pings follow the run itself: as many tasks, on the same hosts, as the run reports (skipped ones,
which contact no host, are left out). Molecule's scenario fleet makes a suitable inventory: three
hosts that are reached over SSH, ten models.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pairs

ANSIBLE = str(Path(sys.executable).parent / "ansible-playbook")


def tasks_of(inventory: str, playbook: str) -> list[list[str]]:
    """The hosts of each task that reported ok, in order; the run must change nothing."""
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false"}
    done = subprocess.run(
        [ANSIBLE, "-i", inventory, playbook],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    if done.returncode != 0 or re.search(r"changed=[1-9]", recap):
        raise SystemExit(
            f"{playbook} must run and change nothing"
            f" first:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
        )
    found = [
        re.findall(r"^ok: \[([^\s\]]+)", part, re.MULTILINE)
        for part in done.stdout.split("\nTASK [")[1:]
    ]
    return [sorted(set(hosts)) for hosts in found if hosts]


def pings(folder: Path, tasks: list[list[str]]) -> str:
    """A playbook with a ping for each task, and a play wherever the hosts change."""
    plays: list[dict[str, object]] = []
    for hosts in tasks:
        if not plays or plays[-1]["hosts"] != hosts:
            plays.append({"hosts": hosts, "gather_facts": False, "tasks": []})
        listed = plays[-1]["tasks"]
        assert isinstance(listed, list)
        listed.append({"ansible.builtin.ping": {}})
    path = folder / "pings.yml"
    path.write_text(json.dumps(plays), encoding="utf-8")
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-i", "--inventory", required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--playbook", default="mlops.triton.site")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as target:
        tasks = tasks_of(
            given.inventory, given.playbook
        )  # which is the run that does not count, too
        written = pings(Path(target), tasks)
        measured = pairs.measure(
            pairs.command([ANSIBLE, "-i", given.inventory, given.playbook]),
            pairs.command([ANSIBLE, "-i", given.inventory, written]),
            given.runs,
            warm_up=0,
        )
    print(measured.table(given.playbook, f"{len(tasks)} pings"))


if __name__ == "__main__":
    main()
