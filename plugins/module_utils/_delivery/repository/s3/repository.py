# SPDX-License-Identifier: Apache-2.0
"""A repository in S3: how a model's files are made here, uploaded, put in place, kept and taken
away there.

Places are s3:// URLs, or paths of this host for what is being made. What each method does is as for
``FolderRepository``.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...domain.config_pbtxt import CONFIG_NAME
from ...domain.desired import DesiredModel
from ...domain.journal import Move, S3Swap, Swap, Trial, deployed_by
from ...domain.layout import META_NAME, OWN_FILES
from ...domain.manifest import FileEntry, Manifest
from ...domain.record import Record
from ...domain.stored import Fingerprint, StoredModel
from ...errors import ArtifactError, InvalidOption
from ...names import is_candidate
from ..comparison import compare
from ..scratch import Scratch
from . import candidate, changes
from .boto3_bucket import open_bucket
from .bucket import Bucket, Objects
from .location import parse_s3
from .state_store import S3Store


class S3Repository:
    """The models below one prefix. Whoever changes one holds its lock.

    Args:
        options: how to reach the object store, as ``open_bucket`` has them.
        timeout: seconds for one call.
    """

    def __init__(
        self, url: str, state_dir: str | None, options: Mapping[str, Any] | None, timeout: float
    ) -> None:
        self.bucket = open_bucket(parse_s3(url), options, timeout)
        self.location = self.bucket.location
        self.path = self.location.url
        self.scratch = Scratch(self.path)
        self.store = S3Store(self.bucket, state_dir, self.scratch)
        self._configs: dict[str, bytes] | None = None

    def close(self) -> None:
        self.scratch.tidy()
        self.bucket.close()

    def check(self, desired: DesiredModel) -> None:
        """Raises InvalidOption for what an object store has not."""
        given = [
            option for option in ("owner", "group", "mode") if getattr(desired, option) is not None
        ]
        if given:
            raise InvalidOption(
                f"a repository in S3 has no {', '.join(given)}",
                model=desired.name,
                step="read the options",
                left="nothing was changed",
            )

    # -- reading -----------------------------------------------------------------------------------

    def read(self, name: str, hashes: bool = False) -> StoredModel:
        record, journal = self.store.record(name), self.store.journal(name)
        found = changes.visible(self._listing(self.live(name)))
        config = (
            self.bucket.get(self.location.key(name, CONFIG_NAME)) if CONFIG_NAME in found else None
        )
        stored = StoredModel(record, bool(found), journal, config=config)
        if record is None:
            half_made = changes.moved_in(self.store, name, journal)
            stored = dataclasses.replace(stored, half_made=half_made)
        there_by = deployed_by(record, journal)
        if there_by is None:
            return stored
        files = _Files(self.bucket, self.location.key(name), found)
        ours = {path: look for path, look in found.items() if path != META_NAME}
        compared = compare(there_by, files, config, ours, self.bucket.each, hashes=hashes)
        return dataclasses.replace(
            stored,
            changed_files=compared.changed,
            missing_files=compared.missing,
            touched_files=compared.touched,
            proven=compared.proven,
        )

    def config(self, name: str) -> bytes | None:
        return self.text(name, CONFIG_NAME)

    def text(self, name: str, path: str) -> bytes | None:
        """As for a folder: a small file of a model."""
        return self.bucket.get(self.location.key(name, path))

    def read_at(self, where: str) -> bytes | None:
        return self.bucket.get(self.location.key_of(where))

    def configs(self) -> Iterator[bytes]:
        if self._configs is None:
            names = self.names()
            texts = self.bucket.each(
                self.config,
                names,
            )
            self._configs = {name: text for name, text in zip(names, texts) if text}
        yield from list(self._configs.values())

    def names(self) -> list[str]:
        found = self.bucket.folders(self.location.key())
        return [name for name in found if not is_candidate(name)]

    def meta(self, name: str) -> bytes | None:
        return self.bucket.get(self.location.key(name, META_NAME))

    def live(self, name: str, *parts: str) -> str:
        return "/".join([self.path, name, *parts])

    def _listing(self, prefix: str) -> Objects:
        return changes.listing(self.bucket, self.location.key_of(prefix))

    def manifest(self, prefix: str, known: Sequence[Record] = ()) -> Manifest:
        found = changes.visible(self._listing(prefix))
        # In the state lies what we uploaded, checked by the server and with its digest; a live
        # model may be anybody's.
        ours = prefix.startswith(f"{self.store.path}/")
        raw, key = self._listing(prefix), self.location.key_of(prefix)
        folders = [rel for rel in found if f"/{rel}/" in raw and f"/{rel}" not in raw]
        files = [rel for rel in found if rel not in folders and rel not in OWN_FILES]
        sums = self.bucket.each(
            lambda rel: self.bucket.sha256(f"{key}/{rel}", trust_metadata=ours), files
        )
        return Manifest.of(
            (FileEntry(rel, found[rel][0], digest) for rel, digest in zip(files, sums)), folders
        )

    def fingerprint(self, name: str) -> Fingerprint:
        return changes.fingerprint(self.store, name)

    # -- a model being made ------------------------------------------------------------------------

    def workspace(self, name: str, transaction: str) -> str:
        self.scratch.ensure()
        return self.scratch.folder(name, transaction)

    def require_space(self, size: int) -> None:
        self.scratch.require_space(size)

    def set_permissions(self, desired: DesiredModel, path: str) -> None:
        """An object has none."""

    def flush(self, path: str) -> None:
        """What is made here is uploaded, and need not outlive a crash."""

    # -- changes -----------------------------------------------------------------------------------

    def begin(
        self, name: str, moves: Sequence[Move], transaction: str, old: Record | None, keep: int
    ) -> S3Swap:
        keys = [
            Move(self.location.key_of(live), self._staged_key(name, transaction, staged))
            for live, staged in moves
        ]
        self.store.check_lock(name)
        journal = changes.journal_of(self.store, name, keys, transaction, old, keep)
        self.store.write_journal(name, journal)
        return journal

    def _staged_key(self, name: str, transaction: str, staged: str) -> str:
        """The key of what is to come in; a path of this host is uploaded."""
        if not os.path.isabs(staged):
            return self.location.key_of(staged) if staged else ""
        target = self.store.key("staging", name, transaction, os.path.basename(staged))
        uploads = [(staged, target)] if os.path.isfile(staged) else []
        for current, names, files in os.walk(staged):
            base = target + current[len(staged) :]
            uploads += [(os.path.join(current, file), f"{base}/{file}") for file in files]
            if not names and not files and current != staged:
                self.bucket.put(f"{base}/", b"")

        def upload(one: tuple[str, str]) -> None:
            self.store.check_lock(name)
            self.bucket.upload(*one)

        self.bucket.each(upload, uploads)
        return target

    def put(self, name: str, journal: Swap) -> str | None:
        changes.wait_for_another_second(self.store, name)
        changes.make(self.store, name, _in_s3(journal))
        self._configs = None
        return self.store.warnings.pop() if self.store.warnings else None

    def moves_out(self, name: str, transaction: str, versions: Sequence[int]) -> list[Move]:
        return [Move(self.live(name, str(version)), "") for version in versions]

    def touch(self, name: str, ahead: float = 0) -> None:
        """Copy config.pbtxt and an object of each version onto themselves: new times are what makes
        Triton initialise a version again.

        The key of an empty folder, as ensembles have it, has no time for Triton.
        """
        time.sleep(changes.RESOLUTION)
        smallest: dict[str, tuple[int, str]] = {}
        found = self._listing(self.live(name))
        for rel, (size, *_more) in found.items():
            version = rel.split("/")[1]
            if version == CONFIG_NAME or (version.isdigit() and not rel.endswith("/")):
                smallest[version] = min(smallest.get(version, (size, rel)), (size, rel))
        for size, rel in smallest.values():
            self.store.check_lock(name)
            self.bucket.copy(self.location.key(name) + rel, self.location.key(name) + rel, size)
        touched = {rel: found[rel] for _size, rel in smallest.values()}
        changes.note_new_looks(self.store, name, touched)

    def remove(self, name: str, transaction: str) -> None:
        changes.remove(self.store, name)
        self._configs = None

    # -- retained copies ---------------------------------------------------------------------------

    def retained_model(self, name: str, key: str) -> str | None:
        prefix = f"{self.store.retained(name, key)}/model"
        return prefix if self._listing(prefix) else None

    def retained_versions(self, name: str, version: int) -> list[str]:
        prefixes = [
            f"{self.store.retained(name, record.key)}/{version}"
            for record in self.store.retained_records(name)
        ]
        return [prefix for prefix in prefixes if self._listing(prefix)]

    def holds(self, prefix: str, part: Manifest, known: Sequence[Record] = ()) -> bool:
        version = os.path.basename(prefix)
        try:
            found = self.manifest(prefix)
        except ArtifactError:
            return False
        entries = (
            FileEntry(f"{version}/{entry.path}", entry.size, entry.sha256) for entry in found.files
        )
        return Manifest.of(entries, (f"{version}/{folder}" for folder in found.folders)) == part

    def remove_strays(self, prefix: str, paths: Sequence[str]) -> None:
        for path in paths:
            key = self.location.key_of(f"{prefix}/{path}")
            self.bucket.delete([key])
            self.bucket.delete_below(f"{key}/")

    def replace_config(self, prefix: str, ready: str) -> None:
        self.bucket.upload(ready, f"{self.location.key_of(prefix)}/{CONFIG_NAME}")

    # -- trials ------------------------------------------------------------------------------------

    def begin_trial(
        self, desired: DesiredModel, transaction: str, source: str, config: bytes
    ) -> None:
        name = desired.name
        candidate.refuse_taken(self.store, name)
        self.store.check_lock(name)
        self.store.write_journal(name, Trial(transaction, ""))
        key = self._staged_key(name, transaction, source)
        candidate.put(self.store, name, key, changes.listing(self.bucket, key), config)

    def end_trial(self, name: str) -> None:
        journal = self.store.journal(name)
        if isinstance(journal, Trial):
            candidate.take_away(self.store, name, journal)
            self.store.remove_journal(name)

    # -- the end -----------------------------------------------------------------------------------

    def recover(self, name: str) -> str | None:
        self._configs = None
        return changes.recover(self.store, name)

    def retire(self, name: str, journal: Swap) -> None:
        changes.retire(self.store, name, _in_s3(journal))


def _in_s3(journal: Swap) -> S3Swap:
    if not isinstance(journal, S3Swap):
        raise TypeError("the journal is that of a change in a folder")
    return journal


class _Files:
    """The keys of one model, as ``compare`` asks for them; ``found`` is what lists them."""

    def __init__(self, bucket: Bucket, key: str, found: Mapping[str, Sequence[Any]]) -> None:
        self._bucket, self._key, self._found = bucket, key, found

    def has_folder(self, path: str) -> bool:
        return path in self._found

    def size(self, path: str) -> int | None:
        return int(self._found[path][0]) if path in self._found else None

    def sha256(self, path: str) -> str:
        return self._bucket.sha256(f"{self._key}/{path}")
