# SPDX-License-Identifier: Apache-2.0
"""Where a policy says what models may be made of, somebody who may publish gets no code onto a
server: each way in is tried on a real one, and what was served before answers on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ConfigError,
    NeedsOther,
    PolicyRefused,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (
    StateStore,
)
from support.deliveries import deliver_models
from support.models import Sample, make_ensemble, make_forest, make_onnx, make_python
from support.modules import publish_by_module, run_module
from support.servers import MLflow, Triton, triton_server

pytestmark = pytest.mark.takes(30)

ONNX = {"allowed_backends": ["onnxruntime", "ensemble"]}
DOUBLE = ((2.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 2.0))


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("trust")
    with triton_server(folder, extra_args=["--disable-auto-complete-config"]) as server:
        yield server


class Place:
    """A server with a model that a publisher wants to replace."""

    def __init__(self, triton: Triton, folder: Path) -> None:
        self.triton, self.folder = triton, folder
        self.canary = folder / "canary"
        self.served = make_onnx(triton.folder / "good", "fraud")  # one that stays for all tests
        self.good([entry(self.served)], **ONNX)

    def deliver(
        self, models: list[dict[str, Any]], check: bool = False, **policy: Any
    ) -> dict[str, Result]:
        target = {
            "model_repository": str(self.triton.repository), "triton_url": self.triton.url,
            "timeout": 60, **policy,
        }  # fmt: skip
        return {one.name: one for one in deliver_models(target, models, check)}

    def good(self, models: list[dict[str, Any]], **policy: Any) -> dict[str, Result]:
        done = self.deliver(models, **policy)
        assert not [str(one.error) for one in done.values() if one.error]
        return done

    def answers(self, sample: Sample) -> bool:
        status, body = self.triton.infer(sample.name, sample.request())
        return status == 200 and not sample.differences(body)

    def model(self, config: str = "", files: Mapping[str, str | bytes] | None = None) -> Sample:
        """The next version, with something that its publisher adds."""
        made = make_onnx(self.folder / "next", "fraud", weights=DOUBLE, bias=(0.0, 0.0, 0.0))
        path = made.folder / "config.pbtxt"
        path.write_text(path.read_text() + config)
        for name, data in (files or {}).items():
            (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (made.folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return made

    @property
    def program(self) -> str:
        return f"#!/bin/sh\necho run > {self.canary}\n"

    def refused(self, models: list[dict[str, Any]], words: str, **policy: Any) -> None:
        """By run and check run, of the first model; nothing changes and nothing is run."""
        told = []
        for check in (True, False):
            one = next(iter(self.deliver(models, check, **policy).values()))
            assert isinstance(one.error, PolicyRefused), str(one.error)
            assert words in str(one.error) and "othing was changed" in str(one.error)
            told.append(str(one.error))
            assert not one.changed
        assert told[0] == told[1]
        assert self.answers(self.served) and not self.canary.exists()


def entry(sample: Sample, **options: Any) -> dict[str, Any]:
    return {"name": sample.name, "model_uri": str(sample.folder), **options}


@pytest.fixture
def place(triton: Triton, tmp_path: Path) -> Iterator[Place]:
    yield (made := Place(triton, tmp_path))
    names = {path.name for path in triton.repository.iterdir() if path.is_dir()} - {"fraud"}
    made.good([{"name": name, "state": "absent", "adopt": True} for name in sorted(names)])


def environment(value: str) -> str:
    return f'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{value}" }} }}\n'


def accelerator(**parameters: str) -> str:
    inner = " ".join(
        f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in parameters.items()
    )
    return (
        "optimization { execution_accelerators { gpu_execution_accelerator {"
        f' name: "tensorrt" {inner} }} }} }}\n'
    )


def make_told(place: Place, files: Mapping[str, str]) -> Sample:
    """A model whose backend is told by its files alone."""
    sample = place.model(files=files)
    path = sample.folder / "config.pbtxt"
    path.write_text(path.read_text().replace('platform: "onnxruntime_onnx"', ""))
    return sample


Attack = Callable[[Place], tuple[Sample, str]]
ATTACKS: dict[str, Attack] = {
    "a program in the place of the backend's": lambda p: (
        p.model("", {"triton_python_backend_stub": p.program}),
        "it brings 'triton_python_backend_stub'",
    ),
    "an environment that is activated": lambda p: (
        p.model(environment("$$TRITON_MODEL_DIRECTORY/1/env"), {"1/env/bin/activate": p.program}),
        "its parameter EXECUTION_ENV_PATH is '$$TRITON_MODEL_DIRECTORY/1/env'",
    ),
    "an environment of another model": lambda p: (
        p.model(environment("$$TRITON_MODEL_DIRECTORY/../fraud/1/env")),
        "its parameter EXECUTION_ENV_PATH is '$$TRITON_MODEL_DIRECTORY/../fraud/1/env'",
    ),
    "an agent from the repository": lambda p: (
        p.model(
            'model_repository_agents { agents { name: "../'
            f'{p.triton.repository.name}/fraud/agent/evil" }} }}\n',
            {"agent/libtritonrepoagent_evil.so": b"\x7fELF"},
        ),
        "the field model_repository_agents",
    ),
    "a state from a file of the host": lambda p: (
        p.model(
            'sequence_batching { state { input_name: "a" output_name: "b" data_type: TYPE_FP32'
            ' dims: 1 initial_state { name: "s" data_type: TYPE_FP32 dims: 1 data_file:'
            ' "../../../etc/passwd" } } }\n'
        ),
        "the data_file of its initial_state 's' is '../../../etc/passwd'",
    ),
    "a warmup from a file of the host": lambda p: (
        p.model(
            'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32'
            ' dims: 3 input_data_file: "../../../../etc/passwd" } } }\n'
        ),
        "the input_data_file of its model_warmup 'w' for 'x' is '../../../../etc/passwd'",
    ),
    "a model file of somebody else": lambda p: (
        p.model('default_model_filename: "../../other/1/model.onnx"\n'),
        "its default_model_filename is '../../other/1/model.onnx'",
    ),
    "a model file of somebody else, for a GPU": lambda p: (
        p.model('cc_model_filenames { key: "8.0" value: "/etc/passwd" }\n'),
        "its cc_model_filenames for 8.0 is '/etc/passwd'",
    ),
    "labels from a file of the host": lambda p: (
        p.model('output { name: "z" data_type: TYPE_FP32 dims: 1 label_filename: "../x.txt" }\n'),
        "the label_filename of its output 'z' is '../x.txt'",
    ),
    "a cache of engines wherever": lambda p: (
        p.model(accelerator(trt_engine_cache_enable="1", trt_engine_cache_path=str(p.folder))),
        "the parameter trt_engine_cache_path of its accelerator tensorrt is",
    ),
    "a plugin of TensorRT": lambda p: (
        p.model(accelerator(trt_extra_plugin_lib_paths="1/x.so"), {"1/x.so": b"\x7fELF"}),
        "'trt_extra_plugin_lib_paths'",
    ),
    "operators in a library": lambda p: (
        p.model('model_operations { op_library_filename: "1/ops.so" }\n', {"1/ops.so": b"\x7fELF"}),
        "the field model_operations",
    ),
    "a runtime of its own": lambda p: (
        p.model('runtime: "../../fraud/1/model.py"\n', {"1/model.py": "open('x')"}),
        "the field runtime",
    ),
    "a library in the place of the backend's": lambda p: (
        p.model("", {"libtriton_onnxruntime.so": b"\x7fELF"}),
        "it brings 'libtriton_onnxruntime.so'",
    ),
    "a batching strategy": lambda p: (
        p.model("", {"1/batchstrategy.so": b"\x7fELF"}),
        "it brings '1/batchstrategy.so'",
    ),
    "a batching strategy from elsewhere": lambda p: (
        p.model(
            'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "1/x.so" } }\n'
        ),
        "the parameter TRITON_BATCH_STRATEGY_PATH",
    ),
    "a module beside the model": lambda p: (
        p.model("", {"1/onnxruntime.py": "open('x')"}),
        "it brings '1/onnxruntime.py'",
    ),
    "another configuration": lambda p: (
        p.model("", {"configs/other.pbtxt": 'backend: "python"\n'}),
        "it brings 'configs/other.pbtxt'",
    ),
    "a command in the name of an instance": lambda p: (
        p.model(f'instance_group {{ kind: KIND_CPU name: "a`touch {p.canary}`" }}\n'),
        "its instance_group has the name 'a`touch ",
    ),
    "another folder for Triton to tell the backend by": lambda p: (
        make_told(p, {"0/README.md": ""}),
        "not each of its folders is a version with a file that tells it",
    ),
    "a folder in the place of the backend's library": lambda p: (
        p.model("", {"1/libtriton_onnxruntime.so/x.onnx": b""}),
        "it brings '1/libtriton_onnxruntime.so/x.onnx'",
    ),
    "a warmup of which the server dies": lambda p: (
        p.model(
            'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32'
            " dims: 1000000000000 zero_data: true } } }\n"
        ),
        "its model_warmup has 8000000000000 bytes of input, more than",
    ),
    "sequences of which the server dies": lambda p: (
        p.model("sequence_batching { oldest { max_candidate_sequences: 2000000000 } }\n"),
        "its sequence_batching keeps 2000000000 sequences at once, more than",
    ),
    "a session that writes": lambda p: (
        p.model(
            'parameters { key: "session.model_external_initializers_file_folder_path" value {'
            ' string_value: "/etc" } }\n'
        ),
        "session.model_external_initializers_file_folder_path",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_publishers_way_to_code_is_refused(place: Place, attack: str) -> None:
    sample, words = ATTACKS[attack](place)
    place.refused([entry(sample)], words, **ONNX)
    place.refused([entry(sample)], words, allowed_paths=[])


def test_a_backend_that_files_tell_is_the_one_that_is_judged(place: Place) -> None:
    place.good([entry(make_told(place, {}))], **ONNX)
    sample = make_told(place, {})
    file = sample.folder / "1/model.onnx"
    content = file.read_bytes()
    file.unlink()
    file.mkdir()
    (file / "model.onnx").write_bytes(content)
    place.good([entry(sample)], **ONNX)
    assert place.answers(sample)


def test_names_of_metrics_take_no_server_down(place: Place) -> None:
    for key in ("a b", "_x"):
        sample = place.model(f'metric_tags {{ key: "{key}" value: "x" }}\n')
        for check in (True, False):
            (one,) = place.deliver([entry(sample)], check).values()
            assert isinstance(one.error, ConfigError) and "no label of Prometheus" in str(one.error)
    assert place.answers(place.served)
    tags = "".join(f'metric_tags {{ key: "{key}" value: "x y" }}\n' for key in ("", "1a", "le"))
    sample = place.model(tags)
    place.good([entry(sample)], **ONNX)
    assert place.answers(sample)


def test_a_backend_that_is_a_path_is_refused(place: Place) -> None:
    config = f'backend: "../{place.triton.repository.name}/fraud"\nmax_batch_size: 8\n'
    sample = make_onnx(place.folder / "next", "fraud", config=config)
    place.refused([entry(sample)], "the name of its backend is '../", allowed_paths=[])
    place.refused([entry(sample)], "it needs the backend ../", **ONNX)


def test_settings_of_vllm_are_judged_before_they_are_there(place: Place) -> None:
    folder = place.folder / "chat"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text('backend: "vllm"\ninstance_group { kind: KIND_MODEL }\n')
    settings = folder / "1/model.json"
    settings.write_text('{"model": "some/model", "trust_remote_code": true}')
    chat = {"name": "chat", "model_uri": str(folder)}
    policy: dict[str, Any] = {"allowed_backends": ["vllm"]}
    place.refused([chat], "1/model.json has 'trust_remote_code'", **policy)
    settings.write_text('{"model": "/srv/weights"}')
    place.refused([chat], "1/model.json has 'model' with '/srv/weights'", **policy)
    (one,) = place.deliver([chat], True, **policy, allowed_paths=["/srv/weights"]).values()
    assert one.error is None


def test_what_options_of_the_task_add_is_judged_too(place: Place) -> None:
    sample = make_onnx(place.folder / "next", "fraud", weights=DOUBLE)
    changed = entry(sample, config={"parameters": {"EXECUTION_ENV_PATH": "/etc/env"}})
    place.refused([changed], "its parameter EXECUTION_ENV_PATH is '/etc/env'", **ONNX)
    same = entry(place.served, config={"runtime": "model.py"})
    place.refused([same], "the field runtime", **ONNX)


def test_what_a_refusal_says_to_take_out_makes_the_model_allowed(place: Place) -> None:
    for config, out in (
        ('runtime: "x"\n', {"runtime": None}),
        ('model_operations { op_library_filename: "x" }\n', {"model_operations": None}),
        (environment("env"), {"parameters": {"EXECUTION_ENV_PATH": None}}),
        (accelerator(own="1"), {"optimization": None}),
        ('parameters { key: "own" value { string_value: "1" } }\n', {"parameters": {"own": None}}),
    ):
        sample = place.model(config)
        (key,) = out
        one = place.deliver([entry(sample)], check=True, **ONNX)["fraud"]
        assert key in str(one.error) and "null" in str(one.error)
        assert place.deliver([entry(sample, config=out)], True, **ONNX)["fraud"].error is None
    place.good([entry(sample, config=out)], **ONNX)
    assert place.answers(sample)


def test_an_environment_of_the_operator_is_allowed_by_its_folder(place: Place) -> None:
    folder = place.folder / "environments"
    (folder / "one/bin").mkdir(parents=True)
    (folder / "one/bin/activate").write_text("")
    sample = make_python(place.folder / "next", "doubler")
    path = sample.folder / "config.pbtxt"
    path.write_text(path.read_text() + environment(str(folder / "one")))
    policy: dict[str, Any] = {"allowed_backends": ["python"]}
    place.refused([entry(sample)], "its parameter EXECUTION_ENV_PATH is", **policy)
    place.refused(
        [entry(sample)],
        "its parameter EXECUTION_ENV_PATH is",
        **policy,
        allowed_paths=[str(place.folder / "environment")],
    )
    (said,) = place.deliver(
        [entry(sample)], check=True, **policy, allowed_paths=[str(folder)]
    ).values()
    assert said.error is None and said.warnings == ()


def test_without_a_policy_a_path_that_leaves_is_a_warning(place: Place) -> None:
    sample = make_python(place.folder / "next", "doubler")
    path = sample.folder / "config.pbtxt"
    own = 'parameters { key: "table" value { string_value: "../other/table.csv" } }\n'
    path.write_text(path.read_text() + own)
    for check in (True, False):
        (one,) = place.deliver([entry(sample)], check).values()
        assert one.error is None
        (warning,) = [said for said in one.warnings if "table" in said]
        assert "its parameter table is '../other/table.csv', which leads out of" in warning
    assert place.answers(sample)
    again = {"parameters": {"table": "/etc/table.csv"}}
    (one,) = place.deliver([entry(sample, config=again)], check=True).values()
    assert "is '/etc/table.csv', which leads out of" in str(one.warnings)


def test_a_version_that_stays_beside_a_new_one_is_judged_too(place: Place, mlflow: MLflow) -> None:
    """It may have come before there were rules."""
    for number in (1, 2):
        sample = make_onnx(
            place.folder / str(number), "beside", weights=DOUBLE, bias=(0.0, 0.0, float(number))
        )
        if number == 1:
            (sample.folder / "1/x.so").write_bytes(b"\x7fELF")
        publish_by_module(mlflow, "beside", sample.folder)
    where = {"tracking_uri": mlflow.url}
    first, second = (
        {"name": "beside", "model_uri": f"models:/beside/{number}", "serve_versions": 2}
        for number in (1, 2)
    )
    place.good([first], **where)
    place.refused([second], "of version 1, which stays beside it", **where, **ONNX)
    place.good([{**second, "serve_versions": 1}], **where, **ONNX)
    assert place.answers(sample)


# -- model_code ------------------------------------------------------------------------------------


def test_code_runs_only_where_the_place_says_so(place: Place) -> None:
    program = make_python(place.folder / "next", "doubler")
    place.refused(
        [entry(program)],
        "the program 1/model.py counts as code, and model_code: refused is set",
        model_code="refused",
    )
    forest = make_forest(place.folder / "forest", "trees")
    place.good([entry(place.served), entry(forest)], model_code="refused")
    assert place.answers(forest)
    place.good([entry(program)])
    place.refused([entry(program)], "counts as code", model_code="refused")
    assert place.answers(program)  # it is left alone
    place.good([{"name": "doubler", "state": "absent"}], model_code="refused")


def test_what_of_a_model_is_code_is_told(place: Place) -> None:
    program = make_python(place.folder / "next", "doubler")
    options = {
        "model_repository": str(place.triton.repository), "triton_url": place.triton.url
    }  # fmt: skip
    for check in (True, False):
        done = run_module("triton_model", {**options, **entry(program)}, check=check, diff=True)
        assert "code: the program 1/model.py\n" in done["diff"]["after"], done
    assert done["model"]["code"] == "the program 1/model.py"
    (info,) = run_module("triton_model_info", {**options, "names": ["doubler"]})["models"]
    assert info["code"] == "the program 1/model.py"
    (info,) = run_module("triton_model_info", {**options, "names": ["fraud"]})["models"]
    assert info["code"] == ""
    record = Path(StateStore(str(place.triton.repository)).path) / "records/doubler.json"
    assert json.loads(record.read_text())["code"] == "the program 1/model.py"


# -- ensembles -------------------------------------------------------------------------------------


def test_an_ensemble_calls_no_model_of_somebody_else(place: Place) -> None:
    theirs = make_onnx(
        place.triton.repository, "theirs", weights=DOUBLE, bias=(0.0, 0.0, 0.0)
    )  # fmt: skip
    assert place.triton.load("theirs")[0] == 200
    ensemble = make_ensemble(place.folder, "both", [theirs])
    said = "its member 'theirs' is neither brought by the list nor deployed by this collection"
    place.refused([entry(ensemble)], said, **ONNX)
    place.refused([entry(ensemble)], said, model_code="refused")
    place.good([entry(ensemble)])
    place.refused([entry(ensemble)], said, **ONNX)  # deployed ones are judged too
    ours = make_onnx(place.folder / "ours", "theirs", weights=DOUBLE, bias=(0.0, 0.0, 0.0))
    place.good([entry(ours, adopt=True), entry(ensemble)], **ONNX)
    place.good([entry(ensemble)], **ONNX)
    assert place.answers(ensemble)


def test_an_ensemble_brings_no_code_by_its_members(place: Place) -> None:
    program = make_python(place.folder, "doubler")
    inner = make_ensemble(place.folder, "inner", [program])
    outer = make_ensemble(place.folder, "outer", [inner])
    place.good([entry(program), entry(inner)])
    place.refused(
        [entry(outer)],
        "its member 'inner' is an ensemble, and its member 'doubler' is deployed, and is refused"
        " itself: the program 1/model.py counts as code",
        model_code="refused",
    )
    done = place.deliver([entry(outer), entry(program), entry(inner)], True, model_code="refused")
    assert isinstance(done["doubler"].error, PolicyRefused)
    assert isinstance(done["outer"].error, (PolicyRefused, NeedsOther))
    place.good([entry(outer)])
