# SPDX-License-Identifier: Apache-2.0
"""A model's lock as a key of the object store: made by a conditional write, renewed while it is
held, taken over when it expired.

How old a lock is says the server's clock, so that those of the hosts do not matter. A holder that
died on this very host is seen at once. Where the server ignores conditions, the last writer wins a
moment later: two runs that begin at the same moment are then told apart only by reading back who it
was.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import DeliveryError, LockTimeout, RepositoryError
from ...process import has_ended, holder, identity
from .bucket import Bucket, Conflict, Unsupported

SECONDS = 30.0
"""After which a lock that is not renewed is free."""
_SETTLE = 1.0


class S3Lock:
    """One held lock. ``check`` before each change."""

    def __init__(self, bucket: Bucket, key: str, name: str) -> None:
        self.bucket, self.key, self.name = bucket, key, name
        self.identity = uuid.uuid4().hex
        self.conditional = True
        self._etag: str | None = None
        self._renewed = 0.0
        self._stop = threading.Event()
        self._lost = False

    def acquire(self, timeout: float) -> None:
        """Raises LockTimeout, naming the holder, where another run held it for ``timeout``
        seconds.
        """
        until = time.monotonic() + timeout
        while not self._try():
            if time.monotonic() >= until:
                other = self._holder() or "another run"
                raise LockTimeout(
                    f"{other} has been changing it for the {timeout:g} s that this run waited",
                    model=self.name,
                    step="lock",
                    left="nothing was changed",
                    holder=other,
                )
            time.sleep(min(0.2, max(0.0, until - time.monotonic())))
        threading.Thread(target=self._renew, daemon=True, name=f"lock: {self.key}").start()

    def check(self) -> None:
        """Raises RepositoryError where the lock was lost: another run may be changing the model."""
        if self._lost or time.monotonic() - self._renewed > SECONDS:
            raise RepositoryError(
                "its lock could not be renewed in time, so that another run may be changing it",
                model=self.name,
                step="lock",
            )

    def release(self) -> None:
        self._stop.set()
        if not self._lost and time.monotonic() - self._renewed < SECONDS:
            with contextlib.suppress(DeliveryError):
                self.bucket.delete([self.key])

    def _body(self) -> bytes:
        return json.dumps(
            {
                "schema": 1,
                "holder": holder(),
                "identity": self.identity,
                "seconds": SECONDS,
                "process": identity(),
                "renewal": uuid.uuid4().hex,
            }
        ).encode()

    def _try(self) -> bool:
        found = self.bucket.answer(self.key)
        if found is not None and self._is_mine(
            *found
        ):  # the answer to the write was lost, and it was made again
            return True
        if found is not None and not _is_free(*found):
            return False
        return self._write(only_if=str(found[1]["ETag"]) if found else None)

    def _is_mine(self, body: bytes, answer: Mapping[str, Any]) -> bool:
        if _read(body).get("identity") != self.identity:
            return False
        self._etag, self._renewed = str(answer["ETag"]), time.monotonic()
        return True

    def _write(self, only_if: str | None) -> bool:
        try:
            answer = self.bucket.put(
                self.key, self._body(), only_if=only_if, only_new=only_if is None
            )
        except Conflict:
            return False
        except Unsupported:
            self.conditional = False
            answer = self.bucket.put(self.key, self._body())
        self._etag, self._renewed = answer["ETag"], time.monotonic()
        self.conditional = self.conditional and self._conditions_hold()
        if self.conditional:
            return True
        time.sleep(_SETTLE)
        found = self.bucket.answer(self.key)
        self._renewed = time.monotonic()
        return found is not None and _read(found[0]).get("identity") == self.identity

    def _conditions_hold(self) -> bool:
        """A server that knows no conditions writes over what is there, which here are our own
        words.
        """
        if self.bucket.conditions_hold is None:
            try:
                self._etag = self.bucket.put_quietly(self.key, self._body(), only_new=True)["ETag"]
                self.bucket.conditions_hold = False
            except Conflict:
                self.bucket.conditions_hold = True
            except Unsupported:
                self.bucket.conditions_hold = False
        return self.bucket.conditions_hold

    def _renew(self) -> None:
        while not self._stop.wait(SECONDS / 3) and not self._lost:
            with contextlib.suppress(DeliveryError):  # check() gives up when the time is over
                self._renew_once()

    def _renew_once(self) -> None:
        if self.conditional:
            with contextlib.suppress(Conflict):
                self._etag = self.bucket.put_quietly(self.key, self._body(), only_if=self._etag)[
                    "ETag"
                ]
                self._renewed = time.monotonic()
                return
        found = self.bucket.answer(self.key)
        if found is None or not self._is_mine(*found):
            self._lost = not self._stop.is_set()
        elif not self.conditional:
            self.bucket.put_quietly(self.key, self._body())

    def _holder(self) -> str | None:
        found = self.bucket.answer(self.key)
        return str(_read(found[0]).get("holder")) if found else None


def _read(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_free(body: bytes, answer: Mapping[str, Any]) -> bool:
    said = _read(body)
    process = said.get("process")
    if isinstance(process, list) and has_ended(process):
        return True
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    now = email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
    return now - answer["LastModified"].timestamp() > float(said.get("seconds") or SECONDS)


@contextlib.contextmanager
def hold(bucket: Bucket, key: str, name: str, timeout: float) -> Iterator[S3Lock]:
    """Hold the lock in this block."""
    lock = S3Lock(bucket, key, name)
    lock.acquire(timeout)
    try:
        yield lock
    finally:
        lock.release()
