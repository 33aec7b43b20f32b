# SPDX-License-Identifier: Apache-2.0
"""How a server is controlled: gRPC, TLS, client certificates, restricted APIs, and no proxy on the
way to this host.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    ServerError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.verification import (
    verify,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.address import Access
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    TritonServer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.transport import (
    Refused,
)
from support.bench import VERIFY
from support.certificates import Authority
from support.deliveries import deliver_model
from support.models import Sample, make_onnx, make_python
from support.modules import run_module
from support.playbooks import run_playbook, run_task
from support.servers import MLflow, Triton, free_ports, triton_server

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hush-4711"
# As role triton restricts them.
APIS = "model-repository,model-config,shared-memory,trace,logging"
FAST = "--disable-auto-complete-config"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Triton]:
    """Both protocols restricted by a key, gRPC behind TLS that asks for a client certificate."""
    certificate, key = authority.issue("server")
    arguments = [
        FAST,
        f"--http-restricted-api={APIS}:admin-key={SECRET}",
        f"--grpc-restricted-protocol={APIS}:admin-key={SECRET}",
        "--grpc-use-ssl=true",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={certificate}",
        f"--grpc-server-key={key}",
        f"--grpc-root-cert={authority.ca_file}",
    ]
    with triton_server(tmp_path_factory.mktemp("guarded"), extra_args=arguments) as server:
        yield server


def place_of(
    triton: Triton, authority: Authority, protocol: str, secret: str | None = SECRET
) -> dict[str, Any]:
    """Options of a module."""
    options: dict[str, Any] = {"model_repository": str(triton.repository), "timeout": 60}
    if secret:
        options["admin_key"] = {"secret": secret}
    if protocol == "HTTP":
        return {**options, "triton_url": triton.url}
    certificate, key = authority.issue("client")
    return {
        **options,
        "triton_url": f"grpcs://{triton.grpc_url}",
        "ca_file": authority.ca_file,
        "client_cert": certificate,
        "client_key": key,
    }


def client_of(triton: Triton, authority: Authority, protocol: str, **changes: Any) -> TritonServer:
    options = {**place_of(triton, authority, protocol), **changes}
    return TritonServer(options["triton_url"], 30, Access.from_options(options))


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_the_whole_life_of_a_model(
    protocol: str, guarded: Triton, authority: Authority, tmp_path: Path
) -> None:
    """Deploy, again, a broken update, roll back, unload, remove: with the key, and over gRPC with
    TLS and a client certificate.
    """
    options = place_of(guarded, authority, protocol)
    first, second = (
        make_python(tmp_path / str(number), "guarded", identity=number) for number in (1, 2)
    )
    broken = make_python(tmp_path / "3", "guarded", identity=3, fail="no weights")

    def deliver(**more: Any) -> Result:
        return deliver_model(options, "guarded", **more)

    def served() -> int | None:
        status, body = guarded.infer("guarded", first.request())
        return (
            {entry["name"]: entry["data"] for entry in body["outputs"]}["identity"][0]
            if status == 200
            else None
        )

    verify = {"inputs": first.inputs, "outputs": first.expected(first.inputs)}
    assert deliver(model_uri=str(first.folder), verify=verify).changed
    assert served() == 1
    assert deliver(model_uri=str(first.folder)).changed is False
    assert deliver(model_uri=str(second.folder)).changed
    assert "no weights" in str(deliver(model_uri=str(broken.folder)).error) and served() == 2
    assert deliver(state="rolled_back").changed and served() == 1
    assert deliver(state="unloaded").changed and served() is None
    assert deliver(state="absent").changed
    assert not (guarded.repository / "guarded").exists()


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
@pytest.mark.parametrize(
    ("key", "words"),
    [
        (None, "wants an admin_key with the name 'admin-key'"),
        (
            {"name": "admin-key", "secret": "a guess"},
            "wants another secret in admin_key 'admin-key'",
        ),
        (
            {"name": "other", "secret": SECRET},
            "wants the admin_key 'admin-key', and 'other' was given",
        ),
    ],
)
def test_wrong_key(
    protocol: str, key: dict[str, str] | None, words: str, guarded: Triton, authority: Authority
) -> None:
    with (
        client_of(guarded, authority, protocol, admin_key=key) as server,
        pytest.raises(ServerError) as failure,
    ):
        server.index()
    assert words in str(failure.value)
    assert failure.value.facts["status"] == 403
    assert SECRET not in str(failure.value) and "a guess" not in str(failure.value)


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_nobody_sees_or_sets_logs_and_traces_without_the_key(
    protocol: str, guarded: Triton, authority: Authority
) -> None:
    """Both settings name files that the server writes."""
    asked: list[tuple[str, dict[str, Any]]] = [
        ("get_log_settings", {}),
        ("update_log_settings", {"settings": {"log_verbose_level": 0}}),
        ("get_trace_settings", {}),
        ("update_trace_settings", {"settings": {"trace_level": ["OFF"]}}),
    ]
    with (
        client_of(guarded, authority, protocol) as knows,
        client_of(guarded, authority, protocol, admin_key=None) as stranger,
    ):
        for method, arguments in asked:
            assert knows.transport.call(30, method, **arguments), method
            with pytest.raises(Refused, match="restricted") as refused:
                stranger.transport.call(30, method, **arguments)
            assert refused.value.status == 403, method


def test_the_role_restricts_what_is_tested_here() -> None:
    text = (ROOT / "roles/triton/files/start_triton/command.py").read_text(encoding="utf-8")
    assert f'RESTRICTED = "{APIS}"' in text


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_the_secret_is_in_no_output(
    protocol: str, guarded: Triton, authority: Authority, tmp_path: Path
) -> None:
    """Of a wrong key, and of the right one; nor in what lies on the disk afterwards."""
    sample = make_python(tmp_path, "locked", identity=1)
    options = {"name": "locked", "model_uri": str(sample.folder)}
    failed = run_task(
        tmp_path,
        "triton_model",
        {**place_of(guarded, authority, protocol, "a-guess-of-mine"), **options},
        "-vvv",
    )
    assert "another secret in admin_key" in failed["msg"] and "othing was changed" in failed["msg"]
    assert not (guarded.repository / "locked").exists()
    done = run_task(
        tmp_path,
        "triton_model",
        {**place_of(guarded, authority, protocol), **options},
        "-vvv",
        "--diff",
    )
    assert done["changed"], done
    (tmp_path / "playbook.yml").unlink()
    roots = (tmp_path, guarded.repository, Path(f"{guarded.repository}.mlops-triton"))
    kept = [
        path.read_text(errors="replace")
        for root in roots
        for path in root.rglob("*")
        if path.is_file()
    ]
    assert not [
        text
        for text in [str(failed), str(done), *kept]
        if SECRET in text or "a-guess-of-mine" in text
    ]
    assert run_module(
        "triton_model",
        {**place_of(guarded, authority, protocol), "name": "locked", "state": "absent"},
    )["changed"]


def test_certificates_that_do_not_fit(
    guarded: Triton, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    wrong_client = stranger.issue("client")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ca_file": stranger.ca_file}, "CERTIFICATE_VERIFY_FAILED"),
        ({"client_cert": None, "client_key": None}, "cannot be reached"),
        ({"client_cert": wrong_client[0], "client_key": wrong_client[1]}, "cannot be reached"),
    ]
    for changes, words in cases:
        with (
            client_of(guarded, authority, "gRPC", **changes) as server,
            pytest.raises(ServerError) as failure,
        ):
            server.index()
        assert words in str(failure.value), changes
    with pytest.raises(InvalidOption, match="client_cert and client_key go together"):
        Access.from_options({"client_cert": wrong_client[0]})
    with (
        client_of(guarded, authority, "gRPC", ca_file="/nowhere/ca.pem") as server,
        pytest.raises(InvalidOption) as failure2,
    ):
        server.index()
    assert "ca_file /nowhere/ca.pem cannot be read" in str(failure2.value)


# -- https, as a proxy in front of Triton does it --------------------------------------------------


class _Relay(http.server.BaseHTTPRequestHandler):
    """Passes a request on to a Triton on this host."""

    protocol_version = "HTTP/1.1"
    behind = ""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = urllib.request.Request(
            f"http://{self.behind}{self.path}",
            body if self.command == "POST" else None,
            method=self.command,
            headers={key: value for key, value in self.headers.items() if key.lower() != "host"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                status, headers, data = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, headers, data = error.code, error.headers, error.read()
        self.send_response(status)
        for name in ("Content-Type", "Inference-Header-Content-Length"):
            if headers.get(name):
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _pass_on

    def log_message(self, *_arguments: object) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def https_in_front_of(triton: Triton, authority: Authority) -> Iterator[str]:
    """``https://host:port`` that wants a client certificate and passes everything on to Triton."""
    certificate, key = authority.issue("front")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca_file)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Relay", (_Relay,), {"behind": triton.url})
    )
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_https_with_a_client_certificate(
    guarded: Triton, authority: Authority, tmp_path: Path
) -> None:
    sample = make_python(tmp_path, "over-https", identity=1)
    certificate, key = authority.issue("client")
    with https_in_front_of(guarded, authority) as url:
        options = {
            "triton_url": url,
            "model_repository": str(guarded.repository),
            "admin_key": {"secret": SECRET},
            "ca_file": authority.ca_file,
            "client_cert": certificate,
            "client_key": key,
            "name": "over-https",
        }
        done = run_task(tmp_path, "triton_model", {**options, "model_uri": str(sample.folder)})
        assert done["changed"], done
        assert guarded.infer("over-https", sample.request())[0] == 200
        refused = run_module(
            "triton_model",
            {**options, "client_cert": None, "client_key": None, "timeout": 10, "state": "absent"},
        )
        assert (
            refused["failed"]
            and "Triton at https://127.0.0.1" in refused["msg"]
            and "othing was changed" in refused["msg"]
        )
        assert run_module("triton_model", {**options, "state": "absent"})["changed"]


# -- proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_loopback_never_goes_through_a_proxy(
    protocol: str, triton: Triton, mlflow: MLflow, tmp_path: Path
) -> None:
    """Registry, artifacts and Triton on this host, with a dead proxy in every variable that a
    library may read.
    """
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    proxies = dict.fromkeys(
        (
            "http_proxy",
            "https_proxy",
            "grpc_proxy",
            "all_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ),
        dead,
    )
    surroundings = {**proxies, "NO_PROXY": "", "no_proxy": "internal.example.com"}
    name = f"direct-{protocol.lower()}"
    sample = make_onnx(tmp_path, name)
    published = run_task(
        tmp_path,
        "mlflow_publish",
        {
            "name": name,
            "path": str(sample.folder),
            "tracking_uri": mlflow.url,
            "aliases": ["champion"],
        },
        **surroundings,
    )
    assert published["changed"], published
    url = (
        triton.url
        if protocol == "HTTP"
        else f"grpc://localhost:{triton.grpc_url.rpartition(':')[2]}"
    )
    options = {
        "tracking_uri": mlflow.url,
        "triton_url": url,
        "model_repository": str(triton.repository),
        "name": name,
        "timeout": 60,
    }
    deployed = run_task(
        tmp_path,
        "triton_model",
        {**options, "model_uri": f"models:/{name}@champion", "verify": {"inputs": sample.inputs}},
        **surroundings,
    )
    assert deployed["changed"], deployed
    assert triton.infer(name, sample.request())[0] == 200


@pytest.mark.parametrize("transport", ["HTTP", "gRPC"])
def test_an_inference_may_take_as_long_as_it_is_given(tmp_path: Path, transport: str) -> None:
    """Also on the connection that a cheap question made, which is asked again after 2 s."""
    with triton_server(tmp_path, extra_args=[FAST]) as triton:
        make_python(triton.repository, "slow", infer_delay=3)
        url = triton.url if transport == "HTTP" else f"grpc://{triton.grpc_url}"
        with TritonServer(url, 20) as server:
            server.load("slow")
            server.transport.close()
            server.index()
            verify(server, "slow", 1, VERIFY)


# -- answers that are no broken connection ---------------------------------------------------------


def test_grpc_answers_are_told_from_a_broken_connection(tmp_path: Path) -> None:
    """A server that shuts down, one that is gone, and one in another control mode: three sentences,
    over gRPC as over HTTP.
    """
    with (
        triton_server(tmp_path / "one", extra_args=[FAST]) as triton,
        TritonServer(f"grpc://{triton.grpc_url}", 20) as server,
    ):
        sample: Sample = make_python(triton.repository, "slow", identity=1, infer_delay=4)
        server.load("slow")
        inference = threading.Thread(target=triton.infer, args=("slow", sample.request()))
        inference.start()
        time.sleep(0.5)
        os.kill(triton.pid, 15)
        deadline = time.monotonic() + 15
        said = ""
        while "shutting down" not in said and time.monotonic() < deadline:
            with contextlib.suppress(ServerError):
                server.index()
                continue
            with pytest.raises(ServerError) as failure:
                server.index()
            said = str(failure.value)
            if "cannot be reached" in said:
                break
        assert "is starting or shutting down" in said, said
        assert not failure.value.facts.get("no_answer")
        inference.join()
        triton.kill()
        with pytest.raises(ServerError) as gone:
            server.index()
        assert "cannot be reached" in str(gone.value) and gone.value.facts["no_answer"]
    with triton_server(tmp_path / "two", extra_args=["--model-control-mode=none"]) as triton:
        for url in (triton.url, f"grpc://{triton.grpc_url}"):
            with (
                TritonServer(url, 20) as server,
                pytest.raises(ServerError, match="--model-control-mode=explicit"),
            ):
                server.require_explicit()


def test_certificate_without_its_key(tmp_path: Path) -> None:
    """A client certificate without its key is said before anything is asked."""
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {
                    "mlops.triton.triton_model": {
                        "name": "x",
                        "state": "absent",
                        "model_repository": str(tmp_path),
                        "client_cert": "/c.pem",
                    }
                }
            ],
        }
    ]
    done = run_playbook(tmp_path, play)
    assert done.rc != 0 and "client_cert and client_key go together" in done.output
