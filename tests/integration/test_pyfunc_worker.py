# SPDX-License-Identifier: Apache-2.0
"""The worker of a Python model, on a real Triton: model folders written by hand."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import pyfunc_models, servers
from support.pyfunc_models import column, tensor, wait_for, worker_pids
from tritonclient import http

pytestmark = pytest.mark.takes(60)

DOES = [column("x", "double"), column("do", "string")]
SAYS = [column("value", "double"), column("text", "string")]
FACTOR = [{"name": "factor", "type": "double", "default": 1.0, "shape": None}]


@dataclass
class Place:
    """A Triton, and where its models come from."""

    triton: servers.Triton
    artifacts: Path
    python: Path
    said: str
    temporary: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def write(
        self, artifact: str, inputs: Sequence[Any], outputs: Sequence[Any], **more: Any
    ) -> str:
        name = f"{artifact}{next(self.numbers)}"
        pyfunc_models.write_model(
            self.triton.repository,
            name,
            self.artifacts / artifact,
            more.pop("python", self.python),
            inputs,
            outputs,
            **more,
        )
        return name

    def serve(
        self, artifact: str, inputs: Sequence[Any], outputs: Sequence[Any], **more: Any
    ) -> str:
        name = self.write(artifact, inputs, outputs, **more)
        status, body = self.triton.load(name, timeout=120)
        assert status == 200, body
        return name

    def workers(self, name: str) -> list[int]:
        return worker_pids(self.triton.repository / name)

    def ask(self, name: str, *does: str, **params: Any) -> tuple[int, Any]:
        """x is 1, 2, 3, …"""
        rows = len(does)
        inputs = [
            {
                "name": "x",
                "datatype": "FP64",
                "shape": [rows, 1],
                "data": [float(each + 1) for each in range(rows)],
            },
            {"name": "do", "datatype": "BYTES", "shape": [rows, 1], "data": list(does)},
        ]
        return self.triton.infer(name, {"parameters": params, "inputs": inputs})

    def facts(self, name: str) -> Any:
        status, body = self.ask(name, "facts")
        assert status == 200, body
        return json.loads(body["outputs"][1]["data"][0])

    def wait_until_served(self, name: str) -> None:
        wait_for(lambda: self.ask(name, "")[0] == 200)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, pyfunc_python: Path) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("artifacts")
    return folder, pyfunc_models.save_models(pyfunc_python, folder)


@contextlib.contextmanager
def triton_with(folder: Path, environment: Mapping[str, str]) -> Iterator[servers.Triton]:
    """A Triton that somebody else starts: the wrapper hands on less of its environment."""
    arguments = ["--disable-auto-complete-config"]
    with servers.triton_server(folder, extra_args=arguments) as triton:
        triton.stop()
        triton.start_without_wrapper(more=environment)
        yield triton


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, pyfunc_python: Path, artifacts: tuple[Path, str]
) -> Iterator[Place]:
    folder, said = artifacts
    # Of the server and its Python; none of it is a model's.
    given = {
        "PYTHONPATH": str(tmp_path_factory.mktemp("stray")),
        "MLFLOW_TRACKING_PASSWORD": "a secret of the server",
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
    }
    with triton_with(tmp_path_factory.mktemp("triton"), given) as triton:
        yield Place(triton, folder, pyfunc_python, said, Path(given["TMPDIR"]))


@pytest.fixture(scope="module")
def troublesome(place: Place) -> str:
    return place.serve("troublesome", DOES, SAYS, params=FACTOR)


@pytest.fixture(scope="module")
def mortal(place: Place) -> str:
    return place.serve("troublesome", DOES, SAYS)


@pytest.fixture(scope="module")
def pair(place: Place) -> str:
    """Two instances, whose requests are not joined."""
    return place.serve("troublesome", DOES, SAYS, instances=2, independent_rows=False)


def outputs(body: Any) -> dict[str, Any]:
    return {each["name"]: each["data"] for each in body["outputs"]}


# --- what a user sees -----------------------------------------------------------------------------


def test_a_pipeline_answers_as_mlflow_does(place: Place) -> None:
    inputs = [column("age", "long"), column("city", "string"), column("paid", "double")]
    name = place.serve("pipeline", inputs, [column("predictions", "double", column=None)])
    given: Any = {
        "age": ("INT64", [20, 30, 40, 50]),
        "city": ("BYTES", ["Rome", "Paris", "Rome", "Oslo"]),
        "paid": ("FP64", [1.5, 2.0, 3.0, 4.0]),
    }
    request = {
        "inputs": [
            {"name": key, "datatype": kind, "shape": [4, 1], "data": data}
            for key, (kind, data) in given.items()
        ]
    }
    status, body = place.triton.infer(name, request)
    assert status == 200, body
    assert body["outputs"][0]["data"] == [float(each) for each in place.said.split()]


def test_columns_come_in_the_types_of_the_signature(place: Place) -> None:
    kinds = {
        "boolean": ("BOOL", True),
        "integer": ("INT32", 7),
        "float": ("FP32", 0.5),
        "double": ("FP64", 0.1),
        "string": ("BYTES", "Zoë"),
        "binary": ("BYTES", "bytes"),
        "datetime": ("BYTES", "2024-02-29T12:30:00.123456789"),
    }
    specs = [column(kind, kind, required=kind != "long") for kind in ("long", *kinds)]
    answers = [column(kind, kind) for kind in kinds]
    name = place.serve("columns", specs, [*answers, column("types", "string")])
    request = {
        "inputs": [
            {"name": key, "datatype": kind, "shape": [1, 1], "data": [value]}
            for key, (kind, value) in kinds.items()
        ]
    }
    status, body = place.triton.infer(name, request)
    assert status == 200, body
    found = outputs(body)
    assert found.pop("types")[0].split() == [
        "bool/bool",
        "int32/int32",
        "float32/float32",
        "float64/float64",
        "object/str",
        "object/bytes",
        "datetime64[ns]/Timestamp",
    ]
    assert found == {key: [value] for key, (_turn, value) in kinds.items()}


def test_tensors_come_as_the_signature_names_them(place: Place) -> None:
    inputs = [tensor("a", "float32", [-1, 2]), tensor("b", "float32", [2, 2])]
    answer = [tensor("predictions", "float32", [-1, 2], column=None)]
    name = place.serve("tensors", inputs, answer, batched=False, independent_rows=False)
    request = {
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
            {"name": "b", "datatype": "FP32", "shape": [2, 2], "data": [1, 0, 0, 10]},
        ]
    }
    # The model adds 1 to what it was given; nothing of that is left.
    for _turn in range(2):
        status, body = place.triton.infer(name, request)
        assert status == 200, body
        assert body["outputs"][0] == {
            "name": "predictions",
            "datatype": "FP32",
            "shape": [1, 2],
            "data": [2.0, 30.0],
        }


def test_params_are_parameters_of_a_request(place: Place, troublesome: str) -> None:
    for given, value in ((3, 6.0), ("0.5", 1.0), (0.25, 0.5)):
        _status, body = place.ask(troublesome, "", factor=given, of_a_proxy="ignored")
        assert outputs(body)["value"] == [value]
    status, body = place.ask(troublesome, "", factor="much")
    assert (status, body["error"]) == (
        500,
        f"mlops_triton: model {troublesome!r}: param 'factor' is 'much', which is no double",
    )


def test_a_document_is_answered_as_mlflows_server_does(place: Place) -> None:
    name = place.serve("pipeline", [], [], form="json", batched=False)

    def ask(document: Any) -> tuple[int, Any]:
        text = document if isinstance(document, str) else json.dumps(document)
        given = {"name": "request", "datatype": "BYTES", "shape": [1], "data": [text]}
        return place.triton.infer(name, {"inputs": [given]})

    rows = [[20, "Rome", 1.5], [50, "Oslo", 4]]
    columns = ["age", "city", "paid"]
    expected = [float(each) for each in place.said.split()]
    for document in (
        {"dataframe_split": {"columns": columns, "data": rows}},
        {"dataframe_records": [dict(zip(columns, row, strict=True)) for row in rows]},
        {"inputs": {name: list(each) for name, *each in zip(columns, *rows, strict=True)}},
    ):
        status, body = ask(document)
        assert status == 200, body
        assert json.loads(body["outputs"][0]["data"][0]) == {
            "predictions": [expected[0], expected[-1]]
        }
    short = {"dataframe_split": {"columns": ["age"], "data": [[1]]}}
    wrongs: list[Any] = ["no JSON", {"rows": []}, short]
    for wrong in wrongs:
        status, body = ask(wrong)
        assert status == 500
        assert body["error"].startswith(f"mlops_triton: model {name!r}: Mlflow")
        assert "\n" not in body["error"]


def test_one_bad_request_spoils_no_other(place: Place, troublesome: str) -> None:
    """Requests that are asked at once become one table."""
    name = troublesome
    with ThreadPoolExecutor(12) as pool:
        for _turn in range(20):
            does = ["", "raise", "", "", "few", ""] * 2
            found = list(pool.map(lambda do: place.ask(name, do), does))
            for do, (status, body) in zip(does, found, strict=True):
                assert status == (500 if do else 200), body
                if do:
                    assert ("ValueError" in body["error"]) is (do == "raise")
                else:
                    assert outputs(body)["value"] == [2.0]
            quiet = [
                outputs(body)
                for _turn, body in pool.map(lambda _turn: place.ask(name, "", ""), range(12))
            ]
            assert all(each["value"] == [2.0, 4.0] for each in quiet)
            if any(each["text"] != ["2 rows", "2 rows"] for each in quiet):
                return
    pytest.fail("no two requests were ever joined")


def test_dependent_rows_are_never_joined(place: Place, pair: str) -> None:
    name = pair
    with ThreadPoolExecutor(8) as pool:
        for status, body in pool.map(lambda _turn: place.ask(name, "", ""), range(24)):
            assert status == 200 and outputs(body)["text"] == ["2 rows", "2 rows"]
    # How many rows it answers is its own matter.
    assert outputs(place.ask(name, "", "few")[1])["value"] == [2.0]


# --- mishaps in predict ---------------------------------------------------------------------------

CAUGHT = {
    "raise": "ValueError: this row is not good",
    "sys.exit": "the model called sys.exit(3)",
    "memory": "there was not enough memory for this request",
    "few": "output 'value' has 0 rows for 1 rows of input",
    "null": "output 'text' holds NoneType, which cannot be said as string, the type that the "
    "signature says",
}


@pytest.mark.parametrize("do", CAUGHT)
def test_what_goes_wrong_in_predict_is_one_sentence(
    place: Place, troublesome: str, do: str
) -> None:
    pids = place.workers(troublesome)
    status, body = place.ask(troublesome, do)
    assert (status, body["error"]) == (500, f"mlops_triton: model {troublesome!r}: {CAUGHT[do]}")
    assert place.ask(troublesome, "")[0] == 200
    assert place.workers(troublesome) == pids


ENDS = {
    "os._exit": "it ended with code 7",
    "segfault": "it was ended by signal 11 (SIGSEGV)",
    "killed": "it was ended by signal 9 (SIGKILL), as it does when memory is short",
}


@pytest.mark.parametrize("do", ENDS)
def test_a_worker_that_ends_in_predict_is_started_again(place: Place, mortal: str, do: str) -> None:
    name = mortal
    (before,) = place.workers(name)
    status, body = place.ask(name, do)
    prefix = f"mlops_triton: model {name!r}: "
    assert (status, body["error"]) == (
        500,
        f"{prefix}its process ended while it answered: {ENDS[do]}; it is started again",
    )
    # At once, not when it is there again.
    status, body = place.ask(name, "")
    assert (status, body["error"]) == (
        500,
        f"{prefix}it has no process at the moment, which is started again ({ENDS[do]})",
    )
    place.wait_until_served(name)
    assert before not in place.workers(name)


def test_a_predict_that_does_not_end_is_ended(place: Place) -> None:
    name = place.serve("troublesome", DOES, SAYS, predict_timeout=1.0)
    (before,) = place.workers(name)
    status, body = place.ask(name, "sleep")
    assert status == 500
    assert body["error"] == (
        f"mlops_triton: model {name!r}: it did not answer within 1 s (predict_timeout); "
        "its process is started again"
    )
    assert not servers.is_alive(before)
    place.wait_until_served(name)


def test_a_worker_that_is_killed_at_rest_is_started_again(place: Place, troublesome: str) -> None:
    """With the processes that the model started."""
    (before,) = place.workers(troublesome)
    place.ask(troublesome, "child")
    (child,) = wait_for(lambda: servers.group_members(before))
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: not servers.is_alive(child))
    wait_for(lambda: place.workers(troublesome) not in ([], [before]))
    place.wait_until_served(troublesome)


# --- death ----------------------------------------------------------------------------------------


def test_a_worker_ends_with_its_stub(place: Place) -> None:
    name = place.serve("troublesome", DOES, SAYS)
    home = Path(place.facts(name)["environment"]["HOME"]).parent
    (before,) = place.workers(name)
    (stub,) = place.triton.stub_pids(name)
    os.kill(stub, signal.SIGKILL)
    wait_for(lambda: not servers.is_alive(before) and not place.workers(name))
    # The next one that starts takes away what was left, and nothing else.
    os.utime(place.triton.repository / name / "1")
    assert place.triton.load(name)[0] == 200
    assert not home.exists()
    (again,) = place.workers(name)
    home = Path(place.facts(name)["environment"]["HOME"]).parent
    place.triton.unload(name)
    wait_for(lambda: not servers.is_alive(again) and not home.exists())


def test_a_worker_leaves_the_end_to_the_server(place: Place, troublesome: str) -> None:
    """A supervisor asks all processes to end, or those of the server's session."""
    (pid,) = place.workers(troublesome)
    assert place.facts(troublesome)["session"] == pid
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert place.ask(troublesome, "")[0] == 200
    assert place.workers(troublesome) == [pid]


# --- memory ---------------------------------------------------------------------------------------


def test_the_worker_is_the_first_to_go_when_memory_is_short(place: Place, troublesome: str) -> None:
    (stub,) = place.triton.stub_pids(troublesome)
    score = int(Path(f"/proc/{stub}/oom_score_adj").read_text())
    assert place.facts(troublesome)["oom_score_adj"] > score


def test_large_tensors_need_no_shared_memory_of_the_container(place: Place) -> None:
    """Nothing of the worker lies in /dev/shm, and 16 MiB come back as they went."""
    inputs = [tensor("a", "float32", [-1, 2]), tensor("b", "float32", [2, 2])]
    answer = [tensor("predictions", "float32", [-1, 2], column=None)]
    name = place.serve("tensors", inputs, answer, batched=False, independent_rows=False)
    rows = 1 << 20
    a = np.arange(rows * 2, dtype="float32").reshape(rows, 2) % 1024
    found = infer_binary(place, name, {"a": a, "b": np.eye(2, dtype="float32")})
    assert (found == a + 1).all()
    (pid,) = place.workers(name)
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "memfd:mlops_triton" in maps and "/dev/shm" not in maps


def infer_binary(place: Place, name: str, given: dict[str, Any]) -> Any:
    client = http.InferenceServerClient(place.triton.url, network_timeout=60)
    inputs = []
    for key, values in given.items():
        inputs.append(http.InferInput(key, list(values.shape), "FP32"))
        inputs[-1].set_data_from_numpy(values)
    return client.infer(name, inputs).as_numpy("predictions")


# --- start ----------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_is_a_sentence(place: Place) -> None:
    name = place.write("broken", DOES, SAYS)
    status, body = place.triton.load(name)
    assert status == 400
    assert (
        f"mlops_triton: model {name!r}: cannot be served: RuntimeError: the tokenizer is missing; "
        "it said last: " in body["error"]
    )
    assert not place.workers(name)
    assert place.triton.running


def test_a_start_that_does_not_end_is_ended(place: Place, tmp_path: Path) -> None:
    python, number = tmp_path / "python", tmp_path / "pid"
    python.write_text(
        f"#!/bin/sh\necho $$ > {number}\necho waiting for a license server >&2\nexec sleep 600\n"
    )
    python.chmod(0o755)
    name = place.write("troublesome", DOES, SAYS, python=python, start_timeout=2.0)
    status, body = place.triton.load(name)
    assert status == 400
    assert (
        "it was not ready within 2 s (start_timeout); it said last: waiting for a license server"
    ) in body["error"]
    assert not servers.is_alive(int(number.read_text()))


def test_a_python_that_is_not_there_is_a_sentence(place: Place) -> None:
    name = place.write("troublesome", DOES, SAYS, python="/nowhere/bin/python")
    status, body = place.triton.load(name)
    assert status == 400 and "its process cannot be started" in body["error"]
    assert "/nowhere/bin/python" in body["error"]


# --- instances ------------------------------------------------------------------------------------


def test_each_instance_has_a_worker(place: Place, pair: str) -> None:
    name = pair
    assert len(place.workers(name)) == 2
    with ThreadPoolExecutor(4) as pool:
        facts = list(pool.map(lambda _turn: place.facts(name), range(40)))
    assert {each["pid"] for each in facts} == set(place.workers(name))
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {each["environment"]["OMP_NUM_THREADS"] for each in facts} <= {
        str(number) for number in range(1, threads + 1)
    }


# --- output, and what surrounds it ----------------------------------------------------------------


def test_what_a_model_prints_is_logged_and_bounded(place: Place, troublesome: str) -> None:
    assert outputs(place.ask(troublesome, "print")[1])["value"] == [2.0]
    wait_for(lambda: "more lines were left out)" in place.triton.log_text())
    text = place.triton.log_text()
    assert f"mlops_triton: {troublesome}: noise 1\n" in text
    assert "red noise" in text and "\x1b" not in text
    assert text.count("noise ") < 1000
    assert place.ask(troublesome, "")[0] == 200


def test_nothing_of_the_server_reaches_the_model(place: Place, troublesome: str) -> None:
    facts = place.facts(troublesome)
    (pid,) = place.workers(troublesome)
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PYTHONPATH=" not in environment and b"a secret of the server" not in environment
    assert facts["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    version = str(place.triton.repository / troublesome / "1")
    assert not {str(Path(version).parent), version, ""} & set(facts["path"])
    assert facts["folder"] == facts["environment"]["TMPDIR"]
    assert Path(facts["folder"]).parent.parent == place.temporary


def test_nothing_is_written_into_the_folder_of_a_model(place: Place, troublesome: str) -> None:
    def files(name: str) -> list[Path]:
        folder = place.triton.repository / name
        return sorted(path.relative_to(folder) for path in folder.rglob("*"))

    assert place.ask(troublesome, "")[0] == 200
    untouched = place.write("troublesome", DOES, SAYS)
    assert files(troublesome) == files(untouched)


def test_a_stub_with_numpy_2_gives_no_wrong_numbers(
    tmp_path_factory: pytest.TempPathFactory, artifacts: tuple[Path, str], pyfunc_python: Path
) -> None:
    """The server from PyPI was built for numpy 1. Its Python is the first one of the path."""
    path = {"PATH": f"{pyfunc_python.parent}:{os.defpath}"}
    with triton_with(tmp_path_factory.mktemp("numpy-2"), path) as triton:
        place = Place(triton, artifacts[0], pyfunc_python, "", Path())
        inputs = [tensor("a", "float32", [-1, 2]), tensor("b", "float32", [2, 2])]
        answer = [tensor("predictions", "float32", [-1, 2], column=None)]
        name = place.serve("tensors", inputs, answer, batched=False, independent_rows=False)
        a = np.arange(10, dtype="float32").reshape(5, 2)
        found = infer_binary(place, name, {"a": a, "b": np.eye(2, dtype="float32")})
        assert (found == a + 1).all()
        text = place.write("troublesome", DOES, SAYS)
        status, body = triton.load(text)
        assert status == 400
        assert "exchange text by numpy 2." in body["error"]
        assert "install numpy<2 for the server's Python" in body["error"]
