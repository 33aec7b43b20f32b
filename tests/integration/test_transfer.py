# SPDX-License-Identifier: Apache-2.0
"""Bytes of artifacts from a real MLflow: in ranges, after breaks, written once, and nothing left of
them elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.download import (
    CHUNK,
    LARGE,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.mlflow_proxy import (
    ProxyStore,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    NotFound,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.publication import (  # noqa: E501
    plan_publication,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support import models
from support.deliveries import publish_model
from support.fault_proxy import FaultProxy
from support.servers import ROOT, MLflow

pytest.importorskip("mlflow")

pytestmark = pytest.mark.long
FILE = "model.onnx"
SIZE = LARGE + CHUNK // 2
MIDDLE = 3 << 20


def make(path: Path, size: int, seed: int = 1) -> str:
    """A file that has lain there for long; returns its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    os.utime(path, (seed, seed))
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def place(mlflow: MLflow, tmp_path: Path) -> Path:
    """A folder of this test behind the server."""
    folder = mlflow.artifacts / "transfer" / tmp_path.name
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def proxy(mlflow: MLflow) -> Iterator[FaultProxy]:
    ProxyStore._whole_only.clear()
    with FaultProxy(mlflow.url) as made:
        made.only = f"{FILE} HTTP"
        yield made


def fetch(url: str, place: Path, target: Path, timeout: float = 30) -> dict[str, FileEntry]:
    root = Registry(url, timeout).files_at(f"mlflow-artifacts:/transfer/{place.name}")
    wanted = {file.path: str(target / file.path) for file in root.list()}
    for path in wanted.values():
        os.makedirs(os.path.dirname(path), exist_ok=True)
    return root.fetch(wanted)


def is_there(entry: FileEntry, target: Path, sha256: str) -> bool:
    return entry.sha256 == sha256 == hashlib.sha256((target / FILE).read_bytes()).hexdigest()


def test_large_file_comes_in_ranges(place: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    wanted = make(place / FILE, SIZE)
    found = fetch(proxy.url, place, tmp_path / "to")
    assert is_there(found[FILE], tmp_path / "to", wanted)
    assert found[FILE].size == SIZE
    assert proxy.ranges[0] == "", (
        "a server that copies files before it answers would do so for each range"
    )
    starts = [int(text.removeprefix("bytes=").partition("-")[0]) for text in proxy.ranges[1:]]
    assert sorted(starts) == list(range(CHUNK, SIZE, CHUNK))


def test_every_range_breaks_once(place: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    wanted = make(place / FILE, SIZE)
    # Where the first answers break: the whole one in its middle, the ranges at once.
    proxy.fault, proxy.after, proxy.times = "cut", CHUNK // 2, 4
    assert is_there(fetch(proxy.url, place, tmp_path / "to")[FILE], tmp_path / "to", wanted)
    assert proxy.hit == 4


def test_ranges_that_do_not_fit_together(place: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    """One range is tried; the first answer goes on alone, and no range is tried of a further
    file.
    """
    wanted = make(place / FILE, SIZE)
    proxy.fault = "fresh tags"
    for number in (1, 2):
        assert is_there(
            fetch(proxy.url, place, tmp_path / str(number))[FILE], tmp_path / str(number), wanted
        )
    assert proxy.ranges == ["", f"bytes={CHUNK}-{2 * CHUNK - 1}", ""]


def test_server_without_ranges(place: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    wanted = make(place / FILE, SIZE)
    proxy.fault = "no ranges"
    assert is_there(fetch(proxy.url, place, tmp_path / "to")[FILE], tmp_path / "to", wanted)
    assert proxy.ranges == [""]


@pytest.mark.parametrize("fault", ["cut", "cut without length"])
def test_goes_on_at_the_byte_reached(
    fault: str, place: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    wanted = make(place / FILE, MIDDLE)
    proxy.fault, proxy.after, proxy.times = fault, 2_000_000, 1
    assert is_there(fetch(proxy.url, place, tmp_path / "to")[FILE], tmp_path / "to", wanted)
    assert proxy.ranges == ["", "bytes=2000000-"]


def test_server_is_away_for_a_moment(place: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    wanted = make(place / FILE, MIDDLE)
    proxy.fault, proxy.times = "hang up", 2
    assert is_there(fetch(proxy.url, place, tmp_path / "to")[FILE], tmp_path / "to", wanted)
    assert proxy.hit == 2


@pytest.mark.parametrize(("size", "after"), [(MIDDLE, 2_000_000), (SIZE, CHUNK // 2)])
def test_file_that_changes_meanwhile(
    size: int, after: int, place: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Never the beginning of one and the end of the other."""
    make(place / FILE, size)
    proxy.fault, proxy.after, proxy.times = "cut", after, 1
    found: list[str] = []

    def change(line: str) -> None:
        if proxy.hit and not found and proxy.only in line:
            (place / FILE).unlink()
            found.append(make(place / FILE, size, seed=2))

    proxy.before = change
    assert is_there(fetch(proxy.url, place, tmp_path / "to")[FILE], tmp_path / "to", found[0])


def test_file_that_gets_shorter(place: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    make(place / FILE, MIDDLE)
    proxy.fault, proxy.after, proxy.times = "cut", 2_000_000, 1

    def change(_line: str) -> None:
        if proxy.hit:
            make(place / FILE, 1_000_000, seed=2)

    proxy.before = change
    with pytest.raises(ArtifactError, match=f"1000000 bytes came instead of {MIDDLE}"):
        fetch(proxy.url, place, tmp_path / "to")


def test_break_that_lasts_is_given_up(place: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    make(place / FILE, MIDDLE)
    proxy.fault, proxy.after = "cut", 2_000_000
    with pytest.raises(
        ArtifactError,
        match=r"less than 1 KiB came within 8 s, after 2000000 bytes; the connection broke",
    ):
        fetch(proxy.url, place, tmp_path / "to", timeout=8)


def test_many_small_files(place: Path, mlflow: MLflow, tmp_path: Path) -> None:
    """Each is asked for once, in whatever folder it lies."""
    wanted = {
        f"{number % 12}/{number:03}": make(
            place / str(number % 12) / f"{number:03}", 500, seed=number
        )
        for number in range(240)
    }
    with FaultProxy(mlflow.url) as proxy:
        found = fetch(proxy.url, place, tmp_path / "to")
    assert {path: entry.sha256 for path, entry in found.items()} == wanted
    assert sorted({*proxy.lines}) == sorted(proxy.lines)
    assert len(proxy.lines) == 240 + 13


# --- the other way --------------------------------------------------------------------------------


def test_upload_that_breaks_begins_again(proxy: FaultProxy, tmp_path: Path) -> None:
    sample = models.make_onnx(tmp_path, "broken-upload")
    proxy.fault, proxy.only, proxy.times = "hang up", "PUT ", 2
    registry = Registry(proxy.url, 30)
    publish_model(registry, sample.name, sample.folder)
    files = registry.files(registry.resolve(parse_model_uri(f"models:/{sample.name}/1")))
    assert (
        files.sizes()[f"{sample.name}/1/model.onnx"]
        == (sample.folder / "1/model.onnx").stat().st_size
    )
    assert proxy.hit == 2


def test_upload_that_cannot_be_done_makes_no_version(proxy: FaultProxy, tmp_path: Path) -> None:
    sample = models.make_onnx(tmp_path, "no-upload")
    proxy.fault, proxy.only = "hang up", "model.onnx HTTP"
    with pytest.raises(
        ArtifactError, match=r"could not be uploaded: .*cannot be reached.* No version was made"
    ):
        publish_model(Registry(proxy.url, 30), sample.name, sample.folder)
    with pytest.raises(NotFound):
        Registry(proxy.url, 30).resolve(parse_model_uri(f"models:/{sample.name}/1"))


# --- what is written ------------------------------------------------------------------------------

PROGRAM = """
import json, os, sys, tempfile
sys.path.insert(0, sys.argv[1])
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import Registry
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import LocalRoot
url, place = sys.argv[2:4]
root = Registry(url, 20).files_at(place) if url else LocalRoot(place, 20)
root.list()
written = lambda: int(dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())["wchar"])
before = written()
try:
    root.fetch({"model.onnx": sys.argv[4]})
    said = ""
except ArtifactError as error:
    said = str(error)
print(json.dumps([written() - before, said]))
"""  # noqa: E501


def fetch_in_a_process(url: str, location: str, target: Path, temporary: Path) -> tuple[int, str]:
    """Bytes that it wrote, and its failure."""
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / ".dev"), url, location, str(target)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    written, said = json.loads(done.stdout)
    return written, said


@pytest.mark.parametrize("size", [MIDDLE, SIZE])
def test_bytes_are_written_once(size: int, place: Path, mlflow: MLflow, tmp_path: Path) -> None:
    make(place / FILE, size)
    written, said = fetch_in_a_process(
        mlflow.url,
        f"mlflow-artifacts:/transfer/{place.name}",
        tmp_path / "to",
        tmp_path / "temporary",
    )
    assert not said
    assert size <= written < size * 1.01 + 100_000
    assert list((tmp_path / "temporary").iterdir()) == []


def test_failure_leaves_no_temporary_files(place: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    make(place / FILE, MIDDLE)
    proxy.fault, proxy.after = "cut", 500
    _written, said = fetch_in_a_process(
        proxy.url,
        f"mlflow-artifacts:/transfer/{place.name}",
        tmp_path / "to",
        tmp_path / "temporary",
    )
    assert "could not be brought here" in said
    assert list((tmp_path / "temporary").iterdir()) == []


def test_local_bytes_are_written_once(tmp_path: Path) -> None:
    make(tmp_path / "store" / FILE, SIZE)
    written, said = fetch_in_a_process(
        "", str(tmp_path / "store"), tmp_path / "to", tmp_path / "temporary"
    )
    assert not said
    # A reflink writes nothing.
    assert written < SIZE * 1.01 + 100_000
    assert list((tmp_path / "temporary").iterdir()) == []


PUBLISHER = f"""
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from {plan_publication.__module__} import DesiredPublication, apply_publication, plan_publication
from {Registry.__module__} import Registry
registry = Registry(sys.argv[2], 60)
registry.search("nothing")
written = lambda: int(dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())["wchar"])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before = [written(), peak()]
apply_publication(registry, plan_publication(registry, DesiredPublication("large", sys.argv[3])))
print(json.dumps([written() - before[0], peak() - before[1]]))
"""  # noqa: E501


def test_a_large_model_is_published_from_where_it_lies(mlflow: MLflow, tmp_path: Path) -> None:
    """Neither a copy on disk nor one in memory: what goes through a socket counts as neither."""
    folder = models.make_onnx(tmp_path, "large").folder
    make(folder / "1/weights.bin", SIZE)
    done = subprocess.run(
        [sys.executable, "-c", PUBLISHER, str(ROOT / ".dev"), mlflow.url, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    written, more_memory = json.loads(done.stdout)
    assert written < 1 << 20
    assert more_memory < SIZE / 2


@pytest.mark.parametrize("size", [0, 1, 1 << 20, MIDDLE, SIZE])
def test_local_copy(size: int, tmp_path: Path) -> None:
    wanted = make(tmp_path / "store" / FILE, size)
    target = tmp_path / "to"
    target.mkdir()
    found = LocalRoot(str(tmp_path / "store"), 30).fetch({FILE: str(target / FILE)})
    assert is_there(found[FILE], target, wanted)
    assert (target / FILE).stat().st_nlink == 1
    with open(tmp_path / "store" / FILE, "r+b") as store:
        store.write(b"changed afterwards")
    assert hashlib.sha256((target / FILE).read_bytes()).hexdigest() == wanted, (
        "the registry's file and ours are one"
    )
