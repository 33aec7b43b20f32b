# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  drained:
    description:
      - Whether no client sends requests to these servers now, because a load balancer has taken
        them out. A model with C(swap=auto) may then be out of service while it is changed.
      - In check mode, whether that will be so when the plan is carried out.
      - Playbook C(deploy_models) sets it on hosts that its hook has taken out of service.
    type: bool
    default: false
"""
