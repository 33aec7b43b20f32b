# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: misnamed_variables
short_description: Variables whose names are nearly those of this collection
version_added: 0.1.0
description:
  - Looks at the names of a host's variables that begin with C(triton_) or C(mlflow_), wherever they
    come from. The options of the roles and the variables of the playbooks are known. A name that
    is close to a known one is returned; any other unknown one is warned about.
  - Values are neither read nor shown.
options:
  _terms:
    description: Further names that are known.
    type: list
    elements: str
    required: false
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Check the names of variables
  ansible.builtin.assert:
    that: misnamed | length == 0
    fail_msg: "{{ misnamed | join(' ') }}"
  vars:
    misnamed: "{{ query('mlops.triton.misnamed_variables') }}"
"""

RETURN = r"""
_raw:
  description: A sentence for each such name.
  type: list
  elements: str
  sample: ["triton_serail is no variable of mlops.triton, triton_serial is one. Rename it."]
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

_ROOT = Path(__file__).resolve().parents[2]
_PREFIXES = ("triton_", "mlflow_")
_CLOSE = 0.88
display = Display()


class LookupModule(LookupBase):
    """Reads names only."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        known = {*known_names(), *terms}
        close, others = judge(variables or (), known)
        if others:
            display.warning(
                f"No playbook or role of mlops.triton reads these variables: {', '.join(others)}."
            )
        return [
            f"{name} is no variable of mlops.triton, {meant} is one. Rename it."
            for name, meant in close.items()
        ]


def known_names() -> set[str]:
    """The options of the roles, and the variables of the playbooks."""
    names = {
        option
        for path in sorted(_ROOT.glob("roles/*/meta/argument_specs.yml"))
        for entry in _read(path)["argument_specs"].values()
        for option in entry.get("options") or ()
    }
    return names | set(_read(_ROOT / "playbooks/files/variables.yml")["playbook_variables"])


def judge(names: Iterable[str], known: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """(unknown name → the known one that it is close to, other unknown names)."""
    close, others = {}, []
    for name in sorted(set(map(str, names)) - set(known)):
        if not name.startswith(_PREFIXES):
            continue
        # People make lists of their own out of parts: triton_models_common is no slip.
        found = [
            one
            for one in get_close_matches(name, known, n=3, cutoff=_CLOSE)
            if not name.startswith(f"{one}_")
        ] or _lacks_a_word(name, known)
        if found:
            close[name] = found[0]
        else:
            others.append(name)
    return close, others


def _lacks_a_word(name: str, known: Collection[str]) -> list[str]:
    """The only known name that has one word more: triton_in_service for triton_in_service_tasks."""
    longer = [one for one in known if one.rpartition("_")[0] == name]
    # A single word after the prefix may be anybody's: triton_registry.
    return longer if len(longer) == 1 and name.count("_") > 1 else []


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
