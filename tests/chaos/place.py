# SPDX-License-Identifier: Apache-2.0
"""Where a walk takes place: one repository, the servers that read it, and what can befall them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from chaos.expectation import (
    BATCH_BY_HAND,
    GOOD,
    LACKS,
    RAISES,
    SLOW,
    WRONG,
    Deployment,
    Request,
)
from chaos.shorten import Failure
from support.bench import FAST, QUESTION, VERIFY, Bench, new_bench
from support.s3_bench import STATE, S3Bench, s3_benches
from support.servers import Triton, triton_server

NAMES = ("m0", "m1")
TIMEOUT = 20
SLOW_SECONDS = 25
"""For which a load goes on whose server is killed meanwhile: longer than the time-out."""
# Kinds of place, and how many steps a second a walk makes there at least: a third of what it makes
# on two processors that others use too. Without them nothing has been shown.
PLACES = {"folder": 0.4, "two_servers": 0.3, "s3": 0.1}


def identity_of(name: str, version: int) -> int:
    """The number that a version of a model answers with."""
    return 10 * (NAMES.index(name) + 1) + version


class Served(NamedTuple):
    """What a server has READY of a model: Triton versions and the identities that answer there."""

    identities: dict[int, int | None]
    batch: int


@dataclass
class Watch:
    """What a client was answered while an operation ran; None stands for no answer."""

    answers: list[set[int | None]] = field(default_factory=list)
    disturbed: bool = False

    @property
    def identities(self) -> set[int]:
        return {one for heard in self.answers for one in heard if one is not None}

    @property
    def gap(self) -> bool:
        return any(None in heard for heard in self.answers)


class Place:
    """One repository with its servers. ``counts`` are the figures of the walks in it."""

    def __init__(self, bench: Bench, servers: list[Triton]) -> None:
        self.bench, self.servers = bench, servers
        self.in_s3 = isinstance(bench, S3Bench)
        self.counts: Counter[str] = Counter()
        self.failure: Failure | None = None
        self.until = math.inf
        self.sources = {
            (name, version): bench.source(
                identity_of(name, version),
                name,
                wrong=version == WRONG,
                fail="it was made to fail" if version == RAISES else None,
                # A process that holds Python's lock does not see that its server is gone.
                load_delay=SLOW_SECONDS if version == SLOW else 0,
                holds=version == SLOW,
            )
            for name in NAMES
            for version in (*GOOD, RAISES, WRONG, LACKS, SLOW)
        }
        for name in NAMES:
            Path(self.sources[name, LACKS], "1", "model.py").rename(
                Path(self.sources[name, LACKS], "1", "modell.py")
            )
        self._servers_lock = threading.Lock()

    def is_over(self) -> bool:
        """True where the time of the walks in it is up."""
        return time.monotonic() > self.until

    # -- operations ------------------------------------------------------------------------------

    def begin(self, number: int, name: str, request: Request, **how: Any) -> Any:
        """Start an operation in a process of its own; ``how`` are keys of a request to child.py."""
        given = {
            "state": request.state,
            "keep": request.keep,
            "serve_versions": request.serve,
            "check_files": request.check_files,
            "adopt": request.adopt,
            "model_uri": self._uri(name, request.version, request.registered),
            "config": {"max_batch_size": request.batch} if request.batch else None,
            "verify": VERIFY if request.verify else None,
            "mode": None if self.in_s3 else request.mode,
            "rollback_to": self._uri(name, request.to, request.registered),
        }
        options = {key: value for key, value in given.items() if value is not None}
        if request.registered and request.version:
            how["registry"] = {
                str(version): source for (of, version), source in self.sources.items() if of == name
            }
        self.counts["operations"] += 1
        return self.bench.begin(number, how, name=name, **options)

    def _uri(self, name: str, version: int | None, registered: bool) -> str | None:
        if version is None:
            return None
        return f"models:/{name}/{version}" if registered else self.sources[name, version]

    # -- what there is ---------------------------------------------------------------------------

    def deployment(self, name: str, record: Record | None = None) -> Deployment | None:
        """What a record says, in the words of the model of what should be."""
        record = record or self.bench.record(name)
        if record is None:
            return None
        folders = {source: version for (_of, version), source in self.sources.items()}
        return Deployment(
            version=record.registry_version or folders[record.pinned_uri],
            registered=record.registry_version is not None,
            folders=tuple(sorted(record.triton_versions)),
            serve=int(record.request.get("serve_versions") or 1),
            batch=(record.request.get("config") or {}).get("max_batch_size", 8),
        )

    def retained(self, name: str) -> tuple[Deployment, ...]:
        """What can be gone back to. The copy that a rollback has put in place does not count."""
        live = self.bench.record(name)
        return tuple(
            found
            for record in self.bench.store.retained_records(name)
            if live is None or record.key != live.went_back_to
            if (found := self.deployment(name, record))
        )

    def answer(self, server: Triton, name: str, version: int | None = None) -> int | None:
        """The identity of what answers; None where nothing does."""
        status, body = server.infer(name, QUESTION, version)
        if status != 200:
            return None
        return next(int(one["data"][0]) for one in body["outputs"] if one["name"] == "identity")

    def served(self, server: Triton, name: str) -> Served | None:
        # Not the index, which leaves out a model whose folder is gone though it answers.
        status, told = server.call(f"v2/models/{name}")
        ready = sorted(int(version) for version in told["versions"]) if status == 200 else []
        if not ready:
            return None
        batch = server.model_config(name)["max_batch_size"]
        return Served({number: self.answer(server, name, number) for number in ready}, batch)

    def wait_for_unloads(self, name: str, seconds: float = 5) -> None:
        """Triton answers an unload before the model's process has ended."""
        until = time.monotonic() + seconds
        for server in self.servers:
            while time.monotonic() < until and any(
                row["name"] == name and row.get("state") == "UNLOADING" for row in server.index()
            ):
                time.sleep(0.01)

    def drift(self) -> dict[str, list[str]]:
        with Delivery(Target.from_options(self.bench.target)) as delivery:
            return {entry["name"]: entry["drift"] for entry in delivery.status(NAMES)}

    def record_text(self, name: str) -> bytes:
        """The record as it is written."""
        if isinstance(self.bench, S3Bench):
            return self.bench.body(f"{STATE}records/{name}.json")
        return Path(self.bench.store.record_path(name)).read_bytes()

    def write_record(self, name: str, text: bytes) -> None:
        if isinstance(self.bench, S3Bench):
            key = f"{STATE}records/{name}.json"
            self.bench.s3.client.put_object(Bucket=self.bench.bucket, Key=key, Body=text)
        else:
            Path(self.bench.store.record_path(name)).write_bytes(text)

    # -- files -----------------------------------------------------------------------------------

    def files(self, name: str) -> dict[str, bytes]:
        """All files of a model's folder."""
        if isinstance(self.bench, S3Bench):
            prefix = f"prod/{name}/"
            keys = [key for key in self.bench.listed() if key.startswith(prefix)]
            return {key.removeprefix(prefix): self.bench.body(key) for key in keys}
        folder = self.bench.repository / name
        found = [
            path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    def write(self, name: str, path: str, data: bytes) -> None:
        if isinstance(self.bench, S3Bench):
            self.bench.s3.client.put_object(
                Bucket=self.bench.bucket, Key=f"prod/{name}/{path}", Body=data
            )
            return
        target = self.bench.repository / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def remove(self, name: str, path: str) -> None:
        """A file; folders that become empty go with it."""
        if isinstance(self.bench, S3Bench):
            self.bench.s3.client.delete_object(Bucket=self.bench.bucket, Key=f"prod/{name}/{path}")
            return
        target = self.bench.repository / name / path
        target.unlink()
        while target.parent != self.bench.repository:
            target = target.parent
            left = [one for one in target.iterdir() if one.name != "__pycache__"]
            if left:
                return
            for cache in target.iterdir():
                for one in cache.iterdir():
                    one.unlink()
                cache.rmdir()
            target.rmdir()

    def touch(self, name: str, days: int) -> None:
        folder = self.bench.repository / name
        then = time.time() + days * 86400
        for path in [folder, *folder.rglob("*")]:
            os.utime(path, (then, then))

    # -- servers ---------------------------------------------------------------------------------

    def restart(self, number: int, alone: bool = False) -> None:
        """A server is killed and started again as the role starts it.

        ``alone``: its backend's processes live on, as after a fault of the server itself.
        """
        server = self.servers[number]
        with self._servers_lock:
            self.counts["restarts"] += 1
            if alone:
                server.desert()
            else:
                server.kill()
            server.start(30)

    def revive(self) -> bool:
        """Start servers again that ended of their own accord; true where one had.

        Triton 2.51 crashes (signal 11) now and then where a name is loaded and unloaded in quick
        succession: a death of that kind disturbs a run, and is no fault of the engine.
        """
        with self._servers_lock:
            dead = [server for server in self.servers if not server.running]
            for server in dead:
                code = server.kill()
                self.counts["server deaths"] += 1
                self.counts[f"of them with code {code}"] += 1
                server.start(30)
        return bool(dead)

    @contextlib.contextmanager
    def watched(self, name: str) -> Iterator[Watch]:
        """A client asks every server all the time, and a supervisor starts servers that ended."""
        watch, over = Watch([set() for _server in self.servers]), threading.Event()

        def ask() -> None:
            while not over.wait(0.008):
                for heard, server in zip(watch.answers, self.servers):
                    try:
                        heard.add(self.answer(server, name))
                    except (OSError, ValueError):
                        heard.add(None)

        def supervise() -> None:
            while not over.wait(0.05):
                watch.disturbed |= self.revive()

        threads = [threading.Thread(target=work, daemon=True) for work in (ask, supervise)]
        for thread in threads:
            thread.start()
        try:
            yield watch
        finally:
            over.set()
            for thread in threads:
                thread.join()
            watch.disturbed |= self.revive()

    def wipe(self) -> None:
        """An empty repository and fresh servers."""
        for server in self.servers:
            server.kill()
        self.bench.wipe()  # starts the first
        for server in self.servers[1:]:
            server.start(30)


def edit_identity(source: bytes, identity: int) -> bytes:
    return re.sub(rb"IDENTITY = \d+", b"IDENTITY = %d" % identity, source)


def edit_batch(config: bytes) -> bytes:
    return re.sub(rb"max_batch_size: \d+", b"max_batch_size: %d" % BATCH_BY_HAND, config)


def overridden(config: dict[str, Any], batch: int) -> dict[str, Any]:
    """The body of a load that brings another configuration."""
    return {"parameters": {"config": json.dumps({**config, "max_batch_size": batch})}}


@contextlib.contextmanager
def open_place(kind: str, folder: Path) -> Iterator[Place]:
    """A place of this kind, with its servers up."""
    with contextlib.ExitStack() as stack:
        if kind == "s3":
            (bench,) = stack.enter_context(s3_benches(folder, "chaos"))
            place = Place(bench, [bench.triton])
        else:
            first = stack.enter_context(new_bench(folder / kind))
            servers = [first.triton]
            if kind == "two_servers":
                second = triton_server(
                    folder / "second",
                    repository=first.repository,
                    extra_args=FAST,
                    backend_directory=folder / "backends",
                    metrics_port=0,
                )
                servers.append(stack.enter_context(second))
                first.target["triton_url"] = [server.url for server in servers]
            place = Place(first, servers)
        place.bench.target.update(timeout=TIMEOUT, load_timeout=TIMEOUT, lock_timeout=TIMEOUT)
        yield place
