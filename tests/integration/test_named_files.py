# SPDX-License-Identifier: Apache-2.0
"""What is said of the files which a configuration names is what Triton makes of them: a real server
is asked for each.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import (
    config_pbtxt,
    named_files,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.allowed import code_of
from support.named_files import MISSING, SAFE, THERE, named
from support.servers import Triton, server_python, triton_server

pytestmark = pytest.mark.takes(25)

COMPLETE = """backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 3 }
instance_group { kind: KIND_CPU count: 1 }
"""
OUTPUT = 'output { name: "y" data_type: TYPE_FP32 dims: 3 }\n'
ANSWERS = """
import numpy
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        zeros = pb_utils.Tensor("y", numpy.zeros((1, 3), "float32"))
        return [pb_utils.InferenceResponse([zeros]) for _one in requests]
"""


def place(triton: Triton, name: str, part: str, files: dict[str, str]) -> str:
    folder = triton.repository / name
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    config = COMPLETE + ("" if "output {" in part else OUTPUT) + part
    (folder / "config.pbtxt").write_text(config)
    return config


def said_of(config: str, files: dict[str, str]) -> str | None:
    return named_files.why_no_file(config_pbtxt.parse(config.encode()), "python", [*files])


NUMBERS = itertools.count()


def a_name() -> str:
    """Of a model that was never loaded: Triton 2.51 now and then crashes over one that is loaded
    and unloaded in quick succession.
    """
    return f"model{next(NUMBERS)}"


def loads(triton: Triton, name: str) -> bool:
    status, _body = triton.load(name)
    return status == 200


def contents(paths: tuple[str, ...]) -> dict[str, str]:
    return {"1/model.py": ANSWERS, **dict.fromkeys(paths, "\n" * 12)}


# The server dies where it is to read a folder, and waits without end for what a shell split up.
DEADLY = {case for case, (_part, _paths, said) in MISSING.items() if "is a folder" in said}
ENDLESS = {"environment with a space"}


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """One for these tests alone: what is wrong with a file has brought servers down before."""
    folder = tmp_path_factory.mktemp("files")
    with triton_server(folder, extra_args=["--disable-auto-complete-config"]) as server:
        yield server


@pytest.mark.parametrize("case", [*sorted({*MISSING} - DEADLY - ENDLESS), *THERE])
def test_a_file_is_needed_where_triton_needs_it(triton: Triton, case: str) -> None:
    if case.startswith("environment") and " " in str(
        server_python("TRITON_SERVER_PYTHON", "triton-server")
    ):
        pytest.skip("a server in a folder with a space hands a shell half a path of its libraries")
    for good, cases in ((False, MISSING), (True, THERE)):
        if case in cases:
            part, paths = cases[case][:2]
            name = a_name()
            config = place(triton, name, part, contents(paths))
            assert (said_of(config, contents(paths)) is None) is good
            assert loads(triton, name) is good


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Triton]:
    """A server that a test may bring down, and the way to what only a shell could write."""
    monkeypatch.setenv("CARRIED_OUT", str(tmp_path / "carried_out"))
    # One that waits for a model does not end by itself.
    with triton_server(tmp_path / "own", extra_args=["--disable-auto-complete-config"]) as server:
        yield server
        server.kill()


@pytest.mark.parametrize("case", sorted(DEADLY))
def test_triton_dies_of_a_folder_that_is_named_as_a_file(own: Triton, case: str) -> None:
    part, paths, _said = MISSING[case]
    config = place(own, "deadly", part, contents(paths))
    assert said_of(config, contents(paths)) is not None
    with pytest.raises(ConnectionError):
        own.load("deadly")


def test_triton_waits_without_end_for_names_with_spaces(own: Triton) -> None:
    part, paths, _said = MISSING["environment with a space"]
    for number, (text, files) in enumerate(
        [(named("my model.py"), {"1/my model.py": ANSWERS}), (part, contents(paths))]
    ):
        config = place(own, f"endless_{number}", text, files)
        assert said_of(config, files) is not None
        with pytest.raises(TimeoutError):
            own.load(f"endless_{number}", timeout=3)
    assert "stol" in own.log_text()


def test_a_shell_carries_out_what_stands_in_a_name(own: Triton, tmp_path: Path) -> None:
    name = "$(echo >$CARRIED_OUT)model.py"
    files = {f"1/{name}": ANSWERS, "1/model.py": ANSWERS}
    config = place(own, "carried_out", named(name), files)
    assert said_of(config, files) is not None
    assert own.load("carried_out")[0] == 200
    assert (tmp_path / "carried_out").exists()


def test_a_shell_carries_out_what_stands_in_the_name_of_an_instance(
    own: Triton, tmp_path: Path
) -> None:
    files = {"1/model.py": ANSWERS}
    group = 'instance_group { kind: KIND_CPU count: 1 name: "a`echo >$CARRIED_OUT`" }\n'
    config = place(own, "instance", group, files)
    assert said_of(config, files) is not None
    assert own.load("instance")[0] == 200
    assert (tmp_path / "carried_out").exists()


@pytest.mark.parametrize("name", ["mod\u00e9le.py", "m.x.py", ".m.py"])
def test_python_does_not_find_a_name_beyond_ascii_or_with_a_dot(own: Triton, name: str) -> None:
    files = {f"1/{name}": ANSWERS}
    config = place(own, "beyond", named(name), files)
    assert said_of(config, files) is not None
    assert not loads(own, "beyond")


@pytest.mark.parametrize("character", SAFE)
def test_triton_loads_a_name_that_a_shell_leaves_alone(triton: Triton, character: str) -> None:
    for file in (f"m{character}x.py", f"{character}m.py"):
        files, name = {f"1/{file}": ANSWERS}, a_name()
        config = place(triton, name, named(file), files)
        assert said_of(config, files) is None
        assert loads(triton, name), file


def test_a_backend_in_python_runs_what_a_model_brings(own: Triton, tmp_path: Path) -> None:
    """As ``allowed_backends`` takes it to do."""
    runs = "#!/bin/sh\necho > $CARRIED_OUT\n"
    onnx = 'backend: "onnxruntime"\n'
    environment = THERE["environment"][0]
    for number, (config, path) in enumerate(
        [(onnx + environment, "1/env/bin/activate"), (onnx, "triton_python_backend_stub")]
    ):
        place(own, f"brings_{number}", "", {path: runs, "1/model.onnx": ""})
        (own.repository / f"brings_{number}" / "config.pbtxt").write_text(config)
        code = code_of(config_pbtxt.parse(config.encode()), [path])
        assert code is not None
        with contextlib.suppress(TimeoutError):
            own.load(f"brings_{number}", timeout=3)
        assert (tmp_path / "carried_out").exists()
        (tmp_path / "carried_out").unlink()
