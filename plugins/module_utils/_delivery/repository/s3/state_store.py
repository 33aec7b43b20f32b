# SPDX-License-Identifier: Apache-2.0
"""The state of a repository in S3: the same records, journals, locks, staging and retained copies,
as keys.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ... import disk
from ...domain.journal import (
    Journal,
    JournalFile,
    PendingLoad,
    Removal,
    S3Swap,
    Trial,
    read_journal,
)
from ...domain.marker import MARKER, Marker, refused_marker
from ...domain.record import Record, read_record
from ...errors import InvalidOption, LockTimeout, RecordRefused, RepositoryError
from ..scratch import Scratch
from .bucket import Bucket, Conflict, Unsupported
from .location import S3Location, is_s3, parse_s3
from .lock import S3Lock, hold

_NOTHING = "nothing was changed"


class S3Store:
    """State of one repository in S3. What is asked of it, and what it raises, is as for
    ``StateStore``.

    Args:
        state_dir: an s3:// place of the same bucket; None: where the marker says, else the default.
    """

    def __init__(self, bucket: Bucket, state_dir: str | None, scratch: Scratch) -> None:
        self.bucket, self.scratch = bucket, scratch
        self.location = bucket.location
        self.repository = self.location.url
        self.marker = self.location.key(MARKER)
        self.warnings: list[str] = []
        self._locks: dict[str, S3Lock] = {}
        self._leftovers: frozenset[str] | None = None
        given = parse_s3(state_dir, "state_dir") if state_dir else None
        marked = self._marked()
        if marked and given and marked != given:
            raise InvalidOption(
                f"the repository {self.repository} keeps its state in {marked.url} and state_dir"
                f" says {given.url}",
                step="find the state folder",
                left=_NOTHING,
            )
        self.state_location: S3Location = marked or given or self.location.state()
        if self.state_location.base != self.location.base:
            raise InvalidOption(
                f"state_dir {self.state_location.url} is not in the bucket of the repository"
                f" {self.repository}",
                step="find the state folder",
                left=_NOTHING,
            )
        self.path = self.state_location.url
        self._has_marker = marked is not None

    def _marked(self) -> S3Location | None:
        body = self.bucket.get(self.marker)
        if body is None:
            return None
        path = f"{self.location.url}/{MARKER}"
        found = Marker.from_json(body, path).state_dir
        try:
            return parse_s3(found, "state_dir") if is_s3(found) else self.location.resolve(found)
        except InvalidOption as error:
            raise refused_marker(path, error.message) from error

    def ensure(self) -> None:
        """Write the marker. Keys need no folders."""
        if self._has_marker:
            return
        marker = Marker(self.location.relative(self.state_location))
        body = json.dumps(marker.to_dict(), indent=2).encode() + b"\n"
        try:
            self.bucket.put(self.marker, body, only_new=True)
        except Conflict:
            if self._marked() != self.state_location:
                raise RepositoryError(
                    f"another run has just put the state of {self.repository} elsewhere",
                    step="make the state folder",
                    left=_NOTHING,
                ) from None
        except Unsupported:
            self.bucket.put(self.marker, body)
        self._has_marker = True

    # -- records and journals ----------------------------------------------------------------------

    def key(self, folder: str, name: str, *parts: str) -> str:
        return self.state_location.key(folder, name, *parts)

    def record_path(self, name: str) -> str:
        return f"{self.path}/records/{name}.json"

    def record(self, name: str) -> Record | None:
        return self._read_record(self.key("records", f"{name}.json"), name)

    def recorded_names(self) -> list[str]:
        """As for a folder: the models that have a record."""
        head = self.state_location.key("records", "")
        keys = [key[len(head) :] for key in self.bucket.objects(head)]
        return sorted(key[: -len(".json")] for key in keys if key.endswith(".json"))

    def readable_records(self) -> dict[str, Record]:
        """As for a folder: the records that can be understood."""
        names = self.recorded_names()
        found = dict(zip(names, self.bucket.each(self._readable_record, names)))
        return {name: record for name, record in found.items() if record}

    def _readable_record(self, name: str) -> Record | None:
        with contextlib.suppress(RecordRefused):
            return self.record(name)
        return None

    def write_record(self, record: Record) -> None:
        self._write(self.key("records", f"{record.name}.json"), record.to_dict())

    def remove_record(self, name: str) -> None:
        self.bucket.delete([self.key("records", f"{name}.json")])

    def journal(self, name: str) -> S3Swap | Removal | PendingLoad | Trial | None:
        key = self.key("journals", f"{name}.json")
        body = self.bucket.get(key)
        if body is None:
            return None
        file = JournalFile(
            name,
            f"{self.location.base}/{key}",
            live=self.location.key(name),
            aside=(self.key("staging", name), self.key("retained", name)),
            copies=(self.staging(name), self.retained(name)),
        )
        return read_journal(body, file, S3Swap)

    def write_journal(self, name: str, journal: Journal) -> None:
        self._write(self.key("journals", f"{name}.json"), journal.to_dict())

    def remove_journal(self, name: str) -> None:
        self.bucket.delete([self.key("journals", f"{name}.json")])

    def write_json(self, key: str, data: Mapping[str, Any]) -> None:
        self._write(key, data)

    def _write(self, key: str, data: Mapping[str, Any]) -> None:
        self.bucket.put(key, json.dumps(data, indent=2, sort_keys=True).encode() + b"\n")

    def _read_record(self, key: str, name: str, copy: str | None = None) -> Record | None:
        body = self.bucket.get(key)
        if body is None:
            return None
        return read_record(body, name, f"{self.location.base}/{key}", copy)

    # -- what belongs to one model -----------------------------------------------------------------

    def staging(self, name: str, deploy_id: str | None = None) -> str:
        return "/".join([self.path, "staging", name, *([deploy_id] if deploy_id else [])])

    def retained(self, name: str, deploy_id: str | None = None) -> str:
        return "/".join([self.path, "retained", name, *([deploy_id] if deploy_id else [])])

    def retained_records(self, name: str) -> list[Record]:
        """Previous deployments, the newest first."""
        keys = [
            key
            for key in self.bucket.objects(self.key("retained", name, ""))
            if key.endswith("/record.json")
            and key.count("/") == (self.key("retained", name, "x", "record.json").count("/"))
        ]

        def read(key: str) -> Record | None:
            return self._read_record(key, name, self.retained(name, key.split("/")[-2]))

        found = [record for record in self.bucket.each(read, keys) if record]
        return sorted(found, key=lambda record: record.deployed_at, reverse=True)

    def retained_contents(self, name: str) -> dict[str, set[str]]:
        head = self.key("retained", name, "")
        found: dict[str, set[str]] = {}
        for key in self.bucket.objects(head):
            entry, _slash, rest = key[len(head) :].partition("/")
            found.setdefault(entry, set()).add(rest.partition("/")[0])
        return found

    def remove_retained(self, name: str, keys: Iterable[str]) -> None:
        for key in keys:
            self.bucket.delete_below(self.key("retained", name, key, ""))

    def clear_staging(self, name: str) -> None:
        """Remove what is made on the way of a deployment, here and there. The caller holds the
        lock.
        """
        disk.remove_tree(self.scratch.folder(name))
        self.bucket.delete_below(self.key("staging", name, ""))

    def has_leftovers(self, name: str) -> bool:
        """True where a run that was killed (or one that is at work) has something of its own; asked
        once for all models.
        """
        if self._leftovers is None:
            locks, staging = (
                self.state_location.key("locks", ""),
                self.state_location.key("staging", ""),
            )
            locked = (key[len(locks) : -len(".lock")] for key in self.bucket.objects(locks))
            self._leftovers = frozenset([*locked, *self.bucket.folders(staging)])
        return name in self._leftovers or self.scratch.has(name)

    # -- locks -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, name: str, timeout: float) -> Iterator[None]:
        """Hold the model's lock.

        Raises:
            LockTimeout: another run held it for ``timeout`` seconds; the message names the holder.
        """
        if name in self._locks:
            raise LockTimeout(
                "this run holds its lock already", model=name, step="lock", left=_NOTHING
            )
        with hold(self.bucket, self.key("locks", f"{name}.lock"), name, timeout) as lock:
            self._locks[name] = lock
            if not lock.conditional:
                self.warnings.append(
                    f"the object store of {self.repository} ignores the conditions of a write, so"
                    " that runs that begin at the same moment are kept apart less surely"
                )
            try:
                yield
            finally:
                del self._locks[name]

    def check_lock(self, name: str) -> None:
        """Raises RepositoryError where the lock was lost meanwhile."""
        if name in self._locks:
            self._locks[name].check()
