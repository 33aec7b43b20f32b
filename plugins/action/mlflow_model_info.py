# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module of this name, with the Python that the task names."""

from __future__ import annotations

from ..plugin_utils.module_python import ModulePythonAction


class ActionModule(ModulePythonAction):
    """Nothing of its own."""
