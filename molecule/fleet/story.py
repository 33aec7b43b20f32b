# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to the fleet of this scenario: versions are rolled out while clients ask without a
pause, and things break.

    story.py publish IDENTITY     the next version of each model; the answers of a version carry its
    identity
    story.py verify [CHAPTER …]   the whole story, or some of it; prints a line for each chapter
"""

from __future__ import annotations

import subprocess

import hosts
from hosts import HOSTS, Models, container, deploy, docker, ends, tell, wait_until

FLEET = Models(tuple(f"model-{number}" for number in range(10)))
REQUESTS = 10_000


def rolls_out() -> str:
    FLEET.publish(2)
    with FLEET.clients(REQUESTS) as asking:
        output = ends(deploy(), 0, "changed, verified")
        assert asking.answers[1] and asking.answers[2], asking.answers
    FLEET.served(others=2)
    return (
        f"10 models on 3 hosts, {asking.count} requests meanwhile, {len(asking.failures)} failed;"
        f" {len(output.splitlines())} lines said"
    )


def breaks_on_the_canary() -> str:
    FLEET.publish(3, broken={"model-5": "no such weights"})
    with FLEET.clients() as asking:
        ends(deploy(), 2, "no such weights", "rolled back", "not reached")
    assert set(asking.answers) <= {2, 3}
    FLEET.served(others=2)
    return (
        "a model that breaks on the first host: it serves what it did before, the others were not"
        " reached"
    )


def dies_in_the_middle() -> str:
    before = FLEET.serves("triton-3")
    FLEET.publish(4, slow={"model-0": 6})
    with FLEET.clients() as asking:
        run = deploy()
        said = wait_for_turn(run, "triton-2")
        listing = (
            "exec",
            container("triton-2"),
            "find",
            "/opt/triton_models",
            "-mindepth",
            "2",
            "-maxdepth",
            "2",
            "-name",
            "[0-9]*",
        )
        found = docker(*listing)
        wait_until(lambda: docker(*listing) != found)
        docker("kill", container("triton-2"))
        output = said + ends(run, 2, "cannot be reached")
    assert FLEET.serves("triton-1") == {4} and FLEET.serves("triton-3") == before, output
    docker("start", container("triton-2"))
    wait_until(lambda: FLEET.answers("triton-2"))
    left = FLEET.serves("triton-2")
    assert left <= {*before, 4}, left
    ends(deploy(), 0)
    FLEET.served(others=4)
    return (
        f"a host that dies in the middle: {asking.count} requests meanwhile, {len(asking.failures)}"
        " failed; the next run repairs it"
    )


def wait_for_turn(run: subprocess.Popen[str], host: str) -> str:
    """Until the delivery to a host begins, hosts taking their turns in the order of their names;
    returns what the run said so far.

    A host has just been drained then: without lines for skipped hosts Ansible names a task when it
    has its first result.
    """
    said, turns = "", 0
    for line in run.stdout or ():
        said += line
        turns += line.startswith("TASK [Drain the host's servers in HAProxy]")
        if turns > HOSTS.index(host):
            return said
    raise AssertionError(f"nothing was delivered to {host}:\n{said}")


def runs_out_of_disk() -> str:
    FLEET.publish(5)
    filler = "/opt/triton_models/.filler"
    fill = (
        "exec",
        container("triton-3"),
        "sh",
        "-c",
        f"dd if=/dev/zero of={filler} bs=4k 2>/dev/null || true",
    )
    docker(*fill)
    ends(deploy(), 2, "make room", "not reached")
    FLEET.served(others=4)
    docker("exec", container("triton-3"), "rm", filler)
    with FLEET.clients() as asking:
        run = deploy("deploy_models", "-e", "triton_on_failure=rollback_all")
        wait_for_turn(run, "triton-2")
        docker(*fill)
        ends(run, 2, "make room", "rolled back")
    assert set(asking.answers) == {4, 5}, asking.answers
    FLEET.served(others=4)
    docker("exec", container("triton-3"), "rm", filler)
    ends(deploy(), 0)
    FLEET.served(others=5)
    return (
        "a disk that is full before the run: nothing is changed; one that becomes full, with"
        f" rollback_all: all hosts serve what they did before, {asking.count} requests meanwhile,"
        f" {len(asking.failures)} failed; the next run repairs it"
    )


def changes_nothing() -> str:
    hosts.changes_nothing(deploy("site"), "unchanged")
    return "site once more: nothing is changed"


if __name__ == "__main__":
    tell(
        FLEET,
        rolls_out,
        breaks_on_the_canary,
        dies_in_the_middle,
        runs_out_of_disk,
        changes_nothing,
    )
