# SPDX-License-Identifier: Apache-2.0
"""What is said of a configuration before Triton is asked is what Triton says: a real server judges
the same texts.

HYPOTHESIS_PROFILE=search tries many more of them.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import (
    config_pbtxt,
    config_rules,
    releases,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.ensembles import (
    why_no_ensemble,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.members import (
    Member,
    why_members_do_not_fit,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ConfigError
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support.config_rules import (
    BROKEN,
    BROKEN_ENSEMBLES,
    BROKEN_WITH_BACKEND,
    CONFIGS,
    KEPT,
    KEPT_ENSEMBLES,
    KEPT_WITH_BACKEND,
    model_of,
)
from support.config_texts import REFUSED, TAKEN, TEXTS
from support.models import make_python
from support.servers import Triton, triton_server

pytestmark = pytest.mark.takes(20)

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "search"
TRIED = settings(
    deadline=None,
    derandomize=not MANY,
    max_examples=20000 if MANY else 250,
    database=None,
    suppress_health_check=list(HealthCheck),
)
UNREADABLE = "failed to read text proto"


class Judge:
    """A server, asked for what it thinks of configurations of one name: milliseconds each, because
    nothing of them is ever loaded that takes time.
    """

    def __init__(self, triton: Triton, name: str) -> None:
        self.triton = triton
        self.name = name
        self.folder = triton.repository / name
        (self.folder / "1").mkdir(parents=True)

    def load(self, config: bytes) -> tuple[int, str]:
        """Status, and what it says, in its log too."""
        (self.folder / "config.pbtxt").write_bytes(config)
        before = self.triton.log.stat().st_size
        status, body = self.triton.load(self.name)
        with open(self.triton.log, "rb") as log:
            log.seek(before)
            return status, f"{body} {log.read().decode(errors='replace')}"

    def reads(self, text: str) -> bool:
        return UNREADABLE not in self.load(config_pbtxt.strip_mark(text.encode()))[1]


@pytest.fixture(scope="module")
def judge(triton: Triton) -> Judge:
    return Judge(triton, "judged")


def is_taken(text: str) -> bool:
    try:
        config_pbtxt.parse(text.encode())
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(("texts", "taken"), [(TAKEN, True), (REFUSED, False)])
def test_the_known_texts_are_judged_as_triton_does(
    judge: Judge, texts: list[str], taken: bool
) -> None:
    assert {text: (judge.reads(text), is_taken(text)) for text in texts} == dict.fromkeys(
        texts, (taken, taken)
    )


@TRIED
@given(text=TEXTS)
def test_any_text_is_judged_as_triton_does(judge: Judge, text: str) -> None:
    assert is_taken(text) == judge.reads(text), text


@pytest.mark.parametrize(
    ("config", "read", "taken"),
    [
        (b"# gr\xf6\xdfe\nbackend: 'nope' # \x80 \xff", True, True),
        (b"backend: 'nope'\xf6", False, False),
        (b"\xf6 backend: 'nope'", False, False),
        # Of a string, Triton wants no UTF-8.
        (b"backend: 'nope\xf6'", True, False),
        (b"backend: 'nope\\377'", True, False),
        (b"backend: 'nope' parameters { key: '\\303' 'a' }", True, False),
    ],
)
def test_bytes_that_are_not_utf8_are_judged_as_triton_does_but_in_strings(
    judge: Judge, config: bytes, read: bool, taken: bool
) -> None:
    assert (UNREADABLE not in judge.load(config)[1]) is read
    if taken:
        assert config_pbtxt.parse(config).backend == "nope"
        return
    with pytest.raises(ConfigError, match="is not UTF-8" if read else "byte 0xF6 outside"):
        config_pbtxt.parse(config)


@pytest.mark.parametrize("field", releases.SINCE)
def test_a_field_is_known_since_the_release_that_is_written_down(judge: Judge, field: str) -> None:
    """Where the server that is at hand stands between two releases, it tells them apart."""
    text = FIELDS[field]
    (dated,) = releases.dated_fields(text.encode())
    version = judge.triton.call("v2")[1]["version"]
    assert dated.name == field
    assert releases.too_new(dated, version) is not judge.reads(text)


FIELDS = {
    "model_namespace": "ensemble_scheduling { step { model_namespace: 'a' } }",
    "iterative_sequence": "sequence_batching { iterative_sequence: false }",
    "use_growable_memory": "sequence_batching { state { use_growable_memory: true } }",
    "use_same_buffer_for_input_output": (
        "sequence_batching { state { use_same_buffer_for_input_output: true } }"
    ),
    "runtime": "runtime: ''",
    "is_non_linear_format_io": "input { is_non_linear_format_io: true }",
    "model_metrics": "model_metrics { }",
    "max_inflight_requests": "ensemble_scheduling { max_inflight_requests: 0 }",
}


# ---- ensembles -----------------------------------------------------------------------------------

TENSORS = st.sampled_from(["x", "y", "z", "w"])
SOME = st.lists(TENSORS, max_size=2, unique=True)
STEP: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["member"] * 12 + ["ensemble", ""]),
        "version": st.sampled_from([-1] * 12 + [None, 0, 1, -2]),
        "inputs": st.lists(TENSORS, min_size=1, max_size=1),
        "outputs": st.lists(TENSORS, min_size=1, max_size=1),
    }
)
CHAIN = {"model": "member", "version": -1}
GOOD = [
    {**CHAIN, "inputs": ["x"], "outputs": ["w"]},
    {**CHAIN, "inputs": ["w"], "outputs": ["z"]},
]
CIRCLE = [
    {**CHAIN, "inputs": ["y"], "outputs": ["w"]},
    {**CHAIN, "inputs": ["w"], "outputs": ["y"]},
]


def ensemble_of(
    steps: list[dict[str, Any]], inputs: list[str], outputs: list[str], head: str
) -> str:
    lines = [head]
    for role, names in (("input", inputs), ("output", outputs)):
        lines += [f'{role} {{ name: "{name}" data_type: TYPE_FP32 dims: [ 3 ] }}' for name in names]
    for step in steps:
        version = "" if step["version"] is None else f"model_version: {step['version']} "
        maps = [f'input_map {{ key: "x" value: "{one}" }}' for one in step["inputs"]]
        maps += [f'output_map {{ key: "y" value: "{one}" }}' for one in step["outputs"]]
        said = f'step {{ model_name: "{step["model"]}" {version}{" ".join(maps)} }}'
        lines.append(f"ensemble_scheduling {{ {said} }}" if len(steps) == 1 else said)
    if len(steps) != 1:
        at = len(lines) - len(steps)
        lines[at:] = ["ensemble_scheduling {", *lines[at:], "}"]
    return "\n".join(lines) + "\nmax_batch_size: 8\n"


@pytest.fixture(scope="module")
def ensembles(triton: Triton) -> Judge:
    make_python(triton.repository, "member")
    assert triton.load("member")[0] == 200
    return Judge(triton, "ensemble")


PLATFORM = 'platform: "ensemble"'


@TRIED
@given(
    steps=st.lists(STEP, max_size=3),
    inputs=SOME,
    outputs=SOME,
    head=st.sampled_from(
        [PLATFORM] * 12
        + ["", 'backend: "python"', f'{PLATFORM} backend: "ensemble"', f'{PLATFORM} backend: "x"']
        + [f"{PLATFORM} instance_group {{ count: 1 }}"]
    ),
)
@example(steps=GOOD, inputs=["x"], outputs=["z"], head=PLATFORM)
@example(steps=GOOD[::-1], inputs=["x"], outputs=["z"], head=PLATFORM)
@example(steps=GOOD[:1], inputs=["x"], outputs=["w", "z"], head=PLATFORM)
@example(steps=[*GOOD, GOOD[0]], inputs=["x"], outputs=["z"], head=PLATFORM)
@example(steps=[{**GOOD[0], "version": None}], inputs=["x"], outputs=["w"], head=PLATFORM)
@example(steps=CIRCLE, inputs=[], outputs=["y"], head=PLATFORM)
def test_an_ensemble_is_judged_as_triton_does(
    ensembles: Judge, steps: list[dict[str, Any]], inputs: list[str], outputs: list[str], head: str
) -> None:
    text = ensemble_of(steps, inputs, outputs, head)
    config = config_pbtxt.parse(text.encode())
    assume(config_pbtxt.is_ensemble(config))
    status, said = ensembles.load(text.encode())
    # What a member has is not known from the ensemble alone.
    assume(not re.search(r"mapping to non-existing|is not mapped|inconsistent", said))
    assert (why_no_ensemble(config, "ensemble") is None) == (status == 200), f"{text}\n{said}"


# ---- what the fields say -------------------------------------------------------------------------

# It completes nothing, and no server of these tests has it, which is what is answered to a good
# configuration.
COMPLETES_NOTHING = 'backend: "pytorch"\n'


@pytest.fixture(scope="module")
def fields(triton: Triton) -> Judge:
    return Judge(triton, "fields")


def is_good(fields: Judge, text: str) -> bool:
    status, said = fields.load((COMPLETES_NOTHING + text).encode())
    assert status != 200
    return "unable to find backend" in said


def why(text: str) -> str | None:
    config = config_pbtxt.parse((COMPLETES_NOTHING + text).encode())
    return config_rules.why_refused(config, config.backend)


@pytest.mark.parametrize(("parts", "good"), [(KEPT, True), ([*BROKEN], False)])
def test_the_known_fields_are_judged_as_triton_does(
    fields: Judge, parts: list[str], good: bool
) -> None:
    judged = {
        part: (is_good(fields, model_of(part)), why(model_of(part)) is None) for part in parts
    }
    assert judged == dict.fromkeys(parts, (good, good))


@TRIED
@given(text=CONFIGS)
def test_any_fields_are_judged_as_triton_does(fields: Judge, text: str) -> None:
    reason = why(text)
    assert (reason is None) == is_good(fields, text), f"{text}\n{reason}"


# A model that answers anything, so that all that is said against it is said of its configuration.
ANSWERS = """
import numpy
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        zeros = pb_utils.Tensor("y", numpy.zeros((1, 3), "float32"))
        return [pb_utils.InferenceResponse([zeros]) for _one in requests]
"""


@pytest.fixture
def loads(triton: Triton) -> Judge:
    """A name of its own each time: Triton 2.51 now and then crashes over one that is loaded and
    unloaded in quick succession.
    """
    judge = Judge(triton, f"loads{next(NUMBERS)}")
    (judge.folder / "1" / "model.py").write_text(ANSWERS)
    return judge


NUMBERS = itertools.count()


@pytest.mark.parametrize("part", [*BROKEN_WITH_BACKEND, *KEPT_WITH_BACKEND])
def test_what_is_judged_with_the_backends_model_is_judged_as_triton_does(
    loads: Judge, part: str
) -> None:
    text = f'backend: "python"\n{model_of(part)}'
    status, said = loads.load(text.encode())
    reason = config_rules.why_refused(config_pbtxt.parse(text.encode()), "python")
    assert (status == 200, reason is None) == (part in KEPT_WITH_BACKEND,) * 2, said


STEPS = (
    ensemble_of(GOOD[:1], [], [], PLATFORM)
    .replace("max_batch_size: 8\n", "")
    .replace(
        'input_map { key: "x" value: "x" } output_map { key: "y" value: "w" }',
        'input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }',
    )
)


@pytest.mark.parametrize("part", [*BROKEN_ENSEMBLES, *KEPT_ENSEMBLES])
def test_the_fields_of_an_ensemble_are_judged_as_triton_does(ensembles: Judge, part: str) -> None:
    text = f"{STEPS}{model_of(part)}"
    status, said = ensembles.load(text.encode())
    config = config_pbtxt.parse(text.encode())
    reason = why_no_ensemble(config, "ensemble") or config_rules.why_refused(config, "ensemble")
    assert (reason is None) == (status == 200), said
    assert (status == 200) == (part in KEPT_ENSEMBLES)


def test_the_servers_words_stand_where_they_are_looked_for(judge: Judge) -> None:
    """Or the tests above would prove nothing."""
    assert UNREADABLE in judge.load(b"bogus: 1")[1]
    assert "unable to find backend" in judge.load(b'backend: "nope"')[1]


# ---- ensembles and their members -----------------------------------------------------------------

MEMBERS = {
    "batched": "max_batch_size: 8 input { name: 'x' data_type: TYPE_FP32 dims: 3 }"
    " output { name: 'y' data_type: TYPE_FP32 dims: 3 }",
    "alone": "input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 3 ] }"
    " output { name: 'y' data_type: TYPE_FP32 dims: [ 2, 3 ] }",
    "any": "max_batch_size: 4 input { name: 'x' data_type: TYPE_FP32 dims: -1 }"
    " output { name: 'y' data_type: TYPE_FP32 dims: -1 }",
    "other": "max_batch_size: 8 input { name: 'x' data_type: TYPE_FP32 dims: 3 }"
    " input { name: 'o' data_type: TYPE_FP32 dims: 3 optional: true }"
    " output { name: 'y' data_type: TYPE_FP64 dims: 3 }",
    "reshaped": "max_batch_size: 8 input { name: 'x' data_type: TYPE_FP32 dims: 3"
    " reshape { shape: [ 1, 3 ] } } output { name: 'y' data_type: TYPE_FP32 dims: 4 }",
}
# Their model.py says the rest when it is loaded: x and y of three FP32 values, o and z beside them,
# batches of eight.
INCOMPLETE = {
    "nothing": "",
    "no-output": "input { name: 'x' data_type: TYPE_FP32 dims: 3 }",
    "batch": "max_batch_size: 8",
    "larger": "max_batch_size: 4 input { name: 'x' data_type: TYPE_FP32 dims: 3 }"
    " output { name: 'y' data_type: TYPE_FP32 dims: 3 }",
}
COMPLETES = """class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.set_max_batch_size(8)
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [3]})
        config.add_input({"name": "o", "data_type": "TYPE_FP32", "dims": [3], "optional": True})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [3]})
        config.add_output({"name": "z", "data_type": "TYPE_FP32", "dims": [3]})
        return config

    def execute(self, requests):
        return []
"""
MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


@pytest.fixture(scope="module")
def over_members(triton: Triton) -> Judge:
    for name, text in {**MEMBERS, **INCOMPLETE}.items():
        (triton.repository / name / "1").mkdir(parents=True)
        (triton.repository / name / "2").mkdir()
        (triton.repository / name / "config.pbtxt").write_text(f"backend: 'python' {text}")
        for version in "12":
            code = COMPLETES if name in INCOMPLETE else MODEL
            (triton.repository / name / version / "model.py").write_text(code)
        assert triton.load(name)[0] == 200
    return Judge(triton, "over")


KINDS = st.sampled_from(["FP32"] * 4 + ["FP64"])
SHAPES = st.sampled_from(["3", "-1", "4", "-1, 3", "2, 3", "3 reshape { shape: [ 1, 3 ] }"])
MEMBER_STEPS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(sorted(MEMBERS) * 2 + sorted(INCOMPLETE)),
        "version": st.sampled_from([-1] * 8 + [1, 2, 3]),
        "inputs": st.sampled_from([["x"]] * 8 + [["o"], ["z"], ["o", "x"]]),
        "output": st.sampled_from(["y"] * 8 + ["z"]),
    }
)


@TRIED
@given(
    steps=st.lists(MEMBER_STEPS, min_size=1, max_size=3),
    batch=st.sampled_from([0, 4, 8]),
    kinds=st.tuples(KINDS, KINDS),
    dims=st.tuples(SHAPES, SHAPES),
)
def test_an_ensemble_fits_its_members_as_triton_says(
    over_members: Judge,
    steps: list[dict[str, Any]],
    batch: int,
    kinds: tuple[str, str],
    dims: tuple[str, str],
) -> None:
    lines = [f"platform: 'ensemble' max_batch_size: {batch}"]
    for role, name, kind, said in zip(("input", "output"), ("a0", f"a{len(steps)}"), kinds, dims):
        size, _space, more = said.partition(" reshape")
        shape = f"dims: [ {size} ]{f' reshape{more}' if more else ''}"
        lines.append(f"{role} {{ name: '{name}' data_type: TYPE_{kind} {shape} }}")
    lines.append("ensemble_scheduling {")
    for number, step in enumerate(steps):
        maps = [f"input_map {{ key: '{key}' value: 'a{number}' }}" for key in step["inputs"]]
        maps += [f"output_map {{ key: '{step['output']}' value: 'a{number + 1}' }}"]
        named = f"model_name: '{step['model']}' model_version: {step['version']}"
        lines.append(f"step {{ {named} {' '.join(maps)} }}")
    text = "\n".join([*lines, "}"])
    config = config_pbtxt.parse(text.encode())
    assert why_no_ensemble(config, "over") is None
    known = {
        name: Member(
            config_pbtxt.parse(f"backend: 'python' {said}".encode()), (1, 2), name in INCOMPLETE
        )
        for name, said in {**MEMBERS, **INCOMPLETE}.items()
    }
    status, said = over_members.load(text.encode())
    reason = why_members_do_not_fit(config, known)
    if reason or INCOMPLETE.keys().isdisjoint(step["model"] for step in steps):
        assert (reason is None) == (status == 200), f"{text}\n{reason}\n{said}"


@pytest.fixture(scope="module")
def over_completed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """On a server that lets backends complete configurations."""
    with triton_server(tmp_path_factory.mktemp("completes")) as server:
        for name, text in INCOMPLETE.items():
            (server.repository / name / "1").mkdir(parents=True)
            (server.repository / name / "config.pbtxt").write_text(f"backend: 'python' {text}")
            (server.repository / name / "1" / "model.py").write_text(COMPLETES)
            assert server.load(name)[0] == 200
        yield Judge(server, "over")


@pytest.mark.parametrize("name", sorted(INCOMPLETE))
def test_a_program_adds_to_what_its_configuration_says(over_completed: Judge, name: str) -> None:
    """So that an ensemble over it is loaded which its configuration alone speaks against."""
    step = {**CHAIN, "model": name, "inputs": ["a"], "outputs": ["b"]}
    text = ensemble_of([step], ["a"], ["b"], PLATFORM).replace('key: "y"', 'key: "z"')
    status, said = over_completed.load(text.encode())
    assert status == 200, said
    config = config_pbtxt.parse(text.encode())
    alone = config_pbtxt.parse(f"backend: 'python' {INCOMPLETE[name]}".encode())
    assert why_members_do_not_fit(config, {name: Member(alone, (1,), True)}) is None
    assert (why_members_do_not_fit(config, {name: Member(alone, (1,))}) is None) is (
        name != "larger"
    )


WARMUP = (
    "model_warmup { name: 'w' batch_size: 1 inputs { key: 'a'"
    " value { data_type: TYPE_FP32 dims: 3 zero_data: true } } }"
)


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ("", True),
        ("response_cache { enable: true }", True),
        ("model_transaction_policy { decoupled: true }", True),
        (WARMUP, False),
        ("optimization { }", False),
    ],
)
def test_what_only_members_have_is_judged_as_triton_does(
    over_members: Judge, more: str, taken: bool
) -> None:
    step = {**CHAIN, "model": "batched", "inputs": ["a"], "outputs": ["b"]}
    text = f"{ensemble_of([step], ['a'], ['b'], PLATFORM)}{more}"
    assert (over_members.load(text.encode())[0] == 200) is taken
    assert (why_no_ensemble(config_pbtxt.parse(text.encode()), "over") is None) is taken
