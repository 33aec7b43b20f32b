# SPDX-License-Identifier: Apache-2.0
"""What is read of a server's metrics."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    ServerError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.metrics import (
    GpuMemory,
    Metrics,
)

TEXT = """\
# HELP nv_gpu_memory_total_bytes GPU total memory, in bytes
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 150000000000.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 2.5e9
nv_gpu_memory_used_bytes{gpu_uuid="GPU-without-total"} 1
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} NaN
nv_energy_consumption{gpu_uuid="GPU-1"} 123456.75
nv_gpu_memory_total_bytes{gpu_uuid="GPU-that-tells-no-energy"} 9
nv_gpu_memory_used_bytes{gpu_uuid="GPU-that-tells-no-energy"} 1
nv_energy_consumption{gpu_uuid="GPU-that-tells-no-energy"} 0.000000
nv_inference_request_success{gpu_uuid="GPU-1",model="m",version="1"} 7.000000
nv_inference_request_success{model="m",version="2"} 3
nv_inference_request_success{model="other",version="1"} 9
nv_broken{model="m
"""


@pytest.fixture
def url() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, *_words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_memory_of_gpus_and_who_answered_are_read(url: str) -> None:
    for spelled in (url, f"http://{url}", f"http://{url}/metrics"):
        metrics = Metrics(spelled, 5)
        assert metrics.gpus() == {
            "GPU-1": GpuMemory("GPU-1", 2_500_000_000, 150_000_000_000, 123456.75),
            "GPU-that-tells-no-energy": GpuMemory("GPU-that-tells-no-energy", 1, 9),
        }
        assert metrics.gpus()["GPU-1"].free == 147_500_000_000
        assert metrics.answered("m", 1) == {"GPU-1": 7.0}
        assert metrics.answered("m", 2) == {"": 3.0}
        assert metrics.answered("none", 1) == {}


def test_metrics_that_are_not_there_are_an_error_of_one_sentence(url: str) -> None:
    for wrong in ("127.0.0.1:1", f"http://{url}/elsewhere"):
        with pytest.raises(ServerError, match="cannot be read"):
            Metrics(wrong, 2).gpus()
    for wrong in ("grpc://host:8002", "http://", "ftp://h/metrics", "http://me:hush@h:1"):
        with pytest.raises(InvalidOption, match="metrics_url") as refused:
            Metrics(wrong, 2)
        assert "hush" not in str(refused.value)


def test_metrics_that_come_without_end_are_waited_for_as_long_as_others() -> None:
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not over.wait(0.1):
                self.wfile.write(b"#")

        def log_message(self, *_words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    began = time.monotonic()
    try:
        with pytest.raises(ServerError, match=r"cannot be read .*within 0\.5 s"):
            Metrics(f"127.0.0.1:{server.server_address[1]}", 0.5).gpus()
        assert time.monotonic() - began < 5
    finally:
        over.set()
        server.shutdown()
        server.server_close()
