# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: controller_file
short_description: Where a file that a variable of the playbooks names lies
version_added: 0.1.0
description:
  - Gives the absolute path of a file on the controller, and fails where there is none.
positional: _input, folder, variable
options:
  _input:
    description: An absolute path, or one relative to O(folder) or to this collection's playbooks.
      An empty text stays empty.
    type: str
    required: true
  folder:
    description: Where a relative path is looked for first, such as C(playbook_dir).
    type: str
    required: true
  variable:
    description: The variable that names the file, for the message.
    type: str
    required: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Take the host into service
  ansible.builtin.include_tasks: "{{ 'tasks/haproxy_in.yml'
    | mlops.triton.controller_file(playbook_dir, 'triton_in_service_tasks') }}"
"""

RETURN = r"""
_value:
  description: The absolute path.
  type: str
  sample: /etc/ansible/tasks/in_service.yml
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

_PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"


def controller_file(path: str, folder: str, variable: str) -> str:
    """The absolute path of a file that exists."""
    if not path:
        return ""
    looked_for = [base / Path(path).expanduser() for base in (Path(folder), _PLAYBOOKS)]
    for candidate in looked_for:
        if candidate.is_file():
            return str(candidate)
    places = " and ".join(dict.fromkeys(map(str, looked_for)))
    raise AnsibleFilterError(
        f"{variable}: {path} does not exist on the controller, where {places} was looked for. "
        "No host was changed. Name a file that is there."
    )


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"controller_file": controller_file}
