# SPDX-License-Identifier: Apache-2.0
"""Metrics of GPUs that are not there, as Triton writes them. Standard library only."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from typing import Any

GPU = "GPU-11111111-2222-3333-4444-555555555555"
TOTAL = 80 << 30


class FakeGpus:
    """A server of metrics. ``used`` says how much of its only GPU is used, whenever it is asked;
    ``energy`` what it has used up, where it tells.
    """

    def __init__(self, used: Callable[[], int], energy: Callable[[], float] | None = None) -> None:
        self.used = used
        self.asked = 0
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked += 1
                text = "".join(
                    f'nv_gpu_memory_{what}_bytes{{gpu_uuid="{GPU}"}} {value}\n'
                    for what, value in (("used", fake.used()), ("total", TOTAL))
                )
                if energy:
                    text += f'nv_energy_consumption{{gpu_uuid="{GPU}"}} {energy()}\n'
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeGpus:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def free(size: int) -> Callable[[], int]:
    """For ``FakeGpus``: so many bytes are free, always."""
    return lambda: TOTAL - size
