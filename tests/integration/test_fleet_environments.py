# SPDX-License-Identifier: Apache-2.0
"""``deploy_models`` makes the Python environments of models before it takes a host out of service,
and all hosts install what the first one has resolved.

The packages are small stand-ins of MLflow and pandas, and numpy.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support import servers
from support.environments import of_this_machine
from support.fleets import Fleet, start_fleet
from support.wheels import wheel

pytestmark = [pytest.mark.long, pytest.mark.takes(40)]

HOSTS = ("one", "two")
MODEL = "tiny"
MLFLOW = """\
class Model:
    metadata = None

    def predict(self, data, params=None):
        (values,) = data.values()
        return values * 2


def load_model(path):
    return Model()
"""
TENSOR = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}
MLMODEL = {
    "flavors": {
        "python_function": {
            "loader_module": "mlflow.pyfunc.model",
            "python_version": platform.python_version(),
        }
    },
    "mlflow_version": "3.17.2",
    "signature": {
        "inputs": json.dumps([{"name": "x", **TENSOR}]),
        "outputs": json.dumps([{"name": "y", **TENSOR}]),
    },
}
NEEDS = "mlflow-skinny==99.0\npandas==99.0\nnumpy==2.4.6\nsolver\n"
COUNT = """\
- name: Look for environments
  ansible.builtin.find:
    paths: "{{ place }}"
    patterns: environment.json
    recurse: true
  register: found

- name: Write down how many there are
  ansible.builtin.lineinfile:
    path: "{{ journal }}"
    line: "{{ inventory_hostname }} leaves, and there are {{ found.matched }}"
    create: true
    mode: "0600"
  changed_when: false
"""


def make_wheels(folder: Path) -> None:
    wheel(
        folder,
        "mlflow-skinny",
        "99.0",
        files={"mlflow/__init__.py": "", "mlflow/pyfunc/__init__.py": MLFLOW},
    )
    tables = "class DataFrame: pass\nclass Series: pass\n"
    wheel(folder, "pandas", "99.0", files={"pandas/__init__.py": tables})
    wheel(folder, "solver", "1.0")


def publish(fleet: Fleet) -> None:
    folder = fleet.folder / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text(json.dumps(MLMODEL))
    (folder / "requirements.txt").write_text(NEEDS)
    client = MlflowClient(fleet.mlflow.url)
    run = client.create_run(client.create_experiment(MODEL))
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, f"{run.info.artifact_uri}/model", run.info.run_id)


@pytest.fixture(scope="module")
def fleet(mlflow: servers.MLflow) -> Iterator[Fleet]:
    # Root makes environments as somebody who must get there.
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    try:
        with start_fleet(base, mlflow, HOSTS) as started:
            make_wheels(base / "wheels")
            (base / "count.yml").write_text(COUNT)
            given = of_this_machine()
            given["find_links"] = [*given.get("find_links", ()), str(base / "wheels")]
            started.variables |= {
                "place": str(base / "environments"),
                "triton_models": [
                    {"name": MODEL, "model_uri": f"models:/{MODEL}/1", "serve_as": "pyfunc"}
                ],
                "triton_out_of_service_tasks": str(base / "count.yml"),
                "triton_in_service_tasks": "",
            }
            for name in HOSTS:
                own = {**given, "folder": str(base / "environments" / name)}
                started.host_variables[name] = {"triton_environments": own}
            publish(started)
            yield started
    finally:
        shutil.rmtree(base, ignore_errors=True)


def journal(fleet: Fleet) -> list[str]:
    """What the hook has written down since this was asked last."""
    path = fleet.folder / "journal"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def stamps(fleet: Fleet) -> list[dict[str, Any]]:
    """What is written down of each environment, host after host."""
    found = sorted((fleet.folder / "environments").glob("*/*/environment.json"))
    return [json.loads(path.read_text()) for path in found]


def versions(stamp: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["version"] for one in stamp["packages"]}


def test_check_mode_says_what_is_needed_and_makes_nothing(fleet: Fleet) -> None:
    done = fleet.play("deploy_models", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "environment: 4 requirements" in done.stdout
    assert journal(fleet) == [] and stamps(fleet) == []


def test_what_cannot_be_had_is_said_before_a_host_is_taken_out(fleet: Fleet) -> None:
    (fleet.folder / "nothing").mkdir()
    without = {
        "folder": str(fleet.folder / "environments/two"),
        "no_index": True,
        "find_links": [str(fleet.folder / "nothing")],
    }
    done = fleet.play("deploy_models", "-e", json.dumps({"triton_environments": without}))
    said = " ".join(done.stdout.split())
    assert done.returncode == 2, said
    assert f"one: model '{MODEL}', build the environment: the wheelhouse (find_links) does" in said
    assert "No host was changed." in said
    assert journal(fleet) == [] and stamps(fleet) == []
    assert [row for triton in fleet.tritons.values() for row in triton.index()] == []


def test_all_hosts_have_the_same_before_the_first_one_leaves(fleet: Fleet) -> None:
    done = fleet.play("deploy_models")
    assert done.returncode == 0, done.stdout + done.stderr
    assert journal(fleet) == [f"{host} leaves, and there are 2" for host in HOSTS]
    first, second = stamps(fleet)
    assert first["lock"] == second["lock"] and first["digest"] == second["digest"]
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
    for triton in fleet.tritons.values():
        status, answer = triton.infer(MODEL, request)
        assert (status, answer["outputs"][0]["data"]) == (200, [2, 4, 6])


def test_hosts_that_have_it_stay_as_they_are(fleet: Fleet) -> None:
    """Although a newer version can be had by now."""
    wheel(fleet.folder / "wheels", "solver", "2.0")
    done = fleet.play("deploy_models")
    assert done.returncode == 0 and "changed=1" not in done.stdout, done.stdout
    assert journal(fleet) == []
    assert [versions(stamp)["solver"] for stamp in stamps(fleet)] == ["1.0", "1.0"]
