# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  registry_status:
    description:
      - Tell the registry what is deployed, under this name of the target (letters, digits and C(. _
        -)), for example V(production) or a host's name. Each target that reports needs a name of
        its own. Nothing is told when it is omitted.
      - The model version gets the tag C(triton.deployed/<target>) with a value such as C(present
        since 2026-01-01T12:00:00Z), or C(unloaded since …). A model that is served under another
        name than the registered model's has that name at the end of the key. The tag goes when the
        version is replaced, rolled back or removed.
      - A marked block in the version's description shows the tags of all targets as a table. What
        people wrote around it is left as it is. Where they left no room in the 5,000 characters
        that MLflow takes, it is left out.
      - A registry that refuses, because these credentials may not write for example, is a warning.
        The next run tries again.
    type: str
"""
