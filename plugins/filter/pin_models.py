# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: pin_models
short_description: Put exact versions in the place of aliases
version_added: 0.1.0
description:
  - Replaces C(models:/name@alias) and C(models:/name/latest) in a list of models by exact versions,
    however they are spelt, and keeps the alias, so that all hosts get the same version and records
    still have the alias.
positional: _input, pins
options:
  _input:
    description: Entries of O(mlops.triton.triton_models#module:models).
    type: list
    elements: dict
    required: true
  pins:
    description: Maps model URIs to version numbers. A URI that is not in it stays.
    type: dict
    required: true
  verify:
    description: Option C(verify) for entries that are to be served and do not have it. Entries that
      are rolled back get it only where it is not V(auto); what proved the copy proves it again.
    type: raw
  swap:
    description: Option C(swap) for entries that are to be served and do not have it. Entries with
      C(verify_aside), which needs room for two copies, do not get V(unload_first).
    type: str
seealso:
  - plugin: mlops.triton.uris_to_pin
    plugin_type: filter
  - plugin: mlops.triton.mlflow_model_version
    plugin_type: lookup
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Give all hosts the same version
  ansible.builtin.set_fact:
    pinned: "{{ models | mlops.triton.pin_models({'models:/fraud@champion': 3}) }}"
  vars:
    models:
      - {name: fraud, model_uri: "models:/fraud@champion"}
"""

RETURN = r"""
_value:
  description: The entries with exact versions.
  type: list
  elements: dict
  sample: [{name: fraud, model_uri: models:/fraud/3, alias: champion}]
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import LATEST

from ..plugin_utils.named_uris import named_uri_of


def pin_models(
    models: Sequence[Mapping[str, Any]],
    pins: Mapping[str, int],
    verify: Any = None,
    swap: str | None = None,
) -> list[dict[str, Any]]:
    """The entries with versions instead of aliases."""
    exact = {uri.strip(): version for uri, version in pins.items()}
    return [_with_swap(_pin(dict(model), exact, verify), swap) for model in models]


def _with_swap(model: dict[str, Any], swap: str | None) -> dict[str, Any]:
    is_served = (model.get("state") or "present") in ("present", "rolled_back")
    if swap and is_served and not (swap == "unload_first" and model.get("verify_aside")):
        model.setdefault("swap", swap)
    return model


def _pin(model: dict[str, Any], pins: Mapping[str, int], verify: Any) -> dict[str, Any]:
    state = model.get("state") or "present"
    # What proved a copy that was kept proves it again, unless the user says something else.
    if verify is not None and (
        state == "present" or (state == "rolled_back" and verify not in ("", "auto"))
    ):
        model.setdefault("verify", verify)
    uri = named_uri_of(model)
    if uri and uri.text in pins:
        model["model_uri"] = f"models:/{uri.name}/{pins[uri.text]}"
        model["alias"] = uri.alias or LATEST
    return model


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pin_models": pin_models}
