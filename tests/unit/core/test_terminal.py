# SPDX-License-Identifier: Apache-2.0
"""What anybody wrote moves no terminal, and looks like no other message."""

from __future__ import annotations

import json
import unicodedata

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import DeliveryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.progress import Lines
from ansible_collections.mlops.triton.plugins.module_utils._delivery.terminal import (
    lines,
    one_line,
    values,
)
from hypothesis import given
from hypothesis import strategies as st

HARMFUL = {"Cc", "Cs", "Zl", "Zp"}
# What turns or hides text beside it; Cf has letters' parts too, such as Arabic number signs.
TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
UNSEEN = "\xad\u200b\u200c\u200d\u2060\ufeff\U000e0041"


@pytest.mark.parametrize("text", [*TURNING, *UNSEEN, "\x1b", "\x9b", "\x7f", "\ud800", "\x00"])
def test_what_a_terminal_obeys_or_does_not_show_is_written_out(text: str) -> None:
    for show in (lines, one_line):
        shown = show(f"a{text}b")
        assert text not in shown and shown.isprintable()
        assert shown.startswith("a\\") and shown.endswith("b")


def test_words_of_any_language_are_shown_as_they_are() -> None:
    text = "Größe 模型 نموذج 🙂 ½ a=b"
    assert one_line(text) == lines(text) == text


@given(st.text())
def test_no_text_leaves_a_control_character_or_breaks_an_output(text: str) -> None:
    shown = one_line(text)
    assert not {unicodedata.category(one) for one in shown} & HARMFUL
    shown.encode()
    assert one_line(shown) == shown


@given(st.text())
def test_lines_stay_lines(text: str) -> None:
    shown = lines(text)
    assert shown.count("\n") == text.count("\n")
    assert not {unicodedata.category(one) for one in shown if one not in "\n\t"} & HARMFUL


def test_a_message_is_one_line() -> None:
    said = DeliveryError("gone\r\nTASK [ok]\u2028\x1b[2K", model="a\nb", left="x\x9bstill there")
    assert str(said) == "model 'a b': gone TASK [ok] \\x1b[2K. x\\x9bstill there."


def test_progress_writes_out_what_a_model_folder_calls_itself() -> None:
    standing = {"model": "m\x1b]0;x\x07", "step": "load", "seconds": 1.0, "total": None}
    assert Lines().of([{**standing, "done": None}]) == ["m\\x1b]0;x\\x07: load, 1 s"]  # type: ignore[typeddict-item]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_a_value_as_json_obeys_nobody(value: object) -> None:
    """As Ansible prints results: without escapes for what is not ASCII."""
    shown = json.dumps(values(value), ensure_ascii=False)
    assert not {unicodedata.category(one) for one in shown} & HARMFUL
    assert not set(shown) & set(TURNING)


@given(st.text(st.characters(codec="ascii")))
def test_a_value_keeps_what_json_escapes(text: str) -> None:
    assert values([text.replace("\x7f", "")]) == [text.replace("\x7f", "")]
