# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: environment_locks
short_description: What hosts have resolved, for the option environments of other hosts
version_added: 0.1.0
description:
  - Where hosts have resolved the same to different versions, what the first of them has counts.
options:
  _input:
    description: Results of M(mlops.triton.triton_models) with C(only_environments).
    type: list
    elements: dict
    required: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Install what the first host has
  mlops.triton.triton_models:
    models: "{{ models }}"
    only_environments: true
    environments:
      locks: "{{ [of_the_first_host] | mlops.triton.environment_locks }}"
"""

RETURN = r"""
_value:
  description: Lock by key.
  type: dict
  sample: {0f3c2a: "numpy==2.3.5 --hash=sha256:…"}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def environment_locks(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The lock of each key."""
    found: dict[str, str] = {}
    for result in results:
        for entry in result.get("environments") or ():
            if entry["key"] and entry["lock"]:
                found.setdefault(str(entry["key"]), str(entry["lock"]))
    return found


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"environment_locks": environment_locks}
