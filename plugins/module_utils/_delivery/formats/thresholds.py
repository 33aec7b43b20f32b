# SPDX-License-Identifier: Apache-2.0
"""Thresholds of trees that were trained in double precision, and whether Triton's input, which is
of single precision, tells them apart; stdlib only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

from ..errors import OtherAnswers

_STEPS = 4
"""Rows between two thresholds that are fewer steps of single precision apart would often come out
on another side: each is moved by up to half a step on its way."""
_BINS = 256
"""What a library's histogram has at most, unless it is told otherwise."""
_SMALLEST_STEP = 2.0**-149


def refuse_close_thresholds(columns: Mapping[str, Iterable[float]]) -> None:
    """Refuse what single precision blurs, as it does times in seconds since 1970.

    Args:
        columns: the thresholds by which trees split each column; its name as a reader knows it.

    Raises:
        OtherAnswers: naming a column and two of its thresholds, with what would work.
    """
    for column, thresholds in columns.items():
        ordered = sorted({number for number in thresholds if math.isfinite(number)})
        close = [(low, high) for low, high in pairwise(ordered) if _are_blurred(low, high)]
        # Where more thresholds have come together, of several trainings or for a histogram of many
        # bins, some are close by chance, with hardly a row between them.
        if len(close) <= len(ordered) // _BINS:
            continue
        low, high = close[0]
        raise OtherAnswers(
            f"it tells {low!r} and {high!r} of {column} apart, which single precision, Triton's"
            " input, hardly does: train it on the differences to the smallest value"
            " (X - X.min(axis=0)) and send those, or train it on X.astype('float32')"
        )


def _are_blurred(low: float, high: float) -> bool:
    if high - low >= _STEPS * _step(max(-low, high)):
        return False
    return not (_keeps_values_apart(low) and _keeps_values_apart(high))


def _keeps_values_apart(threshold: float) -> bool:
    """Whether the threshold comes from values that single precision tells apart: numbers of single
    precision themselves, or decimals that are farther apart than its steps, such as amounts in
    cents. It is one of these values, or lies halfway between two.
    """
    # Of two numbers close to the threshold the one nearer to zero may have steps half as large.
    half_step = _step(abs(threshold) * (1 - 2.0**-20)) / 2
    decimals = 5 * 10.0 ** math.ceil(math.log10(_step(threshold) / 10))
    return _is_multiple(threshold, half_step) or _is_multiple(threshold, decimals)


def _is_multiple(number: float, unit: float) -> bool:
    """LightGBM moves what lies halfway to the next number of double precision."""
    return abs(number - round(number / unit) * unit) <= 4 * math.ulp(number)


def _step(number: float) -> float:
    """From one number of single precision to the next, at the size of this one."""
    _mantissa, exponent = math.frexp(number)
    return max(math.ldexp(1.0, exponent - 24), _SMALLEST_STEP) if number else _SMALLEST_STEP
