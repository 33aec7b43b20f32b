# SPDX-License-Identifier: Apache-2.0
"""A repository in S3: where its state is, what its records want, what killed runs left."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple

from _delivery.errors import DeliveryError, InvalidOption
from _delivery.repository.s3 import changes
from _delivery.repository.s3.bucket import Bucket
from _delivery.repository.s3.location import S3Location, parse_s3
from _delivery.repository.s3.signed_bucket import find_credentials, open_signed_bucket
from _delivery.repository.s3.state_store import S3Store
from _delivery.repository.scratch import Scratch
from _delivery.repository.state_store import MARKER

from .failures import LaterError, StartError
from .settings import Settings, environment_of
from .wanted import ModelFolder, Wanted, not_recovered, read_records, recovered

STORE_SECONDS = 30.0


class Found(NamedTuple):
    """A repository in S3; ``store`` is None, and ``warnings`` say why, where its marker cannot be
    used.
    """

    bucket: Bucket
    state: S3Location
    store: S3Store | None
    warnings: list[str]


def open_store(settings: Settings) -> Found:
    """Raises StartError for what cannot be, LaterError for what may be another time."""
    environment = environment_of(settings)
    with _needed("The model repository cannot be read"):
        try:
            place = parse_s3(settings.model_repository)
            bucket = open_signed_bucket(
                place,
                find_credentials(place, environment),
                STORE_SECONDS,
                environment.get("AWS_CA_BUNDLE"),
            )
            return _find_state(settings, bucket)
        except InvalidOption as err:
            raise StartError(str(err)) from None


def _find_state(settings: Settings, bucket: Bucket) -> Found:
    """Records are only read here, so that a server starts with what is there even where the marker
    is damaged, or that of a newer version. Raises DeliveryError where the store does not answer.
    """
    location = bucket.location
    try:
        store = S3Store(bucket, settings.state_dir, Scratch(location.url))
        return Found(bucket, store.state_location, store, [])
    except InvalidOption:
        raise
    except DeliveryError as err:
        bucket.get(location.key(MARKER))  # raises again where it is not the marker's fault
        state = parse_s3(settings.state_dir) if settings.state_dir else location.state()
        said = f"{err} For this start, the records in {state.url} are used."
        return Found(bucket, state, None, [said])


def wanted_models(settings: Settings) -> Wanted:
    """Raises StartError or LaterError."""
    found = open_store(settings)

    def read(key: str) -> bytes:
        with _needed("The records of the models cannot be read"):
            return found.bucket.get(key) or b""

    with _needed("The records of the models cannot be read"):
        there = found.bucket.folders(found.bucket.location.key())
        keys = sorted(found.bucket.objects(found.state.key("records", "")))

    def model_folder(name: str) -> ModelFolder:
        head = found.bucket.location.key(name, "")

        @functools.cache
        def paths() -> frozenset[str]:
            with _needed("The models cannot be listed"):
                return frozenset(key[len(head) :] for key in found.bucket.objects(head))

        return ModelFolder(
            lambda: read(f"{head}config.pbtxt"),
            lambda: {path.partition("/")[0] for path in paths() if "/" in path},
            lambda path: path in paths(),
        )

    wanted = read_records(keys, read, lambda name: name in there, model_folder)
    return Wanted(wanted.names, found.warnings + wanted.warnings)


@contextlib.contextmanager
def _needed(failure: str) -> Iterator[None]:
    """What the store does not answer now it may answer later."""
    try:
        yield
    except DeliveryError as err:
        raise LaterError(f"{failure}: {err}") from None


def recover(settings: Settings) -> list[str]:
    """Finish or undo what killed deployments left, and make an empty prefix a folder; returns one
    sentence per journal. Raises StartError or LaterError.
    """
    found = open_store(settings)
    with _needed("The model repository cannot be made ready"):
        head = found.state.key("journals", "")
        names = [
            key[len(head) : -len(".json")]
            for key in found.bucket.objects(head)
            if key.endswith(".json")
        ]
        _make_folder(found.bucket)
    return [_recover_model(found, name) for name in sorted(names)]


def _make_folder(bucket: Bucket) -> None:
    """Triton takes a prefix without any key for no folder, and would start without being alive."""
    location = bucket.location
    marker = location.key(MARKER)
    empty = bucket.get(marker) is None and not bucket.folders(location.key())
    if location.prefix and empty and not bucket.objects(location.key()):
        bucket.put(location.key(), b"")


def _recover_model(found: Found, name: str) -> str:
    if found.store is None:
        return not_recovered(name, found.warnings[0])
    try:
        with found.store.lock(name, 0):
            return recovered(name, changes.recover(found.store, name, server_starts=True))
    except (DeliveryError, OSError) as err:
        return not_recovered(name, err)
