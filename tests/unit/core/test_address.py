# SPDX-License-Identifier: Apache-2.0
"""Where a Triton server listens, as ``triton_url`` says it."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.address import (
    Address,
    parse_address,
    parse_load_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", Address("http", "host", 8000)),
        ("host:1", Address("http", "host", 1)),
        ("https://host", Address("https", "host", 8000)),
        ("grpc://[::1]", Address("grpc", "::1", 8001)),
        ("grpcs://host:7/", Address("grpcs", "host", 7)),
    ],
)
def test_an_address_has_a_scheme_and_a_port(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "ftp://host", "http://host/path", "host:port", "http://"])
def test_anything_else_is_refused_as_it_was_given(text: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        parse_address(text)
    assert f"triton_url {text!r} is not host:port" in str(refused.value)


@pytest.mark.parametrize("scheme", ["", "http://", "grpcs://"])
def test_a_refused_address_tells_no_password(scheme: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        parse_address(f"{scheme}admin:hunter2@host:8000")
    assert "hunter2" not in str(refused.value)
    assert f"triton_url '{scheme}***@host:8000' is not" in str(refused.value)


def test_loads_are_sent_over_grpc_alone() -> None:
    assert parse_load_address("grpc://host") == Address("grpc", "host", 8001)
    assert parse_load_address("grpcs://host:7") == Address("grpcs", "host", 7)


@pytest.mark.parametrize("text", ["", "host:8001", "http://host:8000", "https://host", "grpc://"])
def test_a_load_url_of_another_protocol_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        parse_load_address(text)
    assert f"load_url {text!r} is not grpc://host:port" in str(refused.value)
    with pytest.raises(InvalidOption) as secret:
        parse_load_address("https://admin:hunter2@host")
    assert "hunter2" not in str(secret.value)
