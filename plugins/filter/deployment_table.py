# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: deployment_table
short_description: What a run has done to each model of each host, as lines of text
version_added: 0.1.0
description:
  - Makes the table that the playbook C(mlops.triton.deploy_models) prints at its end.
options:
  _input:
    description:
      - One entry for each host, with C(host), C(stage), C(trouble), and the results C(plan),
        C(delivery) and C(rollback), where there are any.
    type: list
    elements: dict
    required: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Show what is deployed
  ansible.builtin.debug:
    msg: "{{ hosts | mlops.triton.deployment_table }}"
  vars:
    hosts:
      - {host: triton-1, stage: done, plan: "{{ plan }}", delivery: "{{ delivery }}"}
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
  sample:
    - "host      model  version  state    result"
    - "triton-1  fraud  3        present  changed, verified"
    - "triton-1  churn  1        present  unchanged, not verified"
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.terminal import one_line

from ..plugin_utils.plans import changes_serving

Facts = Mapping[str, Any]
_HEAD = ("host", "model", "version", "state", "result")
_WIDEST = 60


def deployment_table(hosts: Sequence[Facts]) -> list[str]:
    """Lines with host, model, version, state and result; then a line for each host that is in
    trouble.
    """
    rows = [_HEAD, *(tuple(map(one_line, row)) for host in hosts for row in _rows(host))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
    lines = [
        "  ".join(
            [*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    ]
    return [
        *lines,
        *(one_line(f"{host['host']}: {host['trouble']}") for host in hosts if host.get("trouble")),
    ]


def _rows(host: Facts) -> list[tuple[str, ...]]:
    planned, delivered, returned = (
        _by_name(host.get(key)) for key in ("plan", "delivery", "rollback")
    )
    names = [*planned, *(name for name in delivered if name not in planned)]
    if not names:
        return [
            (str(host["host"]), "-", "-", "-", "failed" if host.get("trouble") else "nothing to do")
        ]
    rows: list[tuple[str, ...]] = []
    for name in names:
        found = [entries[name] for entries in (returned, delivered, planned) if name in entries]
        model = found[0].get("model") or {}
        rows.append(
            (
                str(host["host"]),
                name,
                _version(model),
                str(model.get("state") or "-"),
                _result(
                    host, *(entries.get(name, {}) for entries in (planned, delivered, returned))
                ),
            )
        )
    return rows


def _result(host: Facts, planned: Facts, delivered: Facts, returned: Facts) -> str:
    stage = host.get("stage")
    if delivered.get("failed"):
        return f"failed: {_short(delivered.get('msg'))}"
    if returned:
        return (
            f"not rolled back: {_short(returned.get('msg'))}"
            if returned.get("failed")
            else "rolled back"
        )
    if planned.get("failed"):
        return f"failed: {_short(planned.get('msg'))}"
    if (
        not changes_serving(planned)
        and not changes_serving(delivered)
        and not (host.get("check") and planned.get("changed"))
    ):
        model = planned.get("model") or {}
        unproven = model.get("state") == "present" and model.get("verified", "") is None
        return "unchanged, not verified" if unproven else "unchanged"
    if not stage:
        return (
            f"{'would change' if host.get('check') else 'not reached'}:"
            f" {_short('; '.join(planned.get('actions') or ()))}"
        )
    if not delivered or stage not in ("done", "returned"):
        return "not known" if stage == "left" else "unchanged"
    if delivered.get("model", {}).get("state") != "present":
        return "changed"
    # An example of which no request can be made is left out where that is found, after the plan.
    asked = "verify by an inference" in delivered.get("actions", ())
    proven = asked and delivered["model"].get("verified", "") is not None
    return "changed, verified" if proven else "changed, not verified"


def _by_name(result: Any) -> dict[str, Facts]:
    entries = result.get("models") if isinstance(result, Mapping) else None
    return {
        str(entry["name"]): entry
        for entry in entries or ()
        if isinstance(entry, Mapping) and "name" in entry
    }


def _version(model: Facts) -> str:
    return str(
        model.get("registry_version")
        or ",".join(map(str, model.get("triton_versions") or ()))
        or "-"
    )


def _short(text: Any) -> str:
    said = " ".join(str(text or "").split())
    return said if len(said) <= _WIDEST else f"{said[:_WIDEST]}…"


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"deployment_table": deployment_table}
