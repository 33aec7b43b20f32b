# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: printable
short_description: Text of programs and logs, fit for a terminal
version_added: 0.1.0
description:
  - Writes out what a terminal would obey or not show, such as escape sequences and characters that
    turn what stands beside them. A log may hold what anybody sent to its server.
  - Takes passwords out of addresses.
options:
  _input:
    description: The text.
    type: str
    required: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Say what the server said
  ansible.builtin.fail:
    msg: "Its log ends with: {{ log.stdout | mlops.triton.printable }}"
"""

RETURN = r"""
_value:
  description: The same lines.
  type: str
  sample: "load of \\x1b[2Jfraud failed"
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.redact import mask
from ansible_collections.mlops.triton.plugins.module_utils._delivery.terminal import lines


def printable(text: object) -> str:
    """The same lines, without commands for a terminal and without passwords of addresses."""
    return lines(mask(str(text)))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"printable": printable}
