# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: uris_to_pin
short_description: The model URIs of a list that name no exact version
version_added: 0.1.0
description:
  - Gives the URIs of entries that are to be deployed, such as C(models:/name@alias) and
    C(models:/name/latest), each once. What they mean may change during a run.
options:
  _input:
    description: Entries of O(mlops.triton.triton_models#module:models).
    type: list
    elements: dict
    required: true
seealso:
  - plugin: mlops.triton.pin_models
    plugin_type: filter
  - plugin: mlops.triton.mlflow_model_version
    plugin_type: lookup
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Give all hosts the same version
  ansible.builtin.set_fact:
    pinned: "{{ models | mlops.triton.pin_models(dict(uris | zip(versions))) }}"
  vars:
    models:
      - {name: fraud, model_uri: "models:/fraud@champion"}
    uris: "{{ models | mlops.triton.uris_to_pin }}"
    versions: "{{ query('mlops.triton.mlflow_model_version', *uris) }}"
"""

RETURN = r"""
_value:
  description: The URIs, without the spaces around them.
  type: list
  elements: str
  sample: [models:/fraud@champion]
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.named_uris import named_uri_of


def uris_to_pin(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """The URIs that an alias, or the newest version, may move under."""
    return sorted({uri.text for model in models if (uri := named_uri_of(model))})


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"uris_to_pin": uris_to_pin}
