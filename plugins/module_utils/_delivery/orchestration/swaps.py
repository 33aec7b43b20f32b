# SPDX-License-Identifier: Apache-2.0
"""Which deployments of a list serve while they are replaced, by what the servers' metrics say."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..execution.gpu_memory import read_gpus
from ..planning.gpu_need import Free
from ..planning.outcome import Planned
from ..planning.plan import Load, Plan
from ..planning.swap import choose, grown
from ..triton.server import TritonServer


class Swaps:
    """Of one run. The metrics are read once, when a model is to be loaded.

    Args:
        drained: no client sends requests to the servers.
    """

    def __init__(self, servers: Sequence[TritonServer], drained: bool) -> None:
        self._servers = servers
        self._drained = drained
        self._lock = threading.Lock()
        self._free: Free | None = None
        self._taken: dict[str, Free] = {}

    def choose(self, plan: Plan) -> Plan:
        """The same plan, with the way for it. Asked again, it is what the list left room for."""
        taken = self._taken.get(plan.desired.name, {})
        return choose(plan, self._read(plan), self._drained, taken)

    def choose_all(self, planned: Mapping[str, Planned]) -> dict[str, Planned]:
        """The same plans. Each has the room that those before it leave, if all of them fit: what is
        loaded at the same time waits for room when it is carried out.
        """
        chosen = dict(planned)
        taken: Free = {}
        for name, one in planned.items():
            self._taken[name] = taken
            if one.todo:
                plan = self.choose(one.todo)
                chosen[name] = replace(one, plan=plan)
                taken = grown(plan, taken)
        return chosen

    def _read(self, plan: Plan) -> Free:
        """Advice: where it cannot be had, there is no estimate."""
        if not any(isinstance(step, Load) for step in plan.steps):
            return {}
        with self._lock:
            if self._free is None:
                found = {server.url: read_gpus(server) for server in self._servers}
                self._free = {
                    url: {uuid: gpu.free for uuid, gpu in gpus.items()}
                    for url, gpus in found.items()
                    if gpus
                }
            return self._free
