# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a deployment."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.filter.deployment_table import deployment_table

TELL = "tell the registry that models:/fraud/3 is present on gpu-1"
LOAD = "load on localhost:8000"


def deployed(**more: Any) -> dict[str, Any]:
    return {"name": "fraud", "state": "present", "registry_version": 3, **more}


def entry(*actions: str, **more: Any) -> dict[str, Any]:
    return {
        "models": [
            {
                "name": "fraud",
                "changed": bool(actions),
                "failed": False,
                "actions": list(actions),
                "reported": [one for one in actions if one == TELL],
                "model": deployed(),
                **more,
            }
        ]
    }


@pytest.mark.parametrize(
    ("host", "result"),
    [
        ({"plan": entry()}, "unchanged"),
        ({"plan": entry(model=deployed(verified="2026-01-01T12:00:02+00:00"))}, "unchanged"),
        ({"plan": entry(model=deployed(verified=None))}, "unchanged, not verified"),
        ({"plan": entry(TELL)}, "unchanged"),
        ({"plan": entry(TELL), "check": True}, f"would change: {TELL}"),
        ({"plan": entry(LOAD, TELL)}, f"not reached: {LOAD}; {TELL}"[:73] + "…"),
        (
            {"plan": entry(LOAD, TELL), "delivery": entry(LOAD, TELL), "stage": "done"},
            "changed, not verified",
        ),
        ({"plan": entry(TELL), "delivery": entry(TELL), "stage": "done"}, "unchanged"),
        (
            {
                "plan": entry(LOAD),
                "delivery": entry(failed=True, msg="no such weights"),
                "stage": "left",
            },
            "failed: no such weights",
        ),
    ],
)
def test_result_of_a_model(host: dict[str, Any], result: str) -> None:
    lines = deployment_table([{"host": "gpu-1", **host}])
    assert lines[1].split("present  ")[1] == result


def test_host_that_failed_before_it_was_planned() -> None:
    lines = deployment_table(
        [
            {"host": "gpu-1", "trouble": "it failed before its models were planned"},
            {"host": "gpu-2"},
        ]
    )
    assert lines[1].split() == ["gpu-1", "-", "-", "-", "failed"] and lines[2].endswith(
        "nothing to do"
    )
    assert lines[3] == "gpu-1: it failed before its models were planned"
