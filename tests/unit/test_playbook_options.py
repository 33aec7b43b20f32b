# SPDX-License-Identifier: Apache-2.0
"""Variables of the playbooks reach the options of the modules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GROUP, MODELS = "group/mlops.triton.triton", "mlops.triton.triton_models"
REGISTRY = {
    "mlflow_registry_uri": "registry_uri",
    "mlflow_username": "mlflow_username",
    "mlflow_password": "mlflow_password",
    "mlflow_token": "mlflow_token",
    "mlflow_ca_file": "mlflow_ca_file",
    "mlflow_client_cert": "mlflow_client_cert",
    "mlflow_client_key": "mlflow_client_key",
}
PLACES = {"mlflow_artifact_folders": "artifact_folders"}
EVERYWHERE = {
    "mlflow_tracking_uri": "tracking_uri",
    **REGISTRY,
    **PLACES,
    "triton_model_repository": "model_repository",
    "triton_state_dir": "state_dir",
    "triton_s3": "s3",
    "triton_tensorrt_target": "tensorrt_target",
    "triton_environments": "environments",
    "triton_ca_file": "ca_file",
    "triton_client_cert": "client_cert",
    "triton_client_key": "client_key",
    "triton_server_log": "server_log",
    "triton_timeout": "timeout",
    "triton_load_timeout": "load_timeout",
    "triton_lock_timeout": "lock_timeout",
}
DELIVERY = {
    "triton_registry_status": "registry_status",
    "triton_parallel_downloads": "parallel_downloads",
    "triton_parallel_loads": "parallel_loads",
    "triton_allowed_backends": "allowed_backends",
    "triton_max_size": "max_size",
    "triton_require_digest": "require_digest",
    "triton_allowed_paths": "allowed_paths",
    "triton_model_code": "model_code",
    "triton_require_signature": "require_signature",
    "triton_revoked_digests": "revoked_digests",
    "triton_revoked_keys": "revoked_keys",
    "triton_purge_limit": "purge_limit",
}


def defaults(playbook: str) -> list[dict[str, Any]]:
    """``module_defaults`` of the plays in which modules of this collection may run."""
    plays = yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text(encoding="utf-8"))
    return [play["module_defaults"] for play in plays if "module_defaults" in play]


def reaches(given: dict[str, str], variable: str, option: str) -> bool:
    return bool(re.match(rf"\{{\{{ {variable}\b", given.get(option, "")))


@pytest.mark.parametrize(("variable", "option"), sorted({**EVERYWHERE, **DELIVERY}.items()))
def test_a_variable_reaches_each_delivery(variable: str, option: str) -> None:
    found = defaults("deploy_models")
    assert len(found) == 6  # plan, make environments (twice), note, deploy, return
    section = MODELS if variable in DELIVERY else GROUP
    assert all(reaches(place[section], variable, option) for place in found)


@pytest.mark.parametrize(("variable", "option"), sorted(REGISTRY.items()))
def test_a_variable_of_the_registry_reaches_publishing_and_pinning(
    variable: str, option: str
) -> None:
    (place,) = defaults("publish_models")
    assert reaches(place[GROUP], variable, option)
    tasks = (ROOT / "playbooks/tasks/plan_host.yml").read_text(encoding="utf-8")
    assert f'{option}: "{{{{ {variable} | default' in tasks


def test_no_task_overrides_what_all_deliveries_have() -> None:
    for path in (ROOT / "playbooks/tasks").glob("*.yml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            option = line.strip().partition(":")[0]
            if line.startswith("        ") and option in DELIVERY.values():
                assert path.name == "return_host.yml", line


def test_plan_delivery_and_way_back_know_whether_the_hook_takes_the_host_out() -> None:
    """The plan expects the way that the delivery takes; a host that stays in service is no
    drained one.
    """
    found = {}
    for path in sorted((ROOT / "playbooks/tasks").glob("*.yml")):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        if any(line == f"{MODELS}:" for line in lines):
            found[path.name] = [line for line in lines if line.startswith("drained:")]
    said = ['drained: "{{ _triton_out_of_service | length > 0 }}"']
    assert found == {
        "deliver_models.yml": said,
        "keep_host.yml": [],
        "make_environments.yml": said,
        "plan_host.yml": said,
        "return_host.yml": said,
    }
    tasks = (ROOT / "playbooks/tasks/plan_host.yml").read_text(encoding="utf-8")
    assert "triton_swap | default('', true)" in tasks


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 3600),
        ({"triton_load_timeout": 60}, 3600),
        ({"triton_load_timeout": "3600"}, 5400),  # as large_models.md has it
        ({"triton_load_timeout": 3600, "triton_delivery_timeout": 600}, 600),
    ],
)
def test_a_delivery_outlasts_a_load(given: dict[str, Any], seconds: int) -> None:
    """Else the run is ended before it can say that a load goes on, or wait for it."""
    found = [
        said
        for path in sorted((ROOT / "playbooks/tasks").glob("*.yml"))
        for said in re.findall(r'^ *timeout: "(.*)"$', path.read_text(encoding="utf-8"), re.M)
    ]
    assert len(found) == 6
    for said in found:
        assert int(jinja2.Template(said).render(given)) == seconds
