# SPDX-License-Identifier: Apache-2.0
"""What keeps a model from loading, as far as its configuration and the list of its files tell."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import (
    config_pbtxt,
    releases,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.servable import (
    refuse_layout,
    refuse_newer_fields,
    refuse_unservable,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    ConfigError,
)

FIL = 'backend: "fil" parameters { key: "model_type" value { string_value: "%s" } }'
BY_GPU = 'cc_model_filenames { key: "7.5" value: "t4.plan" }'


@pytest.mark.parametrize(
    ("config", "files", "lacks"),
    [
        ('backend: "python"', ["1/model.py"], None),
        ('backend: "python"', ["1/main.py"], "no model.py, only main.py, which backend python"),
        ('backend: "python"', ["model.py", "1/a.txt"], "no model.py, which backend python"),
        ('backend: "python"', ["1/model.py/x"], None),
        ('backend: "python" default_model_filename: "main.py"', ["1/main.py"], None),
        ('backend: "python" default_model_filename: "main.py"', ["1/model.py"], "no main.py"),
        ('backend: "python" ' + BY_GPU, ["1/t4.plan"], "no model.py"),
        ('platform: "onnxruntime_onnx"', ["1/model.onnx"], None),
        ('backend: "onnxruntime"', ["1/model.onnx/model.onnx", "1/model.onnx/w"], None),
        ('backend: "onnxruntime"', ["1/net.onnx"], "no model.onnx, only net.onnx"),
        ('platform: "tensorrt_plan"', ["1/t4.plan"], "no model.plan, only t4.plan"),
        ('platform: "tensorrt_plan" ' + BY_GPU, ["1/t4.plan"], None),
        ('platform: "tensorrt_plan" ' + BY_GPU, ["1/a100.plan"], "no model.plan or t4.plan"),
        ('backend: "pytorch"', ["1/model.pt"], None),
        ('backend: "pytorch"', ["1/weights.bin"], "no model.pt"),
        ('platform: "tensorflow_savedmodel"', ["1/model.savedmodel/saved_model.pb"], None),
        ('platform: "tensorflow_savedmodel"', ["1/model.graphdef"], "no model.savedmodel"),
        ('backend: "tensorflow"', ["1/model.graphdef"], None),
        ('backend: "openvino"', ["1/model.bin"], "no model.xml"),
        ('backend: "dali"', ["1/dali.py"], None),
        ('backend: "dali" default_model_filename: "m.dali"', ["1/dali.py"], None),
        ('backend: "vllm"', ["1/model.json"], None),
        ('backend: "vllm" default_model_filename: "m.json"', ["1/m.json"], "no model.json"),
        ('backend: "fil"', ["1/xgboost.json"], "no xgboost.model"),
        (FIL % "xgboost_json", ["1/xgboost.json"], None),
        (FIL % "lightgbm", ["1/model.lgb"], "no model.txt"),
        (FIL % "of tomorrow", ["1/x"], None),
        ('backend: "tensorrtllm"', [], None),
        ('backend: "identity"', [], None),
        ('backend: "mine"', ["1/x"], None),
        ("", ["1/model.onnx"], None),
        ("", ["1/model.mine"], None),
    ],
)
def test_the_file_that_a_backend_needs_is_there(
    config: str, files: list[str], lacks: str | None
) -> None:
    message = config_pbtxt.parse(config.encode())
    if lacks is None:
        refuse_unservable(message, "m", (1,), files)
    else:
        with pytest.raises(ArtifactError, match=f"version folder 1 has {lacks}"):
            refuse_unservable(message, "m", (1,), files)


POLICIES = {
    "": (3,),
    "version_policy { }": (3,),
    "version_policy { latest { num_versions: 2 } }": (2, 3),
    "version_policy { all { } }": (1, 2, 3),
    "version_policy { specific { versions: [ 1, 7 ] } }": (1,),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("bad", [1, 2, 3])
def test_only_the_versions_that_are_loaded_are_judged(policy: str, bad: int) -> None:
    files = [f"{version}/{'x' if version == bad else 'model'}.py" for version in (1, 2, 3)]
    message = config_pbtxt.parse(f'backend: "python" {policy}'.encode())
    if bad in POLICIES[policy]:
        with pytest.raises(ArtifactError, match=f"version folder {bad} has no model.py"):
            refuse_unservable(message, "m", (1, 2, 3), files)
    else:
        refuse_unservable(message, "m", (1, 2, 3), files)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('backend: "python" version_policy { specific { versions: 3 } }', r"none .* \(1\): leave"),
        ('backend: "python" version_policy { latest { } }', "version_policy loads none"),
        ("max_batch_size: 8", "names no backend, and no file tells it"),
    ],
)
def test_what_loads_nothing_is_refused(config: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        refuse_unservable(config_pbtxt.parse(config.encode()), "m", (1,), ["1/net.bin"])


@pytest.mark.parametrize("name", ["model.identity", "m"])
def test_a_models_name_can_tell_its_backend(name: str) -> None:
    if name == "m":
        with pytest.raises(ConfigError):
            refuse_unservable(config_pbtxt.new_message(), name, (1,), ["1/x"])
    else:
        refuse_unservable(config_pbtxt.new_message(), name, (1,), ["1/x"])


@pytest.mark.parametrize("version", ["2.51.0", "2.51", "2.9.1"])
def test_a_field_newer_than_a_server_is_refused(version: str) -> None:
    config = b'# model_metrics\nname: "model_metrics"\nmodel_metrics { }\n'
    with pytest.raises(ConfigError, match=rf"\(line 3\).* since 2.52 .*two is Triton {version}"):
        refuse_newer_fields(config, {"one": "2.60.0", "two": version})


@pytest.mark.parametrize("version", ["2.52.0", "3.0.0", None, "", "main"])
def test_a_server_that_knows_a_field_or_is_not_known_is_no_reason(version: str | None) -> None:
    refuse_newer_fields(b"model_metrics { }", {"one": version})


def test_a_field_below_the_top_has_no_overlay_of_its_own() -> None:
    config = b"ensemble_scheduling { max_inflight_requests: 0 }"
    with pytest.raises(ConfigError, match=r"take it out$"):
        refuse_newer_fields(config, {"one": "2.51.0"})


def test_every_dated_field_is_one_of_the_configuration_and_has_its_name_alone() -> None:
    """A name that another message has too would be taken for the newer field."""
    top = config_pbtxt.new_message().DESCRIPTOR
    messages, waiting = {}, [top]
    while waiting:
        message = waiting.pop()
        messages[message.full_name] = message
        waiting += [
            field.message_type
            for field in message.fields
            if field.message_type and field.message_type.full_name not in messages
        ]
    holders = {
        name: {kind for kind, message in messages.items() if name in message.fields_by_name}
        for name in releases.SINCE
    }
    inputs_and_outputs = {"inference.ModelInput", "inference.ModelOutput"}
    assert all(len(held) == 1 or held == inputs_and_outputs for held in holders.values()), holders


@pytest.mark.parametrize("field", ["model_warmup", "optimization"])
def test_what_only_members_may_have_is_refused_of_an_ensemble(field: str) -> None:
    text = f"platform: 'ensemble' {field} {{ }} ensemble_scheduling {{ step {{ }} }}"
    with pytest.raises(ConfigError, match=f"has {field}, which only its members may have: leave"):
        refuse_unservable(config_pbtxt.parse(text.encode()), "both", (1,), [])


@pytest.mark.parametrize(
    ("files", "folders"),
    [
        (["config.pbtxt/README.md"], []),
        (["mlflow-meta.json/x"], []),
        ([], ["config.pbtxt"]),
        ([], ["mlflow-meta.json/x"]),
    ],
)
def test_a_folder_where_a_file_of_ours_is_written_is_refused(
    files: list[str], folders: list[str]
) -> None:
    """In check mode too, and not when the file is to be written."""

    def refuse(files: list[str], folders: list[str]) -> None:
        made = tuple((f"model/{path}", path, 1) for path in ("1/model.onnx", *files))
        refuse_layout(b"", "m", Layout("triton", made, tuple(folders), b"", (1,), (1,)))

    refuse(["mlflow-meta.json", "1/config.pbtxt/x"], ["docs"])
    with pytest.raises(ArtifactError, match="is written: name the folder otherwise"):
        refuse(files, folders)
