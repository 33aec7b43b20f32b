# SPDX-License-Identifier: Apache-2.0
"""The Python that runs a module. What is imported up to here must run on any that Ansible takes:
what comes after does not even parse there.
"""

from __future__ import annotations

import json
import sys

OLDEST = (3, 10)


def refuse_old_python() -> None:
    """End the module with a sentence where this Python cannot run the rest of it."""
    if sys.version_info >= OLDEST:
        return
    # Without AnsibleModule: it would answer with the module's parameters, and nothing that knows
    # which of them are secret can be imported.
    said = (
        "Python {found} ({program}) of this host runs the module, which needs Python {oldest} or"
        " newer. Nothing was changed. Role mlops.triton.triton makes an environment with all that"
        " the module needs: give the task the variable ansible_python_interpreter with"
        " '{{{{ triton_client_python }}}}', or with another Python from {oldest} on."
    ).format(
        found=".".join(str(part) for part in sys.version_info[:3]),
        program=sys.executable,
        oldest=".".join(str(part) for part in OLDEST),
    )
    sys.stdout.write(json.dumps({"failed": True, "changed": False, "msg": said}) + "\n")
    raise SystemExit(1)
