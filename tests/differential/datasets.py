# SPDX-License-Identifier: Apache-2.0
"""Data sets with what trips conversions up: zeros, missing values, huge and tiny numbers, numbers
at a threshold, wide tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
from hypothesis import strategies as st

KINDS = ("plain", "whole", "zeros", "missing", "scaled", "constant")


@dataclass(frozen=True)
class Table:
    """Columns of the given kinds, FP32 as Triton's input is; ``value`` is a target in (-2, 2)."""

    seed: int
    rows: int
    kinds: tuple[str, ...]

    @property
    def x(self) -> Any:
        random = numpy.random.default_rng(self.seed)
        columns = [_column(kind, self.rows, random) for kind in self.kinds]
        return numpy.stack(columns, axis=1).astype(numpy.float32)

    @property
    def value(self) -> Any:
        random = numpy.random.default_rng(self.seed + 1)
        x = numpy.nan_to_num(self.x.astype(float))
        ranks = x.argsort(axis=0).argsort(axis=0) / self.rows
        weights = random.normal(size=x.shape[1]) * (random.random(x.shape[1]) < 0.7)
        zeros = (self.x == 0) @ random.normal(size=x.shape[1])
        signal = numpy.tanh(ranks @ weights + zeros)
        return signal + random.normal(size=self.rows) * random.choice([0.01, 0.5])

    def classes(self, count: int) -> Any:
        edges = numpy.quantile(self.value, numpy.linspace(0, 1, count + 1)[1:-1])
        return numpy.digitize(self.value, edges)

    def groups(self, size: int) -> list[int]:
        return [size] * (self.rows // size)

    def questions(self, infinities: bool = False, missing: bool = True) -> Any:
        """Rows to ask: those of the table, and the same with other numbers in many places."""
        random = numpy.random.default_rng(self.seed + 2)
        asked = numpy.concatenate([self.x[:12], *[self.x[:12]] * 3])
        changed, what = numpy.arange(len(asked))[:, None] >= 12, random.random(asked.shape)
        nearest = numpy.nextafter(asked, numpy.float32(random.choice([-9e37, 9e37])))
        others = [(0.15, 0.0), (0.5, nearest), (0.6, -asked), (0.65, numpy.float32(1e-38))]
        others += [(0.3, numpy.nan)] if missing else []
        others += [(0.35, numpy.inf), (0.4, -numpy.inf)] if infinities else []
        below = 0.0
        for end, number in sorted(others, key=lambda pair: pair[0]):
            asked = numpy.where(changed & (what >= below) & (what < end), number, asked)
            below = end
        asked = asked.astype(numpy.float32)
        return asked if missing else numpy.nan_to_num(asked, posinf=None, neginf=None)


def _column(kind: str, rows: int, random: Any) -> Any:
    plain = random.normal(size=rows)
    if kind == "whole":
        return random.integers(-3, 4, rows).astype(float)
    if kind == "zeros":
        return numpy.where(random.random(rows) < 0.5, 0.0, plain)
    if kind == "missing":
        return numpy.where(random.random(rows) < 0.3, numpy.nan, plain)
    if kind == "scaled":
        return plain * 10.0 ** random.integers(-30, 30)
    return numpy.full(rows, 2.5) if kind == "constant" else plain


@st.composite
def tables(draw: st.DrawFn, missing: bool = True) -> Table:
    kinds = st.sampled_from([kind for kind in KINDS if missing or kind != "missing"])
    columns = draw(st.lists(kinds, min_size=2, max_size=6))
    wide = draw(st.sampled_from([0, 0, 0, 0, 0, 300]))
    return Table(
        draw(st.integers(0, 10_000)),
        draw(st.sampled_from([60, 120])),
        (*columns, *["plain"] * wide),
    )


def both(probability: Any) -> Any:
    """FIL answers a column for each class, XGBoost and LightGBM the second one alone."""
    return numpy.stack([1 - probability, probability], axis=1)


def softmax(margins: Any) -> Any:
    shares = numpy.exp(margins - margins.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def assert_same(found: Any, expected: Any, size: float = 1.0) -> None:
    """``size`` is that of the numbers that are added up; sums in single precision differ by their
    order.
    """
    wanted = numpy.asarray(expected, dtype=float)
    numpy.testing.assert_allclose(
        found, wanted.reshape(len(wanted), -1), rtol=1e-4, atol=1e-5 * size
    )
