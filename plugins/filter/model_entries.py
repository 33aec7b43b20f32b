# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: model_entries
short_description: A list of models that has the form of one
version_added: 0.1.0
description:
  - Gives the entries for O(mlops.triton.triton_models#module:models), and fails where the list is
    none, where an entry has no name, and where two have one name. All that is wrong is said at
    once.
positional: _input, variable, more
options:
  _input:
    description: The entries; with O(more), the names.
    type: raw
    required: true
  variable:
    description: The variable that holds the list, for the message.
    type: str
    required: true
  more:
    description: Makes an entry of each name. What the entries have beside the name.
    type: dict
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Remove models
  mlops.triton.triton_models:
    models: "{{ ['fraud'] | mlops.triton.model_entries('models_to_remove', {'state': 'absent'}) }}"
"""

RETURN = r"""
_value:
  description: The entries.
  type: list
  elements: dict
  sample: [{name: fraud, state: absent}]
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def model_entries(
    models: Any, variable: str, more: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The entries of a list that may come from anywhere."""
    wanted = (
        f'a list of names, such as -e \'{{"{variable}": ["fraud"]}}\''
        if more is not None
        else "a list whose entries have a name and the options of mlops.triton.triton_models"
    )
    if not isinstance(models, list | tuple):
        raise AnsibleFilterError(
            f"{variable} is {_kind(models)}, and has to be {wanted}. Nothing was changed."
        )
    problems = [
        f"entry {number} of {variable} {problem}"
        for number, model in enumerate(models, 1)
        if (problem := _problem(model, more is not None))
    ]
    names = Counter(_name(model) for model in models)
    problems += [
        f"{variable} has {count} entries with the name '{name}'"
        for name, count in names.items()
        if name and count > 1
    ]
    if problems:
        raise AnsibleFilterError(
            f"{'; '.join(problems)}. It has to be {wanted}, each name once. Nothing was changed."
        )
    if more is not None:
        return [{"name": _name(model), **more} for model in models]
    return [dict(model) for model in models]


def _problem(model: Any, is_name: bool) -> str | None:
    if is_name:
        return None if _name(model) and not isinstance(model, Mapping) else f"is {_kind(model)}"
    if not isinstance(model, Mapping):
        return f"is {_kind(model)}"
    return None if _name(model) else "has no name"


def _name(model: Any) -> str:
    name = model.get("name") if isinstance(model, Mapping) else model
    return "" if name is None or isinstance(name, bool | list | Mapping) else str(name).strip()


def _kind(value: Any) -> str:
    if value is None or value == "":
        return "empty"
    for kind, word in ((str, "a text"), (Mapping, "a dictionary"), (list | tuple, "a list")):
        if isinstance(value, kind):
            return word
    return "a number" if not isinstance(value, bool) else "true or false"


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"model_entries": model_entries}
