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
    assert (
        "Check that models are loaded on request only] ****************************** ok"
        in (said(done))
        or "ok: [one]" in done.stdout.partition("Check that models are loaded on request only")[2]
    )


def asked(output: str) -> str:
    """What came of the question over gRPC."""
    return output.partition("TASK [mlops.triton.triton : Ask the server over gRPC]")[2].split(
        "TASK"
    )[0]


def test_a_server_without_http_is_verified_over_grpc(here: LocalHosts) -> None:
    done = here.play("provision", "-vvv", triton_http_port=0, triton_admin_key=KEY)
    assert done.returncode == 0, said(done)
    assert "ok: [one]" in asked(done.stdout)
    assert KEY["secret"] not in done.stdout + done.stderr
    # The default of triton_url leads to it, too.
    here.variables["triton_models"] = [
        {"name": here.sample.name, "model_uri": str(here.sample.folder)}
    ]
    done = here.play("deploy_models", triton_http_port=0, triton_admin_key=KEY)
    assert done.returncode == 0, said(done)
    # One that lets everybody load models is found out, and so is one that is not in this mode.
    mode = ["--disable-auto-complete-config", "--model-control-mode=none"]
    done = here.play("provision", triton_http_port=0, triton_extra_args=mode)
    assert done.returncode == 2
    assert "but not in EXPLICIT mode: remove the model control mode from triton_extra_args" in (
        said(done)
    )


def test_tls_is_verified_with_the_certificate_of_the_server(here: LocalHosts) -> None:
    authority = Authority(here.folder / "tls")
    certificate, key = authority.issue("triton.example.org")
    tls = {"certificate": certificate, "key": key}
    done = here.play("provision", triton_http_port=0, triton_grpc_tls=tls)
    assert done.returncode == 0, said(done)
    assert "ok: [one]" in asked(done.stdout)
    done = here.play(
        "provision", triton_http_port=0, triton_grpc_tls={**tls, "client_ca": authority.ca_file}
    )
    assert done.returncode == 0, said(done)
    assert "whether the server is live and in EXPLICIT mode is not verified" in said(done)


def test_a_server_that_serves_nothing_is_said_to_be_unverified(here: LocalHosts) -> None:
    done = here.play("provision", triton_http_port=0, triton_grpc_port=0)
    assert "nothing of it can be verified" in said(done) or done.returncode == 2, said(done)
