# SPDX-License-Identifier: Apache-2.0
"""Whether a server is strict about readiness: each load of a new name then makes it not ready, and
one that fails leaves it so until that same name has loaded well. Triton does not say it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Sequence

from ..errors import DeliveryError, InvalidOption
from ..loopback import is_loopback
from .address import Address
from .server import TritonServer
from .transport import Gone, Nonsense, Refused, Silent

_FLAG = "--strict-readiness"
_LISTENS = "0A"
_POLL = 0.2
_NO = ("false", "off", "no", "0")
_SECONDS = 2.0


class Readiness:
    """Of one server, while something is loaded there that it has not had before."""

    def __init__(self, server: TritonServer) -> None:
        self.server = server
        self._is_strict: bool | None = None
        self._was_ready = False

    def refuse_strict(self, name: str) -> None:
        """Raises InvalidOption where the server is known to be strict; one of which that is not
        known is watched.
        """
        self._is_strict = _said_by_process(self.server.address)
        if self._is_strict is None and self._ready() and self._has_failed_model():
            self._is_strict = False
        if self._is_strict:
            raise InvalidOption(
                f"verify_aside: true loads a name that Triton at {self.server.url} does not know,"
                f" which makes a server with {_FLAG}=true (Triton's default) not ready: start it"
                f" with {_FLAG}=false, or leave out verify_aside",
                model=name,
                step="try aside",
                server=self.server.url,
            )

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """See whether a load makes the server not ready."""
        self._was_ready = self._is_strict is None and bool(self._ready())
        if not self._was_ready:
            yield
            return
        over = threading.Event()

        def look() -> None:
            while not over.wait(_POLL):
                if self._ready() is False:
                    self._is_strict = True
            self.server.transport.close()

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            if self._ready() is False:
                self._is_strict = True
            over.set()
            watcher.join()

    def warnings(self) -> list[str]:
        if not (self._was_ready and self._is_strict):
            return []
        return [
            (
                f"Triton at {self.server.url} was not ready while the candidate was loaded, so"
                f" that it is one with {_FLAG}=true: start it with {_FLAG}=false, or leave out"
                " verify_aside"
            )
        ]

    def heal(self, model: str, candidate: str) -> list[str]:
        """Make the server ready again after a load that failed: an ensemble over the model that
        serves is loaded under the same name, from memory. Sentences on what could not be done.
        """
        if not (self._was_ready and self._is_strict):
            return []
        try:
            config = self.server.config(model)
            self.server.ask(
                "make the server ready again",
                self.server.transport.call,
                "load_model",
                candidate,
                config=json.dumps(_ensemble_over(model, candidate, config)),
                files={"file:1/empty": b""},
            )
        except DeliveryError as error:
            return [
                (
                    f"Triton at {self.server.url} stays not ready (/v2/health/ready answers 400)"
                    f" until it is started anew, or a model {candidate} loads well"
                    f" ({error.message})"
                )
            ]
        return []

    def _ready(self) -> bool | None:
        """None where it does not say."""
        try:
            return bool(
                self.server.transport.call(min(_SECONDS, self.server.timeout), "is_server_ready")
            )
        except (Silent, Gone, Refused, Nonsense):
            return None

    def _has_failed_model(self) -> bool:
        return any(
            row.state == "UNAVAILABLE" and row.version is not None and row.reason != "unloaded"
            for rows in self.server.index().values()
            for row in rows
        )


def _ensemble_over(model: str, candidate: str, config: object) -> dict[str, object]:
    of_model = config if isinstance(config, dict) else {}
    tensors = {
        side: [
            {key: tensor[key] for key in ("name", "data_type", "dims")}
            for tensor in of_model.get(side) or ()
        ]
        for side in ("input", "output")
    }
    maps = {side: {one["name"]: one["name"] for one in tensors[side]} for side in tensors}
    step = {
        "model_name": model,
        "model_version": -1,
        "input_map": maps["input"],
        "output_map": maps["output"],
    }
    return {
        "name": candidate,
        "platform": "ensemble",
        "max_batch_size": int(of_model.get("max_batch_size") or 0),
        **tensors,
        "ensemble_scheduling": {"step": [step]},
    }


def _said_by_process(address: Address) -> bool | None:
    """By the command line of the process that listens there; None where that cannot be seen."""
    inodes = _listening_at(address)
    for pid in os.listdir("/proc") if inodes and os.path.isdir("/proc") else ():
        if not pid.isdigit():
            continue
        with contextlib.suppress(OSError):
            if not inodes & {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}:
                continue
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                words = stream.read().decode(errors="replace").split("\0")
            if any(os.path.basename(word) == "tritonserver" for word in words[:3]):
                return _strict(words)
    return None


def _strict(words: Sequence[str]) -> bool:
    """The last one counts; without the flag a server is strict."""
    said = "true"
    for word, following in zip(words, [*words[1:], ""]):
        if word == _FLAG:
            said = following
        elif word.startswith(f"{_FLAG}="):
            said = word.partition("=")[2]
    return said.lower() not in _NO


def _listening_at(address: Address) -> set[str]:
    """The sockets of this host that listen at a loopback address, as links of /proc name them."""
    found: set[str] = set()
    if not is_loopback(address.host):
        return found
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with (
            contextlib.suppress(OSError, ValueError, IndexError),
            open(table, encoding="ascii") as lines,
        ):
            for fields in map(str.split, list(lines)[1:]):
                port = int(fields[1].rpartition(":")[2], 16)
                if port == address.port and fields[3] == _LISTENS:
                    found.add(f"socket:[{fields[9]}]")
    return found
