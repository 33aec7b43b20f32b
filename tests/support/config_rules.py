# SPDX-License-Identifier: Apache-2.0
"""Parts of configurations that Triton 2.51 refuses, and such that come near to that; and the making
of others.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_X = 'input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }'
_Y = 'output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }'


def model_of(part: str) -> str:
    """A configuration with the part in it, and what it needs beside that."""
    return "\n".join(
        [
            *(["max_batch_size: 8"] if "max_batch_size" not in part else []),
            *([_X] if "input { " not in part.replace("_input {", "") else []),
            *([_Y] if "output { " not in part.replace("_output {", "") else []),
            part,
            "",
        ]
    )


def _batching(text: str) -> str:
    return f"dynamic_batching {{ {text} }}"


def _sequence(text: str) -> str:
    return f"sequence_batching {{ {text} }}"


def _control(text: str) -> str:
    return _sequence(f'control_input {{ name: "C" control {{ {text} }} }}')


def _input(text: str) -> str:
    return f'input {{ name: "x" data_type: TYPE_FP32 {text} }}'


def _output(text: str) -> str:
    return f'output {{ name: "y" data_type: TYPE_FP32 {text} }}'


_LEVELS = "priority_levels: 2 default_priority_level: "
_START = "kind: CONTROL_SEQUENCE_START"
_CORRID = "kind: CONTROL_SEQUENCE_CORRID"
_DELAY = "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 }"
_COUNT = "kind: BATCH_ELEMENT_COUNT target_name: 'c'"
_SCATTER = "kind: BATCH_SCATTER_WITH_INPUT_SHAPE"

# The part → words of what is said of it.
BROKEN = {
    "max_batch_size: -1": "max_batch_size is -1",
    _batching("preferred_batch_size: [ 4, 9 ]"): "has 9: write sizes from 1 to its max_batch_size",
    _batching("preferred_batch_size: 0"): "has 0: write sizes from 1",
    "max_batch_size: 0 " + _batching("preferred_batch_size: 1"): "max_batch_size is 0",
    _batching("priority_levels: 2"): "default_priority_level is 0",
    _batching(_LEVELS + "3"): "write a level from 1 to 2",
    _batching(_LEVELS + "1 priority_queue_policy { key: 3 value { } }"): "write keys from 1 to 2",
    _batching(_LEVELS + "1 preserve_ordering: true"): "one level",
    _batching(f"preserve_ordering: true {_DELAY}"): "write REJECT",
    _control(_START): "CONTROL_SEQUENCE_START has no values",
    _control(f"{_START} int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ]"): "write one of",
    _control(f"{_START} bool_false_true: [ true ]"): "[ false, true ]",
    _control("fp32_false_true: [ 0, 1, 2 ]"): "without exactly two values",
    _control(_CORRID): "data_type TYPE_INVALID",
    _control(f"{_CORRID} data_type: TYPE_FP32"): "data_type TYPE_FP32",
    _control(f"{_CORRID} data_type: TYPE_INT64 int32_false_true: [ 0, 1 ]"): "leave it out",
    _control(f"{_START} fp32_false_true: [ 0, 1 ] }} control {{ {_START}"): "START 2 times",
    _sequence("control_input { control { fp32_false_true: [ 0, 1 ] } }"): "has no name",
    _sequence('control_input { name: "C" } control_input { name: "C" }'): "'C' 2 times",
    _sequence("oldest { preferred_batch_size: 9 }"): "sequence_batching has 9",
    _sequence("direct { minimum_slot_utilization: 1.5 }"): "write a share from 0 to 1",
    _sequence("direct { minimum_slot_utilization: -0.5 }"): "write a share from 0 to 1",
    _input("dims: 0"): "input 'x' has 0 in dims",
    _output("dims: [ 3, -2 ]"): "output 'y' has -2 in dims",
    "input { data_type: TYPE_FP32 dims: 3 }": "input 1 has no name",
    _output("dims: 3 } output { data_type: TYPE_FP32 dims: 3"): "output 2 has no name",
    _input("dims: 3 reshape { shape: 2 }"): "dims [3] and a reshape to [2]",
    _output("dims: 3 reshape { shape: -1 }"): "dims [3] and a reshape to [-1]",
    _output("dims: 3 reshape { shape: 0 }"): "has 0 in its reshape",
    _input("dims: -1 reshape { shape: 3 }"): "a reshape to [3]",
    _input("dims: [ -1, 2 ] reshape { shape: [ 2, -1 ] }"): "each -1 in its place",
    _input("dims: -1 reshape { shape: [ -1, -1 ] }"): "another size",
    _input("dims: 3 reshape { }"): "a reshape to []",
    "max_batch_size: 0 " + _input("dims: 1 reshape { }"): "empty reshape",
    _input("dims: 3 format: FORMAT_NHWC"): "write the 3 dims of an image",
    _input("dims: [ 3, 2, 2, 1 ] format: FORMAT_NCHW"): "write the 3 dims of an image",
    _input("dims: 3 is_shape_tensor: true"): "backend tensorrt alone",
    _output("dims: 3 is_shape_tensor: true"): "backend tensorrt alone",
    f"batch_input {{ {_COUNT} data_type: TYPE_FP32 source_input: 'z' }}": "'z', which is no input",
    f"batch_input {{ {_COUNT} data_type: TYPE_FP32 }}": "has 0 source_input",
    f"batch_input {{ {_COUNT} data_type: TYPE_FP32 source_input: [ 'x', 'x' ] }}": "has 2 source",
    f"batch_input {{ {_COUNT} source_input: 'x' }}": "write TYPE_INT32 or TYPE_FP32",
    f"batch_output {{ {_SCATTER} target_name: 'z' source_input: 'x' }}": "'z', which is no output",
    f"batch_output {{ {_SCATTER} target_name: ['y','y'] source_input: 'x' }}": "'y' 2 times",
    f"batch_output {{ {_SCATTER} target_name: 'y' }}": "has 0 source_input",
}
KEPT = [
    "max_batch_size: 0",
    _batching("preferred_batch_size: [ 1, 8 ]"),
    "max_batch_size: 0 " + _batching(""),
    _batching("default_priority_level: 3"),
    _batching("priority_queue_policy { key: 3 value { } }"),
    _batching(_LEVELS + "1"),
    _batching(_LEVELS + "2 priority_queue_policy { key: 2 value { } }"),
    _batching("preserve_ordering: true priority_levels: 1 default_priority_level: 1"),
    _batching("preserve_ordering: true default_queue_policy { timeout_action: DELAY }"),
    _batching(_DELAY),
    _sequence(""),
    _sequence('control_input { name: "C" }'),
    _control(f"{_START} fp32_false_true: [ 0, 1 ]"),
    _control(f"{_CORRID} data_type: TYPE_STRING"),
    _sequence("oldest { preferred_batch_size: 8 }"),
    _sequence("direct { minimum_slot_utilization: 1 }"),
    _input("dims: [ -1, 1 ]"),
    _input("dims: 3 reshape { shape: [ 3, 1 ] }"),
    _output("dims: [ 2, 4, -1, 6 ] reshape { shape: [ 8, -1, 1, 6 ] }"),
    _input("dims: -1 reshape { shape: -1 }"),
    _input("dims: [ 3, -1, -1 ] format: FORMAT_NCHW"),
    _input("dims: 3 format: FORMAT_NONE is_shape_tensor: false"),
    _input("dims: 1 reshape { }"),
    _output("dims: [ 1, 1 ] reshape { shape: [ ] }"),
    "max_batch_size: 0 " + _input("dims: 1 reshape { shape: [ 1, 1 ] }"),
    f"batch_input {{ {_COUNT} data_type: TYPE_INT32 source_input: 'x' }}",
    f"batch_output {{ {_SCATTER} target_name: 'y' source_input: 'x' }}",
]


def _warmup(*inputs: str, batch: int = 1, more: str = "") -> str:
    told = " ".join(f"inputs {{ key: {one} }} }}" for one in inputs)
    return f"{more} model_warmup {{ name: 'w' batch_size: {batch} {told} }}"


_GIVEN = "value { data_type: TYPE_FP32 dims: 3 zero_data: true"
_OPTIONAL = 'input { name: "o" data_type: TYPE_FP32 dims: 3 optional: true }'

# The same of what Triton judges when it has a backend's model before it.
BROKEN_WITH_BACKEND = {
    "instance_group { kind: KIND_CPU gpus: 0 }": "KIND_CPU and gpus",
    "instance_group { kind: KIND_MODEL gpus: 0 }": "KIND_MODEL and gpus",
    _warmup(): "'w' leaves out the input 'x'",
    _warmup(f"'z' {_GIVEN}"): "leaves out the input 'x'",
    _warmup("'x' value { data_type: TYPE_FP32 dims: 3"): "no values for 'x'",
    _warmup("'x' value { data_type: TYPE_INT32 dims: 3 zero_data: true"): "write TYPE_FP32",
    _warmup("'x' value { data_type: TYPE_FP32 dims: -1 zero_data: true"): "in place of each -1",
}
KEPT_WITH_BACKEND = [
    "instance_group { kind: KIND_CPU count: -1 }",
    _warmup(f"'x' {_GIVEN}"),
    _warmup(f"'x' {_GIVEN}", f"'z' {_GIVEN}"),
    _warmup(f"'z' {_GIVEN}", batch=0),
    _warmup(f"'x' {_GIVEN}", more=f"{_X} {_OPTIONAL}"),
    _warmup(f"'o' {_GIVEN}", more=f"{_X} {_OPTIONAL}"),
]

# The same of an ensemble whose one step makes y of x.
BROKEN_ENSEMBLES = {
    "max_batch_size: -1": "max_batch_size is -1",
    'input { name: "x" dims: 3 }': "input 'x' has no data_type",
    'input { name: "x" data_type: TYPE_FP32 }': "input 'x' has no dims",
    _output(""): "output 'y' has no dims",
    _input("dims: 0"): "has 0 in dims",
    f"batch_input {{ {_COUNT} data_type: TYPE_FP32 source_input: 'z' }}": "'z', which is no input",
}
KEPT_ENSEMBLES = [
    "",
    _input("dims: -1"),
    'default_model_filename: "a b"',
    f"batch_output {{ {_SCATTER} source_input: 'x' }}",
]


def _mostly(good: list[Any], often: int, *bad: Any) -> st.SearchStrategy[Any]:
    """Each of the good ones as often as said, where the bad ones come once."""
    return st.sampled_from([*good * often, *bad])


def _said(field: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return values.map(lambda value: f"{field}: {value}")


def _rarely(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Nothing, three times of four."""
    return st.tuples(_mostly([False], 3, True), text).map(lambda said: said[1] if said[0] else "")


def _block(name: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda said: f"{name} {{ {' '.join(filter(None, said))} }}")


def _some(part: st.SearchStrategy[str], most: int = 2) -> st.SearchStrategy[str]:
    return st.lists(part, max_size=most).map(" ".join)


def _shape(sizes: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[str]:
    return sizes.map(lambda some: f"[ {', '.join(map(str, some))} ]")


def _named(names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return _shape(names.flatmap(lambda name: _mostly([[name]], 8, [name, name])))


_NAMES = _mostly(["'x'", "'y'"], 6, "'z'", "''")
_DATA_TYPE = _mostly(["TYPE_FP32", "TYPE_INT32"], 6, "TYPE_STRING", "TYPE_INVALID", "99")
_COUNTS = st.sampled_from([0, 1, 2, 2, 8, 9])
_SIZE = _mostly([1, 2, 3, -1], 6, 4, 6, 0, -2)
_SIZES = st.lists(_SIZE, max_size=4)
_DIMS = st.lists(_SIZE, min_size=1, max_size=3)
# Dims and what they become.
_RESHAPES = st.one_of(
    st.tuples(_DIMS, _SIZES),
    _DIMS.map(lambda sizes: (sizes, [1, *sizes])),
    _DIMS.map(lambda sizes: (sizes, [*sizes, 1])),
    st.sampled_from(
        [([1], []), ([2, 3], [6]), ([2, -1, 3, 2], [2, -1, 6]), ([-1, 2], [2, -1]), ([], [1])]
    ),
)
_POLICY = (
    _said("timeout_action", st.sampled_from(["DELAY", "REJECT"])),
    _said("default_timeout_microseconds", st.sampled_from([0, 5])),
)
_TENSOR = (
    _said("name", _NAMES),
    _said("data_type", _DATA_TYPE),
    st.one_of(
        _said("dims", _shape(_DIMS)),
        _RESHAPES.map("dims: {0[0]} reshape {{ shape: {0[1]} }}".format),
    ),
)
_BOOLEAN = [
    "int32_false_true: [ 0, 1 ]",
    "fp32_false_true: [ 0, 1 ]",
    "bool_false_true: [ false, true ]",
]
_CONTROLS = st.one_of(
    _block(
        "control",
        _said("kind", st.sampled_from([f"CONTROL_SEQUENCE_{one}" for one in ("START", "END")])),
        _mostly(_BOOLEAN, 4, "", "bool_false_true: [ true ]", " ".join(_BOOLEAN[:2])),
    ),
    _block(
        "control",
        st.just(_CORRID),
        _said("data_type", _mostly(["TYPE_STRING", "TYPE_UINT64"], 3, "TYPE_FP32")),
        _mostly([""], 8, *_BOOLEAN),
    ),
)
_CONTROL_INPUT = _block(
    "control_input",
    _said("name", _mostly(["'s'", "'e'", "'c'"], 6, "''")),
    st.one_of(_CONTROLS, _CONTROLS, _some(_CONTROLS)),
)
CONFIGS: st.SearchStrategy[str] = st.tuples(
    _said("max_batch_size", _mostly([8, 2, 0], 4, -1)),
    _some(_block("input", *_TENSOR)),
    _some(_block("output", *_TENSOR)),
    st.one_of(
        st.just(""),
        _block(
            "dynamic_batching",
            _rarely(_said("preferred_batch_size", st.lists(_COUNTS, max_size=2))),
            _rarely(_said("priority_levels", _COUNTS)),
            _said("default_priority_level", _COUNTS),
            _rarely(_said("preserve_ordering", st.sampled_from(["true", "false"]))),
            _rarely(_block("default_queue_policy", *_POLICY)),
            _rarely(_block("priority_queue_policy { key: 2 value", *_POLICY).map("{} }}".format)),
        ),
        _block(
            "sequence_batching",
            _some(_CONTROL_INPUT),
            st.one_of(
                st.just(""),
                _block("oldest", _said("preferred_batch_size", st.lists(_COUNTS, max_size=2))),
                _block("direct", _said("minimum_slot_utilization", _mostly([0.5, 1], 3, -1, 2))),
            ),
        ),
    ),
    _rarely(
        _block(
            "batch_input",
            st.just(_COUNT),
            _said("data_type", _DATA_TYPE),
            _said("source_input", _named(_NAMES)),
        )
    ),
    _rarely(
        _block(
            "batch_output",
            st.just(_SCATTER),
            _said("target_name", _named(_NAMES)),
            _said("source_input", _named(_NAMES)),
        )
    ),
).map("\n".join)
"""What may be a configuration of a backend that completes nothing, or nearly so."""
