# SPDX-License-Identifier: Apache-2.0
"""What errors tell code by their class, and users by their facts."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.mlflow_deployments.failures import (
    TritonDeploymentError,
    code_of,
    report_failures,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    Defect,
    DeliveryError,
    LoadFailed,
    LoadPending,
    NotFound,
    RegistryError,
    RegistryRefused,
    RegistryTimeout,
    RegistryUnreachable,
    ServerError,
    ServerRefused,
    ServerTimeout,
    ServerUnreachable,
    VerificationFailed,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    _first_cause,
)

URL = "localhost:8000"


@pytest.mark.parametrize(
    ("error", "name", "facts", "code"),
    [
        (ServerError("no"), "ServerError", {}, "INVALID_STATE"),
        (
            ServerUnreachable("no", server=URL),
            "ServerError",
            {"server": URL, "no_answer": True},
            "TEMPORARILY_UNAVAILABLE",
        ),
        (
            ServerTimeout("no", server=URL),
            "ServerError",
            {"server": URL, "silent": True},
            "DEADLINE_EXCEEDED",
        ),
        (
            ServerRefused("no", server=URL, status=403, reason="key"),
            "ServerError",
            {"server": URL, "status": 403, "reason": "key"},
            "PERMISSION_DENIED",
        ),
        (
            ServerRefused("no", server=URL, status=503, reason="busy"),
            "ServerError",
            {"server": URL, "status": 503, "reason": "busy"},
            "INVALID_STATE",
        ),
        (
            LoadFailed("no", server=URL, reason="file"),
            "LoadFailed",
            {"server": URL, "reason": "file"},
            "INVALID_STATE",
        ),
        (LoadPending("no", server=URL), "LoadPending", {"server": URL}, "DEADLINE_EXCEEDED"),
        (VerificationFailed("no"), "VerificationFailed", {}, "INVALID_STATE"),
        (RegistryError("no"), "RegistryError", {}, "INTERNAL_ERROR"),
        (
            RegistryUnreachable("no"),
            "RegistryError",
            {"no_answer": True},
            "TEMPORARILY_UNAVAILABLE",
        ),
        (RegistryTimeout("no"), "RegistryError", {"silent": True}, "DEADLINE_EXCEEDED"),
        (
            RegistryRefused("no", code="PERMISSION_DENIED"),
            "RegistryError",
            {"mlflow_error_code": "PERMISSION_DENIED"},
            "PERMISSION_DENIED",
        ),
        (
            RegistryRefused("no", code=""),
            "RegistryError",
            {"mlflow_error_code": ""},
            "INTERNAL_ERROR",
        ),
        (Defect("no"), "Defect", {}, "INTERNAL_ERROR"),
        (NotFound("no", holder="me"), "NotFound", {"holder": "me"}, "RESOURCE_DOES_NOT_EXIST"),
    ],
)
def test_facts_and_codes(
    error: DeliveryError, name: str, facts: dict[str, object], code: str
) -> None:
    """Names and keys that users may test for."""
    usual = {"error": name, "model_name": None, "step": None, "left_in_place": None}
    assert error.facts == {**usual, **facts}
    assert code_of(error) == code


def test_mlflow_hears_of_a_defect_in_one_sentence_too() -> None:
    with pytest.raises(TritonDeploymentError) as caught, report_failures():
        raise KeyError("left out")
    assert caught.value.message.startswith("an unexpected KeyError ('left out'; test_errors.py")
    assert caught.value.error_code == "INTERNAL_ERROR"
    assert caught.value.facts["error"] == "Defect"
    refused = TritonDeploymentError("no", "NOT_IMPLEMENTED")
    with pytest.raises(TritonDeploymentError) as caught, report_failures():
        raise refused
    assert caught.value is refused


@pytest.mark.parametrize("end", ["", ".", ";", ".;", ". ", "; "])
@pytest.mark.parametrize("left", [None, "models:/m3/2 is in place as before", "it was removed;"])
def test_a_sentence_ends_once(end: str, left: str | None) -> None:
    """Triton ends its reasons in one way or another."""
    reason = _first_cause(f"Stub process 'm3_0_0' is not healthy{end}\n\nAt:\n  model.py(3): init")
    said = str(DeliveryError(f"{reason}{end}", model="m3", step="load", left=left))
    whole = "model 'm3', load: Triton answered: Stub process 'm3_0_0' is not healthy"
    if left is None:
        assert said in (whole, f"{whole}.")
    else:
        assert (
            said
            == f"{whole}. {left[0].upper() if left[2] == ' ' else left[0]}{left[1:].rstrip(';')}."
        )


def test_a_name_is_no_command_for_a_terminal() -> None:
    """Whoever may publish chooses the names of files, and of whom a certificate is for."""
    error = DeliveryError("a\x1b[2Jb\rc\x9bd\u202ee\udcfff\n\tg", model="m\x07")
    assert str(error) == "model 'm\\x07': a\\x1b[2Jb c\\x9bd\\u202ee\\udcfff g"
