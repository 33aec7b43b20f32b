# SPDX-License-Identifier: Apache-2.0
"""No proxy can reach this host's loopback, whatever the environment says."""

from __future__ import annotations

import ipaddress
import os

_NAMES = ("localhost", "127.0.0.0/8", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and for addresses such as ``127.0.0.1`` and ``::1``; no name is looked
    up.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def spare_loopback() -> None:
    """Make the HTTP libraries of this process pass the proxies of the environment by for loopback
    addresses.

    Their sessions are made deep inside MLflow, out of reach of an argument.
    """
    if not any(name.lower().endswith("_proxy") and value for name, value in os.environ.items()):
        return
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    there = [entry.strip() for entry in spared.split(",") if entry.strip()]
    if "*" not in there and not set(_NAMES) <= set(there):
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(
            [*there, *(name for name in _NAMES if name not in there)]
        )
