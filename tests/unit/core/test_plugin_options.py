# SPDX-License-Identifier: Apache-2.0
"""Each option of the MLflow plugin arrives in the core, whichever way it is given: with ``-C``, in
a profile, in the target, or by the module's option of the same name. No server is asked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from ansible_collections.mlops.triton.plugins.mlflow_deployments import (
    TritonDeploymentClient,
    embedded,
)
from ansible_collections.mlops.triton.plugins.mlflow_deployments.targets import (
    MODEL,
    PROFILES_VARIABLE,
    TARGET_OPTIONS,
    Option,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery import progress
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import DeliveryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration import delivery
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.credentials import (
    Credentials,
    current_credentials,
)
from mlflow.exceptions import MlflowException
from support.certificates import Authority

HUSH = "Sesame-4720"
DIGEST = "ab12" * 16
EVERY = {**TARGET_OPTIONS, **MODEL}


@dataclass
class Arrived:
    """What the core was asked to do."""

    target: Target
    desired: DesiredModel
    credentials: Credentials
    progress: bool | None = None


@dataclass
class Row:
    """One option.

    Args:
        text: as ``-C`` has it, and the query of a target.
        arrived: finds it in what the core was asked.
        awaited: what is to be found; HOME in it is the user's home folder.
        wrong: a text that the option cannot have, and words of the sentence about it; None where
            any text will do.
        module: as a task has it; None: as YAML reads the text.
    """

    text: str
    arrived: Callable[[Arrived], Any]
    awaited: Any
    wrong: tuple[str, str] | None
    module: Any = None
    home: str = ""

    @property
    def expected(self) -> Any:
        text = json.dumps(self.awaited).replace("HOME", self.home)
        found = json.loads(text)
        return tuple(found) if isinstance(self.awaited, tuple) else found

    @property
    def value(self) -> Any:
        return yaml.safe_load(self.text) if self.module is None else self.module


def _target(name: str) -> Callable[[Arrived], Any]:
    return lambda arrived: getattr(arrived.target, name)


def _access(name: str) -> Callable[[Arrived], Any]:
    return lambda arrived: getattr(arrived.target.access, name)


def _credentials(name: str) -> Callable[[Arrived], Any]:
    return lambda arrived: getattr(arrived.credentials, name)


def _policy(name: str) -> Callable[[Arrived], Any]:
    return lambda arrived: getattr(arrived.target.policy, name)


def _desired(name: str) -> Callable[[Arrived], Any]:
    return lambda arrived: getattr(arrived.desired, name)


ROWS: dict[str, Row] = {
    "triton_url": Row(
        "a:1, grpc://b:2", _target("servers"), ("a:1", "grpc://b:2"), ("[{a: 1}]", "list of texts")
    ),
    "load_url": Row(
        "grpc://a:1",
        _target("load_servers"),
        ("grpc://a:1",),
        ("grpc://a:1, grpcs://b:2", "load_url has 2 addresses, and triton_url 1"),
    ),
    "metrics_url": Row(
        "http://a:8002",
        _target("metrics_servers"),
        ("http://a:8002",),
        ("[{a: 1}]", "list of texts"),
    ),
    "admin_key": Row(
        f"{{name: other, secret: {HUSH}}}",
        _access("admin_key"),
        {"name": "other", "secret": HUSH},
        ("{name: other}", "needs secret, or secret_env"),
    ),
    "ca_file": Row("~/ca.pem", _access("ca_file"), "HOME/ca.pem", None),
    "client_cert": Row("$HOME/c.pem", _access("client_cert"), "HOME/c.pem", ("", "go together")),
    "client_key": Row("~/c.key", _access("client_key"), "HOME/c.key", ("", "go together")),
    "server_log": Row("/var/log/triton", _target("server_log"), "/var/log/triton", None),
    "tensorrt_target": Row(
        "{version: 10.5, compute_capability: '9.0'}",
        _target("tensorrt_target"),
        {"version": "10.5", "compute_capability": "9.0"},
        ("{gpu: H200}", "no field gpu; it has version, compute_capability"),
    ),
    "model_repository": Row(
        "s3://bucket/models",
        _target("repository"),
        "s3://bucket/models",
        ("ftp://host/models", "neither a folder of this host nor in S3"),
    ),
    "state_dir": Row("~/state", _target("state_dir"), "HOME/state", None),
    "s3": Row(
        f"{{access_key: a, secret_key: {HUSH}, ca_file: ~/s3.pem}}",
        _target("s3"),
        {"access_key": "a", "secret_key": HUSH, "ca_file": "HOME/s3.pem"},
        (f"{{secret: {HUSH}}}", "no field secret; it has access_key"),
    ),
    "environments": Row(
        f"{{folder: ~/envs, pythons: [~/python3.11], index_url: {HUSH}, no_index: yes,"
        " container: triton, container_engine: 'unix:///run/d', locks: {a: b}}",
        _target("environments"),
        {
            "folder": "HOME/envs",
            "pythons": ["HOME/python3.11"],
            "index_url": HUSH,
            "no_index": True,
            "container": "triton",
            "container_engine": "unix:///run/d",
            "locks": {"a": "b"},
        },
        ("{index: a}", "no field index; it has folder"),
    ),
    "tracking_uri": Row("http://m:1", _target("tracking_uri"), "http://m:1", None),
    "registry_uri": Row("http://r:1", _target("registry_uri"), "http://r:1", None),
    "mlflow_username": Row("me", _credentials("username"), "me", ("me", "without mlflow_password")),
    "mlflow_password": Row(
        HUSH, _credentials("password"), HUSH, (HUSH, "given without mlflow_username")
    ),
    "mlflow_token": Row(HUSH, _credentials("token"), HUSH, None),
    "mlflow_ca_file": Row(
        "~/ca.pem", _credentials("ca_file"), "HOME/ca.pem", ("~/none", "No such file")
    ),
    "mlflow_client_cert": Row(
        "~/cert.pem", _credentials("client_cert"), "HOME/cert.pem", ("~/ca.pem", "cannot be used")
    ),
    "mlflow_client_key": Row(
        "~/cert.key", _credentials("client_key"), "HOME/cert.key", ("~/ca.pem", "cannot be used")
    ),
    "timeout": Row("7.5", _target("timeout"), 7.5, (".inf", "is not a number")),
    "load_timeout": Row("9", _target("load_timeout"), 9.0, ("0", "more than 0 seconds")),
    "drained": Row("yes", _target("drained"), True, ("2", "true or false")),
    "lock_timeout": Row("8", _target("lock_timeout"), 8.0, ("-1", "more than 0 seconds")),
    "progress": Row("false", lambda arrived: arrived.progress, False, ("maybe", "true or false")),
    "allowed_backends": Row(
        "python,onnxruntime",
        _policy("allowed_backends"),
        ("python", "onnxruntime"),
        ("[[python]]", "list of texts"),
    ),
    "max_size": Row("2KiB", _policy("max_size"), 2048, ("much", "not a number of bytes")),
    "require_digest": Row("yes", _policy("require_digest"), True, ("2", "true or false")),
    "artifact_folders": Row(
        "~/a,/mnt/b/", _target("artifact_folders"), ("HOME/a", "/mnt/b"), ("[[a]]", "list of paths")
    ),
    "allowed_paths": Row(
        "/opt/envs,/data/../share",
        _policy("allowed_paths"),
        ("/opt/envs", "/share"),
        ("envs", "not an absolute path"),
    ),
    "model_code": Row(
        "refused", _policy("model_code"), "refused", ("maybe", "one of allowed, refused")
    ),
    "require_signature": Row(
        "{ca_certificates: [/ca.pem], identities: [ml-team]}",
        lambda arrived: (
            (found := arrived.target.policy.require_signature)
            and {"ca": list(found.ca_certificates), "identities": list(found.identities)}
        ),
        {"ca": ["/ca.pem"], "identities": ["ml-team"]},
        ("{identities: [ml-team]}", "no ca_certificates"),
    ),
    "revoked_digests": Row(
        f"sha256:{DIGEST.upper()}", _policy("revoked_digests"), (DIGEST,), ("0123", "SHA-256")
    ),
    "revoked_keys": Row(DIGEST, _policy("revoked_keys"), (DIGEST,), ("mine", "SHA-256")),
    "registry_status": Row(
        "prod", _target("registry_status"), "prod", ("a/b c", "registry_status")
    ),
    "alias": Row("champion", _desired("alias"), "champion", None),
    "flavor": Row("onnx", _desired("flavor"), "onnx", ("keras", "one of triton, onnx")),
    "serve_as": Row(
        "pyfunc", _desired("serve_as"), "pyfunc", ("onnx", "one of auto, native, pyfunc")
    ),
    "batch_requests": Row("no", _desired("batch_requests"), False, ("2", "true or false")),
    "predict_timeout": Row("2.5", _desired("predict_timeout"), 2.5, ("0", "more than 0 seconds")),
    "config": Row(
        "{max_batch_size: 8}", _desired("config"), {"max_batch_size": 8}, ("8", "a mapping")
    ),
    "instance_kind": Row("gpu", _desired("instance_kind"), "gpu", ("tpu", "one of cpu, gpu, auto")),
    "version_folders": Row(
        "artifact", _desired("version_folders"), "artifact", ("mine", "one of auto")
    ),
    "serve_versions": Row("2", _desired("serve_versions"), 2, ("1e999", "a whole number")),
    "verify": Row(
        "{inputs: {x: [[1]]}}", _desired("verify"), {"inputs": {"x": [[1]]}}, ("[", "is not YAML")
    ),
    "verify_aside": Row("yes", _desired("verify_aside"), True, ("2", "true or false")),
    "swap": Row("auto", _desired("swap"), "auto", ("later", "one of overlap, unload_first")),
    "keep": Row("3", _desired("keep"), 3, ("1.5", "a whole number")),
    "adopt": Row("1", _desired("adopt"), True, ("perhaps", "true or false")),
    "check_files": Row("true", _desired("check_files"), True, ("{a: b}", "true or false")),
    "depends_on": Row("one,two", _desired("depends_on"), ("one", "two"), ("[[one]]", "a list")),
    "owner": Row("1000", _desired("owner"), "1000", None),
    "group": Row("triton", _desired("group"), "triton", None),
    "mode": Row("0640", _desired("mode"), "0640", ("u+x", "octal number"), module="0640"),
}
TOGETHER = {
    "client_cert": {"client_key": "/k"},
    "client_key": {"client_cert": "/c"},
    "mlflow_username": {"mlflow_password": HUSH},
    "mlflow_password": {"mlflow_username": "me"},
    "mlflow_client_cert": {"mlflow_client_key": "~/cert.key"},
    "mlflow_client_key": {"mlflow_client_cert": "~/cert.pem"},
}
ALONE = ("mlflow_username", "mlflow_password")
TARGET_ROWS = sorted(set(ROWS) & set(TARGET_OPTIONS))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("cryptography")
    folder = tmp_path_factory.mktemp("home")
    Authority(folder).issue("cert")
    return folder


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    for row in ROWS.values():
        row.home = str(home)
    monkeypatch.setenv(PROFILES_VARIABLE, str(tmp_path / "profiles.yml"))
    for name in ("TRITON_URL", "TRITON_MODEL_REPO", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


class Asked(Exception):
    """Thrown where the core would begin."""


def ask(
    monkeypatch: pytest.MonkeyPatch, target: str, config: dict[str, Any], model: str = "/model"
) -> Arrived:
    """What a ``create`` asks of the core."""
    seen: dict[str, Any] = {}

    class Recorder:
        def __init__(self, target: Target) -> None:
            seen.update(target=target, credentials=current_credentials())

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_raised: object) -> None:
            """Nothing was opened."""

        def deliver(self, models: list[DesiredModel]) -> None:
            seen["desired"] = models[0]
            raise DeliveryError("the core was asked")

    def show(wanted: bool | None) -> Any:
        seen["progress"] = wanted
        return shown(wanted)

    shown = progress.show_progress
    with monkeypatch.context() as patched:
        patched.setattr(delivery, "Delivery", Recorder)
        patched.setattr(progress, "show_progress", show)
        with pytest.raises(MlflowException) as caught:
            TritonDeploymentClient(target).create_deployment("m", model, config=config)
    if "desired" not in seen:
        raise caught.value
    return Arrived(**seen)


def profile(tmp_path: Path, **options: Any) -> str:
    (tmp_path / "profiles.yml").write_text(yaml.safe_dump({"p": options}), encoding="utf-8")
    return "triton:/p"


def base(name: str) -> dict[str, str]:
    """What the option needs beside it, as texts."""
    place = {} if name == "model_repository" else {"model_repository": "/models"}
    return {**place, **TOGETHER.get(name, {})}


# -- every option ----------------------------------------------------------------------------------


def test_every_option_is_tried() -> None:
    assert set(ROWS) == set(EVERY)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_an_option_of_the_call_arrives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS[name]
    for given in (row.text, row.value):  # as the command line has it, and as Python may
        arrived = ask(monkeypatch, "triton", {**base(name), name: given})
        assert row.arrived(arrived) == row.expected


@pytest.mark.parametrize("name", TARGET_ROWS)
def test_an_option_of_the_target_arrives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**base(name), name: ROWS[name].text}
    query = "&".join(f"{key}={quote(text)}" for key, text in given.items())
    assert ROWS[name].arrived(ask(monkeypatch, f"triton?{query}", {})) == ROWS[name].expected


@pytest.mark.parametrize("name", TARGET_ROWS)
def test_an_option_of_a_profile_arrives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ROWS[name]
    for given in (row.text, row.value):
        target = profile(tmp_path, **{**base(name), name: given})
        assert row.arrived(ask(monkeypatch, target, {})) == row.expected


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_module_says_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arg_spec = pytest.importorskip("ansible.module_utils.common.arg_spec")
    from ansible_collections.mlops.triton.plugins.module_utils import _options

    parts = (
        _options.REGISTRY,
        _options.SERVER,
        _options.REPOSITORY,
        _options.ENVIRONMENTS,
        _options.POLICY,
    )
    spec: dict[str, Any] = {}
    for part in (*parts, _options.STATUS, _options.TRAFFIC, _options.WAIT, _options.MODEL):
        spec.update(part)
    given = {**base(name), name: ROWS[name].value, "name": "m", "model_uri": "/model"}
    read = arg_spec.ArgumentSpecValidator(spec).validate(given)
    assert not read.error_messages
    params = read.validated_parameters
    if isinstance(params.get(name), dict) and EVERY[name].fields:
        params[name] = {key: one for key, one in params[name].items() if one is not None}
    arrived = Arrived(
        Target.from_options(params),
        DesiredModel.from_options(params),
        Credentials.from_options(params),
        params["progress"],
    )
    assert ROWS[name].arrived(arrived) == ROWS[name].expected


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.wrong])
def test_a_value_that_cannot_be_is_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, words = ROWS[name].wrong or ("", "")
    given = {**({"model_repository": "/models"} if name in ALONE else base(name)), name: text}
    ways: list[tuple[str, dict[str, Any]]] = [("triton", given)]
    if name in TARGET_OPTIONS:
        query = "&".join(f"{key}={quote(one)}" for key, one in given.items())
        ways += [(f"triton?{query}", {}), (profile(tmp_path, **given), {})]
    for target, config in ways:
        with pytest.raises(MlflowException, match=words) as caught:
            ask(monkeypatch, target, config)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE", caught.value
        said = str(caught.value)
        assert "defect" not in said and HUSH not in said
        assert name in said or words in ("go together", "cannot be used")


@pytest.mark.parametrize("name", [name for name, option in EVERY.items() if option.kind != "str"])
@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", [{}]])
def test_a_value_of_another_type_is_no_defect(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[MlflowException] = []
    try:
        ask(monkeypatch, "triton", {**base(name), name: value})
    except MlflowException as error:
        refusals.append(error)
    assert [error.error_code for error in refusals] in ([], ["INVALID_PARAMETER_VALUE"])


@pytest.mark.parametrize("null", [None, "null", "~"])
@pytest.mark.parametrize("name", TARGET_ROWS)
def test_null_clears_what_the_profile_has(
    name: str, null: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = base(name)
    target = profile(tmp_path, **{**others, name: ROWS[name].text})
    cleared = {name: null, **dict.fromkeys(TOGETHER.get(name, ()), null)}
    if name == "model_repository":
        with pytest.raises(MlflowException, match=r"model_repository .* is required"):
            ask(monkeypatch, target, cleared)
        return
    usual = ask(monkeypatch, "triton?model_repository=/models", {})
    assert ROWS[name].arrived(ask(monkeypatch, target, cleared)) == ROWS[name].arrived(usual)
    query = "&".join(f"{key}=null" for key in cleared)
    assert ROWS[name].arrived(ask(monkeypatch, f"{target}?{query}", {})) == ROWS[name].arrived(
        usual
    )


@pytest.mark.parametrize("null", [None, "null", "~"])
@pytest.mark.parametrize("name", sorted(MODEL))
def test_null_is_an_omitted_option_of_the_model(
    name: str, null: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = "triton?model_repository=/models"
    usual = ask(monkeypatch, target, {})
    assert ROWS[name].arrived(ask(monkeypatch, target, {name: null})) == ROWS[name].arrived(usual)


# -- secrets ---------------------------------------------------------------------------------------


def secrets(known: dict[str, Option], of: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of each secret among the options."""
    found = [(*of, name) for name, option in known.items() if option.is_secret]
    for name, option in known.items():
        found += secrets(dict(option.fields), (*of, name))
    return found


SECRETS = secrets(dict(TARGET_OPTIONS))


def nested(path: tuple[str, ...], value: Any, ending: str = "") -> dict[str, Any]:
    inner: Any = value
    for depth, part in enumerate(reversed(path)):
        inner = {part + (ending if depth == 0 else ""): inner}
    return dict(inner)


def found_at(path: tuple[str, ...], arrived: Arrived) -> Any:
    found = ROWS[path[0]].arrived(arrived)
    for part in path[1:]:
        found = found[part]
    return found


def as_texts(options: dict[str, Any]) -> dict[str, str]:
    """As the command line has them."""
    return {
        key: json.dumps(one) if isinstance(one, dict) else str(one) for key, one in options.items()
    }


@pytest.mark.parametrize("path", SECRETS, ids=".".join)
def test_a_secret_comes_from_the_variable_that_is_named(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = base(path[0])
    given = {**needed, **nested(path, "KEY_OF_TEST", "_env")}
    query = "&".join(f"{key}={quote(text)}" for key, text in as_texts(given).items())
    ways: list[tuple[str, dict[str, Any]]] = [
        ("triton", given),
        ("triton", as_texts(given)),
        (profile(tmp_path, **given), {}),
        (f"triton?{query}", {}),
    ]
    for target, config in ways:
        monkeypatch.setenv("KEY_OF_TEST", HUSH)
        assert found_at(path, ask(monkeypatch, target, config)) == HUSH
        monkeypatch.delenv("KEY_OF_TEST")
        with pytest.raises(MlflowException, match="KEY_OF_TEST, which is not set") as caught:
            ask(monkeypatch, target, config)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("path", SECRETS, ids=".".join)
def test_a_secret_in_two_ways_is_refused_and_not_shown(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_TEST", HUSH)
    twice = {**nested(path, HUSH), **nested(path, "KEY_OF_TEST", "_env")}
    if len(path) > 1:
        twice[path[0]] = {**nested(path, HUSH)[path[0]], f"{path[-1]}_env": "KEY_OF_TEST"}
    with pytest.raises(MlflowException, match="both given") as caught:
        ask(monkeypatch, "triton", {**base(path[0]), **twice})
    assert HUSH not in str(caught.value)


@pytest.mark.parametrize("path", SECRETS, ids=".".join)
def test_a_secret_that_yaml_would_change_is_refused(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = profile(tmp_path, **{**base(path[0]), **nested(path, 0o4720)})
    with pytest.raises(MlflowException, match="put it in quotes") as caught:
        ask(monkeypatch, target, {})
    assert str(0o4720) not in str(caught.value)


def test_a_sentence_about_the_target_does_not_show_its_options() -> None:
    with pytest.raises(MlflowException, match="unknown option nonsense") as caught:
        TritonDeploymentClient(f"triton://h:1?admin_key={{secret: {HUSH}}}&nonsense=1")
    assert HUSH not in str(caught.value)
    with pytest.raises(MlflowException, match=r"no address") as caught:
        TritonDeploymentClient(f"triton://[h:1?admin_key={{secret: {HUSH}}}")
    assert HUSH not in str(caught.value)


def test_a_key_that_no_header_can_have_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_TEST", f"{HUSH}\n")
    with pytest.raises(MlflowException, match="such as a line break") as caught:
        ask(monkeypatch, "triton", {**base(""), "admin_key": "{secret_env: KEY_OF_TEST}"})
    assert HUSH not in str(caught.value)


# -- run-local -------------------------------------------------------------------------------------

LOCAL = {
    "http_port": ("18123", "18123", "many"),
    "grpc_port": ("18124", "18124", "1.5"),
    "server_python": ("~/bin/python", "HOME/bin/python", "[a]"),
}


def test_every_option_of_run_local_is_tried() -> None:
    assert set(LOCAL) == set(embedded.LOCAL_OPTIONS)


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_an_option_of_run_local_arrives(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected, wrong = LOCAL[name]

    def start(_folder: Path, settings: dict[str, Any], python: str) -> Any:
        seen.update(settings, server_python=python)
        raise DeliveryError("it was asked")

    seen: dict[str, Any] = {}
    monkeypatch.setattr(embedded, "_run_triton", start)
    with pytest.raises(MlflowException, match="it was asked"):
        embedded.run_local("m", "/model", config={name: text})
    assert str(seen[name]) == expected.replace("HOME", str(home))
    given: Any = yaml.safe_load(wrong)
    with pytest.raises(MlflowException, match=f"{name}: .* is not"):
        embedded.run_local("m", "/model", config={name: given})


POLICY = (
    "allowed_backends", "allowed_paths", "model_code", "max_size", "require_digest",
    "require_signature", "revoked_digests", "revoked_keys", "artifact_folders",
)  # fmt: skip


@pytest.mark.parametrize("name", POLICY)
def test_run_local_has_the_rules_of_a_server(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of a model would run on this host."""
    seen: dict[str, Any] = {}

    def deploy(_self: Any, _name: str, _uri: str, config: dict[str, Any]) -> None:
        seen.update(config)
        raise DeliveryError("it was asked")

    with monkeypatch.context() as patched:
        patched.setattr(embedded, "_run_triton", lambda *_given: contextlib.nullcontext())
        patched.setattr(TritonDeploymentClient, "create_deployment", deploy)
        with pytest.raises(MlflowException, match="it was asked"):
            embedded.run_local("m", "/model", config={name: ROWS[name].text})
    arrived = ask(monkeypatch, "triton", {**base(name), name: seen[name]})
    assert ROWS[name].arrived(arrived) == ROWS[name].expected
