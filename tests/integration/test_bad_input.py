# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with what a user gives ends in one sentence that names the model, the step and
what was left in place.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.deliveries import deliver_model, target_of
from support.models import make_onnx, make_python
from support.modules import run_module
from support.playbooks import run_playbook
from support.servers import MLflow, Triton, triton_server

pytestmark = pytest.mark.takes(40)

DEADLINE = 3
PATIENCE = 60
"""For everything but a peer that is silent or slow on purpose."""


@contextlib.contextmanager
def talker(answer: bytes, pause: float) -> Iterator[str]:
    """A server that accepts, and sends ``answer`` byte by byte; nothing at all for an empty one."""
    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for byte in answer:
                connection.sendall(bytes([byte]))
                if closing.wait(pause):
                    return
            closing.wait(2 * PATIENCE)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        closing.set()
        listener.close()


@dataclass
class Case:
    """Options beyond the usual ones, and what the sentence must say."""

    name: str
    says: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None


def register(mlflow: MLflow, name: str, files: dict[str, bytes], folder: Path) -> None:
    """A version whose artifact holds exactly these files."""
    from mlflow.tracking import MlflowClient

    root = folder / f"raw-{name}"
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    client = MlflowClient(mlflow.url)
    run = client.create_run("0")
    client.log_artifacts(run.info.run_id, str(root), "model")
    client.create_registered_model(name)
    client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)


MLMODEL = b"flavors:\n  triton:\n    data: model\n"
CONFIG = b'backend: "python"\nmax_batch_size: 8\n'


def packed(config: bytes, script: bytes) -> dict[str, bytes]:
    """The files of an artifact that the flavor triton logged, with one version."""
    return {"MLmodel": MLMODEL, "model/config.pbtxt": config, "model/1/model.py": script}


def misplaced_artifacts(config: bytes, script: bytes) -> dict[str, dict[str, bytes]]:
    """Artifacts whose files are not where a model has them."""
    return {
        "no-model": {"notes.txt": b"nothing here"},
        "two-models": {
            "one/config.pbtxt": CONFIG,
            "one/1/model.py": script,
            "two/config.pbtxt": CONFIG,
            "two/1/model.py": script,
        },
        "no-version": {"MLmodel": MLMODEL, "model/config.pbtxt": config, "model/readme.md": b"x"},
        "lost-folder": {
            "MLmodel": MLMODEL,
            "other/config.pbtxt": config,
            "other/1/model.py": script,
        },
        "other-flavor": {"MLmodel": b"flavors:\n  spacy:\n    data: x\n", "x/model.bin": b"x"},
    }


def misconfigured_artifacts(config: bytes, script: bytes) -> dict[str, dict[str, bytes]]:
    """Artifacts whose config.pbtxt is wrong, or is not for this server."""
    nameless = re.sub(b'name: "[^"]*"\n', b"", config)
    configs = {
        "bad-config": b'backend: "python"\nmax_batch_size: {\n',
        "unknown-field": b'backend: "python"\n  bogus: 1\n',
        "other-name": b'name: "somebody-else"\n' + CONFIG,
        "cached": nameless + b"response_cache { enable: true }\nsequence_batching { }\n",
        "wants-gpu": nameless.replace(b"KIND_CPU", b"KIND_GPU"),
        "names-gpu": nameless.replace(b"KIND_CPU", b"KIND_GPU gpus: [ 0 ]"),
        "no-backend": b'backend: "nope"\nmax_batch_size: 8\n',
    }
    return {name: packed(wrong, script) for name, wrong in configs.items()}


def artifacts(source: Path) -> dict[str, dict[str, bytes]]:
    """Artifacts with one fault each."""
    script = (source / "1" / "model.py").read_bytes()
    config = (source / "config.pbtxt").read_bytes()
    return {**misplaced_artifacts(config, script), **misconfigured_artifacts(config, script)}


@dataclass(frozen=True)
class Addresses:
    """Peers that are no use: one never answers, one takes forever, one refuses, and a Triton that
    cannot be told what to load.
    """

    silent: str
    slow: str
    closed: str
    polling: str


PUBLISHED = "models:/good/1"


def source_cases(folder: Path) -> list[Case]:
    """What model_uri names is not there."""
    return [
        Case(
            "m",
            ("has no model 'unknown'", "Nothing was changed"),
            {"model_uri": "models:/unknown/1"},
        ),
        Case("m", ("no version 99", "versions there: 1"), {"model_uri": "models:/good/99"}),
        Case("m", ("no alias 'nobody'", "aliases there"), {"model_uri": "models:/good@nobody"}),
        Case("m", ("possible are models:/",), {"model_uri": "models:/good/Production"}),
        Case("m", ("does not exist on this host",), {"model_uri": str(folder / "nowhere")}),
    ]


def peer_cases(peers: Addresses) -> list[Case]:
    """A registry or a server that cannot be used."""
    refused = ("cannot be reached", "Nothing was changed")
    late = ("did not answer within",)
    peer_options = [
        (refused, {"tracking_uri": f"http://{peers.closed}"}),
        (late, {"tracking_uri": f"http://{peers.silent}"}),
        (late, {"tracking_uri": f"http://{peers.slow}"}),
        (refused, {"triton_url": peers.closed}),
        (late, {"triton_url": peers.silent}),
        (late, {"triton_url": peers.slow}),
    ]
    ended = PATIENCE / 2  # long before the peers give up, however busy this machine is
    return [
        *(
            Case("m", says, {"model_uri": PUBLISHED, **options}, ended)
            for says, options in peer_options
        ),
        Case(
            "good",
            ("--model-control-mode=explicit", "Nothing was changed"),
            {"model_uri": PUBLISHED, "triton_url": peers.polling},
        ),
    ]


def name_cases() -> list[Case]:
    return [
        Case(name, ("the name", "Nothing was changed"), {"model_uri": PUBLISHED})
        for name in ("a b", "modèle", "a/b", ".", "..", "%2e%2e", "x" * 201, "")
    ]


def make_linked_model(folder: Path, source: Path) -> Path:
    """A model with a symbolic link to a file outside of it."""
    link, outside = folder / "link", folder / "outside"
    shutil.copytree(source, link)
    outside.write_text("secret", encoding="utf-8")
    (link / "1" / "weights").symlink_to(outside)
    return link


def artifact_cases(server_log: Path, linked: Path) -> list[Case]:
    return [
        Case("no-model", ("holds no model",)),
        Case("two-models", ("holds 2 models", "one, two")),
        Case("no-version", ("no version folder",)),
        Case("lost-folder", ("MLmodel says", "no such folder")),
        Case("bad-config", ("config.pbtxt does not parse in line",)),
        Case("unknown-field", ("line 2, column 3", "bogus")),
        Case("other-name", ("names the model 'somebody-else'",)),
        Case("other-flavor", ("spacy", "cannot be served")),
        Case(
            "cached",
            ("Please disable the response cache", "Nothing of it was left"),
            {"server_log": str(server_log)},
        ),
        Case("cached", ("server_log", "Nothing of it was left")),
        Case(
            "wants-gpu", ("no GPUs are available", "instance_kind: cpu", "Nothing of it was left")
        ),
        Case("names-gpu", ("unsupported gpu id 0", "instance_kind: cpu", "Nothing of it was left")),
        Case(
            "names-gpu",
            ("specifies one or more GPUs", "instance_kind: cpu", "Nothing of it was left"),
            {"config": {"instance_group": [{"kind": "KIND_AUTO", "gpus": [0]}]}},
        ),
        Case("no-backend", ("nope", "Nothing of it was left")),
        Case("linked", ("symbolic link", "leaves"), {"model_uri": str(linked)}),
    ]


def model_option_cases() -> list[Case]:
    """Options that say what the model shall be."""
    return [
        Case(
            "good",
            ("config has no field 'no_such_field'",),
            {"model_uri": PUBLISHED, "config": {"no_such_field": 1}},
        ),
        Case(
            "good",
            ("config.max_batch_size",),
            {"model_uri": PUBLISHED, "config": {"max_batch_size": "many"}},
        ),
        Case("foreign", ("did not deploy", "adopt: true"), {"model_uri": PUBLISHED}),
        Case("foreign", ("did not deploy", "adopt: true"), {"state": "absent"}),
        Case("m", ("model_uri",), {"model_uri": None}),
        Case("m", ("rollback_to goes with",), {"model_uri": PUBLISHED, "rollback_to": "1"}),
        Case("m", ("not deployed",), {"state": "rolled_back"}),
        Case("m", ("verify is none, auto",), {"model_uri": PUBLISHED, "verify": {"nonsense": 1}}),
    ]


def place_option_cases(folder: Path) -> list[Case]:
    """Options that say where the model goes, and how."""
    return [
        Case("m", ("octal",), {"model_uri": PUBLISHED, "mode": "rw-r--r--"}),
        Case(
            "m",
            ("there is no user",),
            {"model_uri": PUBLISHED, "owner": "nobody-of-this-name", "name": "good"},
        ),
        Case("m", ("triton_url",), {"model_uri": PUBLISHED, "triton_url": "ftp://host"}),
        Case(
            "m",
            ("does not exist on this host",),
            {"model_uri": PUBLISHED, "model_repository": str(folder / "none")},
        ),
        Case(
            "m",
            ("state_dir says",),
            {"model_uri": PUBLISHED, "state_dir": str(folder / "elsewhere")},
        ),
        Case("m", ("more than 0 seconds",), {"model_uri": PUBLISHED, "timeout": 0}),
    ]


def cases(triton: Triton, folder: Path, source: Path, peers: Addresses) -> list[Case]:
    return [
        *source_cases(folder),
        *peer_cases(peers),
        *name_cases(),
        *artifact_cases(triton.log, make_linked_model(folder, source)),
        *model_option_cases(),
        *place_option_cases(folder),
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_python(tmp_path_factory.mktemp("good"), "good").folder


def register_artifacts(mlflow: MLflow, source: Path, folder: Path) -> None:
    """Those with a fault, and ``good``, which has none."""
    good = {
        f"model/{path.relative_to(source)}": path.read_bytes()
        for path in source.rglob("*")
        if path.is_file()
    }
    everything = {**artifacts(source), "good": {"MLmodel": MLMODEL, **good}}
    for name, files in everything.items():
        register(mlflow, name, files, folder)


@contextlib.contextmanager
def useless_peers(folder: Path) -> Iterator[Addresses]:
    (folder / "empty").mkdir()
    with (
        socket.socket() as closed,
        talker(b"", 1) as silent,
        talker(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 500, 1) as slow,
        triton_server(
            folder / "polling",
            repository=folder / "empty",
            extra_args=["--model-control-mode=none"],
        ) as polling,
    ):
        # taken, and nobody listens: refused, whoever else looks for a port
        closed.bind(("127.0.0.1", 0))
        yield Addresses(
            silent,
            slow,
            f"127.0.0.1:{closed.getsockname()[1]}",
            polling.url.removeprefix("http://"),
        )


def options_of(case: Case, usual: dict[str, Any]) -> dict[str, Any]:
    return {
        **usual,
        "name": case.name,
        "model_uri": f"models:/{case.name}/1",
        **({"timeout": DEADLINE} if case.seconds else {}),
        **case.options,
    }


def test_bad_input_ends_in_one_sentence(
    tmp_path: Path, mlflow: MLflow, triton: Triton, source: Path
) -> None:
    good = make_python(tmp_path, "served")
    foreign = make_onnx(triton.repository, "foreign")
    register_artifacts(mlflow, source, tmp_path)
    usual = {
        "tracking_uri": mlflow.url,
        "triton_url": triton.url.removeprefix("http://"),
        "model_repository": str(triton.repository),
        "timeout": PATIENCE,
    }
    served = {**usual, "name": "served", "model_uri": str(good.folder)}
    with useless_peers(tmp_path) as peers:
        table = cases(triton, tmp_path, source, peers)
        calls = [options_of(case, usual) for case in table]
        results = run_all([served, *calls, served])
    assert results[0]["changed"] and not results[-1].get("failed") and not results[-1]["changed"], (
        results[-1]
    )
    wrong = [
        problem for case, result in zip(table, results[1:-1]) if (problem := check(case, result))
    ]
    assert not wrong, "\n".join(wrong)
    assert not good.differences(triton.infer("served", good.request())[1])
    assert foreign.folder.exists()
    assert {path.name for path in triton.repository.iterdir() if path.is_dir()} >= {
        "served",
        "foreign",
    }
    assert not {path.name for path in triton.repository.iterdir()} & {
        case.name for case in table if case.name != "foreign"
    }


def check(case: Case, result: dict[str, Any]) -> str | None:
    message = result.get("msg", "")
    missing = [part for part in case.says if part.lower() not in message.lower()]
    if (
        not result.get("failed")
        or missing
        or "Traceback" in json.dumps(result)
        or "\n" in message.strip()
    ):
        return (
            f"{case.name} {case.options}: {missing} not in {message!r} (failed:"
            f" {result.get('failed')})"
        )
    took = result["_seconds"]
    return (
        f"{case.name} {case.options}: took {took:.0f} s"
        if case.seconds and took > case.seconds
        else None
    )


def run_all(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each call by the module, with the time that it took."""
    results = []
    for options in calls:
        given = {key: value for key, value in options.items() if value is not None}
        if given.get("state") in ("absent", "rolled_back"):
            given.pop("model_uri", None)
        begin = time.monotonic()
        result = run_module("triton_model", given)
        results.append({**result, "_seconds": time.monotonic() - begin})
    return results


def test_ansible_shows_the_sentence(tmp_path: Path, mlflow: MLflow, triton: Triton) -> None:
    """And nothing else: no traceback around it, and none of the module's own."""
    options = {
        "tracking_uri": mlflow.url,
        "triton_url": triton.url.removeprefix("http://"),
        "model_repository": str(triton.repository),
        "name": "m",
        "model_uri": str(tmp_path / "nowhere"),
    }
    tasks = [{"mlops.triton.triton_model": options}]
    done = run_playbook(tmp_path, [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}])
    assert done.rc == 2
    assert "does not exist on this host" in done.output and "Nothing was changed" in done.output
    assert "Traceback" not in done.output


class Evil:
    """A pickle that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


TENSOR = '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]'
LOGGED = {
    "evil-pickle": (
        "sklearn: {pickled_model: model.pkl}",
        "model.pkl",
        True,
        "its class is pathlib.Path.touch, and FIL serves",
    ),
    "evil-torch": (
        "pytorch: {model_data: data}",
        "data/model.pth",
        True,
        "looks like a pickle, which is a program and is not run here",
    ),
    "empty-trees": ("xgboost: {data: model.ubj}", "model.ubj", False, "model.ubj is empty"),
}


@pytest.mark.parametrize("name", LOGGED)
def test_what_a_flavor_cannot_hold(
    tmp_path: Path, mlflow: MLflow, triton: Triton, name: str
) -> None:
    flavor, path, is_evil, says = LOGGED[name]
    mlmodel = f"flavors: {{{flavor}}}\nsignature: {{inputs: '{TENSOR}', outputs: '{TENSOR}'}}\n"
    data = pickle.dumps(Evil(tmp_path / "was-run")) if is_evil else b""
    register(mlflow, name, {"MLmodel": mlmodel.encode(), path: data}, tmp_path)
    target = target_of(triton, mlflow, timeout=PATIENCE)
    result = deliver_model(target, name, model_uri=f"models:/{name}/1")
    assert says in str(result.error) and "Nothing of it was left" in str(result.error), str(
        result.error
    )
    assert not (tmp_path / "was-run").exists() and not (triton.repository / name).exists()
