# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: pip_options
short_description: Arguments of pip, apart from those with a password in them
version_added: 0.1.0
description:
  - The address of an index may have a password, which every user of a host would see in its list of
    processes, and whoever reads the output of a run. Such an argument becomes a line of a settings
    file, which pip reads where E(PIP_CONFIG_FILE) names it.
options:
  _input:
    description: Further arguments of C(pip install).
    type: list
    elements: str
    required: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Write what pip is told in confidence
  ansible.builtin.copy:
    content: "{{ (triton_pip_args | mlops.triton.pip_options).settings }}"
    dest: /opt/triton/pip.conf
    mode: "0600"
  no_log: true
"""

RETURN = r"""
_value:
  description: C(words), the arguments without a password, and C(settings), the text of a file with
    the others; empty where there are none.
  type: dict
  sample: {words: ["--no-cache-dir"], settings: "[global]\nindex-url = https://me:…@pip.example.com\n"}
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.redact import mask

_INDENTED = "\n    "
_SHORT = {"-i": "index-url", "-f": "find-links"}


def pip_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Words for a command line, and settings for a file."""
    words: list[str] = []
    settings: dict[str, list[str]] = {}
    left = [str(one) for one in arguments]
    while left:
        word = left.pop(0)
        name, sign, value = word.partition("=")
        if sign and name.startswith("--") and mask(value) != value:
            settings.setdefault(name[2:], []).append(value)
        elif mask(word) != word:
            name = words.pop() if words else ""
            if not name.startswith("--") and name not in _SHORT:
                raise AnsibleFilterError(
                    "an argument of pip with a password is no value of an option"
                )
            settings.setdefault(_SHORT.get(name, name[2:]), []).append(word)
        else:
            words.append(word)
    lines = [f"{name} = {_INDENTED.join(values)}" for name, values in settings.items()]
    return {"words": words, "settings": "\n".join(["[global]", *lines, ""]) if lines else ""}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pip_options": pip_options}
