# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Python that runs a module, where a task names one.

A task cannot set ``ansible_python_interpreter`` where somebody has given it as an extra variable,
as AWX does for a whole inventory. The variable ``triton_module_python`` is above it.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction

VARIABLE = "triton_module_python"
_INTERPRETER = "ansible_python_interpreter"


class ModulePythonAction(NormalAction):
    """Runs the module of its own name, as Ansible would without this plugin, with the Python that
    the task names.
    """

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = dict(task_vars or {})
        python = str(self._templar.template(variables.get(VARIABLE) or "") or "").strip()
        if python:
            variables[_INTERPRETER] = python
            delegated = variables.get("ansible_delegated_vars") or {}
            variables["ansible_delegated_vars"] = {
                host: {**values, _INTERPRETER: python} for host, values in delegated.items()
            }
        result: dict[str, Any] = super().run(tmp, variables)
        return result
