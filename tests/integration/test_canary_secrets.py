# SPDX-License-Identifier: Apache-2.0
"""Secrets are planted wherever one can be given, everything is run as loudly as it can be, with
success and with failures of each step, and no secret is found where it need not be: in no output,
no log, no record, no file that others may read, and no list of processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import preflight
import pytest
import yaml
from support import models, plugin
from support.canaries import Canaries
from support.certificates import Authority
from support.gate import gate
from support.hostile import hostile_server, says_json
from support.native_roles import ready_made
from support.native_roles import variables as variables_of
from support.playbooks import ProcessList, ansible_playbook, environment
from support.servers import ROOT, MLflow, Triton
from support.signers import Key
from warm_python import interpreter

pytestmark = [pytest.mark.long, pytest.mark.takes(60)]

host = preflight.load_host()
LOUD = ("-vvvv", "--diff")
SIGNED = "X-Amz-Credential=a%2Fb&X-Amz-Signature={0}&sig={0}&token={0}"


@dataclass
class Place:
    """``given`` holds what users wrote; below ``work`` lies all that is made of it."""

    canaries: Canaries
    folder: Path
    outputs: list[tuple[str, str]] = field(default_factory=list)
    processes: ProcessList = field(default_factory=ProcessList)

    @property
    def given(self) -> Path:
        return self.folder / "given"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def variables(self, **more: str) -> dict[str, str]:
        for name in ("home", "tmp", "remote", "local"):
            (self.work / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        return {
            "HOME": str(self.work / "home"),
            "TMPDIR": str(self.work / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(self.work / "remote"),
            "ANSIBLE_LOCAL_TEMP": str(self.work / "local"),
            "ANSIBLE_LOG_PATH": str(self.work / "ansible.log"),
            "ANSIBLE_KEEP_REMOTE_FILES": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def run(self, name: str, words: list[str], variables: dict[str, str]) -> str:
        with self.processes_of():
            done = subprocess.run(
                words,
                cwd=self.work,
                env=variables,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                timeout=300,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        output = done.stdout + done.stderr
        self.outputs.append((name, output))
        return output

    def processes_of(self) -> ProcessList:
        before = self.processes.seen
        self.processes = ProcessList()
        self.processes.seen = before
        return self.processes

    def play(self, name: str, tasks: list[dict[str, Any]], *words: str, **more: str) -> str:
        """Each task may fail; what it says is looked at."""
        vault: dict[str, str] = {}
        plays = [{"hosts": "localhost", "gather_facts": False, "tasks": self._in(vault, tasks)}]
        playbook, secrets = self.given / "play.yml", self.given / "secrets.json"
        playbook.write_text(yaml.safe_dump(plays), encoding="utf-8")
        secrets.write_text(json.dumps(vault), encoding="utf-8")
        inventory = self.given / "inventory.ini"
        inventory.write_text(
            f"localhost ansible_connection=local ansible_python_interpreter={interpreter()!r}\n",
            encoding="utf-8",
        )
        command = [*ansible_playbook(), "-i", str(inventory), str(playbook), *LOUD, *words]
        command += ["-e", f"@{secrets}"]
        return self.run(name, command, environment(**self.variables(**more)))

    def _in(self, vault: dict[str, str], value: Any) -> Any:
        """The same with a variable in the place of each secret, as users write it: Ansible quotes
        the lines of a task that fails.
        """
        if isinstance(value, dict):
            return {key: self._in(vault, one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._in(vault, one) for one in value]
        if isinstance(value, str) and self.canaries.found_in(value.encode()):
            name = f"given_{len(vault)}"
            vault[name] = value
            return f"{{{{ {name} }}}}"
        return value

    def check(self, kept: dict[str, Any] | None = None) -> None:
        for name, output in self.outputs:
            assert not self.canaries.found_in_text(output), name
        seen = {
            (name, line[:200])
            for line in self.processes.seen
            for name in self.canaries.found_in(line)
            if not (name == "role admin" and b"--http-restricted-api" in line)
        }
        assert not seen
        assert not self.canaries.found_in_files(self.work, kept)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    # A short name: the supervisor's socket lies in it.
    made = Place(Canaries(), tmp_path_factory.mktemp("c"))
    for folder in (made.given, made.work):
        folder.mkdir(mode=0o700)
    yield made
    made.outputs.clear()


@dataclass(frozen=True)
class Options:
    """What tasks are given, each with secrets of its own."""

    secrets: Canaries
    host: str
    where: dict[str, Any]
    source: str
    key: Key

    @property
    def user(self) -> dict[str, Any]:
        return {
            "tracking_uri": f"http://{self.host}",
            "mlflow_username": "me",
            "mlflow_password": self.secrets.ascii("mlflow"),
        }

    @property
    def token(self) -> dict[str, Any]:
        token = self.secrets.ascii("token")
        return {"tracking_uri": f"http://{self.host}", "mlflow_token": token}

    @property
    def in_uri(self) -> dict[str, Any]:
        return {"tracking_uri": self.secrets.url("mlflow", self.host)}

    @property
    def admin(self) -> dict[str, Any]:
        return {"admin_key": {"name": "k", "secret": self.secrets.ascii("admin")}}

    @property
    def sign(self) -> dict[str, Any]:
        return {"private_key": self.key.file, "password": self.secrets["key password"]}

    @property
    def in_s3(self) -> dict[str, Any]:
        s3 = {
            "access_key": "AKIA",
            "secret_key": self.secrets["s3"],
            "session_token": self.secrets["s3 session"],
        }
        place = "s3://http://127.0.0.1:1/bucket/models"
        return {**self.where, "model_repository": place, "s3": s3}


def task(module: str, **options: Any) -> dict[str, Any]:
    return {"name": module, f"mlops.triton.{module}": options, "ignore_errors": True}


def stranger(place: str) -> dict[str, Any]:
    """What a registry answers whose artifacts lie at ``place``."""
    version = {"name": "net", "version": "1", "status": "READY", "source": place}
    return {"model_version": version, "artifact_uri": place, "files": []}


NET = {"name": "net", "model_uri": "models:/net/1"}
FAR = {"name": "far", "model_uri": "models:/net/1"}


def publishing(given: Options) -> list[dict[str, Any]]:
    """With success, and with keys and passwords that are none."""
    secrets, sign = given.secrets, given.sign
    new = {**given.user, "name": "n", "path": given.source}
    return [
        task("mlflow_publish", **{**new, "name": "net"}, sign=sign),
        task("mlflow_publish", **given.in_uri, name="net2", path=given.source),
        task("mlflow_publish", **new, sign={**sign, "password": secrets["wrong key password"]}),
        task("mlflow_publish", **new, sign={"private_key": given.key.text + secrets["in a key"]}),
        task("mlflow_publish", **new, sign={"private_key_env": secrets["as a variable"]}),
    ]


def asking(given: Options, over_tls: str) -> list[dict[str, Any]]:
    """A registry that answers, refuses, is not there, or is not trusted."""
    secrets = given.secrets
    uris = {
        "wrong uri": secrets.url("wrong uri", given.host),
        "dead uri": secrets.url("dead uri", "127.0.0.1:1"),
        "db uri": secrets.url("db uri", "127.0.0.1:1/db", "postgresql"),
    }
    options: list[dict[str, Any]] = [
        given.token,
        {**given.user, "mlflow_password": secrets["wrong"]},
        {**given.token, "mlflow_token": secrets.ascii("wrong token")},
        *({"tracking_uri": uri} for uri in uris.values()),
        {**given.user, "tracking_uri": over_tls},
        {**given.in_uri, "registry_uri": secrets.url("registry uri", "[::1")},
    ]
    return [task("mlflow_model_info", **one) for one in options]


def delivering(given: Options, signed: str, strangers: list[str]) -> list[dict[str, Any]]:
    """With success, and from and to where nothing can come from or go to."""
    secrets, where = given.secrets, given.where
    dead = {**where, "triton_url": "127.0.0.1:1"}
    secret_url = {**where, "triton_url": secrets.url("triton url", "127.0.0.1:1")}
    listed = {"models": [NET], "registry_status": "here"}
    gone = {"name": "gone", "model_uri": "models:/gone/1"}
    options: list[dict[str, Any]] = [
        {**given.in_uri, **where, **gone},
        {**given.user, **where, **NET},
        *({**where, **FAR, "tracking_uri": f"http://{one}"} for one in strangers),
        {**where, **FAR, "model_uri": f"https://h/x?{signed}"},
        {**where, **FAR, "model_uri": secrets.url("model uri", "h/x")},
        {**given.user, **secret_url, **NET},
        {**given.user, **dead, **given.admin, **NET},
        {**given.user, **given.in_s3, **NET},
        {**given.in_uri, **where, **NET, "config": {"max_batch_size": "x"}},
    ]
    return [
        task("triton_models", **given.in_uri, **where, **given.admin, **listed),
        task("triton_model_info", **given.token, **where, **given.admin, verify=True),
        task("triton_model_info", **given.in_s3),
        *(task("triton_model", **one) for one in options),
    ]


def surroundings(secrets: Canaries) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": secrets["variable"],
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": secrets["aws variable"],
        "AWS_SESSION_TOKEN": secrets["aws session"],
        "HTTPS_PROXY": secrets.url("proxy", "127.0.0.1:1"),
        "HTTP_PROXY": secrets.url("proxy", "127.0.0.1:1"),
    }


def test_no_secret_of_a_module_is_shown(place: Place, mlflow: MLflow, triton: Triton) -> None:
    secrets = place.canaries
    authority = Authority(place.given / "authority")
    source = models.make_python(place.given / "source", "net").folder
    key = Key(place.given, "signer", password=secrets["key password"])
    known = {"user": "me", "password": secrets.ascii("mlflow"), "token": secrets.ascii("token")}
    where = {"model_repository": str(triton.repository), "triton_url": triton.url, "timeout": 5}
    signed = SIGNED.format(secrets.ascii("signed url"))
    bucket = secrets.url("bucket", f"b/x?{signed}", "s3")
    with (
        gate(mlflow.url, **known) as plain,
        gate(mlflow.url, **known, tls=authority.issue("server")) as tls,
        hostile_server(says_json(stranger(f"https://127.0.0.1:1/x?{signed}"))) as elsewhere,
        hostile_server(says_json(stranger(bucket))) as in_bucket,
    ):
        host = plain.url.removeprefix("http://")
        given = Options(secrets, host, where, str(source), key)
        tasks = [*publishing(given), *asking(given, tls.url)]
        tasks += delivering(given, signed, [elsewhere, in_bucket])
        place.play("check", tasks[::3], "--check", **surroundings(secrets))
        place.play("real", tasks, **surroundings(secrets))
        far = [task("mlflow_model_info", tracking_uri="https://registry.invalid", timeout=3)]
        place.play("proxy", far, **surroundings(secrets))
    assert (triton.repository / "net").is_dir()
    for folder in (triton.repository, Path(f"{triton.repository}.mlops-triton")):
        assert not secrets.found_in_files(folder)
    place.check()
    assert not secrets.found_in(triton.log_text().encode())


def test_no_secret_of_the_plugin_and_the_publisher_is_shown(
    place: Place, mlflow: MLflow, triton: Triton, tmp_path: Path
) -> None:
    secrets = place.canaries
    source = models.make_python(place.given / "source", "cli").folder
    key = Key(place.given, "signer", password=secrets["key password"])
    known = {
        "user": "me",
        "password": secrets.ascii("mlflow"),
        "token": secrets.ascii("token"),
    }
    with gate(mlflow.url, **known) as plain:
        host = plain.url.removeprefix("http://")
        profiles = place.given / "profiles.yml"
        here = {
            "triton_url": triton.url,
            "model_repository": str(triton.repository),
            "timeout": 5,
            "tracking_uri": secrets.url("mlflow", host),
            "admin_key": {"name": "k", "secret": secrets.ascii("admin")},
        }
        dead = {**here, "tracking_uri": secrets.url("dead", "127.0.0.1:1")}
        profiles.write_text(yaml.safe_dump({"here": here, "dead": dead}), encoding="utf-8")
        site = plugin.registered(tmp_path / "site")
        variables = plugin.environment(
            site,
            **place.variables(
                MLOPS_TRITON_PROFILES=str(profiles),
                MLFLOW_TRACKING_URI=secrets.url("mlflow", host),
                MLFLOW_LOGGING_LEVEL="DEBUG",
                KEY_PASSWORD=secrets["key password"],
                WRONG_PASSWORD=secrets["wrong key password"],
            ),
        )
        publish = [sys.executable, str(ROOT / "publish_model_to_mlflow.py"), "--flavor", "triton"]
        publish += ["--model_name", "cli", "--model_directory", str(source), "--sign_key", key.file]
        for variable in ("KEY_PASSWORD", "WRONG_PASSWORD"):
            place.run("publish", [*publish, "--sign_password_env", variable], variables)
        for address in (secrets.url("wrong", host), secrets.url("dead", "127.0.0.1:1")):
            place.run("publish", publish, {**variables, "MLFLOW_TRACKING_URI": address})
        command = [sys.executable, "-m", "mlflow", "deployments"]
        for verb in (
            ("create", "-t", "triton:/here", "--name", "cli", "-m", "models:/cli/1"),
            ("create", "-t", "triton:/dead", "--name", "cli2", "-m", "models:/cli/1"),
            ("get", "-t", "triton:/here", "--name", "cli"),
            ("list", "-t", "triton:/here"),
            ("delete", "-t", "triton:/here", "--name", "cli"),
        ):
            place.run(" ".join(verb), [*command, *verb], variables)
    assert "cli is created" in place.outputs[4][1], place.outputs[4][1]
    place.check()
    for folder in (triton.repository, Path(f"{triton.repository}.mlops-triton")):
        assert not secrets.found_in_files(folder)


def test_no_secret_of_a_role_is_shown(place: Place) -> None:
    secrets = place.canaries
    variables = {
        **variables_of(place.work),
        **ready_made(),
        "triton_admin_key": {"name": "k", "secret": secrets.ascii("role admin")},
        "triton_environment": {"CLOUD_TOKEN": secrets["role environment"]},
        "mlflow_environment": {"AWS_SECRET_ACCESS_KEY": secrets["mlflow environment"]},
    }
    auth = {
        "mlflow_auth": True,
        "mlflow_auth_admin_password": secrets["auth password"],
        "mlflow_auth_secret_key": secrets["auth key"],
    }
    inventory = place.given / "inventory.yml"

    def provision(name: str, *words: str, **more: Any) -> str:
        hosts = {"mlflow": {"hosts": {"registry": None}}, "triton": {"hosts": {"server": None}}}
        written = {"all": {"vars": {**variables, **more}}, **hosts}
        inventory.write_text(yaml.safe_dump(written), encoding="utf-8")
        command = [*ansible_playbook(), "-i", str(inventory), f"mlops.triton.{words[0]}"]
        return place.run(name, [*command, *LOUD, *words[1:]], environment(**place.variables()))

    store = secrets.url("store", "127.0.0.1:1/db", "postgresql")
    stores = {"mlflow_backend_store_uri": store, "mlflow_auth_database_uri": store}
    pip = ["--index-url", secrets.url("pip", "127.0.0.1:1/simple"), "--retries=0", "--timeout=1"]
    venvs = {
        f"triton_{name}_venv": str(place.work / f"triton/{name}")
        for name in ("server", "client", "supervisor")
    }
    try:
        provision("check", "provision", "--check", **auth, **stores)
        said = provision("provision", "provision")
        assert "failed=0" in said.rpartition("PLAY RECAP")[2], said[-3000:]
        mlflow = ("provision", "--limit", "mlflow")
        provision("no store", *mlflow, **auth, **stores, mlflow_start_timeout=3)
        triton = ("provision", "--limit", "triton")
        provision("misspelt", *triton, triton_environment=[secrets["wrong type"]])
        said = provision("pip", *triton, **venvs, triton_manage_venvs=True, triton_pip_args=pip)
        assert "could not be filled" in said, said[-3000:]
    finally:
        for name in ("triton", "mlflow"):
            host.stop_processes_of(f"{place.work}/{name}:{name}", 10)
    kept = {
        "triton/server.json": ["role environment"],
        "triton/admin-key": ["role admin"],
        "mlflow/server.json": ["mlflow environment", "store", "auth key", "auth password"],
        "mlflow/basic_auth.ini": ["auth password", "store"],
        "mlflow/secret-key": ["auth key"],
        "triton/pip.conf": ["pip"],
    }
    place.check(kept)
