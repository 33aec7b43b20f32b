# SPDX-License-Identifier: GPL-3.0-or-later
"""Where role triton's users load, and read metrics: at their own server, and at no guessed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]
TLS = {"certificate": "/c.pem", "key": "/k.pem"}
CLIENT = {"triton_client_cert": "/cc.pem", "triton_client_key": "/ck.pem"}
GRPC, METRICS = "grpc://127.0.0.1:8001", "http://127.0.0.1:8002"


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(one) for key, one in value.items()}
    return [trusted(one) for one in value] if isinstance(value, list) else value


def template(expression: str, given: dict[str, Any]) -> Any:
    said: dict[str, Any] = {}
    for kind in ("defaults", "vars"):
        path = ROOT / "roles/triton" / kind / "main.yml"
        said |= yaml.safe_load(path.read_text(encoding="utf-8"))
    templar = Templar(DataLoader(), variables=trusted({**said, **given}))
    return templar.template(trust_as_template(expression))


@pytest.mark.parametrize(
    ("given", "load_url", "metrics_url"),
    [
        ({}, GRPC, METRICS),
        ({"triton_url": "http://localhost:8000/"}, GRPC, METRICS),
        ({"triton_url": ["127.0.0.1:8000"]}, GRPC, METRICS),
        ({"triton_http_address": "0.0.0.0"}, GRPC, METRICS),
        ({"triton_http_address": "::"}, "grpc://[::1]:8001", "http://[::1]:8002"),
        ({"triton_grpc_port": "0", "triton_metrics_port": "0"}, "", ""),
        ({"triton_http_port": 0}, "", METRICS),  # triton_url is gRPC itself
        ({"triton_url": "balancer:8000"}, "", ""),
        ({"triton_url": ["127.0.0.1:8000", "b:8000"]}, "", ""),
        ({"triton_url": "127.0.0.1:9000"}, "", ""),
        ({"triton_grpc_tls": TLS}, "", METRICS),
        ({"triton_grpc_tls": TLS, "triton_ca_file": "/ca.pem"}, "grpcs://127.0.0.1:8001", METRICS),
        (
            {"triton_grpc_tls": {**TLS, "client_ca": "/x.pem"}, "triton_ca_file": "/ca.pem"},
            "",
            METRICS,
        ),
        (
            {
                "triton_grpc_tls": {**TLS, "client_ca": "/x.pem"},
                "triton_ca_file": "/ca.pem",
                **CLIENT,
            },
            "grpcs://127.0.0.1:8001",
            METRICS,
        ),
    ],
)
def test_loads_go_to_the_gRPC_of_the_hosts_own_server(
    given: dict[str, Any], load_url: str, metrics_url: str
) -> None:
    found = [
        template(f"{{{{ {name} }}}}", given) for name in ("triton_load_url", "triton_metrics_url")
    ]
    assert found == [load_url, metrics_url]


@pytest.mark.parametrize(
    ("given", "load_url"),
    [
        ({}, GRPC),
        ({"triton_load_url": ""}, None),
        ({"triton_url": "balancer:8000"}, None),
        ({"triton_delivery_urls": ["a:8000", "b:8000"]}, None),
        (
            {
                "triton_delivery_urls": ["a:8000", "b:8000"],
                "triton_delivery_load_urls": ["grpc://a:8001", "grpc://b:8001"],
            },
            ["grpc://a:8001", "grpc://b:8001"],
        ),
    ],
)
def test_deliveries_of_playbooks_load_there(given: dict[str, Any], load_url: Any) -> None:
    plays = yaml.safe_load((ROOT / "playbooks/deploy_models.yml").read_text(encoding="utf-8"))
    options = plays[0]["module_defaults"]["group/mlops.triton.triton"]
    assert (template(options["load_url"], {**given, "omit": None}) or None) == load_url
