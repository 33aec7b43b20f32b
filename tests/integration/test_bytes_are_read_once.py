# SPDX-License-Identifier: Apache-2.0
"""The bytes of a large model are read once on their way to a real Triton, and not at all on the way
back. What is read is counted by the kernel.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bench import NAME, Bench, new_bench

SIZE = 24 << 20
OTHER = SIZE // 4
"""What a run reads besides: libraries, answers of the server, samples of files."""
ONCE = 2 * SIZE + OTHER
"""The copy counts as a read, and what was copied is hashed from the page cache."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with new_bench(tmp_path_factory.mktemp("once") / "bench") as made:
        yield made


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    yield shared
    shared.good(state="absent")
    assert shared.left_behind(models_there=()) == []


def source(bench: Bench, identity: int) -> Path:
    folder = bench.sample(identity).folder
    (folder / "1" / "weights.bin").write_bytes(os.urandom(SIZE))
    return folder


def change(folder: Path, identity: int) -> None:
    """Another model of the same size in the same folder, as of an architecture trained anew."""
    program = folder / "1" / "model.py"
    program.write_text(program.read_text().replace("IDENTITY = 1", f"IDENTITY = {identity}"))
    (folder / "1" / "weights.bin").write_bytes(os.urandom(SIZE))


def read_during(action: Callable[[], Any]) -> int:
    """Bytes that this process read meanwhile, whatever it read them with."""

    def so_far() -> int:
        with open("/proc/self/io", encoding="ascii") as stream:
            return int(stream.readline().split()[1])

    before = so_far()
    action()
    return so_far() - before


def retained(bench: Bench) -> Path:
    (found,) = bench.repository.parent.glob(f"*.mlops-triton/retained/{NAME}/*/model/1/weights.bin")
    return found


def test_a_folder_of_this_host_is_read_once_at_each_deployment(bench: Bench) -> None:
    folder = source(bench, 1)
    uri = str(folder)
    assert read_during(lambda: bench.good(check=True, model_uri=uri)) < OTHER
    assert read_during(lambda: bench.good(model_uri=uri)) < ONCE
    assert bench.identity() == 1
    change(folder, 2)
    assert read_during(lambda: bench.good(model_uri=uri)) < ONCE
    assert bench.identity() == 2
    assert read_during(lambda: bench.good(model_uri=uri)) < OTHER


def test_a_folder_that_was_only_touched_is_compared_by_its_bytes(bench: Bench) -> None:
    """And a change that lies where no sample is taken is found."""
    folder = source(bench, 1)
    weights = folder / "1" / "weights.bin"
    bench.good(model_uri=str(folder))
    os.utime(weights)
    assert not bench.good(model_uri=str(folder)).changed
    with open(weights, "r+b") as stream:
        stream.seek(SIZE // 3 + 100_000)
        stream.write(b"changed")
    assert bench.good(model_uri=str(folder)).changed
    live = bench.repository / NAME / "1" / "weights.bin"
    assert live.read_bytes() == weights.read_bytes()


def test_the_way_back_reads_no_byte_of_a_model(bench: Bench) -> None:
    first, second = source(bench, 1), source(bench, 2)
    bench.good(model_uri=str(first))
    bench.good(model_uri=str(second))
    assert read_during(lambda: bench.good(state="rolled_back")) < OTHER
    assert bench.identity() == 1
    assert bench.drift() == []


def set_back(path: Path) -> None:
    info = os.stat(path)
    with open(path, "r+b") as stream:
        stream.write(b"changed")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def put_back_from_a_backup(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    os.replace(copy, path)


def link(path: Path) -> None:
    os.link(path, path.parents[6] / "another name")


@pytest.mark.parametrize("touch", [put_back_from_a_backup, link])
def test_a_retained_copy_that_looks_otherwise_is_read_before_it_comes_back(
    bench: Bench, touch: Callable[[Path], None]
) -> None:
    bench.good(model_uri=str(source(bench, 1)))
    bench.good(model_uri=str(source(bench, 2)))
    touch(retained(bench))
    assert read_during(lambda: bench.good(state="rolled_back")) > SIZE
    assert bench.identity() == 1


def test_a_retained_copy_of_the_same_size_and_time_with_other_bytes_never_comes_back(
    bench: Bench,
) -> None:
    bench.good(model_uri=str(source(bench, 1)))
    bench.good(model_uri=str(source(bench, 2)))
    set_back(retained(bench))
    failed = bench.deliver(state="rolled_back")
    assert "the retained copy is not what was deployed" in str(failed.error)
    assert bench.identity() == 2


def test_check_files_reads_a_retained_copy_too(bench: Bench) -> None:
    bench.good(model_uri=str(source(bench, 1)))
    bench.good(model_uri=str(source(bench, 2)))
    back = read_during(lambda: bench.good(state="rolled_back", check_files=True))
    assert back > 2 * SIZE  # what serves, and what comes back
    assert bench.identity() == 1
