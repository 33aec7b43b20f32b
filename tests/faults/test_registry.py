# SPDX-License-Identifier: Apache-2.0
"""A real MLflow behind a proxy that cuts, stalls and lies; the model that is served does not
notice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    DeliveryError,
    RegistryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.bench import NAME, Bench
from support.deliveries import artifact_folder, publish_model
from support.fault_proxy import FaultProxy
from support.rows import Row
from support.servers import MLflow, mlflow_server

pytest.importorskip("mlflow")
SIZE = 300_000
FILES = "GET /api/2.0/mlflow-artifacts/artifacts/"


@pytest.fixture(scope="module")
def mlflow(base: Path) -> Iterator[MLflow]:
    with mlflow_server(base / "mlflow") as server:
        yield server


@pytest.fixture(scope="module")
def proxy(mlflow: MLflow) -> Iterator[FaultProxy]:
    with FaultProxy(mlflow.url) as made:
        yield made


def publish_weights(mlflow: MLflow, bench: Bench, identity: int, name: str) -> Path:
    """Make a version; returns where its model folder lies behind the server."""
    sample = bench.sample(identity)
    weights = sample.folder / "1" / "weights.bin"
    weights.write_bytes(bytes([identity]) * SIZE)
    _plan, made = publish_model(Registry(mlflow.url, 30), name, sample.folder)
    assert made.version == identity
    return artifact_folder(mlflow, made) / NAME


@pytest.fixture(scope="module")
def both(shared_bench: Bench, mlflow: MLflow) -> dict[int, Path]:
    return {
        identity: publish_weights(mlflow, shared_bench, identity, "fraud") for identity in (1, 2)
    }


@pytest.fixture
def published(bench: Bench, both: dict[int, Path], proxy: FaultProxy) -> Iterator[str]:
    """A registered model: version 1 is deployed, version 2 is not."""
    proxy.clear()
    bench.target = {**bench.target, "tracking_uri": proxy.url}
    bench.good(model_uri="models:/fraud/1")
    bench.check_agreement(1)
    yield "fraud"
    del bench.target["tracking_uri"]


def survives(
    bench: Bench,
    proxy: FaultProxy,
    row: Row,
    error: type[DeliveryError],
    sentence: str,
    left: str,
    *,
    seconds: tuple[float, float],
) -> None:
    """Version 2 cannot be brought: ``error`` says so in ``sentence`` (a pattern that all of it
    matches) between so many seconds; version 1 is served as before; when the fault is over,
    version 2 is deployed.
    """
    before, folder = bench.triton.loads(NAME), files_of(bench)
    started = time.monotonic()
    failed = bench.deliver(model_uri="models:/fraud/2", target={"timeout": 2})
    took = time.monotonic() - started
    assert isinstance(failed.error, error), repr(failed.error)
    assert not failed.changed
    text = str(failed.error)
    ending = f"{left[0].upper()}{left[1:]}" if left == UNCHANGED else left
    assert re.fullmatch(rf"model '{NAME}'{sentence}\. {re.escape(ending)}\.", text), text
    assert proxy.hit
    assert seconds[0] <= took < seconds[1]
    assert bench.triton.loads(NAME) == before, "Triton was asked for nothing"
    assert files_of(bench) == folder
    bench.check_agreement(1, retained=0)
    proxy.fault = ""
    bench.good(model_uri="models:/fraud/2")
    bench.check_agreement(2, retained=1)
    row.saw(f"after {took:.1f} s: {text}")


def files_of(bench: Bench) -> dict[str, bytes]:
    """What lies in the model's folder."""
    folder = bench.repository / NAME
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


UNCHANGED = "nothing was changed"
FAULTS = ("cut", "cut without length")
AT = {"weights.bin": SIZE // 2, "model.py": 500}
"""Byte at which a file is cut; the others are shorter."""


def in_place(bench: Bench) -> str:
    return f"models:/fraud/1 is in place as before, and {bench.triton.url} serves version 1"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", AT)
def test_download_cut(
    fault: str,
    file: str,
    bench: Bench,
    both: dict[int, Path],
    published: str,
    proxy: FaultProxy,
    row: Row,
) -> None:
    """registry {fault} in the middle of {file}."""
    proxy.fault, proxy.only, proxy.after = fault, f"{file} HTTP", AT[file]
    size = (both[2] / "1" / file).stat().st_size
    reason = (
        rf"the connection broke: IncompleteRead\(0 bytes read, {size - AT[file]} more expected\)"
        if fault == "cut"
        else f"{AT[file]} bytes came instead of {size}"
    )
    survives(
        bench,
        proxy,
        row,
        ArtifactError,
        rf": 1 of 2 files could not be brought here: {NAME}/1/{re.escape(file)} \(less than 1 KiB"
        rf" came within 2 s, after {AT[file]} bytes; {reason}\)",
        in_place(bench),
        seconds=(2, 12),
    )


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", ["config.pbtxt", "MLmodel", "triton-manifest.json"])
def test_metadata_cut(
    fault: str,
    file: str,
    bench: Bench,
    both: dict[int, Path],
    published: str,
    proxy: FaultProxy,
    row: Row,
) -> None:
    """registry {fault} in the middle of {file}."""
    proxy.fault, proxy.only, proxy.after = fault, f"{file} HTTP", 60
    path = both[2] / file if file == "config.pbtxt" else both[2].parent / file
    size, name = path.stat().st_size, path.relative_to(both[2].parent)
    reason = (
        rf"the connection broke: IncompleteRead\(60 bytes read, {size - 60} more expected\)"
        if fault == "cut"
        else rf"{re.escape(str(name))} of mlflow-artifacts:/\S+: 60 bytes came instead of {size}"
    )
    survives(bench, proxy, row, ArtifactError, f": {reason}", UNCHANGED, seconds=(0, 8))


@pytest.mark.parametrize(
    ("fault", "seconds", "reason"),
    [
        ("silent", (2, 8), r"less than 1 KiB came within 2 s, after 0 bytes"),
        ("trickle", (2, 8), r"less than 1 KiB came within 2 s, after [1-9] bytes"),
        (
            "hang up",
            (0.75, 8),  # it is tried three times
            r"http://\S+/api/2\.0 cannot be reached: .*Remote end closed connection without.*",
        ),
    ],
)
def test_download_stalls(
    fault: str,
    seconds: tuple[float, float],
    reason: str,
    bench: Bench,
    published: str,
    proxy: FaultProxy,
    row: Row,
) -> None:
    """registry {fault} in a download."""
    proxy.fault, proxy.only = fault, "weights.bin HTTP"
    survives(
        bench,
        proxy,
        row,
        ArtifactError,
        rf": 1 of 2 files could not be brought here: {NAME}/1/weights\.bin \({reason}\)",
        in_place(bench),
        seconds=seconds,
    )


@pytest.mark.parametrize("fault", ["silent", "trickle", "hang up"])
def test_registry_stalls(
    fault: str, bench: Bench, published: str, proxy: FaultProxy, row: Row
) -> None:
    """registry {fault} from the first question on."""
    proxy.fault = fault
    survives(
        bench,
        proxy,
        row,
        RegistryError,
        f", resolve: MLflow at {re.escape(proxy.url)} did not answer within 2 s",
        UNCHANGED,
        seconds=(2, 12),
    )


def test_registry_refuses(bench: Bench, published: str, proxy: FaultProxy, row: Row) -> None:
    """registry refuses connections."""
    proxy.refuse()
    try:
        started = time.monotonic()
        failed = bench.deliver(model_uri=f"models:/{published}/2")
        seconds = time.monotonic() - started
        same = bench.good(model_uri=f"models:/{published}/1")
    finally:
        proxy.listen()
    assert isinstance(failed.error, RegistryError), repr(failed.error)
    assert str(failed.error) == (
        f"model '{NAME}', connect: MLflow at {proxy.url} cannot be reached: connection refused."
        " Nothing was changed."
    )
    assert seconds < 10
    assert same.changed is False, "a pinned version that is in place needs no registry"
    bench.check_agreement(1)
    bench.good(model_uri=f"models:/{published}/2")
    bench.check_agreement(2, retained=1)
    row.saw(
        f"after {seconds:.1f} s: {failed.error} A pinned version in place: unchanged, without it"
    )


def test_registry_comes_back_in_the_middle(
    bench: Bench, mlflow: MLflow, published: str, proxy: FaultProxy, row: Row
) -> None:
    """registry killed in the middle of a download."""
    gate = bench.folder / "gate"
    gate.touch()
    run = bench.begin(
        0,
        {"pause": ["download", "before", str(gate)], "target": {"timeout": 10}},
        model_uri=f"models:/{published}/2",
    )
    bench.child(0).paused.get(timeout=30)
    mlflow.kill()
    gate.unlink()
    done = run.result(60)["result"]
    mlflow.start()
    assert done["failed"]
    assert done["error"] == "ArtifactError", done["msg"]
    bench.check_agreement(1)
    bench.good(model_uri=f"models:/{published}/2")
    bench.check_agreement(2, retained=1)
    row.saw(f"{done['msg']}")


@pytest.fixture
def stored(both: dict[int, Path]) -> Iterator[Path]:
    """The model folder of version 2 in the registry's store, to be tampered with."""
    before = {path: path.read_bytes() for path in both[2].rglob("*") if path.is_file()}
    yield both[2]
    for path in both[2].rglob("*"):
        if path.is_file() and path not in before:
            path.unlink()
    for path, data in before.items():
        path.write_bytes(data)


def test_artifact_changed(bench: Bench, published: str, stored: Path, row: Row) -> None:
    """artifact changed in the registry after publishing, sizes equal."""
    model = stored / "1" / "model.py"
    text = model.read_text()
    model.write_text(text.replace("IDENTITY = 2\n", "IDENTITY = 9\n"))
    failed = bench.deliver(model_uri=f"models:/{published}/2")
    assert "not what was published" in str(failed.error)
    assert "model.py has sha256" in str(failed.error)
    bench.check_agreement(1)
    model.write_text(text)
    bench.good(model_uri=f"models:/{published}/2")
    bench.check_agreement(2, retained=1)
    row.saw(f"{failed.error}")


@pytest.mark.parametrize("change", ["gone", "added", "config", "symlink"])
def test_artifact_changed_otherwise(
    change: str, bench: Bench, published: str, stored: Path, row: Row
) -> None:
    """artifact changed in the registry after publishing: {change}."""
    if change == "gone":
        (stored / "1" / "weights.bin").unlink()
    elif change == "added":
        (stored / "1" / "more.bin").write_bytes(b"?")
    elif change == "symlink":
        (stored / "1" / "more.bin").symlink_to("/etc/passwd")
    else:
        config = stored / "config.pbtxt"
        config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 7"))
    failed = bench.deliver(model_uri=f"models:/{published}/2")
    assert "not what was published" in str(failed.error)
    bench.check_agreement(1)
    row.saw(f"{failed.error}")
