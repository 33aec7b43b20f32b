# SPDX-License-Identifier: Apache-2.0
"""What options allow to be deployed: each rule, what it says, and what it leaves alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    DIGEST_TAG,
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.provenance import (
    Provenance,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    PolicyRefused,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning import policy_options
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy

ONNX = b'backend: "onnxruntime"\n'
OTHERS = b'backend: "python"\n'


def layout(*sizes: int | None, target: str = "1/model.onnx") -> Layout:
    files = tuple((f"model/{number}", target, size) for number, size in enumerate(sizes))
    return Layout("triton", files, (), b"", (1,), (1,))


def record(*paths: str, size: int = 10, **publisher: Any) -> Record:
    manifest = Manifest.of(FileEntry(path, size) for path in paths).to_dict()
    return Record(
        "fraud", "id", "u", "u", "s", "triton", (1,), manifest, "d", "c", {}, "then", "me",
        **publisher,
    )  # fmt: skip


def _sentence(error: PolicyRefused) -> str:
    assert (error.step, error.left) == ("check the policy", "nothing was changed")
    return error.message


def why_new(
    policy: Policy,
    there: Layout | None = None,
    config: bytes = ONNX,
    published: str | None = None,
    tag: str | None = None,
    schema: int = 2,
) -> str | None:
    """The sentence with which a new model is refused."""
    tags = {DIGEST_TAG: tag} if tag is not None else {}
    found = Provenance(published, schema) if published is not None else None
    made = dataclasses.replace(there if there is not None else layout(10), provenance=found)
    try:
        policy.check_new(made, config, tags)
    except PolicyRefused as error:
        return _sentence(error)
    return None


def why_deployed(policy: Policy, there: Record, config: bytes = ONNX) -> str | None:
    try:
        policy.check_deployed(there, config)
    except PolicyRefused as error:
        return _sentence(error)
    return None


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("1B", 1),
        (" 7 ", 7),
        ("500 MB", 500_000_000),
        ("500MB", 500_000_000),
        ("500m", 500_000_000),
        ("1K", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("1ki", 1024),
        ("2GiB", 2 << 30),
        ("2G", 2 * 10**9),
        ("1.5 MiB", 3 << 19),
        ("1T", 10**12),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(size: Any, count: int) -> None:
    assert policy_options.bytes_of(size) == count


@pytest.mark.parametrize(
    "size",
    ["", "much", "-1", "1.", ".5", "1 PB", "1iB", "1 M B", "0x10", True, False, None, "1\n2"],
)
def test_what_is_no_size(size: Any) -> None:
    with pytest.raises(InvalidOption) as refusal:
        policy_options.bytes_of(size)
    assert str(refusal.value) == (
        f"read the options: max_size {size!r} is not a number of bytes, nor one such as 500MB or"
        " 2GiB. Nothing was changed."
    )


def test_options_become_rules() -> None:
    assert Policy.from_options({}) == Policy(None, None, False)
    assert Policy.from_options(
        {"allowed_backends": ["onnxruntime", "python"], "max_size": "1KiB", "require_digest": True}
    ) == Policy(("onnxruntime", "python"), 1024, True)
    assert Policy.from_options({"allowed_backends": [], "max_size": 0}) == Policy((), 0, False)
    with pytest.raises(InvalidOption, match="max_size 'much'"):
        Policy.from_options({"max_size": "much"})


def test_a_policy_without_rules_is_none() -> None:
    assert not Policy()
    assert Policy(allowed_backends=())
    assert Policy(max_size=0)
    assert Policy(require_digest=True)


def test_without_rules_everything_goes() -> None:
    assert why_new(Policy(), layout(None, 1 << 50), b"") is None
    assert why_deployed(Policy(), record("1/x"), b"") is None


# -- allowed_backends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "target", "backend"),
    [
        (ONNX, "1/x.onnx", "onnxruntime"),
        (b'platform: "onnxruntime_onnx"', "1/x.onnx", "onnxruntime"),
        (b'platform: "tensorrt_plan"', "1/x.plan", "tensorrt"),
        (b"", "1/model.onnx", "onnxruntime"),
        (b"", "1/model.pt", "pytorch"),
        (b"", "1/model.savedmodel/saved_model.pb", "tensorflow"),
        (b'platform: "ensemble"', "1/x.md", "ensemble"),
        (b"ensemble_scheduling { step { model_name: 'a' } }", "1/x.md", "ensemble"),
    ],
)
def test_the_backend_is_told_by_configuration_or_file(
    config: bytes, target: str, backend: str
) -> None:
    assert why_new(Policy((backend, "another")), layout(1, target=target), config) is None
    assert why_new(Policy(("another",)), layout(1, target=target), config) == (
        f"it needs the backend {backend}, and allowed_backends has another"
    )
    assert why_deployed(Policy((backend,)), record(target), config) is None
    assert why_deployed(Policy(("another", "third")), record(target), config) == (
        f"it needs the backend {backend}, and allowed_backends has another, third"
    )


def test_no_backend_is_allowed() -> None:
    assert why_new(Policy(())) == "it needs the backend onnxruntime, and allowed_backends has none"


def test_a_backend_that_nothing_tells_is_refused() -> None:
    assert why_new(Policy(("onnxruntime",)), layout(1, target="1/weights"), b"") == (
        "it needs a backend that its configuration does not name, and allowed_backends has"
        " onnxruntime"
    )


def test_each_backend_that_it_may_be_run_with_must_be_allowed() -> None:
    two = dataclasses.replace(layout(), files=(("a", "1/model.onnx", 1), ("b", "1/model.py", 1)))
    assert why_new(Policy(("onnxruntime",)), two, b"") == (
        "it needs the backend onnxruntime or python, and allowed_backends has onnxruntime"
    )
    both = Policy(("python", "onnxruntime"))
    assert why_new(both, two, b"") == (
        "it brings '1/model.py', which is none that a model of the backend onnxruntime is known to"
        " need, and allowed_backends is set: take it out of the model folder, and publish the model"
        " again"
    )
    assert why_new(both, two, OTHERS) is None


@pytest.mark.parametrize(
    ("config", "target", "what"),
    [
        (ONNX + b'runtime: "mine.so"', "1/x.onnx", "the field runtime"),
        (
            ONNX + b'model_operations { op_library_filename: "ops.so" }',
            "1/x.onnx",
            "the field model_operations",
        ),
        (ONNX, "1/libtriton_onnxruntime.so", "'1/libtriton_onnxruntime.so'"),
        (
            ONNX + b'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "e.tar.gz" } }',
            "1/x.onnx",
            "its parameter EXECUTION_ENV_PATH is 'e.tar.gz'",
        ),
        (ONNX, "triton_python_backend_stub", "it brings 'triton_python_backend_stub'"),
    ],
)
def test_what_an_allowed_backend_does_not_need_is_refused(
    config: bytes, target: str, what: str
) -> None:
    for rules in ({"allowed_backends": ("onnxruntime",)}, {"allowed_paths": ()}):
        new = why_new(Policy(**rules), layout(1, target=target), config)
        assert new is not None and what in new and f"{next(iter(rules))} is set" in new
        assert why_deployed(Policy(**rules), record(target), config) == new
    code = why_new(Policy(model_code="refused"), layout(1, target=target), config)
    assert code is not None and "counts as code, and model_code: refused is set" in code
    assert why_new(Policy(max_size=100), layout(1, target=target), config) is None


# -- max_size --------------------------------------------------------------------------------------


def test_size_of_all_files_together() -> None:
    assert why_new(Policy(max_size=10), layout(4, 6)) is None
    assert why_new(Policy(max_size=10), layout(4, 7)) == "it has 11 bytes, and max_size allows 10"
    assert why_new(Policy(max_size=0), layout(0)) is None
    assert why_new(Policy(max_size=0), layout(1)) == "it has 1 bytes, and max_size allows 0"


def test_size_that_the_store_does_not_tell() -> None:
    assert why_new(Policy(max_size=10), layout(4, None)) == (
        "the store does not list the size of model/1, and max_size allows 10 bytes"
    )
    assert why_new(Policy(require_digest=True), layout(None), published="d", tag="d") is None


def test_size_of_what_is_deployed() -> None:
    assert why_deployed(Policy(max_size=20), record("1/a", "1/b")) is None
    assert why_deployed(Policy(max_size=19), record("1/a", "1/b")) == (
        "it has 20 bytes, and max_size allows 19"
    )


# -- require_digest --------------------------------------------------------------------------------

DIGEST = Policy(require_digest=True)


AGAIN = (
    "publish it again with mlflow_publish (the same content becomes a version with a new manifest)"
    " and deploy that version"
)


def test_the_publishers_manifest_is_required() -> None:
    without = (
        "it has no manifest of its publisher, and require_digest is set: publish it with"
        " mlflow_publish and deploy that version"
    )
    assert why_new(DIGEST) == without
    assert why_new(DIGEST, tag="abc") == without
    assert why_new(DIGEST, published="abc", tag="abc") is None
    assert why_new(DIGEST, published="abc", tag="other") == (
        "the tag triton.digest of the model version names another manifest (other), and"
        f" require_digest is set: {AGAIN}"
    )


def test_what_no_tag_vouches_for_is_refused() -> None:
    """A model without a registered version has none, however its manifest looks."""
    assert why_new(DIGEST, published="abc") == (
        "no tag triton.digest of a model version vouches for its manifest, and require_digest is"
        " set: name the version that mlflow_publish made, as models:/<name>/<version>"
    )


def test_a_manifest_that_does_not_cover_all_is_none() -> None:
    assert why_new(DIGEST, published="abc", tag="abc", schema=1) == (
        "its manifest has schema 1, which does not cover all of its files, and require_digest is"
        f" set: {AGAIN}"
    )
    assert why_new(Policy(max_size=100), published="abc", schema=1) is None


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "it was deployed without a manifest of its publisher, and require_digest is set:"),
        (
            {"publisher_digest": "abc"},
            (
                "it was deployed with a manifest that does not cover all of its files, and"
                f" require_digest is set: {AGAIN}"
            ),
        ),
        (
            {"publisher_digest": "abc", "publisher_schema": 1, "tagged_digest": "abc"},
            "it was deployed with a manifest that does not cover all of its files",
        ),
        (
            {"publisher_digest": "abc", "publisher_schema": 2},
            (
                "no tag triton.digest of a model version vouched for its manifest when it was"
                " deployed, and require_digest is set: deploy the version that mlflow_publish made,"
                f" as models:/<name>/<version>; where it is that, {AGAIN}"
            ),
        ),
        (
            {"publisher_digest": "abc", "publisher_schema": 2, "tagged_digest": "other"},
            "no tag triton.digest of a model version vouched for its manifest",
        ),
        ({"publisher_digest": "abc", "publisher_schema": 2, "tagged_digest": "abc"}, None),
    ],
    ids=["none", "older release", "schema 1", "no tag", "other tag", "vouched for"],
)
def test_the_manifest_of_what_is_deployed(known: dict[str, Any], said: str | None) -> None:
    found = why_deployed(DIGEST, record("1/a", **known))
    assert found is None if said is None else str(found).startswith(said), found
    assert why_deployed(Policy(max_size=100), record("1/a", **known)) is None


def test_the_backend_is_judged_first_then_the_size_then_the_digest() -> None:
    all_rules = Policy(("python",), 1, True)
    assert "backend" in str(why_new(all_rules, layout(10)))
    assert "bytes" in str(why_new(all_rules, layout(10), OTHERS))
    assert "manifest" in str(why_new(all_rules, layout(1), OTHERS))
