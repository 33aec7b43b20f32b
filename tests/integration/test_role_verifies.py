# SPDX-License-Identifier: Apache-2.0
"""Role triton verifies its own server, over what that serves, and whatever triton_url says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import models
from support.certificates import Authority
from support.local_hosts import LocalHosts, make_hooks, said, variables

pytestmark = [pytest.mark.long, pytest.mark.takes(150)]

KEY = {"name": "admin-key", "secret": "Sesame-4717"}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[LocalHosts]:
    folder = tmp_path / "v"
    folder.mkdir()
    make_hooks(folder)
    sample = models.make_python(folder / "source")
    made = LocalHosts(folder, sample, variables(folder))
    made.add("one")
    try:
        yield made
    finally:
        made.stop("one")


@pytest.mark.parametrize(
    "url", ["grpcs://proxy.example.org:443", ["http://a.example.org", "http://b.example.org"]]
)
def test_the_server_is_asked_at_its_own_address(here: LocalHosts, url: Any) -> None:
    done = here.play("provision", triton_url=url)
    assert done.returncode == 0, said(done)
    assert "ok: [one]" in told(done.stdout, "Check that models are loaded on request only")


def told(output: str, task: str) -> str:
    """What a run printed of a task of the role."""
    return output.partition(f"TASK [mlops.triton.triton : {task}]")[2].split("TASK")[0]


def test_a_server_without_http_is_verified_over_grpc(here: LocalHosts) -> None:
    here.hosts["one"]["triton_http_port"] = 0
    mode = ["--disable-auto-complete-config", "--model-control-mode=none"]
    done = here.play("provision", triton_extra_args=mode)
    assert done.returncode == 2
    assert "but not in EXPLICIT mode: remove the model control mode from triton_extra_args" in (
        said(done)
    )
    done = here.play("provision", "-vvv", triton_admin_key=KEY)
    assert done.returncode == 0, said(done)
    assert "ok: [one]" in told(done.stdout, "Ask the server over gRPC")
    assert KEY["secret"] not in done.stdout + done.stderr
    # The default of triton_url leads to it, too.
    here.variables["triton_models"] = [
        {"name": here.sample.name, "model_uri": str(here.sample.folder)}
    ]
    done = here.play("deploy_models", triton_admin_key=KEY)
    assert done.returncode == 0, said(done)


def test_tls_is_verified_with_the_certificate_of_the_server(here: LocalHosts) -> None:
    here.hosts["one"]["triton_http_port"] = 0
    authority = Authority(here.folder / "tls")
    certificate, key = authority.issue("triton.example.org")
    here.variables["triton_ca_file"] = authority.ca_file
    tls = {"certificate": certificate, "key": key}
    done = here.play("provision", triton_grpc_tls=tls)
    assert done.returncode == 0, said(done)
    assert "ok: [one]" in told(done.stdout, "Ask the server over gRPC")
    done = here.play("provision", triton_grpc_tls={**tls, "client_ca": authority.ca_file})
    assert done.returncode == 0, said(done)
    assert "whether the server is live and in EXPLICIT mode is not verified" in said(done)


def test_a_server_that_nobody_could_ask_is_refused(here: LocalHosts) -> None:
    here.hosts["one"].update(triton_http_port=0, triton_grpc_port=0)
    done = here.play("provision")
    assert done.returncode == 2
    assert "triton_http_port and triton_grpc_port are both 0" in said(done)
    assert not (here.folder / "one").exists()
