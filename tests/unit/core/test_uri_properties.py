# SPDX-License-Identifier: Apache-2.0
"""Model URIs: what is written from parts is read as these parts, and nothing else than a refusal
comes of what is not one.
"""

from __future__ import annotations

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    ModelUri,
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

PRINTED = st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"])
# MLflow allows neither "/" nor ":" in a registered model's name.
NAMES = st.text(PRINTED, min_size=1, max_size=12).filter(
    lambda name: bool(name.strip()) and not set(name) & set("/:")
)
ALIASES = st.text(st.sampled_from("abcXYZ019_-"), min_size=1, max_size=8)
ANYTHING = st.one_of(
    st.text(max_size=20),
    st.text(st.sampled_from("models:/runs@file.-m1 \0\n"), max_size=20),
    st.tuples(
        st.sampled_from(["models:", "runs:", "file:", "MODELS:", "s3:", ""]), st.text(max_size=12)
    ).map("".join),
)


@given(NAMES, st.integers(1, 10**9), st.sampled_from(["models:/", "models:", "Models:/"]))
def test_version(name: str, version: int, head: str) -> None:
    text = f"{head}{name}/{version}"
    assert parse_model_uri(text) == ModelUri("version", text, name=name, version=version)


@given(
    st.sampled_from(["models:/network/1", "models:/n@champion", "runs:/1/model", "/srv/model"]),
    st.text(st.sampled_from(" \t\n"), max_size=3),
    st.text(st.sampled_from(" \t\n"), max_size=3),
)
def test_spaces_around_it_are_no_part_of_it(text: str, before: str, after: str) -> None:
    """NVIDIA's and Morpheus' guides print ``" models:/sid-minibert-onnx/1"``."""
    assert parse_model_uri(f"{before}{text}{after}") == parse_model_uri(text)


@given(NAMES, ALIASES)
@example("a@b", "champion")
def test_alias(name: str, alias: str) -> None:
    """The last ``@`` counts: names may have one."""
    text = f"models:/{name}@{alias}"
    assert parse_model_uri(text) == ModelUri("alias", text, name=name, alias=alias)


@given(NAMES, st.sampled_from(["latest", "Latest", "LATEST"]))
def test_latest(name: str, latest: str) -> None:
    text = f"models:/{name}/{latest}"
    assert parse_model_uri(text) == ModelUri("latest", text, name=name)


@given(ALIASES)
def test_logged_model(model_id: str) -> None:
    text = f"models:/m-{model_id}"
    assert parse_model_uri(text) == ModelUri("logged_model", text, model_id=f"m-{model_id}")


@given(
    st.text(st.sampled_from("0123456789abcdef"), min_size=1, max_size=32),
    st.lists(st.sampled_from(["model", "a b", "1", "..x"]), min_size=1, max_size=3),
)
def test_run(run_id: str, parts: list[str]) -> None:
    path = "/".join(parts)
    text = f"runs:/{run_id}/{path}"
    assert parse_model_uri(text) == ModelUri("run", text, run_id=run_id, path=path)


@given(st.text(PRINTED, max_size=20).filter(lambda path: path == path.rstrip()))
@example("a folder")
def test_folder(path: str) -> None:
    for text in (f"/{path}", f"./{path}"):
        assert parse_model_uri(text) == ModelUri("folder", text, path=text)
    assume(not set(path) & set("%"))
    assert parse_model_uri(f"file:///{path}") == ModelUri(
        "folder", f"file:///{path}", path=f"/{path}"
    )


def check_refusal(error: InvalidOption) -> None:
    assert error.step == "read the model URI"
    assert "possible are models:/<name>/<version>" in str(error)


@given(ANYTHING)
@example("file:///models/a%00b")
def test_anything_else_is_refused_in_a_sentence(text: str) -> None:
    """And what is read has all that its kind needs; read again it is the same."""
    try:
        uri = parse_model_uri(text)
    except InvalidOption as error:
        event("refused")
        check_refusal(error)
        return
    event(uri.kind)
    needs = {
        "version": ("name", "version"),
        "alias": ("name", "alias"),
        "latest": ("name",),
        "logged_model": ("model_id",),
        "run": ("run_id", "path"),
        "folder": ("path",),
    }[uri.kind]
    fields = ("name", "version", "alias", "model_id", "run_id", "path")
    assert tuple(field for field in fields if getattr(uri, field) is not None) == needs
    assert all(getattr(uri, field) for field in needs)
    assert uri.text == text.strip()
    assert "\0" not in "".join(str(getattr(uri, field)) for field in fields)
    assert parse_model_uri(uri.text) == uri
    if uri.kind == "run":
        assert ".." not in str(uri.path).split("/")
