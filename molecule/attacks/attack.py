# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server's user tries, once a model's program has him, to become root or to have root
write elsewhere.

    python attack.py prepare REQUEST      as root: what he may not touch, and how it is now
    python attack.py plant REQUEST        as the server's user, where he sees the folders
    python attack.py judge REQUEST        as root: a sentence for all that root did for him
    python attack.py withstand REQUEST    as root: restart, recover and deliver, with what the
                                          messages advise, and judge after each of them

REQUEST is JSON with the paths closed, open, repository, state, log and the name of the service. To
plant journals it needs core, which is the start wrapper with _delivery in it; to withstand also
collection, with all of _delivery, URLs and commands. It comes through stdin.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

CANARY = b"what root alone writes\n"


PATIENCE = 40
CURES = 12
# What a message advises, and the command that it means.
CURES_OF = (
    (r"remove that symbolic link", r"(\S+) leads to", "rm {}"),
    (r"then remove the journal", r"the journal (\S+) of", "rm {}"),
    (r"", r"(?:run|run:|:) ((?:rm|chown -hR?|chmod go-w) [^:;,()]*[^:;,.()\s])", "{}"),
)
# A model for each way of a journal; the first is the one that is served.
NETWORK, PUT, TAKE, GONE, KEPT = "network", "put", "take", "gone", "kept"


def sight(path: str) -> list[Any] | None:
    """Owner and mode of what root alone may change, and the bytes of the canary."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    content = ""
    if path.endswith("/canary"):
        with open(path, "rb") as stream:
            content = stream.read().hex()
    return [info.st_uid, info.st_gid, info.st_mode, content]


def watched(request: dict[str, Any]) -> list[str]:
    return [request["closed"], request["closed"] + "/canary", "/etc", "/root", "/etc/shadow"]


def prepare(request: dict[str, Any]) -> list[str]:
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


# ---- plant ---------------------------------------------------------------------------------------


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


def folder(path: str) -> None:
    os.makedirs(path)
    with open(path + "/evil", "w") as stream:
        stream.write("what root must not be made to write")


Attempts = list[tuple[str, Callable[[str], object]]]


def plain_journal(request: dict[str, Any]) -> dict[str, Any]:
    """Of a change that was killed before it was made; it names a folder of root's itself."""
    live = "../" * 12 + request["closed"].lstrip("/") + "/model"
    move = {"live": live, "staged": "staging/network/evil", "live_inode": None}
    return {
        "schema": 1,
        "op": "swap",
        "deploy_id": "evil",
        "old_record": None,
        "keep": None,
        "moves": [{**move, "staged_inode": None}],
    }


def links(request: dict[str, Any]) -> Attempts:
    repository, state, log = request["repository"], request["state"], request["log"]
    closed, everybodys = request["closed"], request["open"]
    model = repository + "/network"
    tried: Attempts = [
        (model + "/config.pbtxt", link_to(closed + "/canary")),
        (model + "/1", link_to(everybodys)),
        (repository + "/evil", link_to("/etc")),
        (state + "/journals/network.json", text(plain_journal(request))),
        (state + "/records/evil.json", link_to("/etc/shadow")),
        (state + "/locks/network.lock", link_to(closed + "/canary")),
        (state + "/staging", link_to(everybodys)),
        (state + "/retained", link_to(closed)),
    ]
    for name in (request["service"] + ".log", "supervisord.log", request["service"] + ".log.1"):
        if log:
            tried.append((log + "/" + name, link_to(closed + "/canary")))
    return tried


def markers(request: dict[str, Any]) -> Attempts:
    marker = request["repository"] + "/.mlops-triton.json"
    places = [request["closed"] + "/state", request["open"]]
    return [(marker, text({"schema": 1, "state_dir": place})) for place in places]


def journals(request: dict[str, Any]) -> Attempts:
    """As the collection itself writes them, every name in its bounds; links on the way lead out."""
    sys.path.insert(0, request["core"])
    from _delivery.domain.journal import FolderMove, FolderSwap, Removal
    from _delivery.domain.record import Record

    repository, state, closed = request["repository"], request["state"], request["closed"]
    with open(state + "/records/network.json") as stream:
        record = json.load(stream)
    kept = Record.from_dict({**record, "name": KEPT, "transaction": "evil"})
    old = Record.from_dict({**record, "name": KEPT, "deploy_id": "old", "transaction": "old"})

    def swap(live: str, staged: str, record: Any = None) -> Callable[[str], object]:
        # No inode is 1: the change was made, and is to be undone.
        move = FolderMove(live, staged, 1, None)
        return text(FolderSwap("evil", record, 0, (move,)).to_dict())

    def journal(name: str) -> str:
        return f"{state}/journals/{name}.json"

    return [
        (f"{repository}/{NETWORK}/way", link_to(closed)),
        (f"{state}/staging/{NETWORK}", folder),
        (journal(NETWORK), swap(f"{NETWORK}/way/canary", f"staging/{NETWORK}/evil")),
        (f"{repository}/{PUT}", folder),
        (f"{repository}/{PUT}/way", link_to(closed)),
        (f"{state}/staging/{PUT}", folder),
        (journal(PUT), swap(f"{PUT}/way/new", f"staging/{PUT}/evil")),
        (f"{repository}/{TAKE}", folder),
        (f"{state}/staging/{TAKE}", folder),
        (f"{state}/staging/{TAKE}/way", link_to(closed)),
        (journal(TAKE), swap(f"{TAKE}/taken", f"staging/{TAKE}/way/canary")),
        (f"{state}/staging/{GONE}", link_to(closed)),
        (f"{state}/retained/{GONE}", link_to(closed)),
        (journal(GONE), text(Removal().to_dict())),
        (f"{state}/retained/{KEPT}", link_to(closed)),
        (f"{state}/staging/{KEPT}", folder),
        (f"{state}/records/{KEPT}.json", text(kept.to_dict())),
        (journal(KEPT), swap(KEPT, f"staging/{KEPT}", old)),
    ]


def take_over(request: dict[str, Any]) -> None:
    """Whoever owns the folder above has what lies in it, by a copy: the state of root, too."""
    state = request["state"]
    os.rename(state, state + ".gone")
    subprocess.run(["cp", "-r", state + ".gone", state], check=True)


def plant(request: dict[str, Any]) -> list[str]:
    """Answers with the places where he got something in, and with those where he did not."""
    if request.get("takes_over"):
        take_over(request)
    kinds = {"links": links, "markers": markers, "journals": journals}
    planted, refused = [], []
    for kind in request.get("kinds", ["links", "markers"]):
        for path, make in kinds[kind](request):
            try:
                replace(path, make)
            except OSError:
                refused.append(path)
            else:
                planted.append(path)
    print(json.dumps({"planted": planted, "refused": refused}))
    return []


# ---- judge ---------------------------------------------------------------------------------------


def judge(request: dict[str, Any]) -> list[str]:
    with open(request["closed"] + ".seen") as stream:
        seen = json.load(stream)
    faults = [path + " is not what it was" for path, was in seen.items() if sight(path) != was]
    more = sorted(set(os.listdir(request["closed"])) - {"canary"})
    faults += [request["closed"] + " has " + name for name in more]
    for above, folders, files in os.walk(request["open"]):
        for name in folders + files:
            path = os.path.join(above, name)
            if os.lstat(path).st_uid == 0:
                faults.append("root has made " + path)
    return faults


# ---- withstand -----------------------------------------------------------------------------------


def answers(url: str, body: object = None) -> str:
    """What a URL answers, within a minute."""
    data = json.dumps(body).encode() if body else None
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, data, timeout=30) as response:
                return str(response.read().decode())
        except OSError as error:
            if time.monotonic() > until:
                return f"{url} does not answer: {error}"
        time.sleep(0.2)


def deliver(request: dict[str, Any]) -> str:
    """As the modules do; "" or the message of the refusal."""
    sys.path.insert(0, request["collection"])
    from _delivery.domain.desired import DesiredModel
    from _delivery.errors import DeliveryError
    from _delivery.orchestration.delivery import Delivery
    from _delivery.orchestration.target import Target

    try:
        with Delivery(Target.from_options(request["place"])) as delivery:
            done = delivery.deliver([DesiredModel.from_options(request["model"])])[0]
    except DeliveryError as error:
        return str(error)
    return str(done.error or "")


def advised(message: str) -> str:
    """The command that a message advises; "" where it advises none."""
    said = re.sub(r"\. [A-Z].*", "", message)
    for advice, pattern, command in CURES_OF:
        if advice in said and (found := re.findall(pattern, said)):
            return command.format(found[-1])
    return ""


def withstand(request: dict[str, Any]) -> list[str]:
    """Answers with all that root was told, and with the commands that it was told to run."""
    said: list[str] = []
    cures: list[str] = []
    faults: list[str] = []

    def run(step: str, *words: str) -> None:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        said.extend((done.stdout + done.stderr).splitlines())
        faults.extend(f"{step}: {fault}" for fault in judge(request))
        if done.returncode:
            faults.append(f"{step} ends with {done.returncode}: {done.stderr}")

    for step in ("recover", "restart"):
        if request.get(step):
            run(step, *request[step])
    if not_live := answers(request["url"] + "/v2/health/live"):
        faults.append(not_live)
    for _try in range(CURES):
        refused = deliver(request)
        faults += [f"delivery: {fault}" for fault in judge(request)]
        if not refused:
            break
        said.append(refused)
        cure = advised(refused)
        if not cure or cure in cures:
            # A file that cannot be read names itself; whoever looks at it sees a link.
            cure = request.get("last", "")
        if not cure or cure in cures:
            faults.append("no way out is named, or it does not help: " + refused)
            break
        cures.append(cure)
        run(cure, "sh", "-c", cure)
    infer = request["url"] + "/v2/models/network/infer"
    given = answers(infer, {"inputs": [request["input"]]})
    if request["output"] not in given:
        faults.append("it does not serve: " + given)
    print(json.dumps({"said": said, "cures": cures}))
    return faults


def main() -> int:
    steps = {"prepare": prepare, "plant": plant, "judge": judge, "withstand": withstand}
    faults = steps[sys.argv[1]](json.loads(sys.argv[2]))
    for sentence in faults:
        print(sentence)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
