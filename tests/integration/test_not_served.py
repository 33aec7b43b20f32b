# SPDX-License-Identifier: Apache-2.0
"""TensorRT plans and TorchScript modules, which no server here can load: layout, configuration and
refusals on real servers.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.batch import (
    Publication,
    publish,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.deliveries import deliver_model, target_of
from support.servers import MLflow, Triton

TENSORS = {
    "max_batch_size": 4,
    "input": [{"name": "INPUT__0", "data_type": "TYPE_FP32", "dims": [3, 8]}],
    "output": [{"name": "OUTPUT__0", "data_type": "TYPE_FP16", "dims": [-1]}],
}
PLAN = b"ftrt" + bytes(20) + bytes([10, 5, 0, 18]) + bytes(100)
# What torch.jit.save of PyTorch 2.13 puts into its archive.
SCRIPT = (
    "data/0",
    "data/1",
    "data.pkl",
    "code/__torch__.py",
    "code/__torch__.py.debug_pkl",
    "constants.pkl",
    "version",
    "byteorder",
    ".data/serialization_id",
)


def make(mlflow: MLflow, name: str, path: Path, **options: Any) -> Publication:
    done = publish(
        Registry(mlflow.url, 60), [{"name": name, "path": str(path), "config": TENSORS, **options}]
    )[0]
    assert done.error is None, str(done.error)
    return done


def deliver_published(
    mlflow: MLflow, triton: Triton, name: str, check: bool = False, version: int = 1, **target: Any
) -> Result:
    return deliver_model(
        target_of(triton, mlflow, **target), name, check, model_uri=f"models:/{name}/{version}"
    )


def plan_file(folder: Path) -> Path:
    (folder / "detector.engine").write_bytes(PLAN)
    return folder / "detector.engine"


def test_plan_as_it_is_published(mlflow: MLflow, tmp_path: Path) -> None:
    made = make(
        mlflow, "detector", plan_file(tmp_path), tags={"triton.tensorrt.compute_capability": "9.0"}
    )
    assert not make(
        mlflow, "detector", plan_file(tmp_path), tags={"triton.tensorrt.compute_capability": "9.0"}
    ).changed
    registry = Registry(mlflow.url, 60)
    files = registry.files(registry.resolve(parse_model_uri("models:/detector/1")))
    config = config_pbtxt.parse(files.read("detector/config.pbtxt"))
    assert files.read("detector/1/model.plan") == PLAN
    assert (config.platform, config.max_batch_size, list(config.input[0].dims)) == (
        "tensorrt_plan",
        4,
        [3, 8],
    )
    tags = registry.model_info("detector").versions[0].tags
    assert (tags["triton.tensorrt.version"], tags["triton.tensorrt.compute_capability"]) == (
        "10.5.0.18",
        "9.0",
    )
    assert made.plan and made.plan.after["tags"].items() <= tags.items()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"version": "10.3"}, "built with TensorRT 10.5.0.18, and the server has 10.3"),
        (
            {"version": "10.5", "compute_capability": "8.0"},
            "compute capability 9.0, and the server has 8.0",
        ),
    ],
)
def test_plan_for_another_target(
    mlflow: MLflow, triton: Triton, tmp_path: Path, target: dict[str, str], said: str
) -> None:
    make(
        mlflow, "elsewhere", plan_file(tmp_path), tags={"triton.tensorrt.compute_capability": "9.0"}
    )
    for check in (True, False):
        failed = deliver_published(mlflow, triton, "elsewhere", check, tensorrt_target=target)
        assert said in str(failed.error)
        assert "Nothing was changed" in str(failed.error)
    assert not (triton.repository / "elsewhere").exists()
    assert "elsewhere" not in triton.log_text()


def test_plan_of_which_nothing_is_known(mlflow: MLflow, triton: Triton, tmp_path: Path) -> None:
    (tmp_path / "old.plan").write_bytes(b"an old plan")
    make(mlflow, "unknown_plan", tmp_path / "old.plan")
    checked = deliver_published(mlflow, triton, "unknown_plan", check=True)
    assert checked.error is None and checked.changed
    assert any("is not known before it is loaded" in text for text in checked.warnings)
    failed = deliver_published(mlflow, triton, "unknown_plan")
    assert "this server has no such backend" in str(failed.error)
    assert not (triton.repository / "unknown_plan").exists()


def test_plan_that_fits(mlflow: MLflow, triton: Triton, tmp_path: Path) -> None:
    make(
        mlflow, "fitting", plan_file(tmp_path), tags={"triton.tensorrt.compute_capability": "8.0+"}
    )
    checked = deliver_published(
        mlflow,
        triton,
        "fitting",
        check=True,
        tensorrt_target={"version": "10.5", "compute_capability": "9.0"},
    )
    assert (checked.error, checked.changed, checked.warnings) == (None, True, ())


def test_torchscript(mlflow: MLflow, triton: Triton, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        for name in SCRIPT:
            archive.writestr(f"net/{name}", b"x")
    make(mlflow, "script", tmp_path / "net.pt")
    registry = Registry(mlflow.url, 60)
    files = registry.files(registry.resolve(parse_model_uri("models:/script/1")))
    config = config_pbtxt.parse(files.read("script/config.pbtxt"))
    assert (config.platform, [tensor.name for tensor in config.input]) == (
        "pytorch_libtorch",
        ["INPUT__0"],
    )
    checked = deliver_published(mlflow, triton, "script", check=True)
    assert checked.error is None and checked.changed
    failed = deliver_published(mlflow, triton, "script")
    assert "this server has no such backend" in str(failed.error)
    assert not (triton.repository / "script").exists()
