# SPDX-License-Identifier: Apache-2.0
"""What Triton's parser of config.pbtxt takes is taken here, and nothing else: cases that were found
by asking both parsers. ``tests/integration/test_config_oracle.py`` asks a real server about them,
and about many more.
"""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import (
    config_pbtxt,
    pbtxt,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st
from support.config_texts import REFUSED, TAKEN


@pytest.mark.parametrize("text", TAKEN)
def test_what_triton_takes_is_taken(text: str) -> None:
    config_pbtxt.parse(text.encode())


@pytest.mark.parametrize("text", REFUSED)
def test_what_triton_refuses_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.pbtxt (does not parse|is not UTF-8)"):
        config_pbtxt.parse(text.encode())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name: "m"\nmax_batch_size: +4\n', r"line 2, column 17: Triton takes no '\+'"),
        ('name:\u00a0"m"', "line 1, column 6: a no-break space outside a string or comment"),
        ("name: \u201cm\u201d", r"line 1, column 7: the character U\+201C outside a string"),
        ("name: 'm\\q'", r"line 1, column 9: \\q is no escape sequence"),
        ("# a comment\n\tname: 'm", "line 2, column 8: a string that does not end"),
        ("input { data_type: 99999999999 }", "does not parse"),
    ],
)
def test_the_sentence_names_the_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_pbtxt.parse(text.encode())


def test_a_sign_may_stand_apart_from_its_number() -> None:
    message = config_pbtxt.parse(b"input { dims: [ - 1, -\n# far\n2 ] data_type: - 1 }")
    assert list(message.input[0].dims) == [-1, -2]


@given(st.text(max_size=40))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    for read in (lambda: config_pbtxt.parse(text.encode()), lambda: pbtxt.read_fields(text)):
        try:
            read()
        except (ConfigError, pbtxt.TextRefused, UnicodeEncodeError):
            continue


def test_fields_are_read_without_protobuf() -> None:
    text = 'a: "x" \'y\' b { c: [ - 1, 2 ] d <> } e [ {f:1}, {} ] # k: 1\n g: TYPE; a: "z"'
    assert pbtxt.read_fields(text) == {
        "a": ["xy", "z"],
        "b": [{"c": ["-1", "2"], "d": [{}]}],
        "e": [{"f": ["1"]}, {}],
        "g": ["TYPE"],
    }


@pytest.mark.parametrize("text", ["a {", "a: [ }", "a", "a: }", "{", "a {" * 200, "a: [ [ 1 ] ]"])
def test_what_is_no_such_text_is_refused(text: str) -> None:
    with pytest.raises(pbtxt.TextRefused):
        pbtxt.read_fields(text)
