# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: play_hosts
short_description: The hosts of a playbook, where it can do what it is asked for
version_added: 0.1.0
description:
  - Gives the pattern for the C(hosts) of a play, and fails where it would match no host, where
    tags or C(--start-at-task) would leave tasks out, and where ansible-core is too old. Ansible
    itself ends such runs without an error, although nothing was done.
  - The playbooks of this collection begin with it.
options:
  _terms:
    description: Groups or patterns. One of them has to match a host of the inventory that
      C(--limit) leaves.
    type: list
    elements: str
    required: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Check the run
  hosts: "{{ query('mlops.triton.play_hosts', 'triton') }}"
  gather_facts: false
  tasks: []
"""

RETURN = r"""
_raw:
  description: The terms.
  type: list
  elements: str
  sample: [triton]
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase
from ansible.release import __version__

_OLDEST = (2, 19)
_PATTERN = "*?[]!&~:,"
# Molecule passes these in each of its runs; no task of a playbook of this collection has one.
_MOLECULES_TAGS = {"molecule-notest", "notest", "molecule-idempotence-notest"}
_LISTS = ("syntax", "listhosts", "listtasks", "listtags")


class LookupModule(LookupBase):
    """Refuses what Ansible would pass over."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        arguments = context.CLIARGS
        if not any(arguments.get(key) for key in _LISTS):
            problem = (
                _version_problem(__version__)
                or _choice_problem(arguments)
                or _hosts_problem(terms, (variables or {}).get("groups") or {}, arguments)
            )
            if problem:
                raise AnsibleLookupError(f"{problem} Nothing was done.")
        return list(terms)


def _version_problem(version: str) -> str | None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers >= _OLDEST:
        return None
    wanted = ".".join(map(str, _OLDEST))
    return f"This is ansible-core {version}, and mlops.triton needs {wanted} or newer."


def _choice_problem(arguments: Mapping[str, Any]) -> str | None:
    """What would leave tasks out that the others rely on."""
    given = [
        option
        for option, values in (
            ("--tags", [tag for tag in arguments.get("tags") or () if tag != "all"]),
            ("--skip-tags", {*(arguments.get("skip_tags") or ())} - _MOLECULES_TAGS),
            ("--start-at-task", arguments.get("start_at_task")),
        )
        if values
    ]
    if not given:
        return None
    return (
        f"{' and '.join(given)} would leave out tasks of this playbook that the others rely on, and"
        " Ansible would end without an error: run it without. --limit chooses hosts."
    )


def _hosts_problem(
    patterns: Sequence[str], groups: Mapping[str, Sequence[str]], arguments: Mapping[str, Any]
) -> str | None:
    limit = arguments.get("subset")
    if _matches(patterns, groups, limit):
        return None
    names = " or ".join(f"'{pattern}'" for pattern in patterns)
    if _matches(patterns, groups, None):
        return f"--limit '{limit}' leaves no host of {names}: name one that is in it."
    return (
        f"The inventory has no host in {names}, in which this playbook works: name the inventory"
        " (-i), and put the hosts into that group."
    )


def _matches(
    patterns: Sequence[str], groups: Mapping[str, Sequence[str]], limit: str | None
) -> bool:
    """As Ansible matches them; a second reading of the inventory could find another one."""
    manager = InventoryManager(loader=DataLoader(), sources=None, parse=False)
    for group, hosts in groups.items():
        manager.add_group(group)
        for host in hosts:
            manager.add_host(host, group)
    manager.reconcile_inventory()
    if limit:
        manager.subset(limit)
    return any(
        manager.get_hosts(pattern)
        for pattern in patterns
        if pattern in (*groups, *manager.hosts, "localhost") or set(pattern) & set(_PATTERN)
    )
