# SPDX-License-Identifier: Apache-2.0
"""What a server's metrics say: the memory of its GPUs, and where requests were answered.

They are advice. Nobody's deployment depends on an address that does not answer.
"""

from __future__ import annotations

import http.client
import math
import re
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..deadline import call_within
from ..errors import DeadlineExceeded, InvalidOption, ServerError
from ..redact import mask

_LARGEST = 16 << 20
_LINE = re.compile(r'^([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="[^"\\]*",?)*)\})? (\S+)$')
_LABEL = re.compile(r'([a-z_]+)="([^"\\]*)"')
_STEP = "ask Triton for its metrics"


@dataclass(frozen=True)
class GpuMemory:
    """Of one GPU of a server, as NVML has it.

    Attributes:
        used: bytes, of all processes.
        total: bytes.
        energy: joules since the driver was loaded. It grows all the time, so that another one says
            that the GPU was asked again. None where a GPU does not tell.
    """

    uuid: str
    used: int
    total: int
    energy: float | None = None

    @property
    def free(self) -> int:
        return max(0, self.total - self.used)


@dataclass(frozen=True)
class Sample:
    """One line: ``name{labels} value``."""

    name: str
    labels: Mapping[str, str]
    value: float


class Metrics:
    """The metrics of one server, in Prometheus' text format.

    Args:
        url: ``http://host:port``, ``host:port``, with or without ``/metrics``.
        timeout: seconds for one question.

    Raises:
        InvalidOption: the address is none of HTTP.
    """

    def __init__(self, url: str, timeout: float) -> None:
        address = url if "://" in url else f"http://{url}"
        if not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", address):
            raise InvalidOption(
                f"metrics_url {mask(url)} is not the address of metrics, such as http://host:8002",
                step="read the options",
            )
        self.url = address if address.count("/") > 2 else f"{address}/metrics"
        self._timeout = timeout

    def samples(self) -> tuple[Sample, ...]:
        """Raises ServerError where there are none."""
        try:
            text = call_within(self._timeout, "the server", self._read)
        except (OSError, ValueError, http.client.HTTPException, DeadlineExceeded) as error:
            raise ServerError(
                f"the metrics at {self.url} cannot be read ({error})", step=_STEP
            ) from error
        return tuple(_parse(text))

    def _read(self) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url, timeout=self._timeout) as answer:
            return str(answer.read(_LARGEST).decode(errors="replace"))

    def gpus(self) -> dict[str, GpuMemory]:
        """The GPUs that the server sees, by UUID; empty where it has none."""
        used: dict[str, float] = {}
        total: dict[str, float] = {}
        energy: dict[str, float] = {}
        found = {
            "nv_gpu_memory_used_bytes": used,
            "nv_gpu_memory_total_bytes": total,
            "nv_energy_consumption": energy,
        }
        for one in self.samples():
            if one.name in found and one.value >= 0:
                found[one.name][one.labels.get("gpu_uuid", "")] = one.value
        return {
            uuid: GpuMemory(uuid, int(used[uuid]), int(total[uuid]), energy.get(uuid) or None)
            for uuid in used
            if uuid in total
        }

    def answered(self, name: str, version: int) -> dict[str, float]:
        """How many requests of a model each GPU has answered, by UUID; "" stands for the CPU."""
        return {
            one.labels.get("gpu_uuid", ""): one.value
            for one in self.samples()
            if one.name == "nv_inference_request_success"
            and (one.labels.get("model"), one.labels.get("version")) == (name, str(version))
        }


def _parse(text: str) -> Iterator[Sample]:
    for line in text.splitlines():
        found = _LINE.match(line)
        if found:
            name, labels, number = found.groups()
            try:
                value = float(number)
            except ValueError:
                continue
            if math.isfinite(value):
                yield Sample(name, dict(_LABEL.findall(labels or "")), value)
