# SPDX-License-Identifier: Apache-2.0
"""What a model may be made of where a policy judges it: everything that no table lists is refused
by its name.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.allowed import (
    Rules,
    code_of,
    why_not_allowed,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.allowed_parts import (
    DATA_BACKENDS,
    FIELDS,
    PARTS,
    REFUSED_FIELDS,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.config_paths import (
    warn_of_paths,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.vllm_settings import (
    settings_in,
    why_not_set,
)
from hypothesis import given
from hypothesis import strategies as st

ONNX = 'backend: "onnxruntime"\n'
PYTHON = 'backend: "python"\n'
FOLDER = "/opt/environments"
ALL = ("onnxruntime", "fil", "tensorrt", "openvino", "ensemble", "python", "vllm", "own")
EACH = Rules(ALL)


def parsed(config: str) -> Any:
    return config_pbtxt.parse(config.encode())


def why(config: str, *files: str, rules: Rules = EACH) -> str | None:
    return why_not_allowed(rules, parsed(config), files or ("1/model.onnx",))


def parameter(key: str, value: str = "1") -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\0", "\\000")
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


# -- fields ----------------------------------------------------------------------------------------


def fields_of(message: Any) -> Iterator[str]:
    """Every field of a message and of what it is made of."""
    waiting, seen = [message], set()
    while waiting:
        one = waiting.pop()
        if one.full_name in seen:
            continue
        seen.add(one.full_name)
        for field in one.fields:
            yield field.full_name.partition(".")[2]
            if field.message_type:
                waiting.append(field.message_type)


def test_every_field_of_triton_has_been_decided() -> None:
    """One that a release of Triton adds is refused until somebody has looked at it."""
    below_refused = ("ModelOperations.", "ModelRepositoryAgents.")
    there = {
        name
        for name in fields_of(config_pbtxt.new_message().DESCRIPTOR)
        if not name.startswith(below_refused)
    }
    assert there <= FIELDS | REFUSED_FIELDS
    assert not FIELDS & REFUSED_FIELDS


def test_a_field_that_no_table_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for path, field, config in (
        ("response_cache", "ModelConfig.response_cache", "response_cache { enable: true }"),
        (
            "optimization.cuda.graph_spec.input.dim",
            "ModelOptimizationPolicy.Cuda.GraphSpec.Shape.dim",
            'optimization { cuda { graph_spec { input { key: "x" value { dim: 1 } } } } }',
        ),
        (
            "instance_group.rate_limiter.resources.name",
            "ModelRateLimiter.Resource.name",
            'instance_group { rate_limiter { resources { name: "R" count: 1 } } }',
        ),
    ):
        assert why(ONNX + config) is None
        monkeypatch.setattr(
            "ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.allowed.FIELDS",
            FIELDS - {field},
        )
        said = why(ONNX + config)
        assert said is not None
        assert f"the field {path}, which is none that a model of the backend onnxruntime" in said
        monkeypatch.undo()


REFUSED = {
    "runtime": 'runtime: "../x/model.py"',
    "model_operations": 'model_operations { op_library_filename: "ops.so" }',
    "model_repository_agents": 'model_repository_agents { agents { name: "../r/agent/evil" } }',
}


@pytest.mark.parametrize("field", REFUSED)
@pytest.mark.parametrize("backend", ["onnxruntime", "python", "own"])
def test_fields_that_load_code_are_refused_whatever_the_backend(field: str, backend: str) -> None:
    config = f'backend: "{backend}"\n{REFUSED[field]}'
    for rules in (Rules(ALL), Rules(paths=(FOLDER,))):
        said = why(config, rules=rules)
        assert said is not None and f"the field {field}," in said and f"{field}: null" in said
    assert why(config, rules=Rules()) is None
    without = config_pbtxt.apply_overlay(parsed(config), {field: None})
    assert why_not_allowed(Rules(ALL), without, ["1/model.onnx"]) is None


def test_an_ensembles_step_in_another_namespace_is_refused() -> None:
    ensemble = 'ensemble_scheduling { step { model_name: "a" model_namespace: "b" } }'
    said = why(ensemble, "1/README.md")
    assert said is not None and "the field ensemble_scheduling.step.model_namespace" in said
    assert why(ensemble.replace('model_namespace: "b"', ""), "1/README.md") is None


# -- the backend -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "a/b", "a.b", "a b", "a\\nb", "", "Pyth\\303\\266n"])
def test_a_backends_name_is_no_path(name: str) -> None:
    allowed = (*ALL, name, name.encode().decode("unicode_escape"))
    config = f'backend: "{name}"'
    assert why(config, "1/x") is not None
    assert why(config, "1/x", rules=Rules(allowed)) is not None
    assert why(config, "1/x", rules=Rules(paths=())) is not None


def test_case_makes_another_backend() -> None:
    assert why('backend: "Python"', "1/model.py", rules=Rules(("python",))) is not None
    assert why('backend: "ONNXRuntime"', rules=Rules(code=False)) is not None


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ("", ("1/model.onnx", "2/x.json")),
        ("", ("1/sub/model.onnx",)),
        ("", ("model.onnx",)),
        # Triton asks the folder that comes first.
        ("", ("0/README.md", "1/model.onnx")),
        ("", ("1/model.onnx", "model.onnx/README.md")),
        ('default_model_filename: "mine.py"', ("1/model.onnx",)),
        ('default_model_filename: "model.onnx"', ("1/model.onnx",)),
    ],
)
def test_a_backend_that_triton_may_tell_otherwise_must_be_named(
    config: str, files: tuple[str, ...]
) -> None:
    """Where no file tells it, Triton takes what follows the dot of the model's name."""
    for rules in (Rules(("onnxruntime",)), Rules(paths=())):
        said = why(config, *files, rules=rules)
        assert said is not None and ("names no backend" in said or "does not name" in said)
    if files != ("model.onnx",):
        assert why(config + ONNX, *files, rules=Rules(("onnxruntime",))) is None


def test_a_folder_with_the_name_of_a_file_tells_no_backend() -> None:
    assert "not each of its folders" in str(why("", "1/model.plan/x.engine"))
    assert why("", "1/model.onnx/model.onnx", "1/model.onnx/weights.data") is None


def test_a_platform_goes_with_its_backend() -> None:
    assert why('backend: "onnxruntime" platform: "onnxruntime_onnx"') is None
    said = why('backend: "onnxruntime" platform: "tensorflow_savedmodel"')
    assert said is not None and "its platform 'tensorflow_savedmodel' is none of" in said
    both = 'backend: "python" platform: "ensemble"'
    assert "brings '1/model.py'" in str(why(both, "1/model.py"))
    assert "python" in str(why(both, "1/model.py", rules=Rules(("ensemble",))))


@pytest.mark.parametrize("name", ["a`id`", "$(id)", "a b", "a;b", "a\\nb", "a'b", "a/b"])
@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt", "python"])
def test_the_name_of_an_instance_is_no_command(backend: str, name: str) -> None:
    config = f'backend: "{backend}"\ninstance_group {{ name: "{name}" count: 1 }}'
    said = why(config, "1/README.md")
    assert said is not None and "its instance_group has the name" in said
    without = config_pbtxt.apply_overlay(parsed(config), {"instance_group": None})
    assert why_not_allowed(EACH, without, ["1/README.md"]) is None
    assert why(config.replace(name, "gpu-0_a.b"), "1/README.md") is None


# -- files -----------------------------------------------------------------------------------------

FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "onnxruntime": (
        ("1/model.onnx", "1/weights.data", "1/model.onnx_data", "1/onnx__MatMul_12", "1/sub/w.bin",
         "2/encoder.layer.0.weight", "README.md", "labels.txt", "LICENSE", "1/config.json",
         "model.sig", "mlflow-meta.json", "1/model.onnx.data", "1/model.onnx_data_1"),
        ("1/model.py", "1/x.so", "1/x", "x.bin", "env/bin/activate", "1/env/bin/activate",
         "onnxruntime/__init__.py", "1/model.pyc", "1/MODEL.ONNX", "01/model.onnx", "x/model.onnx",
         "1/env.tar.gz", "1/sitecustomize.pth", "numpy.py", "LICENSE.so", "README-x.so"),
    ),
    "fil": (
        ("1/xgboost.json", "1/xgboost.model", "1/x.ubj", "1/a.bst", "1/model.txt", "1/c.tl"),
        ("1/model.pkl", "1/model.skops", "1/model.onnx", "1/x.py"),
    ),
    "tensorrt": (("1/model.plan", "1/a.engine"), ("1/plugin.so", "1/model.onnx", "1/model.cache")),
    "openvino": (("1/model.xml", "1/model.bin"), ("1/libext.so", "1/model.py")),
    "pytorch": (("1/model.pt", "1/model.pth", "1/model.pt2"), ("1/model.py", "1/x.so")),
    "tensorflow": (
        ("1/model.savedmodel/saved_model.pb", "1/model.graphdef",
         "1/model.savedmodel/variables/variables.index", "1/model.savedmodel/assets/vocab"),
        ("1/ops.so", "1/model.py"),
    ),
    "dali": (("1/model.dali",), ("1/dali.py", "1/model.py")),
    "ensemble": (("1/README.md",), ("1/model.onnx", "1/model.py", "1/x")),
    "python": (
        ("1/model.py", "1/own.so", "1/env/bin/activate", "env.tar.gz", "x/y",
         "triton_python_backend_stub"),
        (),
    ),
    "own": (("1/model.bin", "x/y", "1/helper.so"), ("triton_python_backend_stub",)),
}  # fmt: skip
ALWAYS = (
    "libtriton_onnxruntime.so", "1/libtriton_python.so", "1/a/libtriton_x.so", "batchstrategy.so",
    "1/batchstrategy.so", "libtritonrepoagent_evil.so", "configs/other.pbtxt", "1/a\nb.onnx",
    "1/a\\b.onnx", "../x.onnx", "/etc/x.onnx", "1//x.onnx", "1/./x.onnx", "1/../x.onnx",
    "1/libtriton_fil.so/x.onnx", "libtriton_fil.so/README.md",
)  # fmt: skip


@pytest.mark.parametrize("backend", FILES)
def test_a_model_has_the_files_of_its_backend_and_no_others(backend: str) -> None:
    good, bad = FILES[backend]
    config, rules = f'backend: "{backend}"', Rules((backend,))
    if backend == "ensemble":
        config = 'ensemble_scheduling { step { model_name: "a" } }'
    assert why(config, *good, rules=rules) is None
    for path in (*bad, *ALWAYS):
        said = why(config, *good, path, rules=rules)
        assert said is not None and f"it brings {path!r}, which" in said, path
        assert "take it out of the model folder, and publish the model again" in said


def test_weights_that_are_named_after_nodes_are_no_programs() -> None:
    assert why(ONNX, "1/model.onnx", "1/onnx__MatMul_12", "1/onnx__Conv.3") is None
    for name in ("1/onnx__x.so", "1/a/onnx__x.py", "1/onnx__x.abi3.so"):
        assert f"it brings {name!r}, which" in str(why(ONNX, "1/model.onnx", name))


def test_folders_without_a_file_stand_in_nobodys_place() -> None:
    def said(config: str, *folders: str) -> str | None:
        return why_not_allowed(EACH, parsed(config), ("1/model.onnx",), folders)

    assert said(ONNX, "2", "docs", "1/assets") is None
    for folder in ("1/libtriton_onnxruntime.so", "triton_python_backend_stub", "configs", "a\\b"):
        assert f"it brings {folder!r}, which" in str(said(ONNX, folder))
    assert "not each of its folders is a version" in str(said("", "0"))


def test_files_that_the_configuration_names_lie_beside_versions() -> None:
    config = (
        ONNX
        + 'output { name: "y" label_filename: "names/classes.list" }\n'
        + 'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { input_data_file: "raw"'
        " } } }\n"
        + "sequence_batching { state { initial_state { data_file: 'zeros' name: 's' } } }\n"
    )
    named = ("names/classes.list", "warmup/raw", "initial_state/zeros")
    assert why(config, "1/model.onnx", *named) is None
    for path in named:
        assert f"it brings {path!r}" in str(why(ONNX, "1/model.onnx", path))
    for label in ("x.so", "triton_python_backend_stub", "batchstrategy.so", "libtriton_x.so"):
        assert why(ONNX + f'output {{ label_filename: "{label}" }}', "1/m.onnx", label), label


# -- amounts ---------------------------------------------------------------------------------------

WARMUP = 'model_warmup { batch_size: %s count: %s inputs { key: "x" value { dims: [ %s ] } } }'
SEQUENCES = "sequence_batching { %s }"


@pytest.mark.parametrize(
    ("enough", "words"),
    [
        ("instance_group { count: %s }", {"256": "257 instances"}),
        ("instance_group { count: 200 } instance_group { count: %s }", {"56": "257 instances"}),
        ("dynamic_batching { priority_levels: %s }", {"1000": "1001 levels"}),
        (SEQUENCES % "oldest { max_candidate_sequences: %s }", {"65536": "65537 sequences"}),
        (
            "instance_group { count: 2 } max_batch_size: %s " + SEQUENCES % "",
            {"32768": "65538 sequences at once"},
        ),
        (SEQUENCES % "state { dims: [ -1, %s ] }", {"134217728": "1073741832 bytes of state"}),
        (WARMUP % (1, 1, "%s"), {"134217728": "1073741832 bytes of input"}),
        (WARMUP % ("%s", 1, "-1, 32"), {"4194304": "1073742080 bytes of input"}),
        (WARMUP % (1, "%s", 3), {"10000": "10001 runs"}),
    ],
)
def test_a_configuration_asks_for_no_more_than_a_server_has(
    enough: str, words: dict[str, str]
) -> None:
    ((most, said),) = words.items()
    assert why(ONNX + enough % most) is None
    found = str(why(ONNX + enough % (int(most) + 1)))
    assert said in found and "write less, or leave it out (config: {" in found
    field = found.rpartition("config: {")[2].partition(":")[0]
    assert f"{field} {{" in enough


# -- paths -----------------------------------------------------------------------------------------

AWAY = (
    "/etc/passwd", "../x", "a/../../x", "..", "~/x", "file:///etc/passwd",
    "$$TRITON_MODEL_DIRECTORY/../x",
    f"{FOLDER}/../x", f"{FOLDER}x/y", "//etc/x",
)  # fmt: skip
# Nothing that leads away for certain, and nothing that is beyond doubt.
DOUBTFUL = ("a/../b", "a\\b", "a\nb", "$HOME/x", f"{FOLDER}/x;/etc", "s3://b/x", "./$$TRITON/x")
PATH_FIELDS = (
    'default_model_filename: "%s"',
    'cc_model_filenames { key: "7.5" value: "%s" }',
    'output { name: "y" label_filename: "%s" }',
    'model_warmup { name: "w" inputs { key: "x" value { input_data_file: "%s" } } }',
    'sequence_batching { state { initial_state { data_file: "%s" name: "s" } } }',
    'parameters { key: "model_type" value { string_value: "%s" } }',
)


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


@pytest.mark.parametrize("field", PATH_FIELDS)
def test_no_path_leaves_the_models_folder(field: str) -> None:
    joined = any(word in field for word in ("label_", "input_data", "data_file"))
    for path in (*AWAY, *DOUBTFUL):
        config = 'backend: "fil"\n' + field % escaped(path)
        said = why(config, "1/x.json")
        assert said is not None and repr(path) in said, path
        assert "add the folder to allowed_paths" in said
        warned = warn_of_paths(parsed(config), "fil")
        away = path in AWAY and not (joined and path.startswith(("/", "file:", "~")))
        if away and "://" not in path:
            assert len(warned) == 1 and repr(path) in warned[0], path
    for path in ("x.json", "sub/x.json", "x y.json", "mod\u00e8le.json"):
        config = 'backend: "fil"\n' + field % path
        assert why(config, "1/x.json") is None and not warn_of_paths(parsed(config), "fil")


def test_paths_into_allowed_folders_pass() -> None:
    for folder in (FOLDER, f"{FOLDER}/", f"{FOLDER}/."):
        rules = Rules(("onnxruntime", "python"), paths=("/else", folder))
        for value in (FOLDER, f"{FOLDER}/a", f"{FOLDER}/a b/c"):
            for config in (ONNX, PYTHON):
                text = config + parameter("EXECUTION_ENV_PATH", value)
                files = ("1/model.onnx",) if config == ONNX else ("1/model.py",)
                assert why(text, *files, rules=rules) is None
        for value in (f"{FOLDER}s/a", f"{FOLDER}/../a", f"{FOLDER}/a:/etc", f"/{FOLDER}/a"):
            assert why(ONNX + parameter("EXECUTION_ENV_PATH", value), rules=rules) is not None
    assert why(ONNX + parameter("EXECUTION_ENV_PATH", "/a/b"), rules=Rules(paths=("/",))) is None


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("$$TRITON_MODEL_DIRECTORY/env.tar.gz", True),
        ("$$TRITON_MODEL_DIRECTORY/1/env", True),
        ("$$TRITON_MODEL_DIRECTORY/a/../env", False),
        ("$$TRITON_MODEL_DIRECTORYX/env", False),
        ("$$TRITON_MODEL_DIRECTORY/$(id)", False),
        ("env.tar.gz", False),
        ("/env", False),
        ("s3://bucket/env.tar.gz", False),
    ],
)
def test_the_environment_in_the_models_folder_is_the_python_backends(
    value: str, allowed: bool
) -> None:
    text = parameter("EXECUTION_ENV_PATH", value)
    assert (why(PYTHON + text, "1/model.py") is None) is allowed
    for backend in ("onnxruntime", "fil", "vllm", "own", "tensorrt"):
        assert why(f'backend: "{backend}"\n{text}', "1/README.md") is not None


def test_a_python_models_texts_are_its_own_but_for_paths() -> None:
    for value in (
        "https://example.com/api?x=/y", '{\"a\": [1, 2]}', "a/b", "^x$", "-1", "a\nb", "50 %",
    ):  # fmt: skip
        text = PYTHON + parameter("own", value.replace('"', "'"))
        assert why(text, "1/model.py") is None, value
        assert not warn_of_paths(parsed(text), "python")
    for value in (
        "/etc/x",
        "x=/etc/x",
        "x /etc/x",
        "{'p': '/etc/x'}",
        "['~/x']",
        "../x",
        "a:../x/..",
        "a\0b",
    ):
        text = PYTHON + parameter("own", value)
        assert why(text, "1/model.py") is not None, value
        assert why(text.replace("python", "own"), "1/x") is not None, value


@given(st.text(st.sampled_from("abx./~$\\ :;,'\"=\n@-"), max_size=12))
def test_what_passes_leads_nowhere_else(value: str) -> None:
    """Whatever a reader makes of it: a path of its own, or one behind the folder's."""
    quoted = escaped(value).replace('"', '\\"')
    for field in PATH_FIELDS:
        config = 'backend: "fil"\n' + field % quoted
        if why(config, "1/x.json") is None and "parameters" not in field:
            inside = posixpath.normpath(f"/repository/m/1/{value}")
            assert inside.startswith("/repository/m/1") and not value.startswith("/")
    text = ONNX + f'parameters {{ key: "level" value {{ string_value: "{quoted}" }} }}'
    if why(text) is None:
        assert not value.startswith(("/", "~")) and ".." not in value.split("/")


# -- parameters ------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_backend() -> None:
    for backend, parts in PARTS.items():
        config = f'backend: "{backend}"\n'
        if backend == "ensemble":
            config = 'ensemble_scheduling { step { model_name: "a" } }\n'
        rules = Rules((backend,))
        known = "".join(parameter(key) for key in sorted(parts.parameters))
        assert why(config + known, "1/README.md", rules=rules) is None
        for key in (
            "own",
            "session.optimized_model_external_initializers_file_name",
            "a b",
            "TF_x",
        ):
            said = why(config + known + parameter(key), "1/README.md", rules=rules)
            assert said is not None and key in said and f"the backend {backend}" in said
            assert why_not_allowed(
                rules,
                config_pbtxt.apply_overlay(
                    parsed(config + parameter(key)), {"parameters": {key: None}}
                ),
                ["1/README.md"],
            ) is None  # fmt: skip


@pytest.mark.parametrize("key", ["TRITON_BATCH_STRATEGY_PATH", "CPU_EXTENSION_PATH"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "python", "own"])
def test_parameters_that_load_a_library_are_refused(backend: str, key: str) -> None:
    config = f'backend: "{backend}"\n' + parameter(key, f"{FOLDER}/x.so")
    said = why(config, "1/README.md", rules=Rules((backend,), (FOLDER,)))
    assert (
        said is not None and f"the parameter {key}, which makes the server load a library" in said
    )
    code = code_of(parsed(config), ["1/README.md"])
    assert code is not None and f"the library '{FOLDER}/x.so'" in code


def accelerator(name: str, **parameters: str) -> str:
    inner = "".join(
        f'parameters {{ key: "{key}" value: "{value}" }} ' for key, value in parameters.items()
    )
    return (
        ONNX + "optimization { execution_accelerators { gpu_execution_accelerator {"
        f' name: "{name}" {inner} }} }} }}'
    )


def test_accelerators_are_those_of_the_backend() -> None:
    assert why(accelerator("tensorrt", precision_mode="FP16")) is None
    assert why(accelerator("tensorrt", trt_engine_cache_enable="0")) is None
    for config in (
        accelerator("mine"),
        accelerator("tensorrt", own="1"),
        accelerator("tensorrt", trt_extra_plugin_lib_paths=f"{FOLDER}/x.so"),
        accelerator("tensorrt", trt_dump_subgraphs="1"),
        accelerator("tensorrt", trt_engine_cache_enable="1"),
        accelerator("tensorrt", trt_engine_cache_path="../x"),
        accelerator("tensorrt", trt_engine_cache_path="here"),
        accelerator("tensorrt", trt_engine_cache_path="$$TRITON_MODEL_DIRECTORY/x"),
        accelerator("tensorrt", trt_timing_cache_path="/etc/x"),
        accelerator("tensorrt", trt_engine_cache_prefix="../x"),
        accelerator("tensorrt", trt_ep_context_file_path=f"{FOLDER}/x"),
    ):
        assert why(config, rules=Rules(("onnxruntime",), (FOLDER,))) is not None, config
        without = config_pbtxt.apply_overlay(parsed(config), {"optimization": None})
        assert why_not_allowed(Rules(("onnxruntime",)), without, ["1/model.onnx"]) is None
    cached = accelerator(
        "tensorrt", trt_engine_cache_enable="1", trt_engine_cache_path=f"{FOLDER}/x"
    )
    assert why(cached) is not None
    assert why(cached, rules=Rules(("onnxruntime",), (FOLDER,))) is None
    assert "accelerator" in str(warn_of_paths(parsed(cached), "onnxruntime"))


# -- code ------------------------------------------------------------------------------------------

CODE = {
    "the program 1/model.py": (PYTHON, ("1/model.py",)),
    "the program 1/mine.py": (
        PYTHON + 'default_model_filename: "mine.py"', ("1/mine.py", "1/model.py")),
    "the program": (PYTHON, ("1/x",)),
    "the TorchScript program 1/model.pt": ('platform: "pytorch_libtorch"', ("1/model.pt",)),
    "the TensorFlow graph 1/model.savedmodel/saved_model.pb": (
        'platform: "tensorflow_savedmodel"', ("1/model.savedmodel/saved_model.pb",)),
    "the DALI pipeline 1/model.dali": ('backend: "dali"', ("1/model.dali",)),
    "what vLLM loads as 1/model.json says": ('backend: "vllm"', ("1/model.json",)),
    "whatever the backend own runs": ('backend: "own"', ("1/x",)),
    "whatever a backend runs that its configuration does not name": ("", ("1/x",)),
    "the runtime 'x'": (ONNX + 'runtime: "x"', ()),
    "the repository agent '../x'": (
        ONNX + 'model_repository_agents { agents { name: "../x" } }', ()),
    "the library 'o.so'": (ONNX + 'model_operations { op_library_filename: "o.so" }', ()),
    "the library 1/batchstrategy.so": (ONNX, ("1/batchstrategy.so",)),
    "the library '/p.so'": (accelerator("tensorrt", trt_extra_plugin_lib_paths="/p.so"), ()),
    "the program triton_python_backend_stub and the environment 'e'": (
        ONNX + parameter("EXECUTION_ENV_PATH", "e"), ("triton_python_backend_stub",)),
    "the program 1/model.py, the library 1/libtriton_x.so and the environment 'e'": (
        PYTHON + parameter("EXECUTION_ENV_PATH", "e"), ("1/model.py", "1/libtriton_x.so")),
}  # fmt: skip


@pytest.mark.parametrize("words", CODE)
def test_what_is_code_is_said_and_may_be_refused(words: str) -> None:
    config, files = CODE[words]
    assert code_of(parsed(config), files) == words
    said = why_not_allowed(Rules(code=False), parsed(config), files)
    assert said is not None and "model_code: refused" in said


def test_models_that_are_data_are_no_code() -> None:
    for backend in DATA_BACKENDS - {"ensemble"}:
        files = FILES[backend][0]
        assert code_of(parsed(f'backend: "{backend}"'), files) is None
        assert why(f'backend: "{backend}"', *files, rules=Rules(code=False)) is None
    ensemble = 'ensemble_scheduling { step { model_name: "a" } }'
    assert code_of(parsed(ensemble), ["1/README.md"]) is None
    assert why(ensemble, "1/README.md", rules=Rules(code=False)) is None


def test_the_options_that_refuse_are_named() -> None:
    runtime = ONNX + 'runtime: "x"'
    assert "and allowed_backends is set" in str(why(runtime, rules=Rules(ALL)))
    assert "and allowed_paths is set" in str(why(runtime, rules=Rules(paths=())))
    assert "and allowed_backends and allowed_paths are set" in str(
        why(runtime, rules=Rules(ALL, ()))
    )
    assert "and model_code: refused is set" in str(
        why(ONNX + "model_repository_agents { agents {} }", rules=Rules(code=False))
    )


# -- vLLM ------------------------------------------------------------------------------------------

VLLM = Rules(("vllm",), (FOLDER,))


def why_settings(rules: Rules = VLLM, file: str = "1/model.json", **settings: Any) -> str | None:
    return why_not_set(rules, file, json.dumps(settings).encode())


def test_settings_of_vllm_that_hold_weights_and_numbers_pass() -> None:
    assert why_settings(
        model="facebook/opt-125m", gpu_memory_utilization=0.5, trust_remote_code=False,
        disable_log_requests=True, load_format="safetensors", rope_scaling={"type": "dynamic"},
    ) is None  # fmt: skip
    assert why_settings(model=f"{FOLDER}/llama", tokenizer=FOLDER) is None
    assert why_settings(file="1/multi_lora.json", sql=f"{FOLDER}/sql") is None


@pytest.mark.parametrize(
    "settings",
    [
        {"trust_remote_code": True},
        {"trust_remote_code": "yes"},
        {"worker_cls": "evil.Worker"},
        {"tool_parser_plugin": "1/x.py"},
        {"load_format": "pt"},
        {"load_format": ["auto"]},
        {"model": "/srv/x"},
        {"model": "../../other/1"},
        {"model": "s3://bucket/x"},
        {"tokenizer": "~/x"},
        {"rope_scaling": {"a": ["/etc/x"]}},
        {"rope_scaling": {"/etc/x": 1}},
    ],
)
def test_settings_of_vllm_that_run_code_or_leave_the_folder_are_refused(
    settings: dict[str, Any],
) -> None:
    (key,) = settings
    said = why_settings(**settings)
    assert said is not None and f"1/model.json has {key!r}" in said
    assert "allowed_backends and allowed_paths are set" in said
    assert why_settings(Rules(), **settings) is None
    assert "no JSON object" in str(why_not_set(VLLM, "1/model.json", b"[]"))
    assert "no JSON object" in str(why_not_set(VLLM, "1/model.json", b""))
    assert why_settings(file="1/multi_lora.json", sql="/etc/x") is not None


def test_settings_are_those_of_vllms_models() -> None:
    files = ["1/model.json", "1/multi_lora.json", "1/x.json"]
    assert settings_in(parsed('backend: "vllm"'), files) == ("1/model.json", "1/multi_lora.json")
    assert settings_in(parsed('backend: "fil"'), files) == ()
