# SPDX-License-Identifier: Apache-2.0
"""Loads go over gRPC where its address is known, to the same server and to no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ServerError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from support.certificates import Authority
from support.models import make_python
from support.servers import Triton, triton_server

pytestmark = pytest.mark.long

SECRET = "hush-4712"
APIS = "model-repository,model-config"
FAST = "--disable-auto-complete-config"


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Its log has each request over HTTP."""
    arguments = [FAST, "--log-verbose=1"]
    with triton_server(tmp_path_factory.mktemp("here"), extra_args=arguments) as server:
        yield server


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with triton_server(tmp_path_factory.mktemp("there"), extra_args=[FAST]) as server:
        yield server


def place_of(triton: Triton, loads: Triton | None = None, **more: Any) -> dict[str, Any]:
    """Options of a module; ``loads``: the server at ``load_url``."""
    options = {
        "model_repository": str(triton.repository),
        "triton_url": triton.url,
        "timeout": 30,
        **more,
    }
    return {**options, "load_url": f"grpc://{loads.grpc_url}"} if loads else options


def deliver(place: dict[str, Any], check: bool = False, **model: Any) -> tuple[Result, list[str]]:
    """The model's result, and the warnings of the run."""
    with Delivery(Target.from_options(place)) as delivery:
        (result,) = delivery.deliver([DesiredModel.from_options(model)], check)
        return result, delivery.warnings


def loads_over_http(triton: Triton) -> int:
    return len(re.findall(r"HTTP request: \d+ \S+/load\"", triton.log_text()))


def test_loads_and_unloads_go_to_load_url_and_only_loads_over_http_are_warned_of(
    triton: Triton, tmp_path: Path
) -> None:
    """The remedy that the warning names ends it."""
    sample = make_python(tmp_path, "plain", identity=1)
    model = {"name": "plain", "model_uri": str(sample.folder)}
    http_alone, over_grpc = place_of(triton), place_of(triton, triton)

    for check in (True, False):
        result, warnings = deliver(http_alone, check, **model)
        assert result.error is None and len(warnings) == 1, (result.error, warnings)
        assert "load_url: grpc://" in warnings[0] and triton.url in warnings[0]
    assert deliver(http_alone, **model)[1] == []  # nothing is loaded
    before = loads_over_http(triton)
    assert before == 1, triton.log_tail(200)

    assert deliver(over_grpc, name="plain", state="absent")[0].error is None
    result, warnings = deliver(over_grpc, **model)
    assert (result.error, result.changed, warnings) == (None, True, [])
    assert triton.infer("plain", sample.request())[0] == 200
    assert deliver(over_grpc, name="plain", state="absent")[0].error is None
    assert triton.infer("plain", sample.request())[0] != 200
    assert loads_over_http(triton) == before


def test_a_failed_load_over_load_url_says_what_it_says_over_http(
    triton: Triton, tmp_path: Path
) -> None:
    broken = make_python(tmp_path, "broken", identity=1, fail="no weights")
    said = []
    for place in (place_of(triton), place_of(triton, triton)):
        result, _warnings = deliver(place, name="broken", model_uri=str(broken.folder))
        assert result.error is not None
        said.append((type(result.error), result.error.message))
    assert said[0] == said[1] and "no weights" in said[0][1]


def test_another_server_at_load_url_is_refused_before_anything_is_changed(
    triton: Triton, other: Triton, tmp_path: Path
) -> None:
    """Whether it serves something else, or the same and has been asked more."""
    mine, theirs = (make_python(tmp_path, name, identity=1) for name in ("mine", "theirs"))
    assert deliver(place_of(triton, triton), name="mine", model_uri=str(mine.folder))[0].changed

    def refused() -> str:
        result, _warnings = deliver(
            place_of(triton, other), name="theirs", model_uri=str(theirs.folder)
        )
        assert result.error is not None and result.changed is False
        said = str(result.error)
        assert f"load_url grpc://{other.grpc_url} is another server than triton_url" in said
        assert not (triton.repository / "theirs").exists()
        assert not [row for row in other.index() if row["name"] == "theirs"]
        return said

    assert "does not serve version 1 of 'mine'" in refused()
    same = deliver(place_of(other, other), name="mine", model_uri=str(mine.folder))[0]
    assert same.error is None
    assert other.infer("mine", mine.request())[0] == 200
    assert "has answered other requests of 'mine'" in refused()
    # The remedy: its own address.
    theirs_now, _warnings = deliver(
        place_of(triton, triton), name="theirs", model_uri=str(theirs.folder)
    )
    assert theirs_now.error is None
    for server, names in ((triton, ("mine", "theirs")), (other, ("mine",))):
        for name in names:
            done, _warnings = deliver(place_of(server, server), name=name, state="absent")
            assert done.error is None


def test_what_went_to_another_empty_server_is_taken_back_there(tmp_path: Path) -> None:
    """Two empty servers of one repository look alike: that they are two, the load shows."""
    shared = tmp_path / "models"
    with (
        triton_server(tmp_path / "a", repository=shared, extra_args=[FAST]) as here,
        triton_server(tmp_path / "b", repository=shared, extra_args=[FAST]) as there,
    ):
        sample = make_python(tmp_path, "lost", identity=1)
        result, _warnings = deliver(
            place_of(here, there), name="lost", model_uri=str(sample.folder)
        )
        assert result.error is not None
        said = str(result.error)
        assert "is another server than triton_url" in said and "unloaded there again" in said
        assert "could not be brought back" not in said
        assert not (here.repository / "lost").exists()
        for server in (here, there):
            assert server.infer("lost", sample.request())[0] != 200
        # An unload that went there is taken back, too.
        for server in (here, there):
            done, _warnings = deliver(
                place_of(server, server), name="lost", model_uri=str(sample.folder)
            )
            assert done.error is None
        result, _warnings = deliver(place_of(here, there), name="lost", state="unloaded")
        assert result.error is not None and "loaded there again" in str(result.error)
        for server in (here, there):
            assert server.infer("lost", sample.request())[0] == 200


def test_an_update_that_went_to_another_server_is_taken_back_there(tmp_path: Path) -> None:
    """Two idle servers that serve the same of one repository look alike, too."""
    shared = tmp_path / "models"
    with (
        triton_server(tmp_path / "a", repository=shared, extra_args=[FAST]) as here,
        triton_server(tmp_path / "b", repository=shared, extra_args=[FAST]) as there,
    ):
        old, new = (make_python(tmp_path / str(one), "both", identity=one) for one in (1, 2))
        for server in (here, there):
            done, _warnings = deliver(
                place_of(server, server), name="both", model_uri=str(old.folder)
            )
            assert done.error is None, str(done.error)
        result, _warnings = deliver(place_of(here, there), name="both", model_uri=str(new.folder))
        assert "is another server than triton_url" in str(result.error)
        for server in (here, there):
            status, body = server.infer("both", old.request())
            assert status == 200 and not old.differences(body), body


def test_a_load_at_a_server_of_another_repository_says_so(tmp_path: Path) -> None:
    """Both are empty, so that they look alike; the other one cannot find the folder."""
    with (
        triton_server(tmp_path / "a", extra_args=[FAST]) as here,
        triton_server(tmp_path / "b", extra_args=[FAST]) as there,
    ):
        sample = make_python(tmp_path, "afar", identity=1)
        result, _warnings = deliver(
            place_of(here, there), name="afar", model_uri=str(sample.folder)
        )
        assert "does not have 'afar' in its repository" in str(result.error)
        assert "is another server than triton_url" in str(result.error)
        assert not (here.repository / "afar").exists()


def test_loads_over_tls_with_a_key_beside_plain_http(tmp_path: Path) -> None:
    """One key for both; the certificates are gRPC's, which HTTP does not ask for."""
    authority = Authority(tmp_path / "certificates")
    certificate, key = authority.issue("server")
    arguments = [
        FAST,
        f"--http-restricted-api={APIS}:admin-key={SECRET}",
        f"--grpc-restricted-protocol={APIS}:admin-key={SECRET}",
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={certificate}",
        f"--grpc-server-key={key}",
    ]
    with triton_server(tmp_path / "triton", extra_args=arguments) as triton:
        sample = make_python(tmp_path, "guarded", identity=1)
        place = place_of(triton, admin_key={"secret": SECRET}, ca_file=str(authority.ca_file))
        model = {"name": "guarded", "model_uri": str(sample.folder)}
        result, _warnings = deliver({**place, "load_url": f"grpc://{triton.grpc_url}"}, **model)
        assert "cannot be reached" in str(result.error) and triton.grpc_url in str(result.error)
        place["load_url"] = f"grpcs://{triton.grpc_url}"
        with pytest.raises(ServerError, match="another secret in admin_key"):
            deliver({**place, "admin_key": {"secret": "guess"}}, **model)
        result, warnings = deliver(place, **model)
        assert (result.error, result.changed, warnings) == (None, True, [])
        assert triton.infer("guarded", sample.request())[0] == 200
