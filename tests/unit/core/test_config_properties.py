# SPDX-License-Identifier: Apache-2.0
"""config.pbtxt: whatever an author wrote and a user lays over it, what is deployed says the same,
carries its id, and keeps the author's bytes where nothing changes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ConfigError
from google.protobuf import json_format
from hypothesis import assume, event, given
from hypothesis import strategies as st

NAMES = st.text(st.sampled_from("abz019_-."), min_size=1, max_size=6)
TEXTS = st.one_of(NAMES, st.text(max_size=6, alphabet=st.characters(exclude_categories=["Cs"])))
TENSORS = st.lists(
    st.fixed_dictionaries(
        {
            "name": TEXTS,
            "data_type": st.sampled_from(["TYPE_FP32", "TYPE_STRING", "TYPE_INVALID"]),
            "dims": st.lists(st.sampled_from([-1, 1, 3, 1 << 40]), max_size=3).map(
                lambda dims: [str(size) for size in dims]
            ),
        },
        optional={"reshape": st.just({"shape": ["1"]})},
    ),
    max_size=2,
)
GROUPS = st.lists(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["KIND_AUTO", "KIND_CPU", "KIND_GPU", "KIND_MODEL"])},
        optional={
            "count": st.integers(1, 4),
            "gpus": st.lists(st.integers(0, 3), max_size=2),
            "name": TEXTS,
        },
    ),
    max_size=2,
)
POLICIES = st.sampled_from(
    [
        {"latest": {"num_versions": 2}},
        {"all": {}},
        {"specific": {"versions": ["1", "3"]}},
    ]
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "platform": st.sampled_from(["onnxruntime_onnx", "tensorrt_plan"]),
    "backend": st.sampled_from(["python", "onnxruntime"]),
    "max_batch_size": st.integers(0, 64),
    "input": TENSORS,
    "output": TENSORS,
    "instance_group": GROUPS,
    "version_policy": POLICIES,
    "default_model_filename": TEXTS,
    "dynamic_batching": st.fixed_dictionaries(
        {}, optional={"max_queue_delay_microseconds": st.integers(1, 9).map(str)}
    ),
    "parameters": st.dictionaries(
        NAMES, TEXTS.map(lambda text: {"string_value": text}), max_size=3
    ),
}
MESSAGES = st.fixed_dictionaries({}, optional=FIELDS).map(
    lambda fields: json_format.ParseDict(fields, config_pbtxt.new_message())
)
OVERLAYS = st.fixed_dictionaries(
    {}, optional={field: st.one_of(st.none(), values) for field, values in FIELDS.items()}
)
IDS = st.text(st.sampled_from("0123456789abcdef-T"), min_size=1, max_size=20)
COMMENT = b"# a comment that must survive\n"
KINDS = st.sampled_from([None, "cpu", "gpu", "auto"])


def author_of(message: Any) -> bytes:
    return COMMENT + config_pbtxt.render(message)


def deployed(author: bytes, deploy_id: str, **options: Any) -> bytes:
    return config_pbtxt.render_deployed(author, name="fraud", deploy_id=deploy_id, **options)


def without_id(data: bytes) -> Any:
    message = config_pbtxt.parse(data)
    del message.parameters[config_pbtxt.DEPLOY_ID_KEY]
    return message


@given(MESSAGES)
def test_what_is_rendered_is_read_as_the_same(message: Any) -> None:
    assert config_pbtxt.parse(config_pbtxt.render(message)) == message


@given(MESSAGES, IDS, st.sampled_from([b"", b"\xef\xbb\xbf"]), st.booleans())
def test_the_authors_bytes_are_kept_where_nothing_changes(
    message: Any, deploy_id: str, mark: bytes, ended: bool
) -> None:
    body = author_of(message) if ended else author_of(message).rstrip(b"\n")
    data = deployed(mark + body, deploy_id)
    between = b"" if ended else b"\n"
    assert data == body + between + config_pbtxt.deploy_block(deploy_id)
    assert config_pbtxt.deploy_id_of(data) == deploy_id
    assert without_id(data) == message


@given(MESSAGES, OVERLAYS, KINDS, st.integers(1, 3), IDS, IDS)
def test_what_is_deployed_says_what_was_asked_for(
    message: Any, overlay: dict[str, Any], kind: str | None, versions: int, one: str, other: str
) -> None:
    options = {"overlay": overlay or None, "instance_kind": kind, "serve_versions": versions}
    data = deployed(author_of(message), one, **options)
    assert config_pbtxt.deploy_id_of(data) == one
    found = without_id(data)
    wanted = config_pbtxt.apply_overlay(message, overlay)
    if kind:
        wanted = config_pbtxt.set_instance_kind(wanted, kind)
    if versions > 1 and not wanted.HasField("version_policy"):
        wanted.version_policy.latest.num_versions = versions
    assert found == wanted
    event(f"the author's bytes: {data.startswith(COMMENT)}")
    assert data.startswith(COMMENT) == (wanted == message)
    # Twice the same, but for the id; and laid over what is deployed, nothing changes any more.
    again = deployed(author_of(message), other, **options)
    assert config_pbtxt.digest_without_id(data, one) == config_pbtxt.digest_without_id(again, other)
    assert without_id(deployed(data, other, **options)) == found
    assert config_pbtxt.applied_in_place(data, again)


@given(MESSAGES, IDS, IDS)
def test_the_digest_leaves_out_the_id_alone(message: Any, one: str, other: str) -> None:
    assume(one != other)
    author = author_of(message)
    data = deployed(author, one)
    assert config_pbtxt.digest_without_id(data, one) == hashlib.sha256(author).hexdigest()
    assert config_pbtxt.digest_without_id(data, other) is None
    assert config_pbtxt.digest_without_id(data + b"#", one) is None
    assert config_pbtxt.digest_without_id(data, "") == hashlib.sha256(data).hexdigest()
    changed = deployed(author + b"# more\n", one)
    assert config_pbtxt.digest_without_id(changed, one) != config_pbtxt.digest_without_id(data, one)


@given(MESSAGES, OVERLAYS)
def test_an_overlay_sets_its_fields_and_no_other(message: Any, overlay: dict[str, Any]) -> None:
    before = message.SerializeToString(deterministic=True)
    found = config_pbtxt.apply_overlay(message, overlay)
    assert message.SerializeToString(deterministic=True) == before, "the message stays as it is"
    for field in message.DESCRIPTOR.fields_by_name:
        if field not in overlay:
            assert getattr(found, field) == getattr(message, field)
        elif field != "parameters" and overlay[field] is not None:
            alone = json_format.ParseDict({field: overlay[field]}, config_pbtxt.new_message())
            assert getattr(found, field) == getattr(alone, field)
    assert config_pbtxt.apply_overlay(found, overlay) == found, "twice is once"
    cleared = config_pbtxt.apply_overlay(found, dict.fromkeys(overlay))
    for field in overlay:
        assert getattr(cleared, field) == getattr(config_pbtxt.new_message(), field)
        assert field not in [one.name for one, _value in cleared.ListFields()]


@given(
    st.dictionaries(NAMES, TEXTS, max_size=3),
    st.dictionaries(
        NAMES, st.one_of(st.none(), TEXTS, st.booleans(), st.integers(-9, 9)), max_size=3
    ),
)
def test_parameters_are_merged_key_by_key(there: dict[str, str], changes: dict[str, Any]) -> None:
    message = config_pbtxt.apply_overlay(config_pbtxt.new_message(), {"parameters": there})
    found = config_pbtxt.apply_overlay(message, {"parameters": changes})
    expected = {**there, **changes}
    assert {key: entry.string_value for key, entry in found.parameters.items()} == {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in expected.items()
        if value is not None
    }


@given(MESSAGES, st.sampled_from(["cpu", "gpu", "auto"]))
def test_instance_kind(message: Any, kind: str) -> None:
    found = config_pbtxt.set_instance_kind(message, kind)
    kinds = [group.Kind.Name(group.kind) for group in found.instance_group]
    before = [group.Kind.Name(group.kind) for group in message.instance_group] or ["KIND_AUTO"]
    wanted = f"KIND_{kind.upper()}"
    assert kinds == [wanted if one != "KIND_MODEL" else one for one in before]
    assert all(
        not group.gpus
        for group in found.instance_group
        if group.kind != group.KIND_MODEL and kind != "gpu"
    )
    assert config_pbtxt.set_instance_kind(found, kind) == found
    found.ClearField("instance_group")
    message.ClearField("instance_group")
    assert found == message


IN_PLACE = {"instance_group", "version_policy"}


@given(MESSAGES, OVERLAYS, IDS, IDS)
def test_what_triton_applies_in_place(
    message: Any, overlay: dict[str, Any], one: str, other: str
) -> None:
    before, after = (
        deployed(author_of(message), one), deployed(author_of(message), other, overlay=overlay)
    )  # fmt: skip
    found, wanted = without_id(before), without_id(after)
    different = {
        field
        for field in message.DESCRIPTOR.fields_by_name
        if config_pbtxt.render(_only(found, field)) != config_pbtxt.render(_only(wanted, field))
    }
    event(f"different: {sorted(different & IN_PLACE)}, others: {bool(different - IN_PLACE)}")
    assert config_pbtxt.applied_in_place(before, after) == (different <= IN_PLACE)
    assert config_pbtxt.applied_in_place(after, before) == (different <= IN_PLACE)


def _only(message: Any, field: str) -> Any:
    kept = config_pbtxt.new_message()
    kept.CopyFrom(message)
    for other in message.DESCRIPTOR.fields_by_name:
        if other != field:
            kept.ClearField(other)
    return kept


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
def test_what_does_not_parse_is_refused_in_a_sentence(data: bytes) -> None:
    try:
        message = config_pbtxt.parse(data)
    except ConfigError:
        event("refused")
        with pytest.raises(ConfigError, match=r"does not parse"):
            deployed(data, "id")
        assert config_pbtxt.deploy_id_of(data) is None
        return
    assert config_pbtxt.parse(config_pbtxt.render(message)) == message


@given(st.dictionaries(st.one_of(NAMES, st.sampled_from(sorted(FIELDS))), st.one_of(
    st.none(), st.integers(), TEXTS, st.lists(st.integers(), max_size=2),
    st.dictionaries(NAMES, st.integers(), max_size=2),
), min_size=1, max_size=2))  # fmt: skip
def test_an_overlay_that_does_not_fit_is_refused_in_a_sentence(overlay: dict[str, Any]) -> None:
    try:
        found = config_pbtxt.apply_overlay(config_pbtxt.new_message(), overlay)
    except ConfigError:
        event("refused")
        return
    event("accepted")
    assert config_pbtxt.parse(config_pbtxt.render(found)) == found
