# SPDX-License-Identifier: Apache-2.0
"""What a failed request to MLflow says of the options that would help."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.credentials import (
    remedy_for,
)

CERTIFICATE = "; it may ask for a certificate, which mlflow_client_cert names"


@pytest.mark.parametrize(
    ("said", "url", "remedy"),
    [
        ("HTTP error code 401", "http://m", "mlflow_username and mlflow_password, or mlflow_token"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", "https://m", "mlflow_ca_file names"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]", "https://m", "it asks for a certificate"),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE]", "https://m", CERTIFICATE),
    ],
)
def test_a_refusal_names_the_option_that_answers_it(said: str, url: str, remedy: str) -> None:
    assert remedy in remedy_for(said, url)


@pytest.mark.parametrize(
    "said",
    [
        "EOF occurred in violation of protocol (_ssl.c:2427)",
        "[Errno 104] Connection reset by peer",
        "[Errno 32] Broken pipe",
    ],
)
def test_a_connection_that_ends_may_lack_a_certificate_over_tls_alone(said: str) -> None:
    """With TLS 1.3 a server refuses a client after its handshake, and its reason may be lost."""
    assert remedy_for(said, "https://m") == CERTIFICATE
    assert remedy_for(said, "http://m") == ""


def test_what_no_option_answers_is_left_as_it_is() -> None:
    assert remedy_for("no such table", "https://m") == ""
