# SPDX-License-Identifier: Apache-2.0
"""The reference models of Morpheus: fetched by git-lfs, published in one task, and the two forests
that may lie beside the checkout.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.batch import (
    publish,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.deliveries import deliver_models, target_of
from support.models import (
    make_forest,
    make_onnx,
    onnx_model,
    onnx_node,
    onnx_tensor,
    wants_gpu,
)
from support.playbooks import Playbook, run_playbook
from support.servers import ROOT, MLflow, Triton, server_python

DATA = Path(os.environ.get("MORPHEUS_DATA") or ROOT.parent / "shared/data/morpheus")
HAS_LFS = shutil.which("git-lfs") is not None
FORESTS = ("ransomw-model-short-rf", "ransomw-model-medium-rf")


def git(folder: Path, *words: str) -> None:
    settings = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "-c",
        "protocol.file.allow=always",
        "-c",
        "init.defaultBranch=main",
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(
        ["git", *settings, *words],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**clean, "HOME": str(folder.parent)},
    )


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the same shape, with real git-lfs objects."""
    folder = tmp_path_factory.mktemp("upstream") / "Morpheus"
    repository = folder / "models/triton-model-repo"
    make_onnx(repository, "sid-minibert-onnx")
    make_forest(repository, "abp-nvsmi-xgb", filename="xgboost.ubj", model_type="xgboost_ubj")
    (folder / "data").mkdir()
    (folder / "data/large.onnx").write_bytes(b"not wanted" * 100)
    git(folder, "init", "-q")
    git(folder, "lfs", "install", "--local")
    git(folder, "lfs", "track", "*.onnx", "*.ubj")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "models")
    return folder


def fetch(work: Path, upstream: Path, *arguments: str) -> Playbook:
    # A clone by address and not by path, as git-lfs takes its objects from where the clone came.
    options = {
        "reference_models_url": upstream.as_uri(),
        "reference_models_version": "main",
        "reference_models_folder": str(work / "clone"),
    }
    words = [word for key, value in options.items() for word in ("-e", f"{key}={value}")]
    return run_playbook(work, ROOT / "playbooks/fetch_reference_models.yml", *words, *arguments)


@pytest.mark.skipif(not HAS_LFS, reason="git-lfs is not installed")
def test_fetch_and_publish(tmp_path: Path, upstream: Path, mlflow: MLflow) -> None:
    (tmp_path / "home").mkdir()
    first, again = fetch(tmp_path, upstream), fetch(tmp_path, upstream)
    assert first.rc == 0, first.output
    assert again.rc == 0 and "changed=0" in again.output, again.output
    models = tmp_path / "clone/models/triton-model-repo"
    source = upstream / "models/triton-model-repo"
    for path in ("sid-minibert-onnx/1/model.onnx", "abp-nvsmi-xgb/1/xgboost.ubj"):
        assert (models / path).read_bytes() == (source / path).read_bytes()
    assert (tmp_path / "clone/data/large.onnx").read_bytes().startswith(b"version https://git-lfs")
    assert not publish(
        Registry(mlflow.url, 60),
        [{"name": "sid-minibert-onnx", "path": str(models / "sid-minibert-onnx")}],
    )[0].error


@pytest.mark.skipif(not HAS_LFS, reason="git-lfs is not installed")
def test_a_pointer_that_was_never_fetched(tmp_path: Path, upstream: Path, mlflow: MLflow) -> None:
    git(
        upstream.parent,
        "-c",
        "filter.lfs.smudge=cat",
        "-c",
        "filter.lfs.process=",
        "-c",
        "filter.lfs.required=false",
        "clone",
        "-q",
        upstream.as_uri(),
        str(tmp_path / "clone"),
    )
    path = tmp_path / "clone/models/triton-model-repo/sid-minibert-onnx"
    result = publish(Registry(mlflow.url, 60), [{"name": "pointer", "path": str(path)}])[0]
    assert "this is a git-lfs pointer: 1/model.onnx" in str(result.error)


def test_publishing_a_list_in_one_task(tmp_path: Path, mlflow: MLflow) -> None:
    """The shipped list is of this form; one that fails does not stop the others."""
    repository = tmp_path / "morpheus/models/triton-model-repo"
    make_onnx(repository, "sid-minibert-onnx")
    make_onnx(repository, "phishing-bert-onnx", bias=(3.0, 4.0))
    words = (
        "-e",
        "mlflow_models_file=vars/morpheus.yml",
        "-e",
        f"reference_models_folder={tmp_path / 'morpheus'}",
        "-e",
        f"mlflow_tracking_uri={mlflow.url}",
    )
    done = run_playbook(tmp_path, ROOT / "playbooks/publish_models.yml", *words)
    assert done.rc != 0 and "7 of 9 models failed" in done.output, done.output
    registry = Registry(mlflow.url, 60)
    assert registry.model_info("phishing-bert-onnx").versions


def test_a_bare_host_is_warned_in_check_mode(tmp_path: Path, mlflow: MLflow) -> None:
    """Without mlflow nothing can be asked; a check run says so and goes on."""
    sample = make_onnx(tmp_path, "bare-publish")
    inventory = tmp_path / "inventory.ini"
    python = server_python("TRITON_SERVER_PYTHON", "triton-server")
    inventory.write_text(
        f"localhost ansible_connection=local ansible_python_interpreter={str(python)!r}\n"
    )
    options = {"name": "bare-publish", "path": str(sample.folder), "tracking_uri": mlflow.url}
    task = {"name": "Publish", "mlops.triton.mlflow_publish": options}
    done = run_playbook(
        tmp_path, [{"hosts": "localhost", "gather_facts": False, "tasks": [task]}], "--check"
    )
    assert done.rc == 0 and "is not known" in done.output and "Traceback" not in done.output, (
        done.output
    )


def stand_in(folder: Path, config: Any) -> tuple[dict[str, Any], list[float]]:
    """Write a model that fits a configuration; returns a request and what it must answer."""
    if config.backend == "fil":
        forest = make_forest(
            folder.parent,
            folder.name,
            features=config.input[0].dims[0],
            filename=config.default_model_filename,
            model_type="xgboost",
            predict_proba=False,
            config=None,
        )
        return forest.request(), forest.expected(forest.inputs)["output__0"]
    batch = [None] * bool(config.max_batch_size)
    inputs, outputs = (
        {
            tensor.name: (
                type_of(tensor),
                batch + [size if size > 0 else None for size in tensor.dims],
            )
            for tensor in side
        }
        for side in (config.input, config.output)
    )
    ((name, (_kind, dims)),) = outputs.items()
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.onnx").write_bytes(summing_network(inputs, name, dims))
    asked, total = [], 0
    for key, (kind, sizes) in inputs.items():
        shape = [2, *(size or 3 for size in sizes[1:])]
        asked.append(
            {
                "name": key,
                "datatype": kind,
                "shape": shape,
                "data": [True if kind == "BOOL" else 1] * math.prod(shape),
            }
        )
        total += math.prod(shape[1:])
    return {"inputs": asked}, [total * factor for _row in range(2) for factor in factors(dims)]


def type_of(tensor: Any) -> str:
    kinds = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return str(kinds[tensor.data_type].name).removeprefix("TYPE_")


def factors(dims: list[int | None]) -> list[float]:
    return [float(number + 1) for number in range(math.prod(size or 1 for size in dims[1:]))]


def summing_network(
    inputs: dict[str, tuple[str, list[int | None]]], output: str, dims: list[int | None]
) -> bytes:
    """Adds up all that it is given, row by row, and answers with the sum times 1, 2, 3, …"""
    shape = [1, *(size or 1 for size in dims[1:])]
    weights = [
        onnx_tensor("flat", "FP32", factors(dims)),
        onnx_tensor("shape", "INT64", shape),
        onnx_tensor("ahead", "INT64", list(range(1, len(shape)))),
    ]
    nodes = []
    for key, (_kind, sizes) in inputs.items():
        weights.append(onnx_tensor(f"axes of {key}", "INT64", list(range(1, len(sizes)))))
        nodes += [
            onnx_node("Cast", [key], [f"float {key}"], to=1),
            onnx_node(
                "ReduceSum", [f"float {key}", f"axes of {key}"], [f"sum of {key}"], keepdims=0
            ),
        ]
    nodes += [
        onnx_node("Sum", [f"sum of {key}" for key in inputs], ["sum"]),
        onnx_node("Unsqueeze", ["sum", "ahead"], ["column"]),
        onnx_node("Reshape", ["flat", "shape"], ["weights"]),
        onnx_node("Mul", ["column", "weights"], [output]),
    ]
    return onnx_model(nodes, inputs, {output: ("FP32", dims)}, weights)


@pytest.mark.skipif(not DATA.is_dir(), reason="the data of Morpheus is not beside the checkout")
class TestMorpheus:
    def test_every_config_parses_and_renders(self) -> None:
        configs = sorted(DATA.glob("triton-model-repo/*/config.pbtxt"))
        assert len(configs) >= 9
        for path in configs:
            message = config_pbtxt.parse(path.read_bytes())
            assert config_pbtxt.parse(config_pbtxt.render(message)) == message
            deployed = config_pbtxt.render_deployed(
                path.read_bytes(), name=path.parent.name, deploy_id="x", instance_kind="cpu"
            )
            assert config_pbtxt.deploy_id_of(deployed) == "x"

    @pytest.mark.parametrize("name", FORESTS)
    def test_forests_with_their_links(
        self, tmp_path: Path, mlflow: MLflow, triton: Triton, name: str
    ) -> None:
        copy = tmp_path / "models"
        shutil.copytree(DATA, copy)
        link = copy / "triton-model-repo" / name / "1/checkpoint.tl"
        target = link.read_text().strip()
        options = {"name": name, "path": str(copy / "triton-model-repo" / name)}
        registry = Registry(mlflow.url, 60)
        refused = publish(registry, [options])[0]
        assert "checked out without links" in str(refused.error)
        link.parent.chmod(0o755)
        link.unlink()
        link.symlink_to(target)
        assert link.exists(), target
        done, again = (publish(registry, [options])[0] for _time in range(2))
        changed = publish(registry, [{**options, "config": {"max_batch_size": 16}}])[0]
        assert done.error is None, str(done.error)
        assert (done.changed, again.changed, changed.changed) == (True, False, True)
        forest = copy / "ransomware-models" / name / "checkpoint.tl"
        for wanted, batch in (
            ({"model_uri": f"models:/{name}/1"}, 8192),
            ({"model_uri": f"models:/{name}/2"}, 16),
            ({"state": "rolled_back"}, 8192),
        ):
            self.deliver(mlflow, triton, {"name": name, "instance_kind": "cpu", **wanted})
            assert triton.model_config(name)["max_batch_size"] == batch
            self.compare(triton, name, forest)
        self.deliver(mlflow, triton, {"name": name, "state": "absent"})

    def test_the_other_configs_around_small_models(
        self, tmp_path: Path, mlflow: MLflow, triton: Triton
    ) -> None:
        """Their models are too large to be there; a small one with the same tensors takes the place
        of each.
        """
        configs = {
            path.parent.name: path.read_bytes()
            for path in sorted(DATA.glob("triton-model-repo/*/config.pbtxt"))
            if path.parent.name not in FORESTS
        }
        asked = {
            name: stand_in(tmp_path / name, config_pbtxt.parse(config))
            for name, config in configs.items()
        }
        for name, config in configs.items():
            (tmp_path / name / "config.pbtxt").write_bytes(config)
        wanted = [{"name": name, "path": str(tmp_path / name)} for name in configs]
        done, again = (publish(Registry(mlflow.url, 60), wanted) for _time in range(2))
        assert [(one.error, one.changed) for one in (*done, *again)] == [(None, True)] * len(
            configs
        ) + [(None, False)] * len(configs)
        for_gpus = {
            name for name, config in configs.items() if wants_gpu(config_pbtxt.parse(config))
        }
        models = [
            {
                "name": name,
                "model_uri": f"models:/{name}/latest",
                **({"instance_kind": "cpu"} if name in for_gpus else {}),
            }
            for name in configs
        ]
        assert self.deliver(mlflow, triton, *models) and not self.deliver(mlflow, triton, *models)
        for name, config in configs.items():
            deployed = (triton.repository / name / "config.pbtxt").read_bytes()
            assert deployed.startswith(config) == (name not in for_gpus)
            request, expected = asked[name]
            status, answer = triton.infer(name, request)
            assert status == 200, answer
            assert answer["outputs"][0]["data"] == expected, name
        self.deliver(mlflow, triton, *({"name": name, "state": "absent"} for name in configs))

    @staticmethod
    def deliver(mlflow: MLflow, triton: Triton, *models: dict[str, Any]) -> bool:
        """Where only data is allowed; returns whether anything was changed."""
        policy = Policy(("onnxruntime", "fil"), model_code="refused")
        results = deliver_models(target_of(triton, mlflow, policy=policy), models)
        assert not [str(result.error) for result in results if result.error]
        return any(result.changed for result in results)

    @staticmethod
    def compare(triton: Triton, name: str, forest: Path) -> None:
        """With treelite itself, called in a process of its own."""
        features = int(triton.model_config(name)["input"][0]["dims"][0])
        rows = [
            [float((row * 7 + column * 3) % 11) for column in range(features)] for row in range(5)
        ]
        program = (
            "import json, sys, numpy, treelite\nfrom treelite import gtil\nmodel ="
            " treelite.Model.deserialize(sys.argv[1])\nrows = numpy.array(json.load(sys.stdin),"
            " dtype=numpy.float32)\nprint(json.dumps(gtil.predict(model, rows).reshape(len(rows),"
            " -1).tolist()))"
        )
        done = subprocess.run(
            [str(triton.python), "-c", program, str(forest)],
            input=json.dumps(rows),
            capture_output=True,
            text=True,
            check=True,
        )
        expected = json.loads(done.stdout)
        status, answer = triton.infer(
            name,
            {
                "inputs": [
                    {
                        "name": "input__0",
                        "datatype": "FP32",
                        "shape": [5, features],
                        "data": [value for row in rows for value in row],
                    }
                ]
            },
        )
        assert status == 200, answer
        found = answer["outputs"][0]
        width = len(found["data"]) // 5
        assert found["data"] == pytest.approx(
            [value for row in expected for value in row[-width:]], abs=1e-6
        )
