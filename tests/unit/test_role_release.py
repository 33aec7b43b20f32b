# SPDX-License-Identifier: GPL-3.0-or-later
"""Which image role triton takes, and what it says of a server that is not safe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROLES = Path(__file__).resolve().parents[2] / "roles"
OLD, NEW = "nvcr.io/nvidia/tritonserver:24.10-py3", "nvcr.io/nvidia/tritonserver:26.11-py3"
KEY = {"secret": "x"}
TLS = {"certificate": "/c", "key": "/k"}
OPEN = {"triton_http_address": "0.0.0.0"}
DOCKER = {"triton_runtime": "docker"}


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(one) for key, one in value.items()}
    return [trusted(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def collections() -> Iterator[None]:
    """Collections as Ansible loads them, of which nothing stays for the tests of other files: those
    import them as Python does.
    """
    others = {name for name in sys.modules if name.partition(".")[0] == "ansible_collections"}
    with mock.patch.dict(sys.modules):
        for name in others:
            del sys.modules[name]
        _AnsibleCollectionFinder._remove()
        init_plugin_loader()
        yield
        _AnsibleCollectionFinder._remove()


@pytest.fixture(scope="module")
def role(collections: None) -> Callable[..., Any]:

    def evaluate(name: str, variable: str, engine: Any = None, **given: Any) -> Any:
        said: dict[str, Any] = {
            "inventory_hostname": "here",
            "ansible_check_mode": False,
            "ansible_search_path": [str(ROLES / name)],
            "role_path": str(ROLES / name),
        }
        for kind in ("defaults", "vars"):
            said |= yaml.safe_load((ROLES / name / kind / "main.yml").read_text(encoding="utf-8"))
        said |= {"_triton_host": {"cards": [], "problems": [], "root": True, "missing": []}}
        if engine is not None:
            said["_triton_engine"] = {"image": None, "container": None, "problems": [], **engine}
        templar = Templar(DataLoader(), variables=trusted({**said, **given}))
        return templar.template(trust_as_template("{{ " + variable + " }}"))

    return evaluate


@pytest.mark.parametrize(
    ("given", "engine", "image"),
    [
        ({}, {}, NEW),
        ({}, {"name": OLD}, OLD),
        ({"triton_image_tag": "25.08-py3"}, {}, NEW.replace("26.11", "25.08")),
        ({"triton_image": "mirror/triton"}, {}, "mirror/triton:26.11-py3"),
        ({"triton_image_digest": "sha256:a"}, {}, "nvcr.io/nvidia/tritonserver@sha256:a"),
        ({"triton_image_digest": "sha256:a", "triton_image_pull": "never"}, {}, NEW),
    ],
)
def test_without_a_tag_a_new_host_gets_the_newest_and_an_old_one_what_it_has(
    role: Callable[..., Any], given: dict[str, Any], engine: dict[str, Any], image: str
) -> None:
    assert role("triton", "_triton_image", engine, **DOCKER, **given) == image


@pytest.mark.parametrize(
    ("given", "keeps"),
    [
        ({}, True),
        ({"triton_image": "mirror/triton"}, True),
        ({"triton_image_tag": "24.10-py3"}, False),
        ({"triton_image_digest": "sha256:a"}, False),
        ({"triton_image_digest": "sha256:a", "triton_image_archive": "/a.tar"}, True),
    ],
)
def test_the_engine_is_asked_for_what_is_kept_where_nobody_says_a_tag(
    role: Callable[..., Any], given: dict[str, Any], keeps: bool
) -> None:
    question = role("triton", "_triton_engine_question", **DOCKER, **given)
    assert (question["keeps"] is not None) is keeps
    if keeps:
        assert question["keeps"] == {
            "image": given.get("triton_image", "nvcr.io/nvidia/tritonserver"),
            "settings": "/opt/mlops-triton/server.json",
            "note": "/opt/mlops-triton/image",
        }


def test_a_kept_image_changes_nothing_that_would_restart_the_server(
    role: Callable[..., Any],
) -> None:
    given = {
        **DOCKER,
        "_triton_packed": {"stdout": "sum"},
        "_triton_host": {"cards": [], "contents": {}, "python": "3.11", "state": ""},
    }
    named = role("triton", "_triton_digest", {}, triton_image_tag="24.10-py3", **given)
    assert role("triton", "_triton_digest", {"name": OLD}, **given) == named
    assert role("triton", "_triton_digest", {}, **given) != named


def said(role: Callable[..., Any], engine: Any = None, name: str = "triton", **given: Any) -> str:
    sentences = role(name, f"_{name}_warnings", engine, **given)
    assert all(sentence.endswith(".") and sentence == sentence.strip() for sentence in sentences)
    return " ".join(sentences)


def test_what_runs_and_is_kept_is_told_with_its_holes_and_the_remedy(
    role: Callable[..., Any],
) -> None:
    text = said(role, {"name": OLD}, **DOCKER)
    assert f"The container triton of here keeps {OLD}" in text
    assert "CVE-2026-24207" in text and "Set triton_image_tag: 26.11-py3 to change it." in text
    remedied = said(role, {}, triton_image_tag="26.11-py3", **DOCKER)
    assert remedied == ""


def test_a_release_with_holes_is_told_also_where_it_was_asked_for(role: Callable[..., Any]) -> None:
    text = said(role, {}, triton_image_tag="25.06-py3", triton_admin_key=KEY, **DOCKER)
    assert "CVE-2025-23310" in text and "Set triton_image_tag: 26.11-py3" in text
    assert "keeps" not in text
    assert "CVE-2025-23310" not in said(role, {}, triton_image_tag="25.07-py3", **DOCKER)


def test_the_native_server_says_what_it_is(role: Callable[..., Any]) -> None:
    text = said(role, triton_admin_key=KEY)
    assert "The native server of here is Triton 24.10" in text and "CVE-2025-23310" in text
    assert "Leave it on 127.0.0.1, and use triton_runtime: docker" in text
    pinned = (ROLES / "triton/files/requirements-server.txt").read_text(encoding="utf-8")
    assert f"({role('triton', '_triton_native_release')})" in pinned


@pytest.mark.parametrize(
    ("given", "words", "unsaid"),
    [
        ({}, [], ["triton_admin_key", "gRPC", "metrics"]),
        ({"triton_http_address": "127.0.1.1"}, [], ["triton_admin_key", "gRPC", "metrics"]),
        ({"triton_http_address": "::1"}, [], ["triton_admin_key", "gRPC", "metrics"]),
        (OPEN, ["may load and unload models", "gRPC of here goes", "no access control"], []),
        (
            {**OPEN, "triton_admin_key": KEY},
            ["gRPC of here goes over the network as plain text, the admin key with it"],
            ["may load and unload"],
        ),
        ({**OPEN, "triton_admin_key": KEY, "triton_grpc_tls": TLS}, [], ["plain text"]),
        ({**OPEN, "triton_grpc_port": "0"}, ["may load and unload"], ["plain text"]),
        ({**OPEN, "triton_metrics_port": 0}, ["may load and unload"], ["no access control"]),
        (
            {"triton_metrics_address": "0.0.0.0"},
            ["no access control", "reaches 0.0.0.0"],
            ["plain text", "may load"],
        ),
        ({"triton_grpc_address": "::"}, ["triton_grpc_port of here", "plain text"], ["metrics"]),
        (
            {"triton_http_address": "10.0.0.5", "triton_admin_key": {"name": "k"}},
            ["may load and unload models"],
            [],
        ),
    ],
)
def test_what_others_reach_without_a_key_or_as_plain_text_is_told(
    role: Callable[..., Any], given: dict[str, Any], words: list[str], unsaid: list[str]
) -> None:
    text = said(role, {}, triton_image_tag="26.11-py3", **DOCKER, **given)
    assert not [word for word in words if word not in text], text
    assert not [word for word in unsaid if word in text], text


@pytest.mark.parametrize(
    ("tag", "wanted", "passed", "words"),
    [
        ("26.11-py3", False, False, ""),
        ("26.11-py3", True, True, ""),
        ("26.04-py3", "yes", True, ""),
        ("26.03-py3", True, False, ""),
        ("26.03-py3", False, False, "lets every client register shared memory"),
        ("prod", True, False, "add --allow-client-shm=true to triton_extra_args"),
        ("prod", False, False, ""),
    ],
)
def test_clients_share_memory_where_the_release_knows_the_flag(
    role: Callable[..., Any], tag: str, wanted: Any, passed: bool, words: str
) -> None:
    given = {**DOCKER, "triton_image_tag": tag, "triton_client_shared_memory": wanted}
    assert role("triton", "_triton_settings.client_shared_memory", {}, **given) is passed
    text = said(role, {}, **given)
    assert words in text and bool(words) == ("shared memory" in text or "shm" in text)


def test_a_driver_that_cannot_do_is_a_problem_and_natively_a_warning(
    role: Callable[..., Any],
) -> None:
    card = {"index": "0", "uuid": "a", "name": "L4", "driver": "550.1", "compute_capability": "8.9"}
    host = {"cards": [card], "missing": [], "problems": []}
    problems = role(
        "triton", "_triton_own_problems", {"answers": True}, _triton_host=host, **DOCKER
    )
    assert "Triton 26.11 needs NVIDIA's driver 580 or newer, and this host has 550.1" in problems[0]
    card["driver"] = "390.1"
    assert role("triton", "_triton_own_problems", _triton_host=host) == []
    assert "needs NVIDIA's driver 525" in said(role, _triton_host=host)
    assert role("triton", "_triton_own_problems", _triton_host=host, triton_gpus=[0])


def test_environments_are_made_of_the_lists_unless_they_are_not_wanted(
    role: Callable[..., Any],
) -> None:
    extras = {
        "triton_client_s3": "boto3==",
        "triton_client_sklearn": "treelite==",
        "triton_client_signing": "model-signing==",
    }
    bare = role("triton", "_triton_requirements")
    assert all("--hash=sha256:" in text for text in bare.values())
    for option, line in extras.items():
        assert f"\n{line}" not in bare["client"]
        text = role("triton", "_triton_requirements", **{option: True})["client"]
        assert f"\n{line}" in text and "\nmlflow-skinny==" in text
    for name, text in role("triton", "_triton_requirements", triton_locked_packages="no").items():
        file = ROLES / f"triton/files/requirements-{name}.txt"
        assert text == file.read_text(encoding="utf-8").rstrip("\n")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"mlflow_host": "0.0.0.0"}, "whoever reaches port 5000"),
        ({"mlflow_host": "10.0.0.5", "mlflow_auth": "no"}, "whoever reaches port 5000"),
        ({"mlflow_host": "0.0.0.0", "mlflow_auth": True}, ""),
        ({"mlflow_host": "localhost"}, ""),
    ],
)
def test_a_registry_that_others_reach_without_a_password_is_told(
    role: Callable[..., Any], given: dict[str, Any], words: str
) -> None:
    text = said(role, name="mlflow", **given)
    assert words in text and bool(words) == bool(text)
