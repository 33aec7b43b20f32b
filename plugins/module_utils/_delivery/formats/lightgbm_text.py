# SPDX-License-Identifier: Apache-2.0
"""What in a LightGBM model's text Triton's FIL backend would compute otherwise than LightGBM;
stdlib only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from ..errors import OtherAnswers
from .thresholds import refuse_close_thresholds

_CATEGORICAL, _DEFAULT_LEFT, _MISSING_ZERO = 1, 2, 1
# Below it LightGBM takes a number for zero: 1e-35 in single precision.
_ZERO = 1.0000000180025095e-35
_LINES = (
    b"feature_names=",
    b"split_feature=",
    b"threshold=",
    b"decision_type=",
    b"is_linear=",
    b"pandas_categorical:",
)
_LONGEST_LINE = 1 << 28
_LONGEST_SHOWN = 80
_NUMBER = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)


def refuse_what_fil_computes_otherwise(file: BinaryIO) -> None:
    """Read the whole text.

    Raises:
        OtherAnswers: a model that a server would answer other numbers for, with what would work.
        ValueError: no text of LightGBM.
    """
    file.seek(0)
    names: list[str] = []
    features: list[str] = []
    thresholds: list[str] = []
    # Most trees split where others do, so that only few of the texts become numbers.
    splits: set[tuple[str, str, str]] = set()
    categories = False
    for key, value in _settings(file):
        if key == "threshold":
            thresholds = value.split()
        elif key == "split_feature":
            features = value.split()
        elif key == "feature_names":
            names = value.split()
        elif key == "is_linear" and value.strip() == "1":
            raise OtherAnswers(
                "its leaves are linear models (linear_tree), which FIL does not compute: train it"
                " with linear_tree=False"
            )
        elif key == "decision_type":
            words = value.split()
            splits.update(zip(features, thresholds, words))
            kinds = [int(word) for word in words]
            categories = categories or any(kind & _CATEGORICAL for kind in kinds)
            _refuse_zero_as_missing(kinds, thresholds)
        elif key == "pandas_categorical" and categories:
            for column in _lists(value):
                _refuse_other_numbers(column)
    _refuse_close_thresholds(names, splits)


def _settings(file: BinaryIO) -> Iterator[tuple[str, str]]:
    while line := file.readline(_LONGEST_LINE):
        if line.startswith(_LINES):
            head, _sign, rest = line.decode("utf-8", "replace").partition(
                ":" if line.startswith(b"pandas") else "="
            )
            yield head, rest


def _lists(value: str) -> Iterable[list[Any]]:
    found = json.loads(value)
    return [column for column in found or [] if isinstance(column, list)]


def _refuse_zero_as_missing(kinds: list[int], thresholds: list[str]) -> None:
    """FIL compares a zero with the threshold. That is right where the default direction is the same
    side.
    """
    for place, kind in enumerate(kinds):
        if kind & _CATEGORICAL or (kind >> 2) & 3 != _MISSING_ZERO:
            continue
        threshold = float(thresholds[place])
        if bool(kind & _DEFAULT_LEFT) != (threshold >= _ZERO) or -_ZERO <= threshold < _ZERO:
            raise OtherAnswers(
                "it was trained with zero_as_missing, and FIL takes a zero for a number: train it"
                " without that on data with NaN in place of each zero, and send NaN"
            )


def _refuse_close_thresholds(names: list[str], splits: Iterable[tuple[str, str, str]]) -> None:
    columns: dict[int, list[float]] = {}
    for feature, threshold, kind in splits:
        if not int(kind) & _CATEGORICAL:
            columns.setdefault(int(feature), []).append(float(threshold))
    refuse_close_thresholds(
        {
            f"column '{names[column]}'" if column < len(names) else f"column {column}": thresholds
            for column, thresholds in sorted(columns.items())
        }
    )


def _refuse_other_numbers(categories: list[Any]) -> None:
    """Refuse categories that are numbers, or texts of numbers, and not 0, 1, 2, …

    Raises:
        OtherAnswers: with what would work.
    """
    # Whoever has a text that is no number looks for its code, as only numbers can be sent.
    if any(_number(value) not in (None, code) for code, value in enumerate(categories)):
        shown = ", ".join(map(_shown, categories[:4])) + (", …" if len(categories) > 4 else "")
        raise OtherAnswers(
            f"one of its columns has the categories {shown}, which its trees know as 0, 1, 2, …, so"
            " that a server would take the one for the other: train it on the codes"
            " (frame[column].cat.codes.astype('category'))"
        )


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _number(value: object) -> float | None:
    """What a user would send for a category; None where that is no number."""
    if isinstance(value, int | float):
        return value
    # pandas' text for what is missing is "nan", which nobody sends in place of a code.
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None
