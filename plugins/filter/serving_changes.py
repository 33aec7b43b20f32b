# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: serving_changes
short_description: The models of a result of which files or servers are touched
version_added: 0.1.0
description:
  - Leaves out models that are unchanged, and those of which only the record or what the registry
    says of them changes. A host that has nothing else to do stays in service.
options:
  _input:
    description: RV(mlops.triton.triton_models#module:models).
    type: list
    elements: dict
    required: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Take the host out of service
  ansible.builtin.include_tasks: out_of_service.yml
  when: plan.models | mlops.triton.serving_changes | length > 0
"""

RETURN = r"""
_value:
  description: Those of the entries.
  type: list
  elements: dict
  sample: [{name: fraud, changed: true, actions: ["load on localhost:8000"]}]
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..plugin_utils.plans import Entry, changes_serving


def serving_changes(models: Sequence[Entry]) -> list[Entry]:
    """Those of which files or servers are touched."""
    return [entry for entry in models if changes_serving(entry)]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"serving_changes": serving_changes}
