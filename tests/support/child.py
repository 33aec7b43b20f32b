# SPDX-License-Identifier: Apache-2.0
"""Runs deliveries in processes of their own, some of which end themselves with SIGKILL.

    python child.py      # one JSON request per line on stdin, one JSON answer per line on stdout

The libraries take most of a second to import, so this process imports them once and forks for each
request. It never uses them itself: gevent's loop does not survive a fork.

Keys of a request: ``target`` and ``options`` as a module has them; ``kill`` (number, moment) and
``pause`` (kind, moment, path: wait there until the path is gone); ``before`` (path: wait until it
is there); ``no_exchange`` (the file system has no renameat2); ``user`` (uid to run as);
``registry`` (version to folder: what ``models:/<name>/<version>`` means, without any MLflow);
``publish`` (options of a publication, instead of a delivery, to ``tracking_uri``, each step of it
within ``timeout`` seconds). Answer: ``code`` of the process, ``effects`` it reached, ``result``
unless it was killed.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".dev"))

from ansible_collections.mlops.triton.plugins.module_utils._delivery import disk
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import ModelUri
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import DeliveryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.batch import (
    publish,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)

# Imported once for all forks; each of them would need a second of its own for it.
for library in (
    "gevent",
    "numpy",
    "tritonclient.http",
    "yaml",
    "google.protobuf.text_format",
    "tritonclient.grpc.model_config_pb2",
):
    importlib.import_module(library)


@functools.cache
def prepare_s3() -> None:
    """Read once what each fork would read anew for its client."""
    import boto3
    from botocore.loaders import JSONFileLoader

    read = functools.cache(JSONFileLoader().load_file)
    JSONFileLoader.load_file = lambda self, path: read(path)
    boto3.client("s3", region_name="us-east-1")


class Watcher:
    """Counts the effects, tells each over a pipe, and ends or holds the process at one of them."""

    def __init__(self, request: dict[str, Any], out: int) -> None:
        self.kill = request.get("kill")
        self.pause = request.get("pause")
        self.out = out
        self.number = self.ended = 0
        self.lock = threading.Lock()

    def __call__(self, moment: str, kind: str, subject: str) -> None:
        with self.lock:  # transfers are effects of several threads
            if moment == "before":
                self.number += 1
                self.tell({"effect": kind, "subject": subject})
            else:
                self.ended += 1
            if self.kill == [self.number if moment == "before" else self.ended, moment]:
                os.kill(os.getpid(), signal.SIGKILL)
        if self.pause and self.pause[:2] == [kind, moment]:
            self.tell({"paused": kind})
            until = time.monotonic() + 60  # a test that failed does not come to take the gate away
            while os.path.exists(self.pause[2]) and time.monotonic() < until:
                time.sleep(0.005)

    def tell(self, message: dict[str, Any]) -> None:
        os.write(self.out, json.dumps(message).encode() + b"\n")


def pretend(delivery: Delivery, versions: dict[str, str]) -> None:
    """A registry whose versions are folders of this host."""

    def resolve(uri: ModelUri) -> Source:
        folder = versions[str(uri.version)]
        return Source(
            uri,
            uri.name,
            uri.version,
            None,
            f"models:/m-{uri.version}",
            folder,
            None,
            f"m-{uri.version}",
        )

    def files(source: Source) -> LocalRoot:
        return LocalRoot(source.artifact_root, 20)

    delivery.registry.__dict__.update(resolve=resolve, files=files)


def work(request: dict[str, Any], out: int) -> None:
    watcher = Watcher(request, out)
    if request.get("no_exchange"):

        def missing(source: tuple[int, str], target: tuple[int, str], flags: int) -> None:
            raise OSError(22, os.strerror(22), source[1], None, target[1])

        disk._renameat2 = missing
    if request.get("user"):
        # Whatever Python this is may lie where only root can read: import all of it before.
        with Delivery(Target.from_options(request["target"])) as delivery:
            delivery.deliver([DesiredModel.from_options(request["options"])], check=True)
        os.setgroups([])
        os.setgid(request["user"])
        os.setuid(request["user"])
    while request.get("before") and not os.path.exists(request["before"]):
        time.sleep(0.0005)
    try:
        if request.get("publish"):
            with observe(watcher):
                made = publish(
                    Registry(request["tracking_uri"], request.get("timeout", 30)),
                    [request["publish"]],
                )[0]
            watcher.tell({"result": {**made.to_dict(), "warnings": list(made.warnings)}})
            return
        with observe(watcher), Delivery(Target.from_options(request["target"])) as delivery:
            if request.get("registry"):
                pretend(delivery, request["registry"])
            found = delivery.deliver(
                [DesiredModel.from_options(request["options"])], check=bool(request.get("check"))
            )[0]
        watcher.tell({"result": {**found.to_dict(), "warnings": list(found.warnings)}})
    except DeliveryError as error:
        watcher.tell(
            {"result": {"failed": True, "changed": False, "msg": str(error), **error.facts}}
        )
    except BaseException:
        watcher.tell(
            {
                "result": {
                    "failed": True,
                    "changed": False,
                    "msg": traceback.format_exc(),
                    "error": "traceback",
                }
            }
        )


def answer(request: dict[str, Any]) -> dict[str, Any]:
    # Once for all forks, and only where they are needed.
    if request.get("publish"):
        importlib.import_module("mlflow")
    elif str(request["target"].get("model_repository")).startswith("s3://"):
        prepare_s3()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        work(request, writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = []
        for line in stream:
            message = json.loads(line)
            said.append(message)
            if "paused" in message:
                print(json.dumps({"paused": pid}), flush=True)
    _pid, status = os.waitpid(pid, 0)
    return {
        "pid": pid,
        "code": os.waitstatus_to_exitcode(status),
        "effects": [[m["effect"], m["subject"]] for m in said if "effect" in m],
        "result": next((m["result"] for m in said if "result" in m), None),
    }


if __name__ == "__main__":
    for given in sys.stdin:
        print(json.dumps(answer(json.loads(given))), flush=True)
