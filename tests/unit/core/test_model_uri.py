# SPDX-License-Identifier: Apache-2.0
"""What a user may write as a model URI."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption

GOOD: dict[str, dict[str, Any]] = {
    "models:/fraud/3": {"kind": "version", "name": "fraud", "version": 3},
    "models:/fraud/3/": {"kind": "version", "name": "fraud", "version": 3},
    "models:/a name, ünd more/12": {"kind": "version", "name": "a name, ünd more", "version": 12},
    "models:/fraud@champion": {"kind": "alias", "name": "fraud", "alias": "champion"},
    "models:/me@home@champion": {"kind": "alias", "name": "me@home", "alias": "champion"},
    "models:/fraud/latest": {"kind": "latest", "name": "fraud"},
    "models:/fraud/LATEST": {"kind": "latest", "name": "fraud"},
    "models:/m-0a1b2c3d": {"kind": "logged_model", "model_id": "m-0a1b2c3d"},
    "models:/m-0a1b2c3d/3": {"kind": "version", "name": "m-0a1b2c3d", "version": 3},
    "runs:/0a1b/triton": {"kind": "run", "run_id": "0a1b", "path": "triton"},
    "runs:/0a1b/a/b/": {"kind": "run", "run_id": "0a1b", "path": "a/b"},
    "file:///models/fraud": {"kind": "folder", "path": "/models/fraud"},
    "file:/models/fraud": {"kind": "folder", "path": "/models/fraud"},
    "file://localhost/models/a%20b": {"kind": "folder", "path": "/models/a b"},
    "/models/fraud": {"kind": "folder", "path": "/models/fraud"},
    "models/fraud": {"kind": "folder", "path": "models/fraud"},
    "./models:/fraud": {"kind": "folder", "path": "./models:/fraud"},
}

BAD = {
    "": "is empty",
    "a\0b": "NUL",
    "models:/fraud": "does not name one version",
    "models:/": "does not name one version",
    "models:/fraud/3/more": "does not name one version",
    "models:/ /3": "does not name one version",
    "models:/fraud/0": "a whole number from 1 on, as in models:/fraud/1;",
    "models:/fraud/-1": "a whole number from 1 on",
    "models:/fraud/³": "a whole number from 1 on",
    "models:/fraud/v3": "a whole number from 1 on, as in models:/fraud/3;",
    "models:/fraud/3.0": "as in models:/fraud/3;",
    "models:/fraud/ 3": "as in models:/fraud/3;",
    "models:/fraud/3 # good": "as in models:/fraud/3;",
    "models:/fraud/Champion": "an alias is written models:/fraud@Champion;",
    "'models:/fraud/3'": "has quotation marks around it",
    '"runs:/0a1b/triton"': "has quotation marks around it",
    "models:/fraud/Production": "models:/fraud@production",
    "models:/fraud/": "does not name one version",
    "models:/@champion": "no model name before '@'",
    "models:/fraud@": "no alias",
    "models:/fraud@a b": "no alias",
    "models://registry/fraud/3": "tracking_uri or registry_uri",
    "runs:/": "does not name a run",
    "runs:/0a1b": "does not name a run",
    "runs:/0a1b/../other": "does not name a run",
    "runs:/0a1b//etc": "does not name a run",
    "file://other.example.com/models": "other.example.com",
    "file:models": "no absolute path",
    "s3://bucket/fraud": "begins with 's3:'",
    "mlflow-artifacts:/1/models": "begins with 'mlflow-artifacts:'",
}


@pytest.mark.parametrize("text", GOOD)
def test_form(text: str) -> None:
    parsed = parse_model_uri(text)
    assert parsed.text == text
    assert {
        key: value for key, value in vars(parsed).items() if value is not None and key != "text"
    } == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_model_uri(text)
    assert BAD[text] in str(caught.value)
    assert "models:/<name>@<alias>" in str(caught.value)


def test_refusal_shows_no_credentials() -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_model_uri("https://me:secret@example.com/models")
    assert "secret" not in str(caught.value)
