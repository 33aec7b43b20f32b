# SPDX-License-Identifier: Apache-2.0
"""Each fault that was measured of NVIDIA's mlflow-triton-plugin, through this engine.

Those which have a test of their own: concurrent updates (test_runs), full disks, symbolic links and
names (test_disk), registries (test_registry), a broken update (test_models).
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    LoadFailed,
    ServerError,
)
from support.bench import FAST, NAME, Bench
from support.rows import Row
from support.servers import triton_server


def test_killed_in_a_download(bench: Bench, row: Row) -> None:
    """peer: killed in the middle of an update, a tenth of the weights written."""
    bench.good(model_uri=bench.source(1))
    sample = bench.sample(2)
    weights = sample.folder / "1" / "weights.bin"
    weights.write_bytes(os.urandom(64 << 20))
    gate = bench.folder / "gate"
    gate.touch()
    run = bench.begin(0, {"pause": ["download", "before", str(gate)]}, model_uri=str(sample.folder))
    pid = bench.child(0).paused.get(timeout=30)
    gate.unlink()
    staged = bench.store.staging(NAME)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in Path(staged).rglob("weights.bin")):
        assert time.monotonic() < deadline
    os.kill(pid, 9)
    run.result(30)
    came = sum(path.stat().st_size for path in Path(staged).rglob("weights.bin"))
    bench.crash()
    assert bench.identity() == 1
    assert bench.drift() == []
    assert [row["name"] for row in bench.triton.index()] == [NAME]
    bench.good(model_uri=bench.source(3))
    bench.check_agreement(3, retained=1)
    row.saw(
        f"{came} of {64 << 20} bytes lay outside the repository; the restarted server serves the"
        " old model, and the record knows it"
    )


def test_broken_update_and_other_models(bench: Bench, row: Row) -> None:
    """peer: update to a broken model, then a restart of a server with other models."""
    bench.good(model_uri=bench.source(1))
    bench.good(name="other", model_uri=bench.source(5, "other"))
    failed = bench.deliver(model_uri=bench.source(2, fail="broken"))
    assert isinstance(failed.error, LoadFailed), repr(failed.error)
    bench.crash()
    assert (bench.identity(), bench.identity("other")) == (1, 5)
    assert bench.triton.call("v2/health/ready")[0] == 200
    (bench.repository / NAME / "1" / "model.py").write_text(
        "raise RuntimeError('broken behind our back')"
    )
    bench.crash()
    assert (bench.identity(), bench.identity("other")) == (None, 5)
    assert bench.triton.call("v2/health/ready")[0] == 200
    bench.good(model_uri=str(bench.folder / "sources" / f"{NAME}-1" / NAME))
    bench.check_agreement_of(NAME, 1)
    row.saw(
        "both come up as they were; one that is broken by hand does not keep the server or the"
        " others from starting"
    )


def test_delete(bench: Bench, row: Row) -> None:
    """peer: delete, with a neighbour whose name begins alike."""
    names = ("fraud", "fraud-v2", "fraud.old", "Fraud")
    for number, name in enumerate(names):
        bench.good(name=name, model_uri=bench.source(number, name))
    bench.good(name="fraud", state="absent")
    assert not (bench.repository / "fraud").exists()
    assert bench.identity("fraud") is None
    assert [bench.identity(name) for name in names[1:]] == [1, 2, 3]
    assert bench.left_behind(models_there=names[1:]) == []
    assert bench.deliver(name="fraud", state="absent").changed is False
    row.saw("its files, record and memory are gone; fraud-v2, fraud.old and Fraud serve on")


@pytest.mark.parametrize("what", ["folder", "served", "both"])
def test_somebody_elses_model(what: str, bench: Bench, row: Row) -> None:
    """peer: a model of the same name that it did not deploy ({what})."""
    folder = bench.repository / NAME
    shutil.copytree(bench.sample(7).folder, folder)
    if what != "folder":
        assert bench.triton.load(NAME)[0] == 200
    if what == "served":
        shutil.rmtree(folder)
    source, said = bench.source(1), []
    for options in ({"model_uri": source}, {"state": "absent"}):
        for check in (True, False):
            failed = bench.deliver(check=check, **options)
            assert type(failed.error).__name__ == "ForeignModel"
            said.append(str(failed.error))
    if what != "served":
        assert "IDENTITY = 7\n" in (folder / "1" / "model.py").read_text()
    if what != "folder":
        assert bench.identity() == 7
    broken = bench.deliver(model_uri=bench.source(2, fail="broken"), adopt=True)
    assert isinstance(broken.error, LoadFailed), repr(broken.error)
    if what != "folder":
        assert bench.identity() == 7, str(broken.error)
    bench.good(model_uri=source, adopt=True)
    bench.check_agreement(1)
    row.saw(f"{said[0]} With adopt, a broken one leaves it in place and a good one replaces it")


@pytest.mark.parametrize("beside", ["metadata", "zzz", "aaa", "code"])
def test_second_folder_in_the_artifact(beside: str, bench: Bench, row: Row) -> None:
    """peer: artifact with a second folder ({beside}/)."""
    sample = bench.sample(1)
    root = sample.folder.parent
    (root / beside).mkdir()
    (root / beside / "MLmodel").write_text("not a model")
    (root / "MLmodel").write_text("flavors:\n  triton:\n    data: doubler\n    triton_version: x\n")
    done = bench.good(model_uri=str(root))
    bench.check_agreement(1)
    passed_over = [] if beside in ("metadata", "code") else [beside]
    assert len(done.warnings) == len(passed_over)
    assert all(name in warning for name, warning in zip(passed_over, done.warnings)), done.warnings
    row.saw("; ".join(done.warnings) or "the model is found, MLflow's own folder is passed over")


def test_config_option(bench: Bench, row: Row) -> None:
    """peer: config= is accepted and ignored."""
    source = bench.source(1)
    bench.good(
        model_uri=source,
        config={"max_batch_size": 3, "instance_group": [{"kind": "KIND_CPU", "count": 2}]},
    )
    config = bench.served_config()
    assert (config["max_batch_size"], config["instance_group"][0]["count"]) == (3, 2)
    bench.check_agreement(1)
    wrong = bench.deliver(model_uri=source, config={"max_bach_size": 3})
    assert "max_bach_size" in str(wrong.error)
    bench.check_agreement(1)
    row.saw(f"served with it; a typing error: {wrong.error}")


@pytest.mark.parametrize("scheme", ["", "grpc://"], ids=["HTTP", "gRPC"])
def test_triton_does_not_answer(scheme: str, bench: Bench, row: Row) -> None:
    """peer: Triton refuses, or accepts and never answers ({scheme}host:port)."""
    bench.good(model_uri=bench.source(1))
    said = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        started = time.monotonic()
        failed = _refused_early(bench, f"{scheme}127.0.0.1:{port}")
        seconds = time.monotonic() - started
        assert 1 <= seconds < 10
        assert "within 2 s" in failed
        said.append(f"after {seconds:.1f} s: {failed}")
    started = time.monotonic()
    failed = _refused_early(bench, f"{scheme}127.0.0.1:{port}")
    assert time.monotonic() - started < 10
    assert "cannot be reached" in failed
    said.append(failed)
    bench.check_agreement(1)
    row.saw(" ".join(said))


def _refused_early(bench: Bench, url: str) -> str:
    with pytest.raises(ServerError, match="Triton at") as refusal:
        bench.deliver(model_uri=bench.source(2), target={"triton_url": url, "timeout": 2})
    return str(refusal.value)


@pytest.mark.parametrize("fault", ["broken", "down"])
def test_two_servers(fault: str, bench: Bench, row: Row) -> None:
    """two servers on one repository, the second is {fault} in an update."""
    with triton_server(
        bench.folder / "second",
        repository=bench.repository,
        extra_args=FAST,
        backend_directory=bench.folder.parent / "backends",
        metrics_port=0,
    ) as second:
        target = {"triton_url": [bench.triton.url, second.url], "timeout": 5}
        bench.good(model_uri=bench.source(1), target=target)
        marker = second.folder / "broken"
        sample = bench.sample(2)
        with open(sample.folder / "1" / "model.py", "a") as stream:
            # The second server's stub is told by its shared memory's name.
            stream.write(
                f"import sys\nif os.path.exists({str(marker)!r}) and"
                f" any({second.settings['shm_region_prefix']!r} in word for word in"
                " open('/proc/self/cmdline').read().split('\\0')):\n    raise RuntimeError('no"
                " memory left')\n"
            )
        if fault == "broken":
            marker.touch()
            failed = bench.deliver(model_uri=str(sample.folder), target=target)
            assert "no memory left" in str(failed.error), str(failed.error)
            text = str(failed.error)
        else:
            gate = bench.folder / "gate"
            gate.touch()
            run = bench.begin(
                0,
                {"pause": ["load", "after", str(gate)], "target": target},
                model_uri=str(sample.folder),
            )
            bench.child(0).paused.get(timeout=30)
            second.kill()
            gate.unlink()
            text = run.result(60)["result"]["msg"]
            assert "cannot be reached" in text, text
            second.start()
        assert bench.identity() == 1
        assert second.infer(NAME, sample.request())[1]["outputs"][1]["data"] == [1]
        marker.unlink(missing_ok=True)
        bench.good(model_uri=str(sample.folder), target=target)
        assert second.infer(NAME, sample.request())[1]["outputs"][1]["data"] == [2]
        bench.check_agreement(2, retained=1)
    row.saw(f"both serve the old one: {text} The next run updates both")
