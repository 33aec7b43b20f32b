# SPDX-License-Identifier: Apache-2.0
"""A repository, a Triton and the engine, with the questions that every fault test asks."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import OWN_FILES
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    manifest_of_folder,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (
    StateStore,
)

from . import models
from .deliveries import deliver_model
from .servers import ServerError, Triton, triton_server

CHILD = Path(__file__).with_name("child.py")
NAME = "doubler"
# Complete configurations load three times as fast without it. As many HTTP threads as the role
# gives: a load over HTTP stalls the questions that share a thread with it.
FAST = ("--disable-auto-complete-config", "--http-thread-count=32")
QUESTION = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.5, -4.0]}]
}
VERIFY = {"inputs": {"x": [[1.0, 2.5, -4.0]]}, "outputs": {"y": [[2.0, 5.0, -8.0]]}}


class Children:
    """The process of child.py, and one thread that talks to it: requests are answered one after
    another.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._todo: queue.Queue[Any] = queue.Queue()
        self.paused: queue.Queue[int] = queue.Queue()
        threading.Thread(target=self._talk, daemon=True).start()

    def _talk(self) -> None:
        assert self._process.stdin and self._process.stdout
        while (job := self._todo.get()) is not None:
            request, future = job
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                answer = json.loads(line)
                if "paused" not in answer:
                    future.set_result(answer)
                    break
                self.paused.put(answer["paused"])

    def start(self, **request: Any) -> Future[dict[str, Any]]:
        while (
            not self.paused.empty()
        ):  # an effect of several threads is paused, and told, several times
            self.paused.get()
        future: Future[dict[str, Any]] = Future()
        self._todo.put((request, future))
        return future

    def close(self) -> None:
        self._todo.put(None)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Bench:
    """One model repository with its server.

    Args:
        folder: everything lies in it.
        repository: where the repository is to be, when not ``folder/models``.
    """

    def __init__(self, folder: Path, triton: Triton, **target: Any) -> None:
        self.folder = folder
        self.triton = triton
        self.repository = triton.repository
        self.target: dict[str, Any] = {
            "model_repository": str(self.repository),
            "triton_url": triton.url,
            "timeout": 20,
            "load_timeout": 20,
            "lock_timeout": 20,
            **target,
        }
        self._children: list[Children] = []

    # -- deliveries --------------------------------------------------------------------------------

    def deliver(
        self,
        check: bool = False,
        target: Mapping[str, Any] | None = None,
        name: str = NAME,
        **options: Any,
    ) -> Result:
        """In this process."""
        return deliver_model({**self.target, **(target or {})}, name, check, **options)

    def good(self, target: Mapping[str, Any] | None = None, **options: Any) -> Result:
        result = self.deliver(target=target, **options)
        assert result.error is None, str(result.error)
        return result

    def child(self, number: int = 0) -> Children:
        while len(self._children) <= number:
            self._children.append(Children())
        return self._children[number]

    def run(self, request: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """In a process of its own."""
        return self.begin(0, request, **options).result(120)

    def begin(
        self, number: int, request: Mapping[str, Any] | None = None, **options: Any
    ) -> Future[dict[str, Any]]:
        given = dict(request or {})
        target = {**self.target, **given.pop("target", {})}
        return self.child(number).start(target=target, options={"name": NAME, **options}, **given)

    def close(self) -> None:
        for child in self._children:
            child.close()

    # -- what is there -----------------------------------------------------------------------------

    @property
    def store(self) -> StateStore:
        return StateStore(str(self.repository))

    def record(self, name: str = NAME) -> Record | None:
        return self.store.record(name)

    def identity(self, name: str = NAME, version: int | None = None) -> int | None:
        """The number that the served model answers with; None where it is not served."""
        status, body = self.triton.infer(name, QUESTION, version)
        if status != 200:
            return None
        answers = {entry["name"]: entry["data"] for entry in body["outputs"]}
        assert answers["y"] == [2.0, 5.0, -8.0], answers
        return int(answers["identity"][0])

    def served_config(self, name: str = NAME) -> dict[str, Any]:
        return self.triton.model_config(name)

    def drift(self, name: str = NAME) -> list[str]:
        with Delivery(Target.from_options(self.target)) as delivery:
            return list(delivery.status([name])[0]["drift"])

    def left_behind(
        self, retained: int | None = None, models_there: tuple[str, ...] = (NAME,)
    ) -> list[str]:
        """Sentences on everything in the repository and the state folder that should not be
        there.
        """
        store, found = self.store, []
        inside = (
            os.path.basename(store.path) if os.path.dirname(store.path) == store.repository else ""
        )
        allowed = {os.path.basename(store.marker), inside, "lost+found", *models_there}
        found += [
            f"{entry} in the repository"
            for entry in sorted(os.listdir(store.repository))
            if entry not in allowed
        ]
        if not os.path.isdir(store.path):
            return found
        for folder in sorted(os.listdir(store.path)):
            entries = sorted(os.listdir(os.path.join(store.path, folder)))
            if folder == "records":
                entries = [
                    entry
                    for entry in entries
                    if entry not in {f"{name}.json" for name in models_there}
                ]
            elif folder == "retained":
                entries = [
                    problem
                    for entry in entries
                    for problem in self._retained_problems(entry, retained, models_there)
                ]
            elif folder not in ("journals", "locks", "staging"):
                entries = [""]
            found += [f"{folder}/{entry}" for entry in entries]
        return found

    def _retained_problems(
        self, name: str, wanted: int | None, models_there: tuple[str, ...]
    ) -> list[str]:
        if name not in models_there:
            return [name]
        copies = sorted(os.listdir(self.store.retained(name)))
        problems = (
            [f"{len(copies)} copies instead of {wanted}"]
            if wanted is not None and len(copies) != wanted
            else []
        )
        for copy in copies:
            inside = set(os.listdir(self.store.retained(name, copy)))
            if "record.json" not in inside or [
                entry
                for entry in inside - {"record.json", "model", "config.pbtxt"}
                if not entry.isdigit()
            ]:
                problems.append(f"{name}/{copy}: {sorted(inside)}")
        return problems

    def check_agreement(
        self, identity: int | None, *, retained: int | None = None, name: str = NAME
    ) -> None:
        """Disk, record and server say the same; nothing else is there."""
        record, folder = self.record(name), self.repository / name
        if identity is None:
            assert record is None
            assert not folder.exists()
            assert not any(
                row.get("state") == "READY" for row in self.triton.index() if row["name"] == name
            )
            assert self.left_behind(models_there=()) == []
            return
        self.check_agreement_of(name, identity)
        assert self.left_behind(retained) == []

    def check_agreement_of(self, name: str, identity: int) -> None:
        """As above, of one of several models."""
        record, folder = self.record(name), self.repository / name
        assert self.identity(name) == identity
        assert record is not None
        served = self.served_config(name)["parameters"][config_pbtxt.DEPLOY_ID_KEY]["string_value"]
        assert (
            served
            == record.deploy_id
            == config_pbtxt.deploy_id_of((folder / "config.pbtxt").read_bytes())
        )
        assert Manifest.from_dict(record.manifest) == manifest_of_folder(
            str(folder), ignore=OWN_FILES
        )
        assert (
            f"IDENTITY = {identity}\n"
            in (folder / str(max(record.triton_versions)) / "model.py").read_text()
        )
        assert self.drift(name) == []

    # -- the server --------------------------------------------------------------------------------

    def crash(self) -> None:
        """The server ends as in a power cut, and comes up as the role starts it."""
        self.triton.kill()
        self.triton.start()

    def wipe(self) -> None:
        """An empty repository and a fresh server."""
        self.triton.kill()
        for target in (self.repository, Path(f"{self.repository}.mlops-triton")):
            for entry in target.iterdir() if target.is_dir() else ():
                (
                    shutil.rmtree(entry)
                    if entry.is_dir() and not entry.is_symlink()
                    else entry.unlink()
                )
        if Path(f"{self.repository}.mlops-triton").is_dir():
            Path(f"{self.repository}.mlops-triton").rmdir()
        self.triton.start()

    # -- models ------------------------------------------------------------------------------------

    def sample(self, identity: int, name: str = NAME, **options: Any) -> models.Sample:
        """A model folder under ``sources``; made once for each identity."""
        target = self.folder / "sources" / f"{name}-{identity}"
        if target.exists():
            shutil.rmtree(target)
        return models.make_python(target, name, identity=identity, **options)

    def source(self, identity: int, name: str = NAME, **options: Any) -> str:
        return str(self.sample(identity, name, **options).folder)


@contextlib.contextmanager
def new_bench(
    folder: Path,
    *,
    extra_args: tuple[str, ...] = FAST,
    repository: Path | None = None,
    target: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Bench]:
    folder.mkdir(parents=True, exist_ok=True)
    with triton_server(
        folder / "triton",
        repository=repository or folder / "models",
        extra_args=extra_args,
        backend_directory=folder.parent / "backends",
        metrics_port=0,
        **settings,
    ) as triton:
        bench = Bench(folder, triton, **(target or {}))
        try:
            yield bench
        finally:
            bench.close()


class Supervisor:
    """Starts the server again when it ends.

    Args:
        spares: what the server had started lives on, as under supervisord; systemd ends it too.
        start: how it is started; as the role does where this is None.
    """

    def __init__(
        self, triton: Triton, *, spares: bool = False, start: Callable[[], Triton] | None = None
    ) -> None:
        self.triton = triton
        self._end = triton.desert if spares else triton.kill
        self._start = start or triton.start
        self.restarts = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            if not self.triton.running:
                self._end()
                with contextlib.suppress(ServerError):
                    self._start()
                    self.restarts += 1
