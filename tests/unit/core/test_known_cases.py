# SPDX-License-Identifier: Apache-2.0
"""What a user says to verify with, and the configuration shows to be wrong, is refused before
anything is changed, in check mode too. What is not certain is left to the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    MissingLibrary,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import verification

pytest.importorskip("numpy")
pytest.importorskip("tritonclient")

from support.memory_triton import CONFIG, MemoryTriton, deliver, make_model

ROW = {"x": [[1, 2, 3]]}
DECOUPLED = CONFIG + "model_transaction_policy { decoupled: true }\n"
TWO = CONFIG + 'input [ { name: "more" data_type: TYPE_STRING dims: [ 1 ] } ]\n'
OPTIONAL = TWO.replace("dims: [ 1 ]", "dims: [ 1 ] optional: true")
WRONG = [
    pytest.param({"inputs": {"z": ROW["x"]}}, "names the input 'z', and the model has x", id="in"),
    pytest.param(
        {"inputs": ROW, "outputs": {"z": [[1]]}},
        "names the output 'z', and the model has y",
        id="out",
    ),
    pytest.param({"inputs": {"x": [["a", "b", "c"]]}}, "inputs.x does not fit FP32", id="type"),
    pytest.param(
        {"inputs": ROW, "outputs": {"y": [["2", "4", "6"]]}},
        "verify.outputs.y has texts, and the output is FP32",
        id="type out",
    ),
    pytest.param(
        {"inputs": {"x": [1, 2, 3]}},
        "input 'x' takes the shape [-1, 3], and what is given has [3]",
        id="no batch",
    ),
    pytest.param({"inputs": {"x": [[1, 2]]}}, "what is given has [1, 2]", id="width"),
    pytest.param(
        {"inputs": {"x": ROW["x"] * 9}}, "has 9 rows, and the model takes 8 at once", id="rows"
    ),
    pytest.param(
        {"inputs": [{"name": "x", "shape": [3], "data": [1, 2, 3]}]},
        "what is given has [3]",
        id="Triton's form",
    ),
]


@pytest.fixture
def triton(tmp_path: Path) -> MemoryTriton:
    (tmp_path / "models").mkdir()
    return MemoryTriton(tmp_path / "models")


def refused(triton: MemoryTriton, words: str, url: str = "localhost:8000", **model: Any) -> None:
    """In check mode and without, before the server is asked to load."""
    triton.asked.clear()
    for check in (True, False):
        (result,) = deliver(triton, {"name": "net", **model}, check=check, url=url)
        assert isinstance(result.error, InvalidOption) and not result.changed
        text = str(result.error)
        assert words in text and text.endswith("Nothing was changed.")
    assert "load_model" not in triton.asked


def passes(triton: MemoryTriton, url: str = "localhost:8000", **model: Any) -> Any:
    (expected,) = deliver(triton, {"name": "net", **model}, check=True, url=url)
    (result,) = deliver(triton, {"name": "net", **model}, url=url)
    assert (expected.error, result.error) == (None, None) and expected.changed and result.changed
    return result


@pytest.mark.parametrize(("verify", "words"), WRONG)
def test_it_is_refused_before_the_load(
    triton: MemoryTriton, tmp_path: Path, verify: Any, words: str
) -> None:
    refused(triton, words, model_uri=make_model(tmp_path / "new"), verify=verify)


def test_every_input_is_needed_but_for_optional_ones(triton: MemoryTriton, tmp_path: Path) -> None:
    model = make_model(tmp_path / "two", TWO)
    words = "verify.inputs: it has nothing for the input 'more'"
    refused(triton, words, model_uri=model, verify={"inputs": ROW})
    model = make_model(tmp_path / "optional", OPTIONAL)
    passes(triton, model_uri=model, verify={"inputs": ROW})


def test_a_decoupled_model_is_not_asked_over_http(triton: MemoryTriton, tmp_path: Path) -> None:
    triton.answer = lambda tensors: [{"y": tensors}]
    model = {"model_uri": make_model(tmp_path / "new", DECOUPLED), "verify": {"inputs": ROW}}
    refused(triton, "name its server as grpc://host:port in triton_url", **model)
    assert passes(triton, "grpc://localhost:8001", **model).record.verified


@pytest.mark.parametrize(("verify", "words"), WRONG)
@pytest.mark.parametrize("missing", ["input", "output"])
def test_what_the_server_completes_is_not_refused(
    triton: MemoryTriton, tmp_path: Path, verify: Any, words: str, missing: str
) -> None:
    lines = [line for line in CONFIG.splitlines() if not line.startswith(missing)]
    model = make_model(tmp_path / "new", "\n".join(lines))
    (result,) = deliver(triton, {"name": "net", "model_uri": model, "verify": verify}, check=True)
    assert result.error is None and result.changed


@pytest.mark.parametrize(("verify", "words"), WRONG)
def test_what_a_python_model_completes_itself_is_not_refused(
    triton: MemoryTriton, tmp_path: Path, verify: Any, words: str
) -> None:
    model = make_model(tmp_path / "new")
    (tmp_path / "new/1/model.py").write_text("def auto_complete_config(self): …\n")
    (result,) = deliver(triton, {"name": "net", "model_uri": model, "verify": verify}, check=True)
    assert result.error is None and result.changed


def test_the_shapes_of_a_model_without_a_batch_are_the_servers_to_judge(
    triton: MemoryTriton, tmp_path: Path
) -> None:
    config = CONFIG.replace("max_batch_size: 8", "")
    model = make_model(tmp_path / "new", config)
    passes(triton, model_uri=model, verify={"inputs": ROW})


def test_inputs_that_are_shapes_are_the_servers_to_judge() -> None:
    shape = CONFIG.replace("[ 3 ] } ]", "[ 3 ] is_shape_tensor: true } ]", 1)
    verify = {"inputs": {"x": [1] * 20}}
    desired = DesiredModel.from_options({"name": "net", "model_uri": "/model", "verify": verify})
    verification.judge_case(shape.encode(), ["localhost:8000"], desired)
    with pytest.raises(InvalidOption, match=r"takes the shape"):
        verification.judge_case(CONFIG.encode(), ["localhost:8000"], desired)


@pytest.mark.parametrize(
    ("listed", "verify"),
    [
        ('name: "x" data_type: TYPE_FP32', {"inputs": ROW}),
        ('name: "x" dims: [ 3 ]', {"inputs": {"x": [["a", "b", "c"]]}}),
    ],
)
def test_types_and_shapes_that_are_completed_are_the_servers_to_judge(
    listed: str, verify: Any
) -> None:
    config = (
        f'backend: "onnxruntime" max_batch_size: 8 input {{ {listed} }}'
        ' output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }'
    )
    desired = DesiredModel.from_options({"name": "net", "model_uri": "/model", "verify": verify})
    verification.judge_case(config.encode(), ["localhost:8000"], desired)


def test_a_bare_host_still_shows_what_it_would_do(
    triton: MemoryTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(_config: bytes) -> Any:
        raise MissingLibrary("tritonclient is needed")

    monkeypatch.setattr(verification, "interface_of_text", lacks)
    model = {"model_uri": make_model(tmp_path / "new"), "verify": {"inputs": {"z": [1]}}}
    (result,) = deliver(triton, {"name": "net", **model}, check=True)
    assert result.plan and result.plan.replacement and not result.warnings


def test_what_is_not_to_be_loaded_is_not_judged(triton: MemoryTriton, tmp_path: Path) -> None:
    model = {"model_uri": make_model(tmp_path / "new"), "verify": {"inputs": {"z": [1]}}}
    passes(triton, state="unloaded", **model)


def test_another_configuration_and_a_rollback_are_judged_too(
    triton: MemoryTriton, tmp_path: Path
) -> None:
    def without_programs(name: str, config: str = CONFIG) -> str:
        config = config.replace("python", "custom")
        folder = Path(make_model(tmp_path / name, config))
        (folder / "1/model.py").rename(folder / "1/libtriton_custom.so")
        return str(folder)

    old, new = without_programs("old"), without_programs("new", TWO.replace("custom", "python"))
    passes(triton, model_uri=old)
    overlay = {"input": [{"name": "z", "data_type": "TYPE_FP32", "dims": [3]}]}
    words = "names the input 'x', and the model has z"
    refused(triton, words, model_uri=old, config=overlay, verify={"inputs": ROW})
    passes(triton, model_uri=new)
    both = {"inputs": {**ROW, "more": [["a"]]}}
    refused(triton, "names the input 'more'", state="rolled_back", verify=both)
    passes(triton, state="rolled_back", verify={"inputs": ROW, "outputs": {"y": ROW["x"]}})


OVER = """platform: "ensemble" max_batch_size: 16
input { name: "a" data_type: TYPE_FP32 dims: 3 } output { name: "b" data_type: TYPE_FP32 dims: 3 }
ensemble_scheduling { step { model_name: "net" model_version: -1
input_map { key: "x" value: "a" } output_map { key: "z" value: "b" } } }
"""


@pytest.mark.parametrize("deployed", [True, False])
@pytest.mark.parametrize("adds", [True, False])
def test_an_ensemble_may_use_what_a_program_adds(
    triton: MemoryTriton, tmp_path: Path, deployed: bool, adds: bool
) -> None:
    """A larger batch and an output; only the program of its member tells."""
    member = Path(make_model(tmp_path / "new"))
    if adds:
        (member / "1/model.py").write_text("def auto_complete_config(config): ...\n")
    (tmp_path / "over/1").mkdir(parents=True)
    (tmp_path / "over/config.pbtxt").write_text(OVER, encoding="utf-8")
    wanted = [{"name": "net", "model_uri": str(member)}]
    if deployed:
        deliver(triton, *wanted)
        wanted = []
    ensemble = {"name": "over", "model_uri": str(tmp_path / "over")}
    result = deliver(triton, *wanted, ensemble)[-1]
    assert (result.error is None) is adds, result.error
    if not adds:
        assert "its max_batch_size is 16" in str(result.error)
