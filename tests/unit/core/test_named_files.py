# SPDX-License-Identifier: Apache-2.0
"""The files which a configuration names are there, and no shell takes their names for something
else. A real server is asked by ``tests/integration/test_named_files.py``.
"""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import (
    config_pbtxt,
    named_files,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.servable import (
    refuse_unservable,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ConfigError
from support.named_files import (
    LABELS,
    MISSING,
    SAFE,
    THERE,
    UNSAFE,
    WARMUP,
    named,
    with_environment,
)


def _why(text: str, backend: str = "python", paths: tuple[str, ...] = ()) -> str | None:
    return named_files.why_no_file(config_pbtxt.parse(text.encode()), backend, paths)


@pytest.mark.parametrize("character", UNSAFE)
@pytest.mark.parametrize("backend", ["python", "onnxruntime", "fil", "pytorch", "mine", ""])
def test_a_name_that_a_shell_would_change_is_refused(character: str, backend: str) -> None:
    reason = str(_why(named(f"m{character}x.py"), backend))
    assert "default_model_filename" in reason
    assert "letters from a to z" in reason


@pytest.mark.parametrize("character", SAFE)
def test_a_name_that_a_shell_leaves_alone_is_taken(character: str) -> None:
    for name in (f"m{character}x.py", f"{character}m.py"):
        assert _why(named(name)) is None


@pytest.mark.parametrize("name", ["m.x.py", ".m.py", "a/m.x.py"])
def test_python_takes_a_dot_for_a_package(name: str) -> None:
    assert "a dot before its ending" in str(_why(named(name)))
    for backend in ("onnxruntime", "fil", "mine", "", "tensorrt"):
        assert _why(named(name), backend) is None
    assert _why(named("a.b/model.py")) is None


@pytest.mark.parametrize("backend", ["tensorrt", "tensorflow", "openvino", "dali"])
def test_a_backend_that_no_shell_starts_takes_other_names(backend: str) -> None:
    assert _why(named("my größe (1).plan"), backend) is None
    assert "carry out" not in str(_why(named("$(sleep 5)m.plan"), backend))
    assert _why(named("$(sleep 5)m.plan"), backend) is not None
    by_gpu = "cc_model_filenames { key: '7.5' value: '%s' }"
    assert _why(by_gpu % "t4 (1).plan", backend) is None
    assert "cc_model_filenames have" in str(_why(by_gpu % "`id`.plan", backend))


@pytest.mark.parametrize("character", [one for one in UNSAFE if one.isascii()])
def test_the_name_of_an_instance_that_a_shell_would_change_is_refused(character: str) -> None:
    group = "instance_group { count: 1 } instance_group { name: '%s' count: 1 }"
    quoted = character.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    for backend in ("python", "onnxruntime", "fil", "mine", ""):
        assert "leave name out" in str(_why(group % f"a{quoted}b", backend))
        assert _why("instance_group { count: 1 } instance_group { count: 1 }", backend) is None
    assert _why(group % f"a{quoted}b", "tensorrt") is None
    assert _why(group % "gpu-0_a", "python") is None


def test_another_runtime_than_the_backends_library_may_be_python() -> None:
    assert _why(f"runtime: 'model.py' {named('my model')}", "tensorflow") is not None


def test_a_name_that_a_shell_would_change_is_refused_with_all_else_in_place() -> None:
    config = config_pbtxt.parse(b'backend: "onnxruntime" default_model_filename: "a b.onnx"')
    with pytest.raises(ConfigError, match="has a space"):
        refuse_unservable(config, "m", (1,), ["1/a b.onnx"])


@pytest.mark.parametrize("case", MISSING)
def test_a_file_that_is_named_and_not_there_is_refused(case: str) -> None:
    text, paths, said = MISSING[case]
    assert said in str(_why(text, paths=paths))


@pytest.mark.parametrize("case", THERE)
def test_a_file_that_is_there_or_not_needed_is_no_reason(case: str) -> None:
    text, paths = THERE[case]
    assert _why(text, paths=paths) is None


def test_what_lies_outside_the_model_folder_is_not_judged() -> None:
    for name in ("../other/l.txt", "a/../../l.txt"):
        assert _why(LABELS % name) is None
    assert _why(WARMUP % "../../raw") is None
    for value in ("/opt/env.tar.gz", "$$TRITON_MODEL_DIRECTORY/../env", "/opt/my env"):
        assert _why(with_environment(value)) is None
    assert "carry out" in str(_why(with_environment("/opt/$(id)")))


def test_an_environment_is_missed_by_the_python_backend_alone() -> None:
    config = with_environment("$$TRITON_MODEL_DIRECTORY/env.tar.gz")
    assert _why(config, "onnxruntime") is None
    assert _why(config, "tensorrt") is None
    broken = with_environment("$$TRITON_MODEL_DIRECTORY/1/$(id)")
    paths = ("1/$(id)/bin/activate",)
    assert "handed to a shell" in str(_why(broken, "onnxruntime", paths))
    assert _why(broken, "tensorrt", paths) is None


def test_an_ensemble_has_labels_and_no_model_file() -> None:
    config = f"{named('a b')} {with_environment('$$TRITON_MODEL_DIRECTORY/x')}"
    assert _why(config, "ensemble") is None
    assert "no l.txt" in str(_why(LABELS % "l.txt", "ensemble"))
