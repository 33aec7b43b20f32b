# SPDX-License-Identifier: Apache-2.0
"""Credentials do not reach messages, whatever characters they have."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.redact import mask, secrets_in
from hypothesis import assume, given
from hypothesis import strategies as st

# What a password in a URL may have without ending the part that names the host.
PASSWORDS = st.text(
    st.characters(
        exclude_characters="/?#[]\\", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp", "Cn")
    ),
    min_size=5,
)


def url_with(password: str) -> str:
    url = f"https://reader:{password}@registry.example:5000/api"
    try:
        parts = urlsplit(url)
        assume(parts.hostname == "registry.example" and parts.password == password)
    except ValueError:
        assume(False)
    # What stands there anyway shows nothing.
    assume(not shown_pieces(password, "cannot reach https://reader: registry.example:5000/api"))
    return url


def shown_pieces(password: str, text: str) -> list[str]:
    """A part of a password helps who guesses the rest."""
    pieces = re.split("[@:'\"]", password)
    return [piece for piece in (password, *pieces) if len(piece) > 3 and piece in text]


@given(password=PASSWORDS)
def test_no_password_of_a_url_is_shown(password: str) -> None:
    url = url_with(password)
    for text in (url, f"cannot reach '{url}': refused", f"<{url}>,\n{url}", f'{{"url": "{url}"}}'):
        assert not shown_pieces(password, mask(text))
        assert "registry.example:5000/api" in mask(text)


@given(password=PASSWORDS)
def test_a_refused_model_uri_shows_no_password(password: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        parse_model_uri(url_with(password))
    assert not shown_pieces(password, str(refusal.value).split(";", 1)[0])


def test_what_is_no_credential_stays() -> None:
    text = "models:/churn@champion at http://127.0.0.1:5000 has no version, ask ops@example.org"
    assert mask(text) == text


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_mlflows_own_secrets_are_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "s3cret")
    assert mask("401 for s3cret") == "401 for ***"


def test_what_signs_an_address_is_not_shown() -> None:
    for address in (
        "https://b.s3.example/x?X-Amz-Credential=AKIA%2Fa&X-Amz-Signature=5e55ame&X-Amz-Expires=60",
        "https://a.blob.example/c/x?sv=2024&se=2027&sig=5e55ame%3D",
        "wasbs://c@a.blob.example/x?token=5e55ame",
        "https://h/x?a=1&amp;access_key=5e55ame",
    ):
        shown = mask(f"cannot read '{address}': refused")
        assert "5e55ame" not in shown and shown.endswith("': refused")
        assert "5e55ame" in " ".join(secrets_in(address))
    assert mask("https://h/x?page=2&sort=name") == "https://h/x?page=2&sort=name"


def test_secrets_of_an_address_are_those_that_are_hidden() -> None:
    assert list(secrets_in("http://me:a%2Fb@h/x")) == ["a%2Fb", "a/b"]
    assert list(secrets_in("http://me:open[::1@[::1")) == ["open[::1", "open[::1"]
    assert not list(secrets_in("http://h/x and models:/a@b"))
