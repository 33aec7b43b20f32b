# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit of role triton, rendered with the role's own defaults and variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19 every text was a template

    def trust_as_template(value: str) -> str:
        return value


ROLE = Path(__file__).resolve().parents[2] / "roles/triton"


def trusted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: trusted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [trusted(one) for one in value]
    return trust_as_template(value) if isinstance(value, str) else value


def templar(**overrides: Any) -> Templar:
    variables: dict[str, Any] = {
        "role_path": str(ROLE),
        "ansible_managed": "managed",
        "ansible_check_mode": False,
    }
    for name in ("defaults", "vars"):
        variables |= trusted(yaml.safe_load((ROLE / name / "main.yml").read_text(encoding="utf-8")))
    return Templar(DataLoader(), variables={**variables, **overrides})


def unit(template: str = "triton.service", **overrides: Any) -> list[str]:
    text = (ROLE / f"templates/{template}.j2").read_text(encoding="utf-8")
    made = templar(**overrides).template(trust_as_template(text), escape_backslashes=False)
    return str(made).splitlines()


@pytest.mark.parametrize(
    ("repository", "lines"),
    [
        ("/srv/models", ["RequiresMountsFor=/srv/models"]),
        ("/srv/100% models", ["RequiresMountsFor=/srv/100%%\\x20models"]),
        ("s3://models/production", []),
        ("s3://http://minio:9000/models", []),
    ],
)
def test_only_a_folder_waits_for_its_mount(repository: str, lines: list[str]) -> None:
    written = unit(triton_model_repository=repository)
    assert [line for line in written if line.startswith("RequiresMountsFor")] == lines
    assert [
        line for line in written if line.startswith("ExecStart=") and "start_triton.pyz" in line
    ]


def test_the_server_writes_nowhere_and_sees_nobody() -> None:
    """Its logs go to the journal, and its models it only reads."""
    written = unit()
    assert not [line for line in written if line.startswith("ReadWritePaths")]
    for line in (
        "ProtectSystem=strict",
        "ProtectProc=invisible",
        "UMask=0027",
        "RestrictNamespaces=true",
        "NoNewPrivileges=true",
    ):
        assert line in written


def test_a_model_that_takes_all_memory_does_not_stop_the_server() -> None:
    """systemd stops a unit of which the kernel has ended one process, unless it is told not to."""
    assert "OOMPolicy=continue" in unit()


def test_the_server_reads_environments_of_models_and_deliveries_know_where_they_are() -> None:
    own = trusted(yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8")))

    def value(name: str, text: str = "", **given: Any) -> Any:
        made = templar(triton_runtime="docker", _triton_host={"state": ""}, **given)
        return made.template(trust_as_template(text) if text else own[name])

    folder = "/opt/mlops-triton/environments"
    mounted = {"type": "bind", "source": folder, "target": folder, "read_only": True}
    mounts = "{{ _triton_container.mounts }}"
    assert mounted in value("", mounts)
    in_s3 = value("", mounts, triton_model_repository="s3://models/production")
    assert folder not in [mount["source"] for mount in in_s3]
    told = value("_triton_own_environments")
    assert told == {
        "folder": folder,
        "container": "triton",
        "container_engine": "unix:///var/run/docker.sock",
    }
    given = {"folder": "/srv/environments", "container": "images/triton:1", "no_index": True}
    told = value("_triton_own_environments", triton_environments=given)
    assert list(told) == ["container_engine"]
    moved = value("", mounts, triton_environments=given)
    assert {**mounted, "source": "/srv/environments", "target": "/srv/environments"} in moved
    native = templar(_triton_host={"state": ""}).template(own["_triton_own_environments"])
    assert native == {"folder": folder}


def test_who_stops_a_server_waits_longer_than_the_server_for_its_models() -> None:
    """Triton uses all of its own time after a load that failed in the place of what serves."""
    given: dict[str, Any] = {"triton_shutdown_timeout": 7}
    own = trusted(yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8")))
    (settings,) = (one for one in own.values() if isinstance(one, dict) and "exit_timeout" in one)
    server = templar(**given).template(settings["exit_timeout"])
    container = templar(**given).template(own["_triton_container"]["stop_timeout"])
    systemd = unit("triton.service", **given)
    supervisor = unit("supervisord.conf", _triton_root=True, **given)
    assert (int(server), int(container)) == (7, 22)
    assert "TimeoutStopSec=22" in systemd
    assert "stopwaitsecs=22" in supervisor


def words_of(value: Any) -> list[str]:
    """Every list of words that a task or a variable passes on as a command, as one text."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in words_of(one)]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return [" ".join(value)]
    if isinstance(value, list):
        return [text for one in value for text in words_of(one)]
    return [re.sub(r"""["',]""", " ", value)] if isinstance(value, str) else []


def test_root_starts_no_python_with_the_folder_of_its_caller() -> None:
    """With - or -m Python imports from there first, unless it is isolated."""
    texts = []
    for path in ROLE.parent.glob("*/*/*.yml"):
        if path.parent.name in ("tasks", "vars"):
            texts += words_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    starts = [
        found
        for text in texts
        for found in re.findall(r"\S*python\S*[ }]+((?:-[A-Zc] +)*(?:-m|-) )", text)
    ]
    assert len(starts) >= 12
    assert [start for start in starts if not start.startswith("-I ")] == []


@pytest.mark.parametrize("store", ["sqlite:///{{ mlflow_home }}/data/mlflow.db", "postgresql://x"])
def test_the_home_of_data_is_the_folder_that_root_gives_away(store: str) -> None:
    """What lies in it the server's user makes; a second run looks only above it."""
    folder = ROLE.parent / "mlflow"
    variables: dict[str, Any] = {"mlflow_backend_store_uri": trust_as_template(store)}
    for name in ("defaults", "vars"):
        found = trusted(yaml.safe_load((folder / name / "main.yml").read_text(encoding="utf-8")))
        variables = {**found, **variables}
    templar = Templar(DataLoader(), variables=variables)

    def value(name: str) -> Any:
        return templar.template(trust_as_template(f"{{{{ {name} }}}}"))

    assert value("_mlflow_outer_folders") == ["/opt/mlops-mlflow/data"]
    assert value("_mlflow_inner_folders") == ["/opt/mlops-mlflow/data/artifacts"]
