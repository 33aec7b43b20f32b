# SPDX-License-Identifier: Apache-2.0
"""What the collection does on a host with an NVIDIA GPU: role, deliveries, instance kinds, TensorRT
plans.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats import tensorrt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.batch import (
    publish,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.deliveries import deliver_model
from support.gpu_host import ROOT, Gpu, Here
from support.models import make_onnx, wants_gpu
from support.servers import MLflow, count_loads, http, server_python

VALUES, ANSWER = (
    [1.0, 2.5, -4.0, *map(float, range(1000))],
    [
        3.0,
        6.0,
        -7.0,
        *(2.0 * number + 1 for number in range(1000)),
    ],
)
VERIFY = {"inputs": {"x": VALUES}, "outputs": {"y": ANSWER}}
PLAN = b"ftrt" + bytes(20) + bytes([10, 5, 0, 18]) + bytes(100)
CONFIG = """backend: "python"
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "place" data_type: TYPE_STRING dims: [ 1 ] } ]
"""  # noqa: E501


def said_by_the_servers_python(code: str) -> str:
    command = [server_python("TRITON_SERVER_PYTHON", "triton-server"), "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


TORCH = said_by_the_servers_python(
    "import importlib.util; print(importlib.util.find_spec('torch') or '')"
)
LIBRARIES = ("driver", "torch") if TORCH else ("driver",)


def make(folder: Path, name: str, group: str, library: str = "driver") -> Path:
    place = folder / name / "1"
    place.mkdir(parents=True)
    (place / "model.py").write_bytes((ROOT / "tests/gpu/model.py").read_bytes())
    text = (
        f'{CONFIG}{group}\nparameters {{ key: "library" value {{ string_value: "{library}" }} }}\n'
    )
    (place.parent / "config.pbtxt").write_text(text, encoding="utf-8")
    return place.parent


def uri_of_published(mlflow: MLflow, name: str, path: Path, **options: Any) -> str:
    done = publish(Registry(mlflow.url, 60), [{"name": name, "path": str(path), **options}])[0]
    assert done.error is None and done.published, str(done.error)
    return f"models:/{name}/{done.published.version}"


def deliver_here(
    here: Here, name: str, check: bool = False, tracking_uri: str | None = None, **options: Any
) -> Result:
    place = Target(
        str(here.folder / "models"), servers=(here.url,), tracking_uri=tracking_uri, timeout=120
    )
    return deliver_model(place, name, check, **options)


def kind_served(here: Here, name: str) -> list[str]:
    return [
        group["kind"]
        for group in http(f"http://{here.url}/v2/models/{name}/config")[1]["instance_group"]
    ]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_that_asks_for_a_gpu_computes_there(
    here: Here, mlflow: MLflow, gpus: list[Gpu], tmp_path: Path, library: str
) -> None:
    name = f"on_gpu_{library}"
    uri = uri_of_published(
        mlflow,
        name,
        make(tmp_path, name, "instance_group [ { kind: KIND_GPU count: 1 } ]", library),
    )
    options = {"tracking_uri": mlflow.url, "model_uri": uri, "verify": VERIFY}
    first = deliver_here(here, name, **options)
    assert first.error is None and first.changed, str(first.error)
    assert here.infer(name, VALUES) == {"y": ANSWER, "place": [gpus[-1].uuid]}
    assert kind_served(here, name) == ["KIND_GPU"]
    # Triton asks DCGM for its first GPU here, not for the first that the server sees.
    labels = {("gpu_uuid", gpus[0].uuid), ("model", name), ("version", "1")}
    counted = here.metrics("nv_inference_request_success")
    assert counted.get(frozenset(labels)) == 2, counted
    loads = count_loads(here.log(), name)
    second = deliver_here(here, name, **options)
    assert second.error is None and not second.changed
    assert count_loads(here.log(), name) == loads == 1


def test_metrics_of_the_servers_gpus_alone(here: Here, gpus: list[Gpu]) -> None:
    for metric in ("nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"):
        assert set(here.metrics(metric)) == {frozenset({("gpu_uuid", gpus[-1].uuid)})}, metric
    assert next(iter(here.metrics("nv_gpu_memory_used_bytes").values())) > 100e6


# Without a word Triton takes the GPU.
@pytest.mark.parametrize("author", ["KIND_GPU gpus: [ 0 ]", "KIND_CPU", None])
def test_instance_kind(here: Here, gpus: list[Gpu], tmp_path: Path, author: str | None) -> None:
    name = f"kind_of_{(author or 'nothing').split()[0].lower()}"
    folder = make(tmp_path, name, f"instance_group [ {{ kind: {author} }} ]" if author else "")
    places = {"cpu": "CPU", "gpu": gpus[-1].uuid, "auto": gpus[-1].uuid}
    for kind in ("cpu", "gpu", "cpu", "auto"):
        done = deliver_here(here, name, model_uri=str(folder), instance_kind=kind, verify=VERIFY)
        assert done.error is None and done.changed, str(done.error)
        assert here.infer(name, VALUES) == {"y": ANSWER, "place": [places[kind]]}
        assert not deliver_here(here, name, model_uri=str(folder), instance_kind=kind).changed
    as_author = deliver_here(here, name, model_uri=str(folder))
    assert as_author.error is None and as_author.changed, str(as_author.error)
    assert kind_served(here, name) == (author or "KIND_GPU").split()[:1]


def test_a_gpu_that_the_server_does_not_see(here: Here, gpus: list[Gpu], tmp_path: Path) -> None:
    """The server has one GPU, number 0 to it, however many the host has."""
    name = "elsewhere"
    refused = deliver_here(
        here,
        name,
        model_uri=str(make(tmp_path, name, "instance_group [ { kind: KIND_GPU gpus: [ 1 ] } ]")),
    )
    assert "unsupported gpu id 1" in str(refused.error) and "GPUs that it sees from 0" in str(
        refused.error
    )
    assert not (here.folder / "models" / name).exists()
    there = {"instance_group": [{"kind": "KIND_GPU", "gpus": [0]}]}
    other = deliver_here(here, name, model_uri=str(tmp_path / name), config=there, verify=VERIFY)
    assert other.error is None, str(other.error)
    assert here.infer(name, VALUES)["place"] == [gpus[-1].uuid]


def test_module_and_playbook(here: Here, gpus: list[Gpu], tmp_path: Path) -> None:
    folder = make(tmp_path, "played", "instance_group [ { kind: KIND_CPU } ]")
    models = [
        {"name": "played", "model_uri": str(folder), "instance_kind": "gpu", "verify": VERIFY}
    ]
    assert here.changes("deploy_models", triton_models=models) == 1
    assert here.changes("deploy_models") == 0
    assert here.infer("played", VALUES) == {"y": ANSWER, "place": [gpus[-1].uuid]}


def test_an_onnx_model_is_not_on_a_gpu_unnoticed(here: Here, tmp_path: Path) -> None:
    """What `make venvs` installs has no CUDA."""
    providers = said_by_the_servers_python(
        "import onnxruntime; print(onnxruntime.get_available_providers())"
    )
    sample = make_onnx(tmp_path)
    done = deliver_here(here, sample.name, model_uri=str(sample.folder), instance_kind="gpu")
    assert done.error is None and kind_served(here, sample.name) == ["KIND_GPU"], str(done.error)
    assert not sample.differences(
        http(f"http://{here.url}/v2/models/{sample.name}/infer", sample.request())[1]
    )
    assert ("computes on the CPU" in here.log()) == ("CUDAExecutionProvider" not in providers)


def test_compute_capability_is_read(here: Here, gpus: list[Gpu]) -> None:
    wanted = tuple(sorted({gpu.capability for gpu in gpus}))
    assert tensorrt.read_target(None, [here.url]).capabilities == wanted
    assert tensorrt.read_target(None, ["elsewhere:8000"]).capabilities == ()


def test_a_plan_for_other_gpus_is_refused_before_the_swap(
    here: Here, mlflow: MLflow, gpus: list[Gpu], tmp_path: Path
) -> None:
    name, tag = "detector", tensorrt.CAPABILITY_TAG
    group = "instance_group [ { kind: KIND_GPU } ]"
    serving = deliver_here(
        here,
        name,
        tracking_uri=mlflow.url,
        model_uri=uri_of_published(mlflow, name, make(tmp_path, name, group)),
    )
    assert serving.error is None, str(serving.error)
    before = (here.folder / "models" / name / "config.pbtxt").read_bytes()
    (tmp_path / "detector.engine").write_bytes(PLAN)
    config = {
        side: [{"name": side, "data_type": "TYPE_FP32", "dims": [3]}]
        for side in ("input", "output")
    }
    plan: dict[str, Any] = {"path": tmp_path / "detector.engine", "config": config}
    other = uri_of_published(mlflow, name, **plan, tags={tag: "5.2"})
    for check in (True, False):
        refused = deliver_here(here, name, check, tracking_uri=mlflow.url, model_uri=other)
        words = (
            "compute capability 5.2, and the server has"
            f" {', '.join(sorted({gpu.capability for gpu in gpus}))}"
        )
        assert words in str(refused.error) and "Nothing was changed" in str(refused.error), str(
            refused.error
        )
    assert (here.folder / "models" / name / "config.pbtxt").read_bytes() == before
    assert (
        here.infer(name, VALUES)["place"] == [gpus[-1].uuid] and count_loads(here.log(), name) == 1
    )
    (tmp_path / "detector.engine").write_bytes(PLAN + b"another")
    fitting = deliver_here(
        here,
        name,
        True,
        tracking_uri=mlflow.url,
        model_uri=uri_of_published(mlflow, name, **plan, tags={tag: gpus[0].capability}),
    )
    assert fitting.error is None and fitting.changed, str(fitting.error)
    assert not [text for text in fitting.warnings if "compute capability" in text]


def test_the_roles_question_of_gpus(gpus: list[Gpu]) -> None:
    def problems(wanted: Any) -> list[str]:
        command = [
            sys.executable,
            str(ROOT / "roles/triton/files/host.py"),
            json.dumps({"gpus": wanted}),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout)["problems"])

    assert (
        problems("all")
        == problems([gpu.index for gpu in gpus])
        == problems([gpu.uuid for gpu in gpus])
        == []
    )
    (sentence,) = problems([gpus[0].index, len(gpus)])
    has = f"it has 0 ({gpus[0].name}, {gpus[0].uuid})"
    assert sentence.startswith(
        f"triton_gpus names GPU {len(gpus)}, which this host does not have; {has}"
    )


def provisioned_with(here: Here, gpus: Any) -> str:
    """What it says. It fails, with the server up, where models that are deployed want GPUs that the
    server has no more, or were loaded for others.
    """
    done = here.play("provision", triton_gpus=gpus)
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode == 0 or "The server runs with what is wanted" in said, said
    return said


def test_the_role_hands_out_gpus(here: Here, gpus: list[Gpu], tmp_path: Path) -> None:
    refused = here.play("provision", triton_gpus=[len(gpus)])
    assert refused.returncode != 0
    assert f"triton_gpus names GPU {len(gpus)}, which this host does not have" in re.sub(
        r"\s+", " ", refused.stdout + refused.stderr
    )
    on_gpu = make(tmp_path, "needs_one", "instance_group [ { kind: KIND_GPU } ]")
    assert not deliver_here(here, "needs_one", model_uri=str(on_gpu)).error
    folder = make(tmp_path, "handed", "instance_group [ { kind: KIND_GPU gpus: [ 0 ] } ]")
    said = provisioned_with(here, "none")
    assert f"Model needs_one: {here.url} does not serve it" in said, said
    none = deliver_here(here, "handed", model_uri=str(folder))
    assert "unsupported gpu id 0" in str(none.error) and "instance_kind: cpu" in str(none.error)
    anywhere = deliver_here(
        here, "handed", model_uri=str(folder), instance_kind="auto", verify=VERIFY
    )
    assert anywhere.error is None and here.infer("handed", VALUES)["place"] == ["CPU"], str(
        anywhere.error
    )
    provisioned_with(here, [gpus[0].uuid])
    assert here.infer("handed", VALUES) == {"y": ANSWER, "place": [gpus[0].uuid]}
    assert here.infer("needs_one", VALUES) == {"y": ANSWER, "place": [gpus[0].uuid]}
    # As the message said.
    for name, options in (("handed", {"instance_kind": "auto"}), ("needs_one", {})):
        again = deliver_here(here, name, model_uri=str(tmp_path / name), **options)
        assert again.error is None, str(again.error)
    assert set(here.metrics("nv_gpu_utilization")) == {frozenset({("gpu_uuid", gpus[0].uuid)})}
    assert here.changes("provision") == 0


def test_what_is_deployed_has_kept_its_kinds(here: Here, gpus: list[Gpu], tmp_path: Path) -> None:
    """After restarts with and without GPUs, from the records alone."""
    for kind in ("gpu", "cpu"):
        folder = make(
            tmp_path, f"kept_{kind}", f"instance_group [ {{ kind: KIND_{kind.upper()} }} ]"
        )
        done = deliver_here(here, f"kept_{kind}", model_uri=str(folder), verify=VERIFY)
        assert done.error is None and done.changed, str(done.error)
    provisioned_with(here, "none")
    assert here.changes("provision", triton_gpus=[gpus[0].uuid]) > 0
    served, wanting = {}, set()
    for path in sorted((here.folder / "models").glob("*/config.pbtxt")):
        wants = wants_gpu(config_pbtxt.parse(path.read_bytes()))
        served[path.parent.name] = kind_served(here, path.parent.name)
        wanting |= {path.parent.name} if wants else set()
    assert {"kept_gpu", "kept_cpu"} <= served.keys(), "the repository was looked for elsewhere"
    assert "kept_gpu" in wanting
    assert served["kept_cpu"] == ["KIND_CPU"]
    assert {name: served[name] for name in wanting} == {name: ["KIND_GPU"] for name in wanting}
    assert here.infer("kept_gpu", VALUES) == {"y": ANSWER, "place": [gpus[0].uuid]}
    assert here.infer("kept_cpu", VALUES) == {"y": ANSWER, "place": ["CPU"]}


def test_a_model_on_two_gpus_is_proven_on_both(here: Here, gpus: list[Gpu], tmp_path: Path) -> None:
    """One answer is that of one GPU; the server's metrics say which have answered."""
    if len(gpus) < 2:
        pytest.skip("this host has one GPU")
    assert here.changes("provision", triton_gpus=[gpus[0].index, gpus[1].index]) > 0
    folder = make(tmp_path, "on_both", "instance_group [ { kind: KIND_GPU gpus: [ 0, 1 ] } ]")
    place = Target(
        str(here.folder / "models"),
        servers=(here.url,),
        metrics_servers=(f"127.0.0.1:{here.ports[2]}",),
        timeout=120,
    )
    done = deliver_model(place, "on_both", model_uri=str(folder), verify=VERIFY)
    assert done.error is None and done.record, str(done.error)
    assert done.record.proof and done.record.proof["gpus"] == 2
    assert not [said for said in done.warnings if "GPU" in said]
    assert here.changes("provision", triton_gpus=[gpus[-1].index]) > 0
