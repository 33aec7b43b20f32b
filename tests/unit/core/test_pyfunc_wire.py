# SPDX-License-Identifier: Apache-2.0
"""What a worker and its stub say to each other: whatever comes is a message or refused."""

from __future__ import annotations

import array
import contextlib
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import worker
from ansible_collections.mlops.triton.plugins.module_utils._delivery.worker import (
    pyfunc_wire as wire,
)
from hypothesis import given, settings
from hypothesis import strategies as st

CORE = Path(worker.__file__).resolve().parents[1]
NUMBERS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


@contextlib.contextmanager
def conversation() -> Iterator[tuple[wire.Channel, wire.Channel]]:
    ends = [wire.Channel(each) for each in socket.socketpair()]
    try:
        yield ends[0], ends[1]
    finally:
        for each in ends:
            each.close()


def soon() -> float:
    return time.monotonic() + 20


def bytes_of(values: Any) -> memoryview:
    return memoryview(values.tobytes())


arrays = st.lists(
    st.tuples(
        st.sampled_from(NUMBERS),
        st.lists(st.integers(0, 5), max_size=3),
        st.binary(min_size=1000, max_size=1000),
    ),
    max_size=6,
).map(
    lambda drawn: [
        np.frombuffer(raw, dtype=kind, count=int(np.prod(shape))).reshape(shape)
        for kind, shape, raw in drawn
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=4))
def test_arrays_of_all_types_come_as_they_went(messages: list[list[Any]]) -> None:
    with conversation() as (here, there):
        for number, given_arrays in enumerate(messages):
            for one, other in ((here, there), (there, here)):
                one.send({"call": number}, [[bytes_of(each)] for each in given_arrays])
                header, parts = other.receive(soon())
                assert header == {"call": number}
                assert [bytes(part) for part in parts] == [each.tobytes() for each in given_arrays]
                one.done()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_texts_come_as_they_went(texts: list[bytes]) -> None:
    assert wire.unpack_texts(wire.pack_texts(texts), len(texts)) == texts


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 20))
def test_what_is_no_list_of_texts_is_refused(raw: bytes, count: int) -> None:
    with contextlib.suppress(wire.WireError):
        found = wire.unpack_texts(memoryview(raw), count)
        assert bytes(wire.pack_texts(found)) == raw and len(found) == count


def test_pieces_are_written_one_behind_the_other() -> None:
    with conversation() as (here, there):
        here.send({}, [[memoryview(b"ab"), memoryview(b""), memoryview(b"c")], []])
        _header, parts = there.receive(soon())
        assert [bytes(part) for part in parts] == [b"abc", b""]


def test_memory_is_used_again_and_grows() -> None:
    with conversation() as (here, there):
        for size in (10, 1000, 3_000_000, 20, 1):
            here.send({}, [[memoryview(b"x" * size)]])
            _header, parts = there.receive(soon())
            assert bytes(parts[0]) == b"x" * size
        # Of 10 and of 3,000,000 bytes.
        mapped = Path("/proc/self/maps").read_text().count("memfd:mlops_triton")
        assert mapped <= 4


def test_much_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "KEPT_MEMORY", 64 * mmap.PAGESIZE)
    with conversation() as (here, there):
        here.send({}, [[memoryview(b"x" * 8_000_000)]])
        _header, parts = there.receive(soon())
        ours = here._ours
        assert ours is not None
        before = os.fstat(ours.descriptor).st_blocks
        del parts
        here.done()
        assert os.fstat(ours.descriptor).st_blocks < before / 2
        here.send({}, [[memoryview(b"y" * 8_000_000)]])
        assert bytes(there.receive(soon())[1][0]) == b"y" * 8_000_000


def test_a_large_header_comes_whole() -> None:
    with conversation() as (here, there):
        text = "x" * 3_000_000
        sender = threading.Thread(target=here.send, args=({"text": text},))
        sender.start()
        assert there.receive(soon())[0] == {"text": text}
        sender.join()


def test_no_message_is_larger_than_its_bounds() -> None:
    with conversation() as (here, _there):
        with pytest.raises(wire.WireError, match="header"):
            here.send({"text": "x" * wire.MOST_HEADER})
        with pytest.raises(wire.WireError, match="tensors"):
            here.send({}, [[]] * (wire.MOST_PARTS + 1))


def test_an_end_and_a_silence_are_told_apart() -> None:
    with conversation() as (here, there):
        with pytest.raises(wire.TookTooLong):
            there.receive(time.monotonic())
        here.send({})
        here.close()
        assert there.receive(soon()) == ({}, [])
        with pytest.raises(wire.Ended):
            there.receive(soon())
        with pytest.raises(wire.Ended):
            there.send({}, [[memoryview(b"x")]])


# --- what nobody wrote ----------------------------------------------------------------------------


def receive(raw: bytes, descriptors: list[int]) -> Any:
    """What comes of these bytes, with these descriptors along, before the connection ends."""
    ours, theirs = socket.socketpair()
    channel = wire.Channel(theirs)
    try:
        told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        ours.sendmsg([raw], told if descriptors else [])
        ours.close()
        return channel.receive(soon())
    finally:
        channel.close()


def framed(body: bytes) -> bytes:
    return struct.pack("<4sI", b"MTP1", len(body)) + body


def descriptors_open() -> int:
    return len(os.listdir("/proc/self/fd"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
headers = json_values | st.fixed_dictionaries({"parts": json_values, "new": st.booleans()})


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.binary(max_size=60).map(framed)
    | headers.map(json.dumps).map(str.encode).map(framed),
    st.booleans(),
)
def test_whatever_comes_is_a_message_or_refused(raw: bytes, with_memory: bool) -> None:
    if not raw:
        return
    before = descriptors_open()
    memory = wire.Memory(100)
    try:
        header, parts = receive(raw, [memory.descriptor] if with_memory else [])
        assert isinstance(header, dict) and all(isinstance(each, memoryview) for each in parts)
    except (wire.WireError, wire.Ended):
        pass
    finally:
        memory.close()
    assert descriptors_open() == before


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200))
def test_a_message_that_is_cut_off_is_an_end(length: int) -> None:
    raw = framed(json.dumps({"parts": [], "text": "x" * 180}).encode())
    cut = raw[: min(length + 1, len(raw) - 1)]
    with pytest.raises(wire.Ended):
        receive(cut, [])


PLACES = [
    [[0, 1 << 60]],
    [[-1, 2]],
    [[0, -1]],
    [[1 << 70, 1]],
    [["0", 1]],
    [[0]],
    [None],
    [[True, 1]],
]


@pytest.mark.parametrize("places", PLACES, ids=str)
def test_a_tensor_outside_the_memory_is_refused(places: Any) -> None:
    memory = wire.Memory(100)
    body = json.dumps({"parts": places, "new": True}).encode()
    with pytest.raises(wire.WireError):
        receive(framed(body), [memory.descriptor])
    memory.close()


def test_memory_that_could_shrink_under_the_reader_is_refused(tmp_path: Path) -> None:
    body = framed(json.dumps({"parts": [], "new": True}).encode())
    before = descriptors_open()
    unsealed = os.memfd_create("x")
    os.ftruncate(unsealed, 4096)
    (tmp_path / "file").write_bytes(bytes(4096))
    file = os.open(tmp_path / "file", os.O_RDWR)
    pipe = os.pipe()
    for descriptor in (unsealed, file, *pipe):
        with pytest.raises(wire.WireError):
            receive(body, [descriptor])
        os.close(descriptor)
    memory = wire.Memory(1)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, 1)
    for many in (2, 5, 100):
        with pytest.raises(wire.WireError):
            receive(body, [memory.descriptor] * many)
    memory.close()
    assert descriptors_open() == before


# --- the files ------------------------------------------------------------------------------------


def test_the_files_of_a_worker_come_out_of_a_zip(tmp_path: Path) -> None:
    """As Ansible sends the core to a host."""
    expected = {
        "model.py": (CORE / "worker/stub.py").read_bytes(),
        "pyfunc_worker.py": (CORE / "worker/pyfunc_worker.py").read_bytes(),
        "pyfunc_wire.py": (CORE / "worker/pyfunc_wire.py").read_bytes(),
    }
    assert worker.files() == expected
    with zipfile.ZipFile(tmp_path / "core.zip", "w") as archive:
        archive.writestr("_delivery/__init__.py", "")
        for path in (CORE / "worker").glob("*.py"):
            archive.write(path, f"_delivery/worker/{path.name}")
    code = "import sys; from _delivery import worker; print(*map(len, worker.files().values()))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "core.zip")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.split() == [str(len(each)) for each in expected.values()]
