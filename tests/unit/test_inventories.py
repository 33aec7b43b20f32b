# SPDX-License-Identifier: Apache-2.0
"""The examples of inventories: what they name exists, and they hold no secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "playbooks/inventory").glob("*.yml"))
SECRET = re.compile(r"secret|password|access_key|token")


def known() -> set[str]:
    """Variables of the roles, and those that the page on playbooks documents."""
    found = set(
        re.findall(
            r"`((?:triton|mlflow)_\w+)`", (ROOT / "docs/playbooks.md").read_text(encoding="utf-8")
        )
    )
    for role in ("mlflow", "triton"):
        specs = yaml.safe_load(
            (ROOT / "roles" / role / "meta/argument_specs.yml").read_text(encoding="utf-8")
        )["argument_specs"]
        found |= {name for spec in specs.values() for name in spec.get("options") or {}}
    return found


def values(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for name, one in value.items() for pair in values(one, str(name))]
    if isinstance(value, list):
        return [pair for one in value for pair in values(one, key)]
    return [(key, str(value))]


def test_there_are_examples() -> None:
    page = (ROOT / "docs/playbooks.md").read_text(encoding="utf-8")
    assert {path.stem for path in EXAMPLES} == {"one_host", "s3", "three_hosts"}
    assert not [path.name for path in EXAMPLES if f"../playbooks/inventory/{path.name}" not in page]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_names_what_exists(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "inventory", "-i", str(path), "--list"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    inventory = json.loads(done.stdout)
    assert inventory["triton"]["hosts"] and set(inventory["all"]["children"]) <= {
        "haproxy",
        "mlflow",
        "triton",
        "ungrouped",
    }
    for variables in inventory["_meta"]["hostvars"].values():
        assert not {name for name in variables if not name.startswith("ansible_")} - known()
        secrets = [
            value
            for name, value in values(variables)
            if SECRET.search(name) or "://" in value and "@" in value.split("://")[1]
        ]
        assert not [
            value
            for value in secrets
            if "{{ vault_" not in value and not value.startswith("models:/")
        ]
        assert not [
            value
            for name, value in values(variables)
            if name.endswith("_tasks") and not (ROOT / "playbooks" / value).is_file()
        ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_some_host_of_an_example_has_models(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "triton_models:" in text and "mlflow_tracking_uri:" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_nobody_controls_the_servers_of_an_example_without_a_secret(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "inventory", "-i", str(path), "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    inventory = json.loads(done.stdout)
    hosts = inventory["_meta"]["hostvars"]
    for host in inventory["triton"]["hosts"]:
        assert "{{ vault_" in hosts[host]["triton_admin_key"]["secret"]
        assert hosts[host]["mlflow_username"] and "{{ vault_" in hosts[host]["mlflow_password"]
    for host in inventory.get("mlflow", {}).get("hosts", []):
        assert hosts[host]["mlflow_auth"] is True
        assert "{{ vault_" in hosts[host]["mlflow_auth_admin_password"]
