# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  timeout:
    description:
      - Seconds that any single network step may take, such as a request to MLflow or a question
        to Triton.
      - A transfer fails when this many seconds bring less than 1 KiB.
    type: float
    default: 300.0
  load_timeout:
    description:
      - Seconds that a load in Triton may take. A load cannot be cancelled. When they have passed,
        the task fails, the new files stay where they are, and the next run waits for the load. It
        proves what that brought, or takes it back.
      - When omitted, the larger of O(timeout) and 1800.
    type: float
  progress:
    description:
      - Whether to print progress lines while the task runs. Each line has the host, the model, the
        step, its bytes and their rate.
      - Only tasks that take seconds print any. There are none in check mode, in an asynchronous
        task, with C(no_log), and from modules that only read.
      - When omitted, E(TRITON_PROGRESS) of the control node decides.
    type: bool
    default: true
"""
