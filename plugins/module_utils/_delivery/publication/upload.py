# SPDX-License-Identifier: Apache-2.0
"""Files of this host into an artifact location: streamed, hashed on the way, and listed
afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..artifacts.mlflow_proxy import ProxyStore
from ..artifacts.places import is_local
from ..artifacts.roots import Progress
from ..artifacts.transfer import Broken, Stream, pause, run_transfers
from ..disk import hash_stream
from ..effects import effect
from ..errors import ArtifactError
from ..no_follow import create_file, open_file
from ..outside import MlflowObject
from ..progress import step
from ..redact import mask, reason
from ..registry.connection import Connection, is_behind_server

_WORKERS = 4
_CHUNK = 1 << 20
_WAITS = (0.5, 2.0, 8.0)


@dataclass(frozen=True)
class UploadSource:
    """What one remote file is made of: a file of this host (with the sha256 that it should have) or
    bytes.
    """

    size: int
    file: str | None = None
    sha256: str | None = None
    data: bytes = b""

    @classmethod
    def of(cls, data: bytes) -> UploadSource:
        return cls(len(data), data=data)


Send = Callable[[str, UploadSource, Stream], None]


def upload(
    connection: Connection,
    root: str,
    pieces: Mapping[str, UploadSource],
    progress: Progress | None = None,
) -> None:
    """Bring files to an artifact location and see that it lists each of them with its size.

    Raises:
        ArtifactError: one for all files that failed; what was sent stays there, and nothing refers
            to it.
    """
    send = _sender(connection, root)

    def job(path: str, piece: UploadSource) -> Callable[[Stream], None]:
        def work(stream: Stream) -> None:
            with effect("upload", path):
                _send_with_retries(send, path, piece, stream)

        return work

    with step("upload", sum(piece.size for piece in pieces.values())) as going:
        run_transfers(
            {path: job(path, piece) for path, piece in pieces.items()},
            workers=_WORKERS,
            stall=connection.timeout,
            failed="could not be uploaded",
            progress=progress or going,
        )
    listed = {file.path: file.size for file in connection.files_at(root).list()}
    wrong = [
        f"{path} ({listed.get(path, 'missing')} instead of {piece.size} bytes)"
        for path, piece in sorted(pieces.items())
        if listed.get(path) != piece.size
    ]
    if wrong:
        raise ArtifactError(
            f"{mask(root)} lists other sizes than were sent: {', '.join(wrong[:5])}"
        )


def _send_with_retries(send: Send, path: str, piece: UploadSource, stream: Stream) -> None:
    """Send a file; from its beginning again where the connection breaks, because an MLflow server
    takes no other part of it.
    """
    for wait in _WAITS:
        try:
            return send(path, piece, stream)
        except Broken as error:
            pause(stream, wait, error)
            stream.again()
    return send(path, piece, stream)


def _sender(connection: Connection, root: str) -> Send:
    if is_local(root):
        return _Folder(connection.local_place(root)).send
    if is_behind_server(root):
        return _Proxy(connection.store(root)).send
    return _Uploader(connection.repository(root)).send


class _Body:
    """What ``requests`` reads an upload from: it sees a length and pieces, the stream sees them
    go.
    """

    def __init__(self, source: Any, piece: UploadSource, stream: Stream) -> None:
        self._source, self._piece, self._stream = source, piece, stream
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return self._piece.size

    def read(self, size: int = -1) -> bytes:
        # requests reads in small blocks; larger ones cost a fifth of the time.
        data: bytes = self._source.read(max(size, _CHUNK) if size >= 0 else -1)
        self._digest.update(data)
        self._stream.add(len(data))
        return data

    def check(self) -> None:
        moved, wanted = self._stream.moved, self._piece
        if moved != wanted.size or wanted.sha256 not in (None, self._digest.hexdigest()):
            raise ArtifactError("the file changed while it was being published")


class _Proxy:
    def __init__(self, store: ProxyStore) -> None:
        self._store = store

    def send(self, path: str, piece: UploadSource, stream: Stream) -> None:
        if piece.file is None or not piece.size:
            self._store.put(path, piece.data)
            return
        with open_file(piece.file) as source:
            body = _Body(source, piece, stream)
            self._store.put(path, body)
        body.check()


class _Folder:
    """A folder that this host shares with the registry; no link in it is followed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def send(self, path: str, piece: UploadSource, stream: Stream) -> None:
        with create_file(os.path.join(self._folder, path)) as file:
            if piece.file is None:
                file.write(piece.data)
            else:
                with open_file(piece.file) as source:
                    body = _Body(source, piece, stream)
                    shutil.copyfileobj(body, file, _CHUNK)
                body.check()
            file.flush()
            stream.received()
            os.fsync(file.fileno())


class _Uploader:
    """Any other place, through MLflow's own artifact repository and its credentials."""

    def __init__(self, repository: MlflowObject) -> None:
        self._repository = repository

    def send(self, path: str, piece: UploadSource, stream: Stream) -> None:
        # MLflow's uploader tells nothing while it works, and names the remote file as the local one
        # is named.
        stream.received()
        with contextlib.ExitStack() as opened:
            folder = opened.enter_context(tempfile.TemporaryDirectory())
            local = os.path.join(folder, posixpath.basename(path))
            if piece.file is None:
                with open(local, "wb") as file:
                    file.write(piece.data)
                source = None
            else:
                source = opened.enter_context(open_file(piece.file))
                os.symlink(_name_of_open(source, piece.file), local)
            try:
                self._repository.log_artifact(local, posixpath.dirname(path) or None)
            except Exception as error:  # every kind of store has errors of its own
                raise ArtifactError(f"the upload failed: {reason(error)}") from error
            if source and piece.sha256 not in (None, hash_stream(source)):
                raise ArtifactError("the file changed while it was being published")


def _name_of_open(file: BinaryIO, path: str) -> str:
    """A path of the very file that was opened, whatever is put into its place meanwhile."""
    name = f"/proc/{os.getpid()}/fd/{file.fileno()}"
    return name if os.path.exists(name) else path
