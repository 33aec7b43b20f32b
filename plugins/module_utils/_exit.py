# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way out of every module: a result, or one sentence."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ._delivery.errors import Defect, as_delivery_error
from ._delivery.progress import VARIABLE, write_progress
from ._delivery.redact import mask, secrets_in
from ._delivery.registry.credentials import Credentials, use_credentials
from ._delivery.terminal import lines, one_line, values

_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_SENTENCES = (
    "msg",
    "failures",
    "actions",
    "noted",
    "reported",
    "drift",
    "unproven",
    "left_in_place",
    "step",
)


def run(module: AnsibleModule, function: Callable[[AnsibleModule], dict[str, Any]]) -> None:
    """Exit with what ``function`` returns; its key ``warnings`` becomes warnings, ``diff`` goes
    only where asked for.
    """
    # A module is a process of its own, so MLflow's minutes of retries can be switched off here and
    # nowhere deeper.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    _hide_passwords(module)
    try:
        with (
            write_progress(os.environ.get(VARIABLE)),
            use_credentials(Credentials.from_options(module.params)),
        ):
            result = function(module)
    except Exception as error:
        said = as_delivery_error(error)
        facts = said.facts
        trace = facts.pop("import_traceback", None)
        if isinstance(said, Defect):  # which Ansible shows to who asks for it
            trace = lines(mask(traceback.format_exc()))
        facts = _printable(facts)
        module.fail_json(msg=str(said), **({"exception": trace} if trace else {}), **facts)
    for warning in result.pop("warnings", ()):
        module.warn(one_line(warning))
    if not module._diff:
        result.pop("diff", None)
    result = _printable(result)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


def _printable(result: dict[str, Any]) -> dict[str, Any]:
    """The result, in which sentences are one line each, and nothing is a command for a terminal.

    Ansible prints ``msg`` and ``diff`` as they are, and all else as JSON.
    """
    found: dict[str, Any] = {}
    for key, value in result.items():
        if key in _SENTENCES:
            value = _each_text(value, one_line)
        elif key == "diff":
            value = _each_text(value, lines)
        elif isinstance(value, dict):
            value = _printable(value)
        elif isinstance(value, list):
            value = [_printable(one) if isinstance(one, dict) else values(one) for one in value]
        found[str(values(str(key)))] = values(value)
    return found


def _each_text(value: object, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _each_text(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [_each_text(one, change) for one in value]
    return value


def join_results(results: Iterable[tuple[dict[str, Any], Iterable[str]]]) -> dict[str, Any]:
    """One result for a list: diffs joined, failures gathered.

    Args:
        results: of each model its own result and its warnings.
    """
    joined = list(results)
    entries = [entry for entry, _warnings in joined]
    failures = [entry["msg"] for entry in entries if entry["failed"]]
    outcome: dict[str, Any] = {
        "changed": any(entry["changed"] for entry in entries),
        "models": [
            {key: value for key, value in entry.items() if key != "diff"} for entry in entries
        ],
        "diff": [entry["diff"] for entry in entries if entry["changed"] and "diff" in entry],
        "warnings": list(
            dict.fromkeys(
                f"{entry['name']}: {text}" for entry, warnings in joined for text in warnings
            )
        ),
    }
    if failures:
        outcome.update(
            failed=True,
            failures=failures,
            msg=f"{len(failures)} of {len(entries)} models failed: {' | '.join(failures)}",
        )
    return outcome


def _hide_passwords(module: AnsibleModule) -> None:
    """An address is no secret, and is shown with -vvv; the password in it is one, whichever option
    it is in, and so is a key that was given where its path or its variable is asked for.
    """
    for text in _texts(module.params):
        module.no_log_values.update(one for one in secrets_in(_as_url(text)) if one)
        if "PRIVATE KEY-----" in text:
            module.no_log_values.add(text)
    sign = module.params.get("sign")
    for key, value in sign.items() if isinstance(sign, dict) else ():
        if key.endswith("_env") and value and not _VARIABLE.fullmatch(str(value)):
            module.no_log_values.add(str(value))


def _as_url(text: str) -> str:
    """Servers are given without a scheme too."""
    return text if "//" in text else f"//{text}"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
