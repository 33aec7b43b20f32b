# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server's user tries, once a model's program has him, to become root or to have root
write elsewhere.

    python attack.py prepare REQUEST      as root: what he may not touch, and how it is now
    python attack.py plant REQUEST        as the server's user, where he sees the folders
    python attack.py judge REQUEST        as root: a sentence for all that root did for him
    python attack.py clean REQUEST        as root

REQUEST is JSON with the paths closed, open, repository, state, log and the name of the service. It
needs nothing but Python, and comes through stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

CANARY = b"what root alone writes\n"


def sight(path: str) -> list[Any]:
    """Owner and mode of what root alone may change, and the bytes of the canary."""
    info = os.lstat(path)
    content = ""
    if path.endswith("/canary"):
        with open(path, "rb") as stream:
            content = stream.read().hex()
    return [info.st_uid, info.st_gid, info.st_mode, content]


def watched(request: dict[str, str]) -> list[str]:
    return [request["closed"], request["closed"] + "/canary", "/etc", "/root", "/etc/shadow"]


def prepare(request: dict[str, str]) -> list[str]:
    os.makedirs(request["closed"], mode=0o700, exist_ok=True)
    with open(request["closed"] + "/canary", "wb") as stream:
        stream.write(CANARY)
    os.chmod(request["closed"] + "/canary", 0o600)
    os.makedirs(request["open"], exist_ok=True)
    os.chmod(request["open"], 0o777)
    seen = {path: sight(path) for path in watched(request)}
    with open(request["closed"] + ".seen", "w", encoding="utf-8") as stream:
        json.dump(seen, stream)
    return []


def replace(path: str, make: Callable[[str], object]) -> None:
    """As he would: what is there goes away, or out of the way."""
    if os.path.lexists(path):
        os.rename(path, path + ".gone")
    make(path)


def link_to(target: str) -> Callable[[str], object]:
    return lambda path: os.symlink(target, path)


def text(value: object) -> Callable[[str], object]:
    def write(path: str) -> None:
        with open(path, "w") as stream:
            json.dump(value, stream)

    return write


def journal(request: dict[str, str]) -> dict[str, Any]:
    """Of a change that was killed before it was made; it renames into a folder of root's."""
    live = "../" * 12 + request["closed"].lstrip("/") + "/model"
    move = {"live": live, "staged": "staging/network/evil", "live_inode": None}
    return {
        "schema": 1,
        "op": "install",
        "deploy_id": "evil",
        "moves": [{**move, "staged_inode": None}],
        "record": None,
    }


def attempts(request: dict[str, str]) -> list[tuple[str, Callable[[str], object]]]:
    """Place and what he would put there; the marker is the last, as roles refuse a foreign one."""
    repository, state, log = request["repository"], request["state"], request["log"]
    closed, everybodys = request["closed"], request["open"]
    model = repository + "/network"
    tried = [
        (model + "/config.pbtxt", link_to(closed + "/canary")),
        (model + "/1", link_to(everybodys)),
        (repository + "/evil", link_to("/etc")),
        (state + "/journals/network.json", text(journal(request))),
        (state + "/records/evil.json", link_to("/etc/shadow")),
        (state + "/locks/network.lock", link_to(closed + "/canary")),
        (state + "/staging", link_to(everybodys)),
        (state + "/retained", link_to(closed)),
    ]
    for name in (request["service"] + ".log", "supervisord.log", request["service"] + ".log.1"):
        if log:
            tried.append((log + "/" + name, link_to(closed + "/canary")))
    marked = [closed + "/state", everybodys]
    return tried + [
        (repository + "/.mlops-triton.json", text({"schema": 1, "state_dir": place}))
        for place in marked
    ]


def plant(request: dict[str, str]) -> list[str]:
    """Answers with the places where he got something in."""
    planted = []
    for path, make in attempts(request):
        with contextlib.suppress(OSError):
            replace(path, make)
            planted.append(path)
    print(json.dumps(planted))
    return []


def judge(request: dict[str, str]) -> list[str]:
    with open(request["closed"] + ".seen") as stream:
        seen = json.load(stream)
    faults = [path + " is not what it was" for path, was in seen.items() if sight(path) != was]
    more = sorted(set(os.listdir(request["closed"])) - {"canary"})
    faults += [request["closed"] + " has " + name for name in more]
    for folder, folders, files in os.walk(request["open"]):
        for name in folders + files:
            path = os.path.join(folder, name)
            if os.lstat(path).st_uid == 0:
                faults.append("root has made " + path)
    return faults


def clean(request: dict[str, str]) -> list[str]:
    for folder in (request["closed"], request["open"]):
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(request["closed"] + ".seen")
    return []


def main() -> int:
    steps = {"prepare": prepare, "plant": plant, "judge": judge, "clean": clean}
    faults = steps[sys.argv[1]](json.loads(sys.argv[2]))
    for sentence in faults:
        print(sentence)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
