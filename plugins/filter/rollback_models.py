# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollback_models
short_description: What brings a host back to what it had before
version_added: 0.1.0
description:
  - Compares what a host had before a run with what it has now, and returns the entries of
    O(mlops.triton.triton_models#module:models) that undo the difference.
  - A model that was replaced goes back to its retained copy, a new one is removed, and a removed
    one is deployed again from the registry. Models that the run adopted stay.
positional: _input, now, wanted, verify
options:
  _input:
    description: RV(mlops.triton.triton_models#module:models) of a check-mode run before.
    type: list
    elements: dict
    required: true
  now:
    description: RV(mlops.triton.triton_model_info#module:models) of the same names.
    type: list
    elements: dict
    required: true
  wanted:
    description: The list of the run. Models without retained copies (C(keep=0)) are deployed again
      instead of rolled back. What goes back is swapped as its entry says (C(swap)).
    type: list
    elements: dict
    default: []
  verify:
    description: Option C(verify) of entries of O(wanted) without one. Where it is V(none), or an
      entry has that, what is brought back is not verified either. A dictionary proves the version
      of the run, and not the one before.
    type: raw
seealso:
  - module: mlops.triton.triton_models
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Bring the host back
  mlops.triton.triton_models:
    models: "{{ plan.models | mlops.triton.rollback_models(info.models) }}"
"""

RETURN = r"""
_value:
  description: Entries for O(mlops.triton.triton_models#module:models).
  type: list
  elements: dict
  sample: [{name: fraud, state: rolled_back, rollback_to: 20260101T120000-0a1b2c3d, undo: true}]
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
_SERVED = ("present", "rolled_back")


def rollback_models(
    before: Sequence[Entry],
    now: Sequence[Entry],
    wanted: Sequence[Entry] = (),
    verify: Any = None,
) -> list[dict[str, Any]]:
    """Entries of triton_models that bring back what was there before."""
    there = {entry["name"]: entry for entry in now}
    not_kept = {entry["name"] for entry in wanted if int(entry.get("keep", 1)) == 0}
    asked = {entry["name"]: entry.get("verify", verify) for entry in wanted}
    back = [
        _way_back(entry, there.get(entry["name"], {}), entry["name"] not in not_kept)
        for entry in before
    ]
    swaps = {entry["name"]: entry["swap"] for entry in wanted if entry.get("swap")}
    back = [
        {**entry, "swap": swaps[entry["name"]]}
        if entry and entry["state"] in _SERVED and entry["name"] in swaps
        else entry
        for entry in back
    ]
    return [
        {**entry, "verify": "none"}
        if _is_none(asked.get(entry["name"], verify)) and entry["state"] in _SERVED
        else entry
        for entry in back
        if entry
    ]


def _is_none(verify: Any) -> bool:
    return verify is False or verify == "none"


def _way_back(before: Entry, now: Entry, is_kept: bool) -> dict[str, Any] | None:
    name = before["name"]
    was = before.get("model") or {}
    is_deployed = bool(now.get("transaction"))
    if not was.get("transaction"):
        taken_over = any(
            str(action).startswith("take over") for action in before.get("actions") or ()
        )
        return {"name": name, "state": "absent"} if is_deployed and not taken_over else None
    replaced = was["transaction"] != now.get("transaction")
    if not replaced and was.get("state") == now.get("state"):
        return None
    if is_deployed and replaced and is_kept and was.get("state") == "present":
        return {
            "name": name,
            "state": "rolled_back",
            "rollback_to": was["transaction"],
            "undo": True,
        }
    alias = {"alias": was["alias"]} if was.get("alias") else {}
    return {
        "name": name,
        "state": was.get("state", "present"),
        "model_uri": was["source"],
        **alias,
        **(was.get("options") or {}),
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollback_models": rollback_models}
