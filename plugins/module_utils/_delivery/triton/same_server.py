# SPDX-License-Identifier: Apache-2.0
"""Whether two addresses are one server, as far as what both say can show it.

A server has no identity of its own that it would tell. What it calls itself, what it serves and how
much of that it has answered tells two servers apart, unless both are empty, or alike and idle.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..domain.served import ServedModel, VersionRow
from ..errors import ServerError, ServerRefused, ServerUnreachable
from .answers import (
    deploy_id_of_answer,
    read_config,
    read_identity,
    read_index,
    read_statistics,
)
from .transport import Transport

T = TypeVar("T")
Index = Mapping[str, tuple[VersionRow, ...]]
_STEP = "compare load_url with triton_url"
_REMEDY = "give load_url the gRPC address of the same server, or leave it out"
_GLIMPSES = 4
_BETWEEN = 0.25
"""Seconds between comparisons: what is loaded meanwhile makes one server look like two."""


@dataclass(frozen=True)
class Glimpse:
    """What a server said at one moment; None for what it does not tell.

    Attributes:
        identity: its name and version, and its extensions.
        index: rows of the repository index by model.
        counts: numbers that only grow while a version is loaded, by model and version.
    """

    identity: tuple[str, tuple[str, ...]] | None
    index: Index
    counts: Mapping[tuple[str, str], tuple[int, int, int]] | None


def tell_apart(before: Glimpse, there: Glimpse, after: Glimpse) -> str | None:
    """What shows that ``there`` is another server than the one that was seen before and after it,
    for the end of a sentence; None where nothing does.
    """
    if before.identity and there.identity and before.identity != there.identity:
        return f"{there.identity[0].strip()} instead of {before.identity[0].strip()}"
    ready = [_ready(one.index) for one in (before, there, after)]
    if ready[1] not in (ready[0], ready[2]):
        differing = sorted((ready[1] ^ ready[0]) or (ready[1] ^ ready[2]))
        model, number = differing[0]
        doing = "serves" if differing[0] in ready[1] else "does not serve"
        return f"it {doing} version {number} of '{model}'"
    names = [frozenset(one.index) for one in (before, there, after)]
    if names[1] not in (names[0], names[2]):
        name = sorted((names[1] ^ names[0]) or (names[1] ^ names[2]))[0]
        return f"it {'has' if name in names[1] else 'does not have'} '{name}' in its repository"
    for (name, version), count in (there.counts or {}).items():
        low = (before.counts or {}).get((name, version))
        high = (after.counts or {}).get((name, version))
        if low and high and not all(a <= b <= c for a, b, c in zip(low, count, high)):
            return f"it has answered other requests of '{name}', version {version}"
    return None


class Server(Protocol):
    """What is needed of a ``TritonServer``."""

    url: str
    load_url: str
    transport: Transport

    def ask_at(self, url: str, step: str, function: Callable[[float], T]) -> T: ...
    def states(self, name: str) -> list[str]: ...


class SameServer:
    """Proves that loads go to the server which is asked for what it serves.

    Args:
        beside: the way to ``load_url``.
    """

    def __init__(self, server: Server, beside: Transport) -> None:
        self._server = server
        self._beside = beside
        self._lock = threading.Lock()
        self._compared = False
        self._other: str | None = None
        self._served_there: dict[str, bool] = {}
        self._went_there: set[str] = set()

    @property
    def is_other(self) -> bool:
        """They are known to be two."""
        return self._other is not None

    def require(self, loading: str | None = None) -> None:
        """Compare them once.

        Args:
            loading: a model that is loaded next, of which is noted whether it is there.

        Raises:
            ServerError: they are two, or one of them does not answer.
        """
        with self._lock:
            if self._other:
                raise self._error(self._other)
            if not self._compared:
                self._compare()
                self._compared = True
        if loading:
            rows = self._index(self._beside).get(loading, ())
            self._served_there[loading] = any(row.state == "READY" for row in rows)

    def _compare(self) -> None:
        found = None
        for attempt in range(_GLIMPSES):
            time.sleep(_BETWEEN if attempt else 0.0)
            here = self._server.transport
            ways = (here, self._beside, here)
            found = tell_apart(*(self._glimpse(transport) for transport in ways))
            if found is None:
                return
        raise self._refuse(f"{found}. Nothing was loaded there")

    def _refuse(self, why: str) -> ServerError:
        self._other = why
        return self._error(why)

    def _error(self, why: str) -> ServerError:
        return ServerError(
            f"load_url {self._server.load_url} is another server than triton_url"
            f" {self._server.url}: {why}. {_REMEDY[0].upper()}{_REMEDY[1:]}",
            step=_STEP,
            server=self._server.url,
        )

    def _ask(self, transport: Transport, function: Callable[[float], T]) -> T:
        is_beside = transport is self._beside
        if not is_beside:
            return self._server.ask_at(self._server.url, _STEP, function)
        try:
            return self._server.ask_at(self._server.load_url, _STEP, function)
        except ServerUnreachable as error:
            error.message += f". It is load_url; {_REMEDY}"
            raise

    def _index(self, transport: Transport) -> Index:
        return self._ask(transport, lambda seconds: read_index(transport.index(seconds)))

    def _glimpse(self, transport: Transport) -> Glimpse:
        identity, counts = None, None
        # A server may keep these two to those who know another key.
        with contextlib.suppress(ServerRefused):
            identity = self._ask(
                transport, lambda seconds: read_identity(transport.release(seconds))
            )
        index = self._index(transport)
        with contextlib.suppress(ServerRefused):
            counts = self._ask(
                transport, lambda seconds: read_statistics(transport.statistics(seconds))
            )
        return Glimpse(identity, index, counts)

    def prove_load(self, name: str, served: ServedModel) -> None:
        """See ``TritonServer.prove_load``: what looked alike is told apart by what it serves
        now.
        """
        try:
            config = self._ask(
                self._beside, lambda seconds: read_config(self._beside.config(seconds, name))
            )
        except ServerRefused:
            return
        if served.ready and deploy_id_of_answer(config) == served.deploy_id:
            return
        if self._served_there.get(name):
            # With files that are still those of the new deployment: see ``load_again``.
            self._went_there.add(name)
            left = f"It served '{name}' before, and is asked to load that again"
        else:
            left = f"'{name}' was loaded there, and has been unloaded there again"
            if trouble := self._take_back("unload_model", name):
                left = f"'{name}' was loaded there, and stays there ({trouble})"
        raise self._refuse(f"it serves what was loaded, and {self._server.url} does not. {left}")

    def prove_repository(self, name: str) -> None:
        """To be called where a load failed because a model's folder cannot be used: an index lists
        each folder of a repository.

        Raises:
            ServerError: only ``triton_url`` has it; they are two.
        """
        here = self._index(self._server.transport)
        if name in here and name not in self._index(self._beside):
            raise self._refuse(f"it does not have '{name}' in its repository. Nothing was loaded")

    def load_again(self, name: str) -> str | None:
        """Load what lies in the repository where a load had gone to, though it was another server.

        Returns:
            The deploy id that is served there then; None where no load went there.
        """
        if name not in self._went_there:
            return None
        if trouble := self._take_back("load_model", name):
            raise self._error(f"'{name}' could not be loaded there again ({trouble})")
        config = self._ask(
            self._beside, lambda seconds: read_config(self._beside.config(seconds, name))
        )
        return deploy_id_of_answer(config) or ""

    def prove_unload(self, name: str) -> None:
        """The same where an unload is not seen: the model is loaded there again.

        Raises:
            ServerError: they are two.
        """
        rows = self._index(self._beside).get(name, ())
        if any(row.state == "READY" for row in rows) or ("READY" not in self._server.states(name)):
            return
        left = f"'{name}' was unloaded there, and has been loaded there again"
        if trouble := self._take_back("load_model", name):
            left = f"'{name}' was unloaded there, and could not be loaded again ({trouble})"
        raise self._refuse(f"it has unloaded '{name}', and {self._server.url} serves it. {left}")

    def _take_back(self, method: str, name: str) -> str | None:
        """Why that is not possible."""
        try:
            self._ask(self._beside, lambda seconds: self._beside.call(seconds, method, name))
        except ServerError as error:
            return error.message
        return None


def _ready(index: Index) -> frozenset[tuple[str, int | None]]:
    return frozenset(
        (name, row.version) for name, rows in index.items() for row in rows if row.state == "READY"
    )
