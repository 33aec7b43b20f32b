# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: environment_hosts
short_description: The hosts that resolve Python environments for the others of a run
version_added: 0.1.0
description:
  - Of all hosts that need the same packages, for the same Python and platform, the first one, where
    one of them has to install them. What it resolved, the others install, so that all of them have
    the same versions.
options:
  _input:
    description:
      - The hosts, each with C(inventory_hostname) and C(_triton_plan), a result of
        M(mlops.triton.triton_models) in check mode.
    type: list
    elements: dict
    required: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Make environments on the first hosts
  hosts: "{{ groups.triton | map('extract', hostvars) | mlops.triton.environment_hosts }}"
"""

RETURN = r"""
_value:
  description: Their names, in the order of the input.
  type: list
  elements: str
  sample: [triton1]
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def environment_hosts(hosts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first host of each key that has to be made somewhere; where a host's Python is not known
    yet, of each requirements.
    """
    needed = [
        (str(host["inventory_hostname"]), {_key(entry): entry["changed"] for entry in entries})
        for host in hosts
        for entries in [host["_triton_plan"].get("environments") or ()]
    ]
    open_keys = {key for _host, keys in needed for key, changed in keys.items() if changed}
    first = []
    for host, keys in needed:
        if open_keys & set(keys):
            first.append(host)
        open_keys -= set(keys)
    return first


def _key(entry: Mapping[str, Any]) -> str:
    return str(entry["key"] or entry["requirements"])


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"environment_hosts": environment_hosts}
