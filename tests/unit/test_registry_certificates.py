# SPDX-License-Identifier: Apache-2.0
"""Certificates for the registry, of which MLflow's environment may have a part already."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.credentials import (
    VARIABLES,
    Credentials,
)
from support.certificates import Authority


@pytest.mark.parametrize("given", [("certificate", "key"), ("key",)])
def test_a_key_goes_with_the_certificate_of_the_environment(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    certificate, key = Authority(tmp_path).issue("client")
    options = {"mlflow_client_key": key}
    if "certificate" in given:
        options["mlflow_client_cert"] = certificate
    found = Credentials.from_options(options, {VARIABLES["mlflow_client_cert"]: certificate})
    assert (found.client_cert, found.client_key) == (certificate, key)
