# SPDX-License-Identifier: Apache-2.0
"""A real MLflow behind a server that asks for a user or a token, and speaks TLS with certificates
of a private authority: what the options say reaches every request, and nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from ansible_collections.mlops.triton.plugins.mlflow_deployments import TritonDeploymentClient
from mlflow.exceptions import MlflowException
from support import models, plugin
from support.certificates import Authority
from support.gate import Gate, gate
from support.modules import run_module
from support.playbooks import ProcessList, run_playbook
from support.servers import MLflow, Triton

PASSWORD, TOKEN = "Sesame 4730: ä", "token-4731-of-the-test"


@dataclass(frozen=True)
class Doors:
    """One MLflow behind several gates. ``tls`` asks for a certificate too."""

    plain: Gate
    tls: Gate
    authority: Authority

    @property
    def user(self) -> dict[str, Any]:
        return {
            "tracking_uri": self.plain.url,
            "mlflow_username": "me",
            "mlflow_password": PASSWORD,
        }

    @property
    def token(self) -> dict[str, Any]:
        return {"tracking_uri": self.plain.url, "mlflow_token": TOKEN}

    @property
    def certificates(self) -> dict[str, Any]:
        folder = self.authority.folder
        return {
            **self.user,
            "tracking_uri": self.tls.url,
            "mlflow_ca_file": self.authority.ca_file,
            "mlflow_client_cert": str(folder / "client.pem"),
            "mlflow_client_key": str(folder / "client.key"),
        }

    def way(self, name: str) -> dict[str, Any]:
        return dict(getattr(self, name))


@pytest.fixture(scope="module")
def doors(mlflow: MLflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    server = authority.issue("server")
    authority.issue("client")
    known = {"user": "me", "password": PASSWORD, "token": TOKEN}
    with (
        gate(mlflow.url, **known) as plain,
        gate(mlflow.url, **known, tls=server, client_ca=authority.ca_file) as tls,
    ):
        yield Doors(plain, tls, authority)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = models.make_python(tmp_path_factory.mktemp("source"), "guarded").folder
    return folder


def place(triton: Triton) -> dict[str, Any]:
    return {"model_repository": str(triton.repository), "triton_url": triton.url, "timeout": 30}


@pytest.mark.parametrize("way", ["user", "token", "certificates"])
def test_the_options_reach_every_request(
    way: str, doors: Doors, source: Path, triton: Triton
) -> None:
    options = doors.way(way)
    name = f"guarded-{way}"
    published = run_module("mlflow_publish", {**options, "name": name, "path": str(source)})
    assert not published["failed"] and published["changed"], published
    known = run_module("mlflow_model_info", {**options, "names": [name]})
    assert [one["name"] for one in known["models"]] == [name]
    given = {**options, **place(triton), "name": "guarded", "model_uri": f"models:/{name}/1"}
    given["registry_status"] = "test"
    deployed = run_module("triton_model", given)
    assert not deployed["failed"] and deployed["changed"], deployed
    shown = run_module("triton_model_info", {**options, **place(triton)})
    assert not shown["failed"], shown
    many = {**options, **place(triton), "models": [{"name": "guarded", "state": "absent"}]}
    removed = run_module("triton_models", many)
    assert not removed["failed"] and removed["changed"], removed
    said = json.dumps([published, known, deployed, shown, removed], ensure_ascii=False)
    assert PASSWORD not in said and TOKEN not in said
    for file in triton.repository.parent.rglob("*.json"):
        text = file.read_text(encoding="utf-8", errors="replace")
        assert PASSWORD not in text and TOKEN not in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mlflow_username": None, "mlflow_password": None}, "mlflow_username and mlflow_password"),
        ({"mlflow_password": "wrong-4732"}, "mlflow_username and mlflow_password"),
        ({"mlflow_password": None}, "mlflow_username is given without mlflow_password"),
        ({"mlflow_username": None}, "mlflow_password is given without mlflow_username"),
        ({"mlflow_token": TOKEN}, "mlflow_token is given beside"),
        ({"mlflow_ca_file": None}, "mlflow_ca_file"),
        ({"mlflow_ca_file": "/no/ca.pem"}, "mlflow_ca_file /no/ca.pem cannot be read"),
        ({"mlflow_ca_file": __file__}, "has no certificates"),
        ({"mlflow_client_cert": None}, "mlflow_client_key is given without mlflow_client_cert"),
        ({"mlflow_client_key": None}, "without mlflow_client_key, it has not its key"),
        ({"mlflow_client_cert": None, "mlflow_client_key": None}, "which mlflow_client_cert names"),
    ],
)
def test_what_is_missing_or_wrong_is_a_sentence(
    changes: dict[str, Any], sentence: str, doors: Doors, triton: Triton
) -> None:
    given = {**doors.certificates, **changes, **place(triton)}
    failed = run_module("triton_model", {**given, "name": "no", "model_uri": "models:/no@alias"})
    assert failed["failed"]
    assert re.search(sentence, failed["msg"]), failed["msg"]
    assert "othing was changed" in failed["msg"] and "defect" not in failed["msg"]
    assert PASSWORD not in json.dumps(failed, ensure_ascii=False) and "4732" not in failed["msg"]
    assert not (triton.repository / "no").exists()


def test_the_environment_completes_what_the_options_leave_out(doors: Doors) -> None:
    options = {"tracking_uri": doors.plain.url, "names": []}
    variables = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    assert not run_module("mlflow_model_info", options, variables=variables)["failed"]
    half = {**options, "mlflow_username": "me"}
    assert not run_module(
        "mlflow_model_info", half, variables={**variables, "MLFLOW_TRACKING_USERNAME": "other"}
    )["failed"]
    wrong = {**variables, "MLFLOW_TRACKING_PASSWORD": "wrong-4732"}
    token = {**options, "mlflow_token": TOKEN}
    assert not run_module("mlflow_model_info", token, variables=wrong)["failed"]


def test_the_plugin_keeps_them_to_its_own_requests(
    doors: Doors, source: Path, triton: Triton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is the user's: what else runs there must not send the plugin's password."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_TRACKING_")]:
        monkeypatch.delenv(name)
    run_module("mlflow_publish", {**doors.user, "name": "guarded-plugin", "path": str(source)})
    monkeypatch.setenv("PASSWORD_OF_TEST", PASSWORD)
    before = dict(os.environ)
    client = TritonDeploymentClient(
        f"triton://{triton.url}?model_repository={triton.repository}&tracking_uri={doors.plain.url}"
        "&mlflow_username=me&mlflow_password_env=PASSWORD_OF_TEST"
    )
    client.create_deployment("guarded", "models:/guarded-plugin/1")
    client.delete_deployment("guarded")
    assert dict(os.environ) == before
    for own in (doors.plain.url, doors.plain.url + "/"):
        with pytest.raises(MlflowException, match="401"):
            mlflow.MlflowClient(own).get_registered_model("guarded-plugin")
    with pytest.raises(MlflowException, match="mlflow_username and mlflow_password") as caught:
        client.create_deployment(
            "guarded", "models:/guarded-plugin/1", config={"mlflow_password": "wrong-4732"}
        )
    assert caught.value.error_code == "UNAUTHENTICATED"


def test_the_command_line_has_them(
    doors: Doors, source: Path, triton: Triton, tmp_path: Path
) -> None:
    run_module("mlflow_publish", {**doors.user, "name": "guarded-cli", "path": str(source)})
    options = {**doors.certificates, **place(triton), "mlflow_password_env": "PASSWORD_OF_TEST"}
    del options["mlflow_password"]
    words = [word for key, value in options.items() for word in ("-C", f"{key}={value}")]
    variables = plugin.environment(plugin.registered(tmp_path / "site"), PASSWORD_OF_TEST=PASSWORD)
    create = ("create", "-t", "triton", "--name", "guarded", "-m", "models:/guarded-cli/1")
    with ProcessList() as processes:
        created = plugin.deployments(variables, *create, *words)
    assert created.returncode == 0, created.stderr
    assert not processes.holding(PASSWORD)
    deleted = plugin.deployments(variables, "delete", "-t", "triton", "--name", "guarded", *words)
    assert deleted.returncode == 0, deleted.stderr
    assert PASSWORD not in created.stdout + created.stderr + deleted.stdout + deleted.stderr


def test_a_playbook_gives_them_once(
    doors: Doors, source: Path, triton: Triton, tmp_path: Path
) -> None:
    """By module_defaults for modules, by variables of the same names for the lookup."""
    options = doors.certificates
    published = {**options, "name": "guarded-play", "path": str(source), "aliases": ["champion"]}
    assert not run_module("mlflow_publish", published)["failed"]
    variables = {**options, "mlflow_tracking_uri": options["tracking_uri"]}
    names = ("mlflow_username", "mlflow_password", "mlflow_ca_file")
    defaults = {key: f"{{{{ {key} }}}}" if key in names else one for key, one in options.items()}
    lookup = "{{ lookup('mlops.triton.mlflow_model_version', 'models:/guarded-play@champion') }}"
    task = {
        "name": "guarded",
        "model_uri": f"models:/guarded-play/{lookup}",
        "alias": "champion",
        **place(triton),
    }
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": variables,
        "module_defaults": {"group/mlops.triton.triton": defaults},
        "tasks": [
            {"name": "Deploy", "mlops.triton.triton_model": task},
            {
                "name": "Remove",
                "mlops.triton.triton_model": {
                    **place(triton),
                    "name": "guarded",
                    "state": "absent",
                },
            },
        ],
    }
    with ProcessList() as processes:
        done = run_playbook(tmp_path, [play], "-vvv", "--diff")
    assert done.rc == 0, done.output
    assert "models:/guarded-play/1" in done.output
    assert PASSWORD not in done.output and not processes.holding(PASSWORD)
