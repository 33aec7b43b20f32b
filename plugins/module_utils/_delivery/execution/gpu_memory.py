# SPDX-License-Identifier: Apache-2.0
"""Memory of GPUs while models are loaded: who may load at the same time, when an old copy is gone,
and what a deployment took.

Metrics are advice: where they cannot be read, nothing is waited for and nothing is measured.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..deadline import Deadline
from ..errors import NotFound, ServerError
from ..planning.gpu_need import Free, Memory
from ..progress import step
from ..triton.metrics import GpuMemory
from ..triton.server import TritonServer

LONGEST = 10.0
"""Seconds to wait for memory that does not come back."""
RELEASED = 4.0
"""Seconds after which what was unloaded has given its memory back, where nobody knows how much."""
FRESH = 2.5
"""Seconds after which metrics say what was so before, where they do not tell: Triton reads them
from the GPUs every two.
"""
_READINGS = 2
"""Readings of a GPU after which the metrics say what was so before. One may have begun before."""
_LONGEST_READINGS = 8.0
"""Seconds for two readings. A server may have a longer interval, and then nothing is known."""
_POLL = 0.1
_NOISE = 16 << 20
"""Bytes that other users of a GPU take and give back all the time."""
_KEPT = 512 << 20
"""Bytes that a server may keep of what it took for its first model on a GPU."""
_LOOK_AGAIN = 1.0


def read_gpus(server: TritonServer) -> dict[str, GpuMemory]:
    """The GPUs of a server, by UUID; none where its metrics cannot be read."""
    if server.metrics is None:
        return {}
    with contextlib.suppress(ServerError):
        return server.metrics.gpus()
    return {}


def wait_for_release(
    server: TritonServer, enough: Memory | None = None, old: Memory | None = None
) -> None:
    """Return when the memory of what was unloaded is free. A server answers before that: of the
    Python backend, a process has to end first. It is not waited for where there is no GPU.

    Args:
        enough: what is free of each GPU when it is, where that is known.
        old: what comes back of each GPU, where that is known. Where neither is, the memory is free
            when what is used has stood still for long enough.
    """
    if old is not None and max(old.values(), default=0) <= _NOISE:
        return
    deadline, ended, steady = Deadline(LONGEST), Deadline(RELEASED), Readings()
    level: int | None = None
    most: dict[str, int] = {}
    with step(f"wait for memory of the GPUs of {server.url}"):
        while gpus := read_gpus(server):
            most = {uuid: max(gpu.used, most.get(uuid, 0)) for uuid, gpu in gpus.items()}
            used = sum(gpu.used for gpu in gpus.values())
            if level is None or abs(used - level) > _NOISE:
                level, steady = used, Readings()
            back = {uuid: most[uuid] - gpu.used for uuid, gpu in gpus.items()}
            free = {uuid: gpu.free for uuid, gpu in gpus.items()}
            if _has(free, enough) or _has(back, old and _mostly(old)) or deadline.passed:
                return
            if (steady.are_enough(gpus) or steady.are_late) and ended.passed:
                return
            time.sleep(_POLL)


def _has(memory: Memory, wanted: Memory | None) -> bool:
    return wanted is not None and all(memory.get(gpu, -1) >= size for gpu, size in wanted.items())


def _mostly(memory: Memory) -> dict[str, int]:
    """But for what Triton and libraries keep of it."""
    return {uuid: size * 9 // 10 for uuid, size in memory.items()}


def free_without(server: TritonServer, old: Memory | None) -> Memory | None:
    """What will be free when a deployment is gone that has so much; None where that is not
    known.
    """
    gpus = read_gpus(server)
    if old is None or not old.keys() <= gpus.keys():
        return None
    return {uuid: gpus[uuid].free + size for uuid, size in _mostly(old).items()}


class Readings:
    """How often a server has read its GPUs since this was made, by what its metrics say: when they
    are enough, the metrics have seen what was so then.
    """

    def __init__(self) -> None:
        self._unknown, self._longest = Deadline(FRESH), Deadline(_LONGEST_READINGS)
        self._seen: dict[str, list[float | None]] = {}

    def are_enough(self, gpus: Mapping[str, GpuMemory]) -> bool:
        """``gpus``: what the metrics say now."""
        for uuid, gpu in gpus.items():
            seen = self._seen.setdefault(uuid, [])
            if not seen or seen[-1] != gpu.energy:
                seen.append(gpu.energy)
        if any(gpu.energy is None for gpu in gpus.values()):
            return self._unknown.passed
        return min((len(self._seen[uuid]) - 1 for uuid in gpus), default=0) >= _READINGS

    @property
    def are_late(self) -> bool:
        return self._longest.passed


def is_on_gpu(server: TritonServer, name: str) -> bool:
    """Whether what a server serves may have memory of a GPU; False where that is not known."""
    with contextlib.suppress(ServerError, NotFound):
        groups = server.config(name).get("instance_group") or ()
        return any(group.get("kind") in ("KIND_GPU", "KIND_MODEL") for group in groups)
    return False


@dataclass
class Share:
    """Room that a transaction has been promised.

    Attributes:
        alone: nothing else of this run was loaded on these GPUs since it began.
        is_settled: when it ends, the metrics say what it took.
    """

    needs: Free
    alone: bool = True
    is_settled: bool = False


class GpuRoom:
    """The room on GPUs, shared by what a run loads at the same time.

    What does not fit beside the others waits for them. What does not fit alone is tried, as needs
    are estimates.
    """

    def __init__(self, servers: Sequence[TritonServer] = ()) -> None:
        self._servers = {server.url: server for server in servers}
        self._changed = threading.Condition()
        self._shares: list[Share] = []
        self._unsettled = Deadline(0)

    @contextlib.contextmanager
    def reserve(self, needs: Free) -> Iterator[Share]:
        share = Share(needs)
        if not needs:
            share.alone = False
            yield share
            return
        with self._changed:
            while self._shares and not self._fits(needs):
                self._changed.wait(_LOOK_AGAIN)
            share.alone = not self._shares and self._unsettled.passed
            for other in self._shares:
                other.alone = False
            self._shares.append(share)
        try:
            yield share
        finally:
            with self._changed:
                self._shares.remove(share)
                if not share.is_settled:
                    self._unsettled = Deadline(FRESH)
                self._changed.notify_all()

    def _fits(self, needs: Free) -> bool:
        """What the others have taken of their promises already is counted twice: nothing that
        waits loses more than time.
        """
        for url, need in needs.items():
            gpus = read_gpus(self._servers[url])
            for uuid in need.keys() & gpus.keys():
                promised = sum(one.needs.get(url, {}).get(uuid, 0) for one in self._shares)
                if need[uuid] + promised > gpus[uuid].free:
                    return False
        return True


@dataclass(frozen=True)
class Before:
    """The GPUs of a server before a load.

    Attributes:
        old: what the old copy has of them; None where that is not known.
    """

    gpus: Mapping[str, GpuMemory]
    old: Memory | None

    @property
    def free(self) -> Memory | None:
        """When what was loaded since is gone again; None where that is not known."""
        return {uuid: gpu.free - _KEPT for uuid, gpu in self.gpus.items()} or None


@dataclass(frozen=True)
class Loaded:
    """A load that was proven, and the readings of the GPUs since."""

    before: Before
    readings: Readings


def measure(server: TritonServer, loaded: Loaded) -> dict[str, int] | None:
    """What a deployment has of each GPU, the old copy being gone; None where it is not known."""
    if loaded.before.old is None or not loaded.before.gpus:
        return None
    while not loaded.readings.are_enough(now := read_gpus(server)):
        if loaded.readings.are_late or not now:
            return None
        time.sleep(_POLL)
    if now.keys() != loaded.before.gpus.keys():
        return None
    return {
        uuid: max(0, gpu.used - loaded.before.gpus[uuid].used + loaded.before.old.get(uuid, 0))
        for uuid, gpu in now.items()
    }
