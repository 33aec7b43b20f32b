# SPDX-License-Identifier: Apache-2.0
"""config.pbtxt through Triton's own protobuf message, and cut into words as Triton's own parser
does it, so that what Triton accepts is accepted and nothing else.

Text round trips drop comments, so the author's bytes are kept wherever the message need not change.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..libraries import require
from ..outside import JsonObject
from . import pbtxt

if TYPE_CHECKING:  # the start wrapper imports this file with Python 3.9, which has none
    from typing import TypeAlias

DEPLOY_ID_KEY = "mlops_triton_deploy_id"
COLUMNS_KEY = "mlops_triton_columns"
"""A parameter: the names of the columns of a model that takes rows of them, as a JSON list."""
CONFIG_NAME = "config.pbtxt"
ModelConfig: TypeAlias = Any
"""Triton's ``inference.ModelConfig``, or a message in it: generated code without types."""
_KINDS = {"cpu": "KIND_CPU", "gpu": "KIND_GPU", "auto": "KIND_AUTO"}

# As Triton's Python backend writes the path of the model's folder, in EXECUTION_ENV_PATH.
_IN_VERSION_FOLDER = re.compile(r"\$\$TRITON_MODEL_DIRECTORY/+[1-9][0-9]*/")


def new_message() -> ModelConfig:
    """An empty ``inference.ModelConfig``."""
    with require("tritonclient", "to read and write config.pbtxt"):
        from tritonclient.grpc import model_config_pb2
    return model_config_pb2.ModelConfig()


def message_release() -> str:
    """Which fields the message has here, and who writes it as JSON: what decides how the same
    configuration is spelled.
    """
    descriptor = new_message().DESCRIPTOR
    from google.protobuf import __version__

    fields = hashlib.sha256(descriptor.file.serialized_pb).hexdigest()[:12]
    return f"protobuf {__version__}, fields {fields}"


def parse(data: bytes) -> ModelConfig:
    """Parse config.pbtxt. A UTF-8 byte order mark, CRLF line ends and, in comments, bytes that are
    not UTF-8 are accepted.

    Raises:
        ConfigError: with line and column where the text does not parse.
    """
    message = new_message()
    from google.protobuf import text_format

    try:
        text = pbtxt.decode(strip_mark(data))
        text_format.Parse(pbtxt.for_python(text, *_names_by_type()), message)
    except pbtxt.TextRefused as error:
        raise ConfigError(
            f"{CONFIG_NAME} does not parse in line {error.line}, column {error.column}:"
            f" {error.reason}",
            step="read the configuration",
        ) from error
    except text_format.ParseError as error:
        where = f" in line {error.GetLine()}, column {error.GetColumn()}" if error.GetLine() else ""
        reason = str(error).split(" : ", 1)[-1]
        if "'utf-8' codec can't decode" in reason:  # it is written in escapes
            reason = pbtxt.NOT_UTF8
        raise ConfigError(
            f"{CONFIG_NAME} does not parse{where}: {reason}", step="read the configuration"
        ) from error
    except (ValueError, TypeError) as error:  # the parser's own, for a number that does not fit
        raise ConfigError(
            f"{CONFIG_NAME} does not parse: {error}", step="read the configuration"
        ) from error
    return message


@functools.cache
def _names_by_type() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The names of all fields, of the configuration and of what it is made of, that hold numbers
    without a sign, of those that hold true or false, and of those that hold a name from a list.
    """
    top = new_message().DESCRIPTOR
    types: dict[str, Any] = {}
    waiting = [top]
    while waiting:
        message = waiting.pop()
        types[message.full_name] = message
        waiting += [
            field.message_type
            for field in message.fields
            if field.message_type and field.message_type.full_name not in types
        ]
    fields = [field for message in types.values() for field in message.fields]

    def names(*kinds: int) -> frozenset[str]:
        return frozenset(field.name for field in fields if field.cpp_type in kinds)

    any_field = fields[0]
    unsigned = (any_field.CPPTYPE_UINT32, any_field.CPPTYPE_UINT64)
    signed = frozenset(field.name for field in fields if field.cpp_type not in unsigned)
    return (
        names(*unsigned) - signed,
        names(any_field.CPPTYPE_BOOL),
        names(any_field.CPPTYPE_ENUM),
    )


def strip_mark(data: bytes) -> bytes:
    """Triton's own parser stops at a byte order mark, so it is taken off what is deployed."""
    return data[len(codecs.BOM_UTF8) :] if data.startswith(codecs.BOM_UTF8) else data


def render(message: ModelConfig) -> bytes:
    """The message as text, fields in the order of Triton's schema."""
    from google.protobuf import text_format

    return text_format.MessageToString(message).encode()


def as_json(message: ModelConfig) -> dict[str, Any]:
    """The message as Triton's servers show it; fields that are not set are left out."""
    from google.protobuf import json_format

    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found


def apply_overlay(message: ModelConfig, overlay: Mapping[str, object]) -> ModelConfig:
    """A copy of ``message`` with the overlay's top-level fields in place of its own; ``None``
    clears a field.

    ``parameters`` is merged key by key, and a plain value there means ``{string_value: …}``.

    Raises:
        ConfigError: a field that Triton's configuration does not have, or a value that does not
            fit.
    """
    from google.protobuf import json_format

    result = new_message()
    result.CopyFrom(message)
    for field, value in overlay.items():
        if field not in result.DESCRIPTOR.fields_by_name:
            raise ConfigError(
                f"config has no field '{field}' in Triton's model configuration",
                step="overlay the configuration",
            )
        if field == "parameters" and isinstance(value, Mapping):
            value = _merged_parameters(result, value)
        result.ClearField(field)
        if value is not None:
            try:
                json_format.ParseDict({field: value}, result)
            except json_format.ParseError as error:
                raise ConfigError(
                    f"config.{field} does not fit: {error}", step="overlay the configuration"
                ) from error
    return result


def _merged_parameters(message: ModelConfig, changes: Mapping[str, object]) -> dict[str, object]:
    merged: dict[str, object] = {
        key: {"string_value": entry.string_value} for key, entry in message.parameters.items()
    }
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = (
                dict(value) if isinstance(value, Mapping) else {"string_value": _as_text(value)}
            )
    return merged


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def set_instance_kind(message: ModelConfig, kind: str) -> ModelConfig:
    """A copy whose instance groups, one at least, are all of ``kind`` ("cpu", "gpu", "auto");
    groups of KIND_MODEL stay.

    An ensemble has none. Only KIND_GPU may name GPUs: Triton makes KIND_AUTO a KIND_CPU on a host
    without them.
    """
    result = new_message()
    result.CopyFrom(message)
    if not result.instance_group and not is_ensemble(result):
        result.instance_group.add()
    for group in result.instance_group:
        if group.kind != group.KIND_MODEL:
            group.kind = group.Kind.Value(_KINDS[kind])
            if kind != "gpu":
                group.ClearField("gpus")
    return result


def render_deployed(
    author: bytes,
    *,
    name: str,
    deploy_id: str,
    overlay: Mapping[str, object] | None = None,
    instance_kind: str | None = None,
    serve_versions: int = 1,
) -> bytes:
    """The bytes to deploy: the author's where the message stays the same, plus the block that
    carries the deploy id.

    ``serve_versions`` over 1 sets ``version_policy`` where the author has none.

    Raises:
        ConfigError: does not parse, names another model, or an overlay that does not fit.
    """
    message = parse(author)
    wanted = apply_overlay(message, overlay) if overlay else message
    if instance_kind:
        wanted = set_instance_kind(wanted, instance_kind)
    if serve_versions > 1 and wanted.version_policy.WhichOneof("policy_choice") is None:
        wanted = apply_overlay(
            wanted, {"version_policy": {"latest": {"num_versions": serve_versions}}}
        )
    if wanted.name and wanted.name != name:
        raise ConfigError(
            f"{CONFIG_NAME} names the model '{wanted.name}', and Triton requires the folder's name"
            f" '{name}': deploy it under that name, or set config: {{name: {name}}}",
            step="read the configuration",
        )
    if DEPLOY_ID_KEY in wanted.parameters or wanted != message:
        if DEPLOY_ID_KEY in wanted.parameters:
            wanted = apply_overlay(wanted, {"parameters": {DEPLOY_ID_KEY: None}})
        body = render(wanted)
    else:
        body = strip_mark(author)
    return body + (b"" if not body or body.endswith(b"\n") else b"\n") + deploy_block(deploy_id)


def deploy_block(deploy_id: str) -> bytes:
    value = f'value {{ string_value: "{deploy_id}" }}'
    return f'parameters {{ key: "{DEPLOY_ID_KEY}" {value} }}\n'.encode()


def deploy_id_of(data: bytes) -> str | None:
    """The deploy id in a deployed config.pbtxt; None for a file that is not ours or does not
    parse.
    """
    try:
        message = parse(data)
    except ConfigError:
        return None
    return (
        message.parameters[DEPLOY_ID_KEY].string_value
        if DEPLOY_ID_KEY in message.parameters
        else None
    )


def digest_without_id(data: bytes, deploy_id: str) -> str | None:
    """sha256 of a deployed config without its deploy id: equal for equal configurations; None where
    it carries another id.

    The deploy id "" means that there is none.
    """
    block = deploy_block(deploy_id) if deploy_id else b""
    return (
        hashlib.sha256(data[: len(data) - len(block)]).hexdigest() if data.endswith(block) else None
    )


def applied_in_place(one: bytes, other: bytes) -> bool:
    """True where two deployed configs differ at most in what Triton applies without initialising
    the model again.
    """
    messages = [parse(data) for data in (one, other)]
    for message in messages:
        message.ClearField("instance_group")
        message.ClearField("version_policy")
        message.parameters.pop(DEPLOY_ID_KEY, None)
    return messages[0] == messages[1]


def from_answer(config: JsonObject) -> ModelConfig:
    """The message of a configuration as a server answers it. Fields of a newer server are left out.

    Raises:
        ConfigError: it is none.
    """
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(dict(config), new_message(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ConfigError(
            f"what the server answers is no configuration ({error})", step="read the configuration"
        ) from error


def is_ensemble(message: ModelConfig) -> bool:
    return (
        message.platform == "ensemble"
        or message.WhichOneof("scheduling_choice") == "ensemble_scheduling"
    )


def members(message: ModelConfig) -> frozenset[str]:
    """Names of the models that an ensemble is made of."""
    return frozenset(step.model_name for step in message.ensemble_scheduling.step)


def pinned_by(message: ModelConfig) -> frozenset[str]:
    """Names of the models of which an ensemble asks for a certain version."""
    return frozenset(
        step.model_name for step in message.ensemble_scheduling.step if step.model_version > 0
    )


def specific_versions(message: ModelConfig) -> tuple[int, ...]:
    """Versions in ``version_policy { specific }``; empty where the policy is another."""
    return (
        tuple(message.version_policy.specific.versions)
        if message.version_policy.HasField("specific")
        else ()
    )


def names_a_version_folder(message: ModelConfig) -> bool:
    """True where a parameter holds the path of a file in a numbered folder of the model."""
    return any(
        _IN_VERSION_FOLDER.search(parameter.string_value)
        for parameter in message.parameters.values()
    )


def config_for(author: str, name: str, deploy_id: str, request: JsonObject) -> bytes:
    """The configuration to deploy: the author's with what was asked for, and the id."""
    return render_deployed(
        author.encode(),
        name=name,
        deploy_id=deploy_id,
        overlay=request.get("config"),
        instance_kind=request.get("instance_kind"),
        serve_versions=int(request.get("serve_versions") or 1),
    )
