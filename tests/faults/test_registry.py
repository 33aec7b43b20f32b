# SPDX-License-Identifier: Apache-2.0
"""A real MLflow behind a proxy that cuts, stalls and lies; the model that is served does not
notice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.publication import (  # noqa: E501
    DesiredPublication,
    apply_publication,
    plan_publication,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.bench import NAME, Bench
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


def publish(mlflow: MLflow, bench: Bench, identity: int, name: str) -> Path:
    """Make a version; returns where its model folder lies behind the server."""
    sample = bench.sample(identity)
    weights = sample.folder / "1" / "weights.bin"
    weights.write_bytes(bytes([identity]) * SIZE)
    registry = Registry(mlflow.url, 30)
    made = apply_publication(
        registry, plan_publication(registry, DesiredPublication(name, str(sample.folder)))
    )
    assert made.version == identity
    return mlflow.artifacts / made.artifact_uri.removeprefix("mlflow-artifacts:/") / NAME


@pytest.fixture(scope="module")
def both(shared_bench: Bench, mlflow: MLflow) -> dict[int, Path]:
    return {identity: publish(mlflow, shared_bench, identity, "fraud") for identity in (1, 2)}


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
    bench: Bench, name: str, proxy: FaultProxy, row: Row, *words: str, within: float = 30
) -> None:
    """Version 2 cannot be brought; version 1 is served as before; when the fault is over, version 2
    is deployed.
    """
    before = bench.triton.loads(NAME)
    started = time.monotonic()
    failed = bench.deliver(model_uri=f"models:/{name}/2", target={"timeout": 2})
    seconds = time.monotonic() - started
    assert failed.error is not None
    text = str(failed.error)
    assert any(word in text for word in words), text
    assert proxy.hit
    assert seconds < within
    assert "Models:/" not in text, "a URI is not a word"
    assert bench.triton.loads(NAME) == before
    bench.check_agreement(1)
    proxy.fault = ""
    bench.good(model_uri=f"models:/{name}/2")
    bench.check_agreement(2, retained=1)
    row.saw(f"after {seconds:.1f} s: {text}")


@pytest.mark.parametrize("fault", ["cut", "cut without length"])
@pytest.mark.parametrize(
    "file", ["weights.bin", "model.py", "config.pbtxt", "MLmodel", "triton-manifest.json"]
)
def test_download_cut(
    fault: str, file: str, bench: Bench, published: str, proxy: FaultProxy, row: Row
) -> None:
    """registry {fault} in the middle of {file}."""
    proxy.fault, proxy.only, proxy.after = (
        fault,
        f"{file} HTTP",
        {"weights.bin": SIZE // 2, "model.py": 500}.get(file, 60),
    )
    survives(
        bench,
        published,
        proxy,
        row,
        "instead of",
        "connection broke",
        "came",
        "cannot be read",
        "connection",
    )


@pytest.mark.parametrize("fault", ["silent", "trickle", "hang up"])
def test_download_stalls(
    fault: str, bench: Bench, published: str, proxy: FaultProxy, row: Row
) -> None:
    """registry {fault} in a download."""
    proxy.fault, proxy.only = fault, "weights.bin HTTP"
    survives(bench, published, proxy, row, "less than 1 KiB", "connection", "cannot be reached")


@pytest.mark.parametrize("fault", ["silent", "trickle", "hang up"])
def test_registry_stalls(
    fault: str, bench: Bench, published: str, proxy: FaultProxy, row: Row
) -> None:
    """registry {fault} from the first question on."""
    proxy.fault = fault
    survives(
        bench,
        published,
        proxy,
        row,
        "did not answer",
        "did not",
        "cannot be reached",
        "connection",
        "within 2 s",
        within=12,
    )


def test_registry_refuses(bench: Bench, published: str, proxy: FaultProxy, row: Row) -> None:
    """registry refuses connections."""
    proxy.refuse()
    started = time.monotonic()
    failed = bench.deliver(model_uri=f"models:/{published}/2")
    seconds = time.monotonic() - started
    same = bench.good(model_uri=f"models:/{published}/1")
    proxy.listen()
    assert failed.error is not None
    assert seconds < 3
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
    # MLflow itself refuses to follow a link out of its store.
    assert (
        "outside the artifact directory" if change == "symlink" else "not what was published"
    ) in str(failed.error)
    bench.check_agreement(1)
    row.saw(f"{failed.error}")
