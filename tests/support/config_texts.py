# SPDX-License-Identifier: Apache-2.0
"""Texts of config.pbtxt that Triton 2.51 takes or refuses, each of which Python's own parser judges
otherwise or comes near to that; and the making of others.
"""

from __future__ import annotations

from hypothesis import strategies as st

_FP32 = "sequence_batching {{ control_input {{ control {{ fp32_false_true: {} }} }} }}"
TAKEN = [
    "max_batch_size: - 4",
    "max_batch_size: -\n# a comment\n4",
    "max_batch_size: 010",
    "max_batch_size: 0x8",
    "input { dims: [ - 1 ] }",
    "input { data_type: - 1 }",
    "input { data_type: 01 }",
    "input { data_type: 99 }",
    "dynamic_batching { preserve_ordering: 0x1 }",
    "dynamic_batching { preserve_ordering: 01 }",
    "dynamic_batching: < preferred_batch_size: [ 1, 2 ]; >",
    "optimization { priority: - 1 }",
    "name: 'm' # c\n \"n\"",
    "name: '\u00a0' # \u00a0",
    "name:\t'm'\v\f\r\n",
    "name: '\\x4\\101\\u00e9\\U0001F600\\?'",
    *(_FP32.format(number) for number in ("- 1.0", "- inf", "1f", ".5", "1e+3", "nan")),
]
REFUSED = [
    "max_batch_size: +4",
    "max_batch_size: 08",
    "max_batch_size: 1_0",
    "max_batch_size: 2147483648",
    "max_batch_size: 8input {}",
    "name:\u00a0'm'",
    "\u3000name: 'm'",
    "name: 'm'\u2028",
    "name: 'm'\x1c",
    "\u0085name: 'm'",
    "name: \u201cm\u201d",
    "name: 'm",
    "name: 'a\nb'",
    "name: '\\q'",
    "name: '\\X41'",
    "name: '\\8'",
    "name: 'm' name: 'n'",
    "input { dims: +1 }",
    "input { data_type: 99999999999 }",
    "input { data_type: +1 }",
    "dynamic_batching { preserve_ordering: 2 }",
    "dynamic_batching { max_queue_delay_microseconds: -0 }",
    "dynamic_batching { max_queue_delay_microseconds: - 1 }",
    "dynamic_batching {} sequence_batching {}",
    "bogus: 1",
    "/* c */ name: 'm'",
    *(_FP32.format(number) for number in ("+1.0", "inff", "nanf", "1e", "1.5.5", "1_0", "0x")),
]

_BLANK = st.sampled_from([" ", "", " ", "\n", "\t", " # c\n", "\r\n", "\v", "\f"])
_NUMBER = st.sampled_from(
    [
        "0",
        "1",
        "4",
        "-1",
        "+1",
        "0x10",
        "0X1f",
        "010",
        "08",
        "09",
        "1.0",
        "1.",
        ".5",
        "1e3",
        "1E-3",
        "1e",
        "1f",
        "1F",
        "2147483647",
        "2147483648",
        "-2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-0",
        "00",
        "0x",
        "0xg",
        "1_0",
        "1L",
        "--1",
        "inf",
        "-inf",
        "nan",
        "infinity",
        "Inf",
        "1.5.5",
        "1..2",
        "-.5",
        "00.5",
        "0e1",
        "09e1",
        "07.5",
        "0f",
        "01f",
        "0x1f",
        "1e400",
        "'1'",
        "true",
        "1e5f",
        "3.f",
        "0.",
        "-0.0",
        "0b1",
        "- 1",
        "- 0",
        "- nan",
        "-\n1",
        "-#c\n1",
        "1 0",
    ]
)
_STRING = st.builds(
    lambda quote, body, more: f"{quote}{body}{quote}{more}",
    st.sampled_from("\"'"),
    st.sampled_from(
        [
            "",
            "m",
            "a b",
            "\\n",
            "\\x41",
            "\\x4",
            "\\101",
            "\\q",
            '\\"',
            "\\'",
            "\xe9",
            "\t",
            "#",
            "//",
            "\\\\",
            "\\u00e9",
            "\\U0001F600",
            "a\\",
            "{",
            "\xa0",
            "\\?",
            "\\8",
            "\\xg",
            "\\u12",
            "\\0",
            "\\1234",
            "\\e",
            "\\X1",
            "\n",
        ]
    ),
    st.sampled_from(["", "", " 'x'", "'z'"]),
)
_FLAG = st.sampled_from(
    [
        "true",
        "false",
        "t",
        "f",
        "True",
        "False",
        "TRUE",
        "1",
        "0",
        "2",
        "01",
        "0x1",
        "00",
        "-1",
        "T",
        "F",
        "tRue",
        "'true'",
        "yes",
        "-true",
        "+1",
        "1.0",
        "-0",
    ]
)
_TYPE = st.sampled_from(
    [
        "TYPE_FP32",
        "TYPE_STRING",
        "0",
        "1",
        "99",
        "-1",
        "+1",
        "0x1",
        "01",
        "99999999999",
        "'TYPE_FP32'",
        "type_fp32",
        "-TYPE_FP32",
        "1.0",
        "2147483647",
        "-2147483649",
        "- 1",
    ]
)
_OTHER = st.sampled_from(
    [
        "[a.b]: 1",
        "1: 2",
        "name",
        "}",
        "{",
        "@",
        "+",
        "-",
        "\xa0",
        "\u2028",
        "\ufeff",
        "\x01",
        "\x7f",
        '"',
        "\xe9",
        "//x\n",
        "/*x*/",
        "$",
        "[",
        "%",
        "name: ",
        "input",
        'Name: "x"',
    ]
)


def _scalar(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    colon = st.sampled_from([":", ":", ":", ": ", ""])
    return st.builds(lambda a, b, c, d: f"{name}{a}{b}{c}{d}", _BLANK, colon, _BLANK, values)


def _list(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    inside = st.lists(st.builds(lambda a, b: a + b, values, _BLANK), max_size=3).map(",".join)
    end = st.sampled_from(["", "", "", ","])
    colon = st.sampled_from([":", "", ": "])
    several = st.builds(lambda a, b, c: f"{name}{a}[{b}{c}]", colon, inside, end)
    return st.one_of(_scalar(name, values), several)


def _fields(*fields: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    end = st.sampled_from([" ", "\n", ";", ",", ", ", "; ", " ", "", ";;"])
    return st.lists(st.builds(lambda a, b: a + b, st.one_of(*fields), end), max_size=3).map("".join)


def _block(name: str, *fields: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    ends = st.sampled_from([("{", "}")] * 6 + [("<", ">"), ("{", ">"), ("[ {", "} ]")])
    inside = _fields(*fields) if fields else st.just("")
    return st.builds(
        lambda colon, blank, both, text: f"{name}{colon}{blank}{both[0]}{text}{both[1]}",
        st.sampled_from(["", ":", " "]),
        _BLANK,
        ends,
        inside,
    )


TEXTS: st.SearchStrategy[str] = _fields(
    _scalar("name", _STRING),
    _scalar("backend", _STRING),
    _scalar("max_batch_size", _NUMBER),
    _block(
        "input",
        _scalar("name", _STRING),
        _scalar("data_type", _TYPE),
        _list("dims", _NUMBER),
        _scalar("optional", _FLAG),
        _block("reshape", _list("shape", _NUMBER)),
    ),
    _block(
        "version_policy",
        _block("latest", _scalar("num_versions", _NUMBER)),
        _block("all"),
        _block("specific", _list("versions", _NUMBER)),
    ),
    _block(
        "dynamic_batching",
        _list("preferred_batch_size", _NUMBER),
        _scalar("max_queue_delay_microseconds", _NUMBER),
        _scalar("preserve_ordering", _FLAG),
    ),
    _block(
        "sequence_batching",
        _block(
            "control_input",
            _block("control", _list("fp32_false_true", _NUMBER), _list("bool_false_true", _FLAG)),
        ),
        _block("direct", _scalar("minimum_slot_utilization", _NUMBER)),
    ),
    _block("instance_group", _scalar("count", _NUMBER), _list("gpus", _NUMBER)),
    _block(
        "parameters", _scalar("key", _STRING), _block("value", _scalar("string_value", _STRING))
    ),
    _block(
        "optimization", _scalar("priority", _NUMBER), _block("graph", _scalar("level", _NUMBER))
    ),
    _OTHER,
)
"""What may be a configuration or nearly so."""
