# SPDX-License-Identifier: Apache-2.0
"""Questions about a host's Docker Engine, answered without changing it and without any library.

    python engine.py '{"socket": "/var/run/docker.sock", "image": "name:tag", "container": "triton",
    "gpus": true}'

Roles triton and mlflow send this file to the host through stdin, before anything is installed
there. With "keeps" ({"image": name without a tag, "settings": file, "note": file}) a container that
reads these settings keeps the tag that it was started with, whatever "image" says; where it was
removed, the note has the image. Keys of the answer:

    name            the image that was looked for
    answers         whether the engine can be asked at all
    problems        sentences: what keeps the engine from running the container
    needs_toolkit   whether the engine cannot hand GPUs to containers, and should
    image           {"id": …, "digests": […], "labels": {…}} of the image, null when the engine does
    not have it
    container       {"name": what it was started with, "image": id, "labels": {…}, "running": true
    or false, "settings": file that its start wrapper reads, or empty}, null when there is none of
    that name
"""

import argparse
import errno
import http.client
import json
import shutil
import socket
import sys
from typing import Any, Dict, List, Optional
from urllib.parse import quote

TIMEOUT = 30
INSTALL = (
    "install Docker Engine (Debian and Ubuntu: apt-get install docker.io; RHEL:"
    " docs.docker.com/engine/install/rhel) and start it"
)
TOOLKIT = (
    "install NVIDIA's container toolkit and restart the engine (triton_install_nvidia_toolkit: true"
    " does it on Debian and Ubuntu), or set triton_gpus to none"
)


class EngineError(Exception):
    """The engine cannot be asked; the text is one sentence for the user."""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        http.client.HTTPConnection.__init__(self, "localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self.path)


class Engine:
    """One Docker Engine behind a Unix socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, path: str) -> Any:
        """The JSON of one answer, None for 404. Raises EngineError."""
        connection = UnixConnection(self.path)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = json.loads(answer.read().decode("utf-8"))
        except PermissionError:
            raise EngineError(
                "This user may not use Docker's socket {}: let the role become root (become: true),"
                " or put the user into the socket's group, which is docker as a rule.".format(
                    self.path
                )
            ) from None
        except OSError as error:
            raise EngineError(_no_engine(self.path, error)) from None
        except (http.client.HTTPException, ValueError) as error:
            raise EngineError(
                "What listens on {} does not answer as a Docker Engine does ({}).".format(
                    self.path, error
                )
            ) from None
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status != 200:
            message = body.get("message") if isinstance(body, dict) else body
            raise EngineError(
                "The Docker Engine answers {} with {}: {}".format(path, answer.status, message)
            )
        return body

    def image(self, name: str) -> Optional[Dict[str, Any]]:
        found = self.get("/images/{}/json".format(quote(name)))
        if found is None:
            return None
        digests = [item.rpartition("@")[2] for item in found.get("RepoDigests") or []]
        return {
            "tags": found.get("RepoTags") or [],
            "id": found["Id"],
            "digests": digests,
            "labels": (found.get("Config") or {}).get("Labels") or {},
        }

    def container(self, name: str) -> Optional[Dict[str, Any]]:
        found = self.get("/containers/{}/json".format(quote(name)))
        if found is None:
            return None
        return {
            "name": found["Config"].get("Image") or "",
            "image": found["Image"],
            "labels": found["Config"].get("Labels") or {},
            "running": bool(found["State"]["Running"]),
            "settings": settings_of(found["Config"].get("Cmd") or []),
        }


def settings_of(command: List[str]) -> str:
    """The file of settings that a start wrapper's command names; empty for any other command."""
    place = command.index("--config") + 1 if "--config" in command else len(command)
    return "".join(command[place : place + 1])


def kept(keeps: Dict[str, str], container: Optional[Dict[str, Any]], tags: List[str]) -> str:
    """The image that the role's container was started with, in the repository that is wanted; empty
    where there was none, or where only its ID is known. ``tags`` are the names of its image.
    """
    if container is not None and container["settings"] != keeps["settings"]:
        return ""
    name = container["name"] if container else read_note(keeps["note"])
    if "@" in name:
        return keeps["image"] + name[name.index("@") :]
    if name.startswith("sha256:"):
        own = [tag for tag in tags if tag.rpartition(":")[0] == keeps["image"]]
        return (own or [""])[0]
    return (
        keeps["image"] + ":" + (name.rpartition("/")[2].partition(":")[2] or "latest")
        if name
        else ""
    )


def read_note(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read().strip()
    except (OSError, ValueError):
        return ""


def _no_engine(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "There is no Docker Engine on this host ({} does not exist): {}.".format(
            path, INSTALL
        )
    if error.errno == errno.ECONNREFUSED:
        return (
            "The Docker Engine of this host does not run (nothing listens on {}): start it"
            " (systemctl enable --now docker).".format(path)
        )
    return "The Docker Engine cannot be asked on {} ({}).".format(path, error.strerror or error)


def runtime_problems(information: Dict[str, Any]) -> List[str]:
    """Why the engine cannot hand GPUs to a container, one sentence at most."""
    if "nvidia" in (information.get("Runtimes") or {}):
        return []
    # With this program in place the engine knows the driver "nvidia" even where no runtime of that
    # name is configured.
    if any(
        shutil.which(program)
        for program in ("nvidia-container-runtime-hook", "nvidia-container-runtime")
    ):
        return []
    return ["The Docker Engine of this host cannot hand GPUs to containers: {}.".format(TOOLKIT)]


# ---- answer --------------------------------------------------------------------------------------


def answer(question: Dict[str, Any]) -> Dict[str, Any]:
    engine = Engine(question["socket"])
    found: Dict[str, Any] = {
        "name": question["image"],
        "answers": False,
        "problems": [],
        "image": None,
        "container": None,
        "needs_toolkit": False,
    }  # type: Dict[str, Any]
    try:
        information = engine.get("/info") or {}
        container = found["container"] = engine.container(question["container"])
        keeps = question.get("keeps")
        if keeps:
            there = engine.image(container["image"]) if container else None
            found["name"] = kept(keeps, container, (there or {}).get("tags", [])) or found["name"]
        found["image"] = engine.image(found["name"])
    except EngineError as error:
        found["problems"].append(str(error))
        return found
    found["answers"] = True
    lacking = runtime_problems(information) if question.get("gpus") else []
    found["needs_toolkit"] = bool(lacking)
    # Installing the toolkit is what the role is then about to do.
    found["problems"] += [] if question.get("installs_toolkit") else lacking
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Answers questions about this host's Docker Engine as JSON."
    )
    parser.add_argument("question", help="JSON object")
    print(json.dumps(answer(json.loads(parser.parse_args().question))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
