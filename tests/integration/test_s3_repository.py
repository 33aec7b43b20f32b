# SPDX-License-Identifier: Apache-2.0
"""A repository in S3: a real Triton that reads a bucket on loopback, through the modules, the
engine and the MLflow plugin.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    LoadFailed,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.factory import (
    open_repository,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.kept import (
    kept_text,
)
from support import plugin
from support.bench import VERIFY
from support.deliveries import deliver_model
from support.models import Sample, make_python
from support.modules import publish_by_module, run_module
from support.playbooks import ROOT, ProcessList, ansible_playbook, environment, run_task
from support.servers import S3, MLflow, Triton, s3_server, triton_server
from warm_python import interpreter

pytestmark = [pytest.mark.long, pytest.mark.takes(110)]

FAST = ["--disable-auto-complete-config"]
BUCKET, PREFIX = "models", "team/prod"
STATE = f"{PREFIX}.mlops-triton"


@dataclass
class Stage:
    """One bucket and two servers that read it."""

    s3: S3
    one: Triton
    two: Triton
    url: str

    def listed(self, prefix: str = "") -> list[str]:
        pages = self.s3.client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=prefix
        )
        return sorted(one["Key"] for page in pages for one in page.get("Contents", ()))

    def put(self, key: str, body: bytes = b"x") -> None:
        self.s3.client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def body(self, key: str) -> bytes:
        return bytes(self.s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def target(self, *servers: Triton, **more: Any) -> dict[str, Any]:
        return {
            "model_repository": self.url,
            "triton_url": [server.url for server in servers or (self.one,)],
            "timeout": 60,
            **more,
        }

    def bring(
        self, name: str, *servers: Triton, target: dict[str, Any] | None = None, **options: Any
    ) -> Result:
        return deliver_model(self.target(*servers, **(target or {})), name, **options)

    def good(self, name: str, *servers: Triton, **options: Any) -> Result:
        result = self.bring(name, *servers, **options)
        assert result.error is None, str(result.error)
        return result


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("s3")
    with pytest.MonkeyPatch.context() as patch, s3_server(base / "store", BUCKET) as s3:
        for name, value in S3.environment.items():
            patch.setenv(name, value)
        url = f"s3://{s3.endpoint}/{BUCKET}/{PREFIX}"
        settings: dict[str, Any] = {
            "repository": url,
            "extra_args": FAST,
            "environment": s3.environment,
            "backend_directory": base / "backends",
        }
        with (
            triton_server(base / "one", **settings) as one,
            triton_server(base / "two", **settings) as two,
        ):
            yield Stage(s3, one, two, url)


def served(triton: Triton, sample: Sample) -> int | None:
    status, answer = triton.infer(sample.name, sample.request())
    return int(answer["outputs"][1]["data"][0]) if status == 200 else None


# -- modules ---------------------------------------------------------------------------------------


KEYS = {
    "access_key": "AKIAOFTHETEST",
    "secret_key": "a-secret-of-the-test",
    "session_token": "a-token-of-the-test",
}
LIFE = f"{PREFIX}/life"


def check_and_apply(folder: Path, stage: Stage, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Check mode changes nothing and says what the run then does, whose processes show no key."""
    before = stage.listed()
    check = run_task(folder, "triton_model", options, "--check", "--diff")
    assert check["changed"] and stage.listed() == before
    with ProcessList() as processes:
        apply = run_task(folder, "triton_model", options, "--diff", "-vvv")
    assert processes.holding("AnsiballZ_triton_model")
    assert not [line for secret in KEYS.values() for line in processes.holding(secret)]
    assert apply["changed"], apply
    assert check["diff"] == apply["diff"] and check["actions"] == apply["actions"]
    return [check, apply]


def assert_life_in_bucket(stage: Stage) -> None:
    assert stage.listed(f"{LIFE}/") == [
        f"{LIFE}/1/model.py",
        f"{LIFE}/config.pbtxt",
        f"{LIFE}/mlflow-meta.json",
    ]
    assert (
        json.loads(stage.body(f"{LIFE}/mlflow-meta.json"))["triton_model_path"]
        == f"{stage.url}/life"
    )


def assert_no_key_told(stage: Stage, results: list[dict[str, Any]]) -> None:
    """No secret in the results nor in the state, and not even the access key in the bucket."""
    outputs = [json.dumps(result) for result in results]
    outputs += [stage.body(key).decode(errors="replace") for key in stage.listed(STATE)]
    assert not [
        secret
        for secret in KEYS.values()
        for text in outputs
        if secret in text and secret != KEYS["access_key"]
    ]
    assert not any(
        KEYS["access_key"] in stage.body(key).decode(errors="replace") for key in stage.listed()
    )


def assert_every_program_is_found(stage: Stage, *samples: Sample) -> None:
    """In place and in the retained copy, as a rule reads what may come back."""
    repository = open_repository(stage.url, s3=KEYS)
    now = repository.store.record("life")
    assert now is not None
    records = [now, *repository.store.retained_records("life")]
    paths = {f"{number}/model.py" for number, _sample in enumerate(samples, 1)}
    found = {
        (path, kept_text(repository, record, path))
        for record in records
        for path in paths & {file["path"] for file in record.manifest["files"]}
    }
    assert found == {
        (f"{number}/model.py", (sample.folder / "1/model.py").read_bytes())
        for number, sample in enumerate(samples, 1)
    }


def test_check_apply_again_update_back_restart_remove(
    tmp_path: Path, mlflow: MLflow, stage: Stage
) -> None:
    """The life of a model by triton_model, the credentials being options; none of them is told to
    anybody.
    """
    first, second = (
        make_python(tmp_path / "1", "life", identity=1),
        make_python(tmp_path / "2", "life", identity=2),
    )
    publish_by_module(mlflow, "life", first.folder, aliases=["champion"])
    usual = {**stage.target(), "tracking_uri": mlflow.url, "s3": KEYS, "name": "life"}
    options = {**usual, "model_uri": "models:/life@champion"}
    results = check_and_apply(tmp_path, stage, options)
    assert served(stage.one, first) == 1
    assert_life_in_bucket(stage)
    loads = stage.one.loads("life")
    again = run_module("triton_model", options)
    assert not again["changed"] and stage.one.loads("life") == loads

    publish_by_module(mlflow, "life", second.folder, aliases=["champion"])
    assert run_module("triton_model", options)["changed"]
    assert served(stage.one, second) == 2 and f"{LIFE}/1/model.py" not in stage.listed()
    info = run_task(
        tmp_path, "triton_model_info", {**stage.target(), "names": ["life"], "s3": KEYS}
    )
    assert info["models"][0]["ready"] and info["models"][0]["drift"] == []
    back = {**usual, "state": "rolled_back"}
    assert run_module("triton_model", back)["model"]["registry_version"] == 1
    assert served(stage.one, first) == 1 and f"{LIFE}/2/model.py" not in stage.listed()
    assert not run_module("triton_model", back)["changed"]
    assert_every_program_is_found(stage, first, second)
    stage.one.restart()
    assert served(stage.one, first) == 1

    assert_no_key_told(stage, [*results, info])
    gone = {**usual, "state": "absent"}
    removed, again = (run_module("triton_model", gone) for _time in range(2))
    assert [removed["changed"], again["changed"]] == [True, False]
    assert not [key for key in stage.listed() if "life" in key] and served(stage.one, first) is None


def test_a_list_with_one_that_fails(tmp_path: Path, stage: Stage) -> None:
    samples = [
        make_python(tmp_path / "a", "list-a"),
        make_python(tmp_path / "b", "list-b", fail="no such weights"),
        make_python(tmp_path / "c", "list-c"),
    ]
    wanted = [{"name": sample.name, "model_uri": str(sample.folder)} for sample in samples]
    done = run_module("triton_models", {**stage.target(), "models": wanted})
    assert done["failed"] and [entry["failed"] for entry in done["models"]] == [False, True, False]
    assert (
        "no such weights" in done["models"][1]["msg"]
        and "Nothing of it was left" in done["models"][1]["msg"]
    ), done["models"][1]["msg"]
    assert not stage.listed(f"{PREFIX}/list-b/")
    absent = [{"name": sample.name, "state": "absent"} for sample in samples]
    assert run_module("triton_models", {**stage.target(), "models": absent})["changed"]
    assert not [key for key in stage.listed() if "list-" in key]


# -- what a folder promises, and S3 keeps ----------------------------------------------------------


def bodies(stage: Stage, name: str) -> dict[str, Any]:
    """What the keys of a model and of its state hold; what came back has a time of its own."""
    found: dict[str, Any] = {key: stage.body(key) for key in stage.listed() if name in key}
    record = json.loads(found.pop(f"team/prod.mlops-triton/records/{name}.json"))
    record["fingerprint"] = {path: look[:2] for path, look in record["fingerprint"].items()}
    return {**found, "record": record}


def test_broken_update_is_put_back(tmp_path: Path, stage: Stage) -> None:
    """The same version number with other bytes, which cannot load: keys, memory and the next start
    are as before.
    """
    good, bad = (
        make_python(tmp_path / "1", "mend", identity=1),
        make_python(tmp_path / "2", "mend", identity=2, fail="broken"),
    )
    stage.good("mend", model_uri=str(good.folder))
    before = bodies(stage, "mend")
    result = stage.bring("mend", model_uri=str(bad.folder))
    assert isinstance(result.error, LoadFailed) and "is in place as before" in str(result.error)
    assert bodies(stage, "mend") == before
    assert served(stage.one, good) == 1
    stage.one.restart()
    assert served(stage.one, good) == 1
    assert not stage.good("mend", model_uri=str(good.folder)).changed
    stage.good("mend", state="absent")


def test_a_new_deployment_is_proven_under_another_name(tmp_path: Path, stage: Stage) -> None:
    """No key of the model is touched by one that fails; nothing is left of it or of a killed run,
    on any server.
    """
    old, wrong, new = (
        make_python(tmp_path / str(identity), "aside", identity=identity, wrong=identity == 2)
        for identity in (1, 2, 3)
    )
    aside = {"verify": VERIFY, "verify_aside": True}
    servers = (stage.one, stage.two)
    stage.good("aside", *servers, model_uri=str(old.folder))
    before = stage.listed(f"{PREFIX}/")
    result = stage.bring("aside", *servers, model_uri=str(wrong.folder), **aside)
    assert "as aside.mlops-candidate, before it served" in str(result.error)
    assert stage.listed(f"{PREFIX}/") == before
    assert [served(server, old) for server in servers] == [1, 1]
    stage.good("aside", *servers, model_uri=str(new.folder), **aside)
    assert stage.listed(f"{PREFIX}/") == before
    assert [served(server, old) for server in servers] == [3, 3]
    assert [server.stub_pids("aside.mlops-candidate") for server in servers] == [[], []]
    assert "aside.mlops-candidate" not in [row["name"] for row in stage.one.index()]
    stage.good("aside", *servers, state="absent")


def test_two_servers_are_both_loaded_and_both_proven(tmp_path: Path, stage: Stage) -> None:
    first, second = (
        make_python(tmp_path / "1", "pair", identity=1),
        make_python(tmp_path / "2", "pair", identity=2),
    )
    both = (stage.one, stage.two)
    stage.good("pair", *both, model_uri=str(first.folder))
    record = stage.good("pair", *both, model_uri=str(second.folder)).record
    assert record and [served(server, second) for server in both] == [2, 2]
    ids = {
        server.model_config("pair")["parameters"]["mlops_triton_deploy_id"]["string_value"]
        for server in both
    }
    assert ids == {record.deploy_id}
    stage.two.unload("pair")
    done = stage.good("pair", *both, model_uri=str(second.folder))
    assert done.plan and done.plan.actions == [f"load on {stage.two.url}"]
    stage.good("pair", *both, state="absent")
    assert [served(server, second) for server in both] == [None, None]


def test_removal_takes_every_page_and_no_neighbour(tmp_path: Path, stage: Stage) -> None:
    sample = make_python(tmp_path, "fraud")
    neighbours = [
        f"{PREFIX}/fraud-2/1/model.py",
        f"{PREFIX}/fraud.old",
        f"{PREFIX}/fraudulent/config.pbtxt",
        f"{PREFIX}2/fraud/1/model.py",
    ]
    for key in neighbours:
        stage.put(key)
    stage.good("fraud", model_uri=str(sample.folder))
    # The files of a large tree: Triton would copy each of them at a load.
    client = stage.s3.client
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda number: client.put_object(
                    Bucket=BUCKET, Key=f"{PREFIX}/fraud/1/weights/{number}", Body=b"x"
                ),
                range(1100),
            )
        )
    with Delivery(Target.from_options(stage.target())) as delivery:
        drift = delivery.status(["fraud"])[0]["drift"]
    assert len(drift) == 1100 and "1/weights/1099 changed on disk" in drift
    stage.good("fraud", state="absent")
    assert (
        stage.listed(f"{PREFIX}/fraud") == sorted(neighbours[:3])
        and stage.listed(f"{PREFIX}2/") == neighbours[3:]
    )
    for key in neighbours:
        stage.s3.client.delete_object(Bucket=BUCKET, Key=key)


def test_empty_version_folder_of_an_ensemble(tmp_path: Path, stage: Stage) -> None:
    part = make_python(tmp_path / "part", "part")
    ensemble = tmp_path / "whole"
    (ensemble / "1").mkdir(parents=True)
    (ensemble / "config.pbtxt").write_text(
        'name: "whole"\nplatform: "ensemble"\nmax_batch_size: 8\ninput [ { name: "x" data_type:'
        ' TYPE_FP32 dims: [ 3 ] } ]\noutput [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }'
        ' ]\nensemble_scheduling { step [ { model_name: "part" model_version: -1\n  input_map {'
        ' key: "x" value: "x" } output_map { key: "y" value: "y" } } ] }\n',
        encoding="utf-8",
    )
    stage.good("part", model_uri=str(part.folder))
    stage.good("whole", model_uri=str(ensemble))
    assert f"{PREFIX}/whole/1/" in stage.listed()
    status, answer = stage.one.infer("whole", part.request())
    assert status == 200 and answer["outputs"][0]["data"] == [2.0, 5.0, -8.0]
    assert not stage.good("whole", model_uri=str(ensemble), check_files=True).changed
    # An object's time has whole seconds, and these changes follow each other closely.
    for _turn in range(4):
        (ensemble / "config.pbtxt").write_text(
            (ensemble / "config.pbtxt").read_text() + "# again\n"
        )
        stage.good("whole", model_uri=str(ensemble))
        assert (
            stage.good("whole", state="rolled_back").changed
            and stage.one.infer("whole", part.request())[0] == 200
        )
    for name in ("whole", "part"):
        stage.good(name, state="absent")


def test_versions_side_by_side_go_down_as_well(
    tmp_path: Path, mlflow: MLflow, stage: Stage
) -> None:
    samples = [
        make_python(tmp_path / str(number), "sides", identity=number) for number in (1, 2, 3)
    ]
    for sample in samples:
        publish_by_module(mlflow, "sides", sample.folder)
    target = {"tracking_uri": mlflow.url}

    def bring(**options: Any) -> dict[int, int]:
        stage.good("sides", target=target, keep=5, **options)
        until = time.monotonic() + 20
        while (
            any(
                row.get("state") == "UNLOADING"
                for row in stage.one.index()
                if row["name"] == "sides"
            )
            and time.monotonic() < until
        ):
            time.sleep(0.05)
        answers = {
            version: stage.one.infer("sides", samples[0].request(), version)
            for version in (1, 2, 3)
        }
        return {
            version: answer["outputs"][1]["data"][0]
            for version, (status, answer) in answers.items()
            if status == 200
        }

    assert bring(model_uri="models:/sides/1", serve_versions=2) == {1: 1}
    loads = stage.one.loads("sides")
    assert bring(model_uri="models:/sides/2", serve_versions=2) == {1: 1, 2: 2}
    assert stage.one.loads("sides") == loads + 1
    assert bring(model_uri="models:/sides/3", serve_versions=2) == {2: 2, 3: 3}
    assert bring(state="rolled_back") == {1: 1, 2: 2}
    assert bring(model_uri="models:/sides/3") == {3: 3}
    assert bring(model_uri="models:/sides/1") == {1: 1}
    assert stage.listed(f"{PREFIX}/sides/1/") and not stage.listed(f"{PREFIX}/sides/3/")
    stage.good("sides", state="absent")


def test_changed_bytes_are_found_and_somebody_elses_model_is_left_alone(
    tmp_path: Path, stage: Stage
) -> None:
    sample = make_python(tmp_path, "drift")
    stage.good("drift", model_uri=str(sample.folder))
    stage.put(
        f"{PREFIX}/drift/1/model.py",
        stage.body(f"{PREFIX}/drift/1/model.py").replace(b"IDENTITY = 1", b"IDENTITY = 9"),
    )
    mended = stage.good("drift", model_uri=str(sample.folder))
    assert (
        mended.plan
        and "1/model.py changed on disk" in mended.plan.actions[0]
        and served(stage.one, sample) == 1
    )
    stage.good("drift", state="unloaded")
    stage.one.restart()
    assert served(stage.one, sample) is None
    stage.good("drift", state="absent")

    other = make_python(tmp_path / "other", "foreign")
    for path in ("config.pbtxt", "1/model.py"):
        stage.put(f"{PREFIX}/foreign/{path}", (other.folder / path).read_bytes())
    assert stage.one.load("foreign")[0] == 200
    refused = stage.bring("foreign", model_uri=str(other.folder))
    assert "adopt: true takes it over" in str(refused.error)
    loads = stage.one.loads("foreign")
    assert (
        stage.good("foreign", model_uri=str(other.folder), adopt=True).changed
        and stage.one.loads("foreign") == loads
    )
    stage.good("foreign", state="absent")


def test_whole_bucket_keeps_its_state_inside(tmp_path: Path, stage: Stage) -> None:
    stage.s3.client.create_bucket(Bucket="whole")
    sample = make_python(tmp_path, "root")
    url = f"s3://127.0.0.1:{stage.s3.port}/whole"
    with triton_server(
        tmp_path / "triton", repository=url, extra_args=FAST, environment=stage.s3.environment
    ) as triton:
        target = {"model_repository": url, "triton_url": [triton.url]}
        assert not stage.bring("root", target=target, model_uri=str(sample.folder)).error
        triton.restart()
        assert served(triton, sample) == 1 and triton.call("v2/health/ready")[0] == 200
        assert not stage.bring("root", target=target, model_uri=str(sample.folder)).changed
        there = {one["Key"] for one in stage.s3.client.list_objects_v2(Bucket="whole")["Contents"]}
    assert there == {
        ".mlops-triton.json",
        ".mlops-triton/records/root.json",
        "root/1/model.py",
        "root/config.pbtxt",
        "root/mlflow-meta.json",
    }


def test_what_s3_has_not_is_said(tmp_path: Path, stage: Stage) -> None:
    sample = make_python(tmp_path, "refused")
    with pytest.raises(InvalidOption, match="names no bucket"):
        Target.from_options({"model_repository": "s3://"})
    refused = stage.bring("refused", model_uri=str(sample.folder), owner="root")
    assert "a repository in S3 has no owner" in str(refused.error)
    missing = {"model_repository": f"s3://{stage.s3.endpoint}/not-there/prod"}
    done = run_task(
        tmp_path,
        "triton_model",
        {**stage.target(), **missing, "name": "refused", "model_uri": str(sample.folder)},
    )
    assert (
        done["failed"]
        and "there is no bucket 'not-there'" in done["msg"]
        and "Traceback" not in done["_output"]
    )


def test_large_file_goes_in_parts(tmp_path: Path, stage: Stage) -> None:
    sample = make_python(tmp_path, "large")
    (sample.folder / "1" / "weights.bin").write_bytes(bytes(range(256)) * (20 << 12))
    stage.good("large", model_uri=str(sample.folder))
    key = f"{PREFIX}/large/1/weights.bin"
    assert stage.body(key) == (sample.folder / "1" / "weights.bin").read_bytes()
    assert not stage.good("large", model_uri=str(sample.folder), check_files=True).changed
    worse = make_python(tmp_path / "worse", "large", identity=2, fail="broken")
    (worse.folder / "1" / "weights.bin").write_bytes(b"smaller")
    assert stage.bring("large", model_uri=str(worse.folder)).error
    assert stage.body(key) == (sample.folder / "1" / "weights.bin").read_bytes()
    assert not stage.good("large", model_uri=str(sample.folder)).changed
    stage.good("large", state="absent")


# -- the MLflow plugin -----------------------------------------------------------------------------


def hosts_of_the_examples(mlflow: MLflow, stage: Stage, *names: str) -> dict[str, dict[str, Any]]:
    """The hosts of the example's inventory, all of them here; the first one has the models."""
    here = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": interpreter(),
        "triton_client_python": interpreter(),
        "mlflow_tracking_uri": mlflow.url,
        "triton_model_repository": stage.url,
        "triton_admin_key": {},
        "vault_s3_access_key": "AKIAOFTHETEST",
        "vault_s3_secret_key": "a-secret-of-the-test",
        "vault_mlflow_password": "a-secret-of-the-test-too",
        "triton_delivery_urls": [stage.one.url, stage.two.url],
        "triton_delivery_load_urls": [f"grpc://{one.grpc_url}" for one in (stage.one, stage.two)],
        "triton_delivery_metrics_urls": [stage.one.metrics_url, stage.two.metrics_url],
        "triton_models": [
            {"name": name, "model_uri": f"models:/{name}@champion"} for name in names
        ],
    }
    return {
        "triton-1.example.org": here,
        "triton-2.example.org": {**here, "triton_models": []},
        "triton-3.example.org": {**here, "triton_models": []},
    }


def play(folder: Path, playbook: str, *arguments: str) -> str:
    """The recap of a playbook for the example's inventory and the folder's ``here.yml``."""
    words = [
        *ansible_playbook(),
        "-i",
        str(ROOT / "playbooks/inventory/s3.yml"),
        "-i",
        "here.yml",
        "-vvv",
        f"mlops.triton.{playbook}",
        *arguments,
    ]
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment(**S3.environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "a-secret-of-the-test" not in done.stdout + done.stderr
    assert "go over HTTP" not in " ".join((done.stdout + done.stderr).split())
    return done.stdout.rpartition("PLAY RECAP")[2]


def test_playbooks_with_the_inventory_of_the_examples(
    tmp_path: Path, mlflow: MLflow, stage: Stage
) -> None:
    """Its first host delivers to all servers of the bucket; the others have nothing to do."""
    for name in ("fraud", "ransomware"):
        publish_by_module(
            mlflow, name, make_python(tmp_path / "1", name).folder, aliases=["champion"]
        )
    fraud = make_python(tmp_path / "1", "fraud")
    hosts = hosts_of_the_examples(mlflow, stage, "fraud", "ransomware")
    (tmp_path / "here.yml").write_text(json.dumps({"triton": {"hosts": hosts}}))

    assert play(tmp_path, "deploy_models").count("changed=1 ") == 1
    assert served(stage.one, fraud) == served(stage.two, fraud) == 1
    assert "triton.deployed/production" in Registry(mlflow.url, 60).version_info("fraud", 1).tags
    assert play(tmp_path, "deploy_models").count("changed=0 ") == 3
    play(
        tmp_path,
        "remove_models",
        "--limit",
        "triton-1.example.org",
        "-e",
        '{"triton_models_to_remove": ["fraud", "ransomware"]}',
    )
    assert served(stage.one, fraud) is None and served(stage.two, fraud) is None


def test_plugin_with_a_repository_in_s3(tmp_path: Path, mlflow: MLflow, stage: Stage) -> None:
    """``mlflow deployments`` with TRITON_MODEL_REPO=s3://…, the credentials in the environment."""
    sample, other = (
        make_python(tmp_path / "1", "plugged", identity=1),
        make_python(tmp_path / "2", "plugged", identity=2),
    )
    for one in (sample, other):
        publish_by_module(mlflow, "plugged", one.folder)
    variables = plugin.environment(
        plugin.registered(tmp_path / "site"),
        TRITON_URL=stage.one.url,
        TRITON_MODEL_REPO=stage.url,
        MLFLOW_TRACKING_URI=mlflow.url,
        **S3.environment,
    )

    def run(*words: str) -> str:
        done = plugin.deployments(variables, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert S3.environment["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
        return done.stdout

    assert "plugged is created" in run(
        "create",
        "-t",
        "triton",
        "--flavor",
        "triton",
        "--name",
        "plugged",
        "-m",
        "models:/plugged/1",
    )
    assert served(stage.one, sample) == 1
    assert f"{stage.url}/plugged" in run("list", "-t", "triton")
    run(
        "update",
        "-t",
        "triton",
        "--flavor",
        "triton",
        "--name",
        "plugged",
        "-m",
        "models:/plugged/2",
    )
    assert served(stage.one, other) == 2
    assert "models:/plugged/2" in run("get", "-t", "triton", "--name", "plugged")
    (tmp_path / "input.json").write_text(json.dumps({"x": [[1.0, 2.5, -4.0]]}), encoding="utf-8")
    assert "-8.0" in run(
        "predict", "-t", "triton", "--name", "plugged", "--input-path", str(tmp_path / "input.json")
    )
    run("delete", "-t", "triton", "--name", "plugged")
    assert not [key for key in stage.listed() if "plugged" in key]
    missing = plugin.deployments(variables, "get", "-t", "triton", "--name", "plugged")
    assert (
        missing.returncode != 0
        and "no such deployment" in missing.stderr
        and "Traceback (most recent" not in missing.stdout
    )
