# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  registry_status:
    description:
      - A name for this target (letters, digits and C(. _ -)), for example V(production) or a host's
        name. Under this name the registry shows what is deployed. Each target needs a name of its
        own. When omitted, the registry is not changed.
      - The model version gets the tag C(triton.deployed/<target>) with a value such as C(present
        since 2026-01-01T12:00:00Z), or C(unloaded since …). Where the model has
        another name in Triton than in the registry, that name is at the end of the key. The tag is
        removed when the version is replaced, rolled back or removed.
      - A marked block in the version's description shows the tags of all targets as a table. Text
        around the block stays as it is. Where it leaves no room in the 5,000 characters that MLflow
        takes, there is no block.
      - Where the registry refuses, for example because these credentials may not write, the task
        warns and succeeds. The next run tries again.
    type: str
"""
