# SPDX-License-Identifier: Apache-2.0
"""numpy believes what a pickle says of an array, and follows pointers that somebody else chose, in
the process that delivers: such a pickle is refused, and what numpy writes is read as it was.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.sklearn_archive import (  # noqa: E501
    read_estimator,
    read_outline,
)

numpy: Any = pytest.importorskip("numpy")

POINTER = struct.pack("<Q", 0x4141414141414141)


def name(module: str, what: str) -> bytes:
    return f"c{module}\n{what}\n".encode()


def value(found: object) -> bytes:
    return pickle.dumps(found, 3)[2:-1]


def kind(spec: str, state: bytes = b"") -> bytes:
    made = name("numpy", "dtype") + value((spec, False, True)) + b"R"
    return made + state + b"b" if state else made


def array(shape: tuple[int, ...], of: bytes, data: object) -> bytes:
    empty = name("numpy.core.multiarray", "_reconstruct") + b"(" + name("numpy", "ndarray")
    empty += value((0,)) + value(b"b") + b"tR"
    return empty + b"(" + value(1) + value(shape) + of + value(False) + value(data) + b"tb"


# Objects of which the pickle says that they are plain bytes.
UNMARKED = kind("O8", value((3, "|", None, None, None, -1, -1, 0)))


def fields(offset: int, of: bytes) -> bytes:
    inner = b"}" + value("a") + b"(" + of + value(offset) + b"ts"
    state = b"(" + value(3) + value("|") + b"N" + value(("a",)) + inner
    return kind("V8", state + value(8) + value(1) + value(0) + b"t")


BROKEN = {
    "objects that are bytes": array((1,), UNMARKED, POINTER),
    "objects in fields that are bytes": array((1,), fields(0, UNMARKED), POINTER),
    "fields beyond the end": array((1,), fields(1 << 20, kind("f8")), POINTER),
    "more objects than there are": array((100000,), kind("O8"), [1]),
    "more numbers than there are": array((100000,), kind("f8"), POINTER),
    "less than nothing": array((-1, -1), kind("f8"), POINTER),
    "objects in a buffer": name("numpy.core.numeric", "_frombuffer")
    + b"(" + value(POINTER) + UNMARKED + value((1,)) + value("C") + b"tR",
    "a number of another size": name("numpy.core.multiarray", "scalar")
    + b"(" + kind("f8") + value(b"1") + b"tR",
    "steps of its own": name("numpy", "ndarray")
    + b"(" + value((4,)) + kind("f8") + value(POINTER) + value(0) + value((1 << 20,)) + b"tR",
    "a type that is none": array((1,), name("numpy", "ndarray"), POINTER),
}  # fmt: skip


@pytest.mark.parametrize("read", [read_outline, read_estimator])
@pytest.mark.parametrize("words", BROKEN)
def test_an_array_that_numpy_would_not_write_is_refused(
    tmp_path: Path, words: str, read: Any
) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(b"\x80\x03" + BROKEN[words] + b".")
    with pytest.raises(ArtifactError):
        read(str(file))


def test_bytes_in_the_place_of_an_object_stay_bytes(tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    body = name("numpy.core.multiarray", "scalar") + b"(" + UNMARKED + value(POINTER) + b"tR"
    file.write_bytes(b"\x80\x03" + body + b".")
    assert read_outline(str(file)).root == POINTER


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_numpy_writes_is_read_as_it_was(tmp_path: Path, protocol: int) -> None:
    nodes = numpy.zeros(
        3, numpy.dtype({"names": ["left", "value"], "formats": ["<i8", "<f8"], "itemsize": 24})
    )
    nodes["value"] = [0.5, 1.5, 2.5]
    whole = [
        numpy.arange(6.0).reshape(2, 3), numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
        numpy.array(["age", "income"]), numpy.array(["age", 1, None], dtype=object), nodes,
        numpy.arange(3, dtype=">i4"), numpy.zeros((0, 3)), numpy.zeros(2, "(2,)f4"),
        numpy.array(1.5), numpy.array([True, False]), numpy.arange(12).reshape(3, 4)[:, 1:3],
        numpy.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
        numpy.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    ]  # fmt: skip
    scalars = [numpy.float64(1.5), numpy.int32(-2), numpy.bool_(True), numpy.str_("é")]
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps([whole, scalars], protocol))
    found: Any = read_outline(str(file)).root
    for one, wanted in zip(found[0], whole, strict=True):
        if wanted.dtype.kind not in "OU":
            assert one.numpy().dtype.newbyteorder("=") == wanted.dtype.newbyteorder("=")
        assert one.tolist() == wanted.tolist() and one.shape == wanted.shape
    assert found[1] == scalars


@pytest.mark.parametrize(
    "axes", [(0, 0, 1), (0, 1), (2, 1, 3), (-1, 0, 1), [1, 0, 2], (True, 0, 2)]
)
def test_axes_that_an_array_has_not_are_refused(tmp_path: Path, axes: Any) -> None:
    file = tmp_path / "model.pkl"
    made = name("numpy.core.numeric", "_frombuffer") + b"(" + value(b"12345678") + kind("i1")
    file.write_bytes(b"\x80\x03" + made + value((2, 2, 2)) + value("K") + value(axes) + b"tR.")
    with pytest.raises(ArtifactError, match="an array that numpy does not write so"):
        read_outline(str(file))


@pytest.mark.parametrize(
    ("word", "wanted"), [(b"I0x10\n", 16), (b"L0x10L\n", 16), (b"I-7\n", -7), (b"I01\n", True)]
)
def test_a_number_is_the_one_that_pickle_reads(tmp_path: Path, word: bytes, wanted: int) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(word + b".")
    assert pickle.loads(word + b".") == wanted
    assert read_outline(str(file)).root == wanted


def test_a_number_that_pickles_read_differently_is_refused(tmp_path: Path) -> None:
    """C's reader takes it for 8, Python's for no number."""
    file = tmp_path / "model.pkl"
    file.write_bytes(b"I010\n.")
    assert pickle.loads(file.read_bytes()) == 8
    with pytest.raises(ArtifactError):
        read_outline(str(file))
