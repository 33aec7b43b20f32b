# SPDX-License-Identifier: Apache-2.0
"""Why Triton refuses a configuration, as far as its own fields tell; pure.

The rules are those of the server, asked one by one: ``tests/integration/test_config_oracle.py``
compares them with a real one. What a backend may complete (inputs and outputs that are not named,
their types and shapes) is refused only where the backend is known to complete nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from . import config_pbtxt
from .config_pbtxt import ModelConfig

_BOOLEAN_CONTROLS = (
    "CONTROL_SEQUENCE_START",
    "CONTROL_SEQUENCE_END",
    "CONTROL_SEQUENCE_READY",
)
_CORRELATION_ID = "CONTROL_SEQUENCE_CORRID"
_CORRELATION_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
_CONTROL_VALUES = ("int32_false_true", "fp32_false_true", "bool_false_true")
_SOURCE_TYPES = ("TYPE_INT32", "TYPE_FP32")
# Triton puts a _ before it, and names that begin with two are Prometheus's own.
_TAG = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_]*)?")
# They take inputs and outputs from the configuration alone.
_COMPLETE_NOTHING = frozenset({"ensemble", "pytorch"})


def why_refused(config: ModelConfig, backend: str) -> str | None:
    """Why Triton refuses the configuration, with what to write; None where nothing speaks against
    it.

    Args:
        backend: that runs the model; "" where it is not known.
    """
    return next(_reasons(config, backend), None)


def _reasons(config: ModelConfig, backend: str) -> Iterator[str]:
    completes = backend not in _COMPLETE_NOTHING and not config_pbtxt.is_ensemble(config)
    if config.max_batch_size < 0:
        yield (
            f"its max_batch_size is {config.max_batch_size}: write the most requests that one"
            " batch may have, or 0 for a model without a batch dimension"
        )
    if config.HasField("dynamic_batching"):
        yield from _of_dynamic_batching(config)
    if config.HasField("sequence_batching"):
        yield from _of_sequence_batching(config)
    yield from _of_instance_groups(config)
    for role, tensors in (("input", config.input), ("output", config.output)):
        for number, tensor in enumerate(tensors, 1):
            yield from _of_tensor(config, completes, f"{role} {number}", tensor)
            yield from _of_use(backend, f"its {role} '{tensor.name}'", tensor)
    yield from _of_batch_inputs(config, completes)
    yield from _of_batch_outputs(config, completes)
    yield from _of_warmup(config)
    yield from _of_metric_tags(config)


# ---- batching ------------------------------------------------------------------------------------


def _of_preferred_sizes(config: ModelConfig, field: str, sizes: Sequence[int]) -> Iterator[str]:
    largest = config.max_batch_size
    for size in sizes:
        if size < 1 or size > largest:
            yield f"preferred_batch_size of its {field} has {size}: " + (
                f"write sizes from 1 to its max_batch_size {largest}"
                if largest > 0
                else "leave it out, as its max_batch_size is 0, or write a max_batch_size"
            )


def _of_dynamic_batching(config: ModelConfig) -> Iterator[str]:
    batching = config.dynamic_batching
    yield from _of_preferred_sizes(config, "dynamic_batching", batching.preferred_batch_size)
    levels = batching.priority_levels
    if levels:
        if not 1 <= batching.default_priority_level <= levels:
            yield (
                f"its default_priority_level is {batching.default_priority_level}, and it has"
                f" {levels} priority_levels: write a level from 1 to {levels}"
            )
        for level in sorted(batching.priority_queue_policy):
            if not 1 <= level <= levels:
                yield (
                    f"its priority_queue_policy has the key {level}, and it has {levels}"
                    f" priority_levels: write keys from 1 to {levels}"
                )
    if not batching.preserve_ordering:
        return
    if levels > 1:
        yield (
            f"it has {levels} priority_levels and preserve_ordering, which goes with one level"
            " only: leave one of the two out"
        )
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    # Triton looks at the policies of single priorities too where there are no levels.
    if any(
        policy.default_timeout_microseconds and policy.timeout_action == policy.DELAY
        for policy in policies
    ):
        yield (
            "it has preserve_ordering and a queue policy with the timeout_action DELAY, which"
            " changes the order: write REJECT, or leave preserve_ordering out"
        )


def _of_sequence_batching(config: ModelConfig) -> Iterator[str]:
    batching = config.sequence_batching
    names = Counter(tensor.name for tensor in batching.control_input)
    if "" in names:
        yield "a control_input of its sequence_batching has no name: name it as the model does"
    for name, count in names.items():
        if count > 1:
            yield (
                f"its sequence_batching names the control_input '{name}' {count} times: write all"
                " its controls into one"
            )
    controls = [control for tensor in batching.control_input for control in tensor.control]
    kinds = Counter(_kind(control) for control in controls)
    for kind, count in kinds.items():
        if count > 1:
            yield f"its sequence_batching has {kind} {count} times: leave all but one out"
    for control in controls:
        yield from _of_control(control)
    if batching.HasField("oldest"):
        sizes = batching.oldest.preferred_batch_size
        yield from _of_preferred_sizes(config, "sequence_batching", sizes)
    if batching.HasField("direct") and not 0 <= batching.direct.minimum_slot_utilization <= 1:
        yield (
            "minimum_slot_utilization of its sequence_batching is"
            f" {batching.direct.minimum_slot_utilization:g}: write a share from 0 to 1"
        )


def _kind(control: ModelConfig) -> str:
    return _name_of(control, "kind")


def _name_of(message: ModelConfig, field: str) -> str:
    """The name of a value from a list; the number where the list does not have it."""
    number = getattr(message, field)
    found = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(number)
    return str(found.name if found else number)


def _of_control(control: ModelConfig) -> Iterator[str]:
    kind = _kind(control)
    given = [name for name in _CONTROL_VALUES if getattr(control, name)]
    if kind in _BOOLEAN_CONTROLS:
        if len(given) != 1:
            yield (
                f"its {kind} has {' and '.join(given) or 'no values'}: write one of"
                f" {', '.join(_CONTROL_VALUES)}, such as int32_false_true: [ 0, 1 ]"
            )
        elif len(getattr(control, given[0])) != 2:
            yield f"its {kind} has a {given[0]} without exactly two values: write [ 0, 1 ]" + (
                " as [ false, true ]" if given[0] == "bool_false_true" else ""
            )
    elif kind == _CORRELATION_ID:
        if given:
            yield f"its {kind} has {given[0]}: leave it out, and write a data_type"
        if _name_of(control, "data_type") not in _CORRELATION_TYPES:
            yield (
                f"its {kind} has the data_type {_name_of(control, 'data_type')}: write one of"
                f" {', '.join(_CORRELATION_TYPES)}"
            )


# ---- instances -----------------------------------------------------------------------------------


def _of_instance_groups(config: ModelConfig) -> Iterator[str]:
    for group in config.instance_group:
        if group.gpus and group.kind in (group.KIND_CPU, group.KIND_MODEL):
            yield (
                f"its instance_group has {_name_of(group, 'kind')} and gpus: leave gpus out, or"
                " write KIND_GPU"
            )


# ---- inputs and outputs --------------------------------------------------------------------------


def _of_tensor(
    config: ModelConfig, completes: bool, place: str, tensor: ModelConfig
) -> Iterator[str]:
    if not tensor.name:
        yield f"its {place} has no name: write the name that the model has for it"
        return
    what = f"its {place.partition(' ')[0]} '{tensor.name}'"
    if not completes:
        if not tensor.data_type:
            yield f"{what} has no data_type: write it, such as TYPE_FP32"
        if not tensor.dims:
            yield (
                f"{what} has no dims: write its shape without the batch, with -1 for a size that"
                " varies"
            )
    wrong = next((size for size in tensor.dims if size < 1 and size != -1), None)
    if wrong is not None:
        yield f"{what} has {wrong} in dims: write a size of 1 or more, or -1 for one that varies"
    if not tensor.HasField("reshape"):
        return
    shape = tensor.reshape.shape
    wrong = next((size for size in shape if size < 1 and size != -1), None)
    if wrong is not None:
        yield (
            f"{what} has {wrong} in its reshape: write a size of 1 or more, or -1 for one that"
            " varies"
        )
    if not shape and config.max_batch_size == 0:
        yield (
            f"{what} has an empty reshape, which needs a max_batch_size of 1 or more: write shape:"
            " [ 1 ]"
        )
    if tensor.dims and _runs(tensor.dims) != _runs(shape):
        yield (
            f"{what} has dims {_listed(tensor.dims)} and a reshape to {_listed(shape)}, which is"
            " another size: write a shape of as many elements, with each -1 in its place"
        )


def _of_use(backend: str, what: str, tensor: ModelConfig) -> Iterator[str]:
    if tensor.is_shape_tensor and backend not in ("tensorrt", ""):
        yield f"{what} has is_shape_tensor, which goes with backend tensorrt alone: leave it out"
    # Outputs have none.
    form = _name_of(tensor, "format") if hasattr(tensor, "format") else "FORMAT_NONE"
    if form in ("FORMAT_NHWC", "FORMAT_NCHW") and tensor.dims and len(tensor.dims) != 3:
        yield (
            f"{what} has the format {form} and {len(tensor.dims)} dims: write the 3 dims of an"
            " image, or leave format out"
        )


def _runs(shape: Sequence[int]) -> list[int]:
    """How many elements there are before, between and behind the sizes that vary."""
    found: list[list[int]] = [[]]
    for size in shape:
        if size == -1:
            found.append([])
        else:
            found[-1].append(size)
    return [math.prod(run) for run in found]


def _listed(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _of_batch_inputs(config: ModelConfig, completes: bool) -> Iterator[str]:
    for tensor in config.batch_input:
        what = f"its batch_input {_name_of(tensor, 'kind')}"
        yield from _of_source(config, completes, what, tensor)
        if _name_of(tensor, "data_type") not in _SOURCE_TYPES:
            yield (
                f"{what} has the data_type {_name_of(tensor, 'data_type')}: write"
                f" {' or '.join(_SOURCE_TYPES)}"
            )


def _of_batch_outputs(config: ModelConfig, completes: bool) -> Iterator[str]:
    outputs = {tensor.name for tensor in config.output}
    for tensor in config.batch_output:
        what = f"its batch_output {_name_of(tensor, 'kind')}"
        yield from _of_source(config, completes, what, tensor)
        if not tensor.target_name and not config_pbtxt.is_ensemble(config):  # the server dies of it
            yield f"{what} has no target_name: write the output that it is"
        for target, count in Counter(tensor.target_name).items():
            if target not in outputs and not _may_be_named(config, completes):
                yield (
                    f"{what} has the target_name '{target}', which is no output: write the name"
                    " of one"
                )
            if count > 1:
                yield f"{what} has the target_name '{target}' {count} times: write it once"


def _of_source(
    config: ModelConfig, completes: bool, what: str, tensor: ModelConfig
) -> Iterator[str]:
    if len(tensor.source_input) != 1:
        yield (
            f"{what} has {len(tensor.source_input)} source_input: write the name of the one input"
            " that it is made of"
        )
    inputs = {tensor.name for tensor in config.input}
    for source in tensor.source_input:
        if source not in inputs and not _may_be_named(config, completes):
            yield (
                f"{what} has the source_input '{source}', which is no input: write the name of one"
            )


def _may_be_named(config: ModelConfig, completes: bool) -> bool:
    """True where the backend may name inputs and outputs that the configuration does not."""
    return completes and not (config.input and config.output)


def _of_warmup(config: ModelConfig) -> Iterator[str]:
    types = {tensor.name: _name_of(tensor, "data_type") for tensor in config.input}
    required = [tensor.name for tensor in config.input if not tensor.optional]
    for sample in config.model_warmup:
        if not sample.batch_size:  # Triton leaves the sample out
            continue
        what = f"its model_warmup '{sample.name}'"
        # Triton counts them, so that one that may be left out stands for one that may not.
        if len(types.keys() & {*sample.inputs}) < len(required):
            lacks = ", ".join(f"'{name}'" for name in required if name not in sample.inputs)
            yield f"{what} leaves out the input {lacks}: write all inputs that are not optional"
        for name, tensor in sorted(sample.inputs.items()):
            given, wanted = _name_of(tensor, "data_type"), types.get(name, "TYPE_INVALID")
            if wanted not in ("TYPE_INVALID", given):
                yield f"{what} gives '{name}' the data_type {given}: write {wanted}"
            if not tensor.WhichOneof("input_data_type"):
                yield (
                    f"{what} has no values for '{name}': write zero_data: true, random_data: true"
                    " or an input_data_file"
                )
            if -1 in tensor.dims:
                yield (
                    f"{what} has dims {_listed(tensor.dims)} for '{name}': write a size in place of"
                    " each -1"
                )


# ---- metrics -------------------------------------------------------------------------------------


def _of_metric_tags(config: ModelConfig) -> Iterator[str]:
    for key in sorted(config.metric_tags):
        if not _TAG.fullmatch(key):  # the server dies of it, with all its models
            yield (
                f"its metric_tags have the key {key!r}, of which no label of Prometheus can be"
                " made: write it with letters, digits and _ only, and no _ at its beginning"
            )
