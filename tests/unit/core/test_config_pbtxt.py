# SPDX-License-Identifier: Apache-2.0
"""config.pbtxt: what is accepted, what is kept byte for byte, what is changed and how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import (
    config_pbtxt,
    pbtxt,
    releases,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ConfigError

AUTHOR = b"""# a comment that must survive
name: "fraud"
backend: "python"
max_batch_size: 0
instance_group [ { kind: KIND_GPU gpus: [ 0, 1 ] count: 2 }, { kind: KIND_MODEL } ]
parameters { key: "threshold" value { string_value: "0.5" } }
"""


def deployed(author: bytes = AUTHOR, **options: object) -> bytes:
    return config_pbtxt.render_deployed(author, name="fraud", deploy_id="id-1", **options)


def test_without_options_the_authors_bytes_stay_and_one_block_is_appended() -> None:
    data = deployed()
    assert data.startswith(AUTHOR) and data[len(AUTHOR) :] == config_pbtxt.deploy_block("id-1")
    assert config_pbtxt.deploy_id_of(data) == "id-1"
    assert config_pbtxt.digest_without_id(data, "id-1") == config_pbtxt.digest_without_id(
        deployed(), "id-1"
    )
    assert config_pbtxt.digest_without_id(data, "id-2") is None


@pytest.mark.parametrize(
    "author", [b"\xef\xbb\xbf" + AUTHOR, AUTHOR.replace(b"\n", b"\r\n"), AUTHOR.rstrip(), b""]
)
def test_marks_line_ends_and_missing_ends_are_accepted(author: bytes) -> None:
    data = deployed(author)
    assert config_pbtxt.deploy_id_of(data) == "id-1" and not data.startswith(b"\xef\xbb\xbf")
    expected = config_pbtxt.parse(author)
    found = config_pbtxt.parse(data)
    found.parameters.pop(config_pbtxt.DEPLOY_ID_KEY)
    assert found == expected


def test_an_id_of_an_earlier_deployment_is_replaced() -> None:
    again = deployed(AUTHOR + config_pbtxt.deploy_block("old"))
    assert (
        again.count(config_pbtxt.DEPLOY_ID_KEY.encode()) == 1
        and config_pbtxt.deploy_id_of(again) == "id-1"
    )


def test_instance_kind_changes_nothing_else() -> None:
    before, after = config_pbtxt.parse(AUTHOR), config_pbtxt.parse(deployed(instance_kind="cpu"))
    assert [group.kind for group in after.instance_group] == [
        after.instance_group[0].KIND_CPU,
        after.instance_group[0].KIND_MODEL,
    ]
    assert not after.instance_group[0].gpus and after.instance_group[0].count == 2
    for message in (before, after):
        message.ClearField("instance_group")
        message.parameters.pop(config_pbtxt.DEPLOY_ID_KEY, None)
    assert before == after


@pytest.mark.parametrize(("kind", "gpus"), [("cpu", []), ("auto", []), ("gpu", [0, 1])])
def test_only_what_must_run_on_a_gpu_names_gpus(kind: str, gpus: list[int]) -> None:
    """Triton takes KIND_AUTO for KIND_CPU on a host without GPUs, and refuses that where the group
    names some.
    """
    group = config_pbtxt.parse(deployed(instance_kind=kind)).instance_group[0]
    assert (group.kind, list(group.gpus), group.count) == (
        group.Kind.Value(f"KIND_{kind.upper()}"),
        gpus,
        2,
    )


@pytest.mark.parametrize("kind", ["cpu", "auto", "gpu"])
def test_instance_kind_where_the_author_has_no_group(kind: str) -> None:
    message = config_pbtxt.parse(deployed(b'backend: "python"\n', instance_kind=kind))
    assert [group.kind for group in message.instance_group] == [
        message.instance_group[0].Kind.Value(f"KIND_{kind.upper()}")
    ]
    ensemble = config_pbtxt.parse(
        deployed(b'ensemble_scheduling { step [ { model_name: "a" } ] }', instance_kind=kind)
    )
    assert not ensemble.instance_group


def test_overlay_replaces_fields_merges_parameters_and_clears_with_null() -> None:
    message = config_pbtxt.parse(
        deployed(
            overlay={
                "max_batch_size": 8,
                "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
                "parameters": {"algo": "NAIVE", "threshold": None},
                "backend": None,
            }
        )
    )
    assert (
        message.max_batch_size == 8 and message.backend == "" and len(message.instance_group) == 1
    )
    assert {key: entry.string_value for key, entry in message.parameters.items()} == {
        "algo": "NAIVE",
        config_pbtxt.DEPLOY_ID_KEY: "id-1",
    }


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        ({"batch": 1}, "no field 'batch'"),
        ({"max_batch_size": "many"}, "max_batch_size"),
        ({"name": "other"}, "names the model 'other'"),
    ],
)
def test_overlays_that_cannot_be(overlay: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        deployed(overlay=overlay)


def test_any_bytes_are_taken_in_a_comment_and_are_utf8_when_deployed() -> None:
    author = b'# gr\xf6\xdfe \xc3\xb6\nname: "fraud" # \x80 \xff\n'
    assert config_pbtxt.parse(author).name == "fraud"
    text = '# gr\u00f6\u00dfe \u00f6\nname: "fraud" # \x80 \xff\n'
    assert pbtxt.in_utf8(author).decode() == text
    assert pbtxt.in_utf8(text.encode()) == text.encode()
    assert releases.dated_fields(author + b"model_metrics { }")[0].line == 3
    data = deployed(pbtxt.in_utf8(author))
    assert data.startswith(text.encode())
    assert config_pbtxt.deploy_id_of(data) == "id-1"


def test_bytes_that_are_utf8_only_together_are_a_string() -> None:
    assert config_pbtxt.parse(b'name: "\\303" "\\266"').name == "\u00f6"


@pytest.mark.parametrize(
    ("author", "says"),
    [
        (b"max_batch_size: {", "line 1"),
        (b'backend: "x"\nbogus: 1', "line 2, column 1"),
        (b"\xff\xfe", "line 1, column 1: the byte 0xFF outside a string or comment"),
        (b"# gr\xf6\xdfe\n bogus: 1", "line 2, column 2"),
        (b'# \xf6\nbackend: "a\xf6"', "line 2, column 12: a string that is not UTF-8"),
        (b'# \xf6\nbackend: "a\\377"', "line 2, column 17: a string that is not UTF-8"),
        (b'name: "\\303" "a"', "line 1, column 17: a string that is not UTF-8"),
        (b'name: "somebody"', "names the model 'somebody'"),
    ],
)
def test_configurations_that_triton_would_refuse(author: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        deployed(author)


def test_versions_side_by_side_set_the_policy_unless_the_author_has_one() -> None:
    message = config_pbtxt.parse(deployed(serve_versions=3))
    assert message.version_policy.latest.num_versions == 3
    own = deployed(
        AUTHOR + b"version_policy { specific { versions: [ 2, 5 ] } }\n", serve_versions=3
    )
    assert config_pbtxt.specific_versions(config_pbtxt.parse(own)) == (2, 5)
    assert config_pbtxt.applied_in_place(
        deployed(), deployed(serve_versions=3, instance_kind="cpu")
    )
    assert not config_pbtxt.applied_in_place(deployed(), deployed(overlay={"max_batch_size": 4}))


def test_ensembles_and_what_they_pin() -> None:
    steps = b'step [ { model_name: "a" model_version: 3 }, { model_name: "b" model_version: -1 } ]'
    message = config_pbtxt.parse(b"ensemble_scheduling { " + steps + b" }")
    assert config_pbtxt.is_ensemble(message) and config_pbtxt.pinned_by(message) == {"a"}


DATA = Path(
    os.environ.get("MORPHEUS_DATA")
    or Path(__file__).resolve().parents[4] / "shared" / "data" / "morpheus"
)


def test_reference_models_parse_render_and_compare() -> None:
    """Morpheus' own configurations where they are at hand; one with commas between its fields
    always.
    """
    found = {
        path.parent.name: path.read_bytes()
        for path in DATA.glob("triton-model-repo/*/config.pbtxt")
    }
    found["with-commas"] = (
        b'name: "with-commas",\nplatform: "onnxruntime_onnx",\n'
        b'input: [ { name: "x", data_type: TYPE_FP32, dims: [ 3 ] } ],\n'
    )
    for name, data in found.items():
        message = config_pbtxt.parse(data)
        assert config_pbtxt.parse(config_pbtxt.render(message)) == message
        assert config_pbtxt.render_deployed(data, name=name, deploy_id="id").startswith(data)
