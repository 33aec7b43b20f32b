# SPDX-License-Identifier: Apache-2.0
"""The programs that role mlflow brings to a host, where no server is needed."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/mlflow/files"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mlflow_role_{name}", FILES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


database, plugin_wheel, start = load("database"), load("plugin_wheel"), load("start_mlflow")


def rows(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name FROM models").fetchall()


def fill(path: Path, *names: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS models (name TEXT)")
        connection.executemany("INSERT INTO models VALUES (?)", [(name,) for name in names])
        connection.commit()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    artifacts = tmp_path / "artifacts"
    (artifacts / "1").mkdir(parents=True)
    (artifacts / "1/model.bin").write_bytes(b"weights")
    fill(tmp_path / "mlflow.db", "doubler")
    (tmp_path / "backups").mkdir()
    place = {
        "backend_store_uri": f"sqlite:///{tmp_path}/mlflow.db",
        "artifacts_destination": str(artifacts),
    }
    return {**place, "auth": None, "environment": {}}


def tool(settings: dict[str, Any], folder: Path, *words: str) -> dict[str, Any]:
    config = folder / "server.json"
    config.write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, str(FILES / "database.py"), "--config", str(config), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    told = dict(json.loads(done.stdout))
    assert done.returncode == (1 if "failed" in told else 0), done.stderr
    return told


def test_databases_and_artifacts_come_back(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["auth"] = {"database_uri": f"sqlite:///{tmp_path}/auth.db"}
    fill(tmp_path / "auth.db", "admin")
    made = Path(
        tool(
            settings,
            tmp_path,
            "--data-of",
            "2.22.5",
            "backup",
            "--backups",
            str(tmp_path / "backups"),
            "--artifacts",
        )["backup"]
    )
    about = json.loads((made / "backup.json").read_text())
    assert about["mlflow_version"] == "2.22.5" and set(about["files"]) == {
        "database",
        "auth",
        "artifacts",
    }
    assert made.stat().st_mode & 0o777 == 0o700

    fill(tmp_path / "mlflow.db", "later")
    (tmp_path / "auth.db").write_bytes(b"broken")
    (tmp_path / "mlflow.db-wal").write_bytes(b"of another database")
    (tmp_path / "artifacts/1/model.bin").unlink()
    (tmp_path / "artifacts/2").mkdir()
    assert tool(settings, tmp_path, "restore", "--backup", str(made)) == {"changed": True}
    assert rows(tmp_path / "mlflow.db") == [("doubler",)] and rows(tmp_path / "auth.db") == [
        ("admin",)
    ]
    assert (tmp_path / "artifacts/1/model.bin").read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["1"]


def test_two_backups_of_one_second_are_two(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.time, "strftime", lambda *_arguments: "2026-01-01T00-00-00Z")
    made = [database.backup(settings, tmp_path / "backups", False, "3") for _number in range(2)]
    assert [path.name for path in made] == ["2026-01-01T00-00-00Z", "2026-01-01T00-00-00Z-1"]


def test_what_is_no_backup_of_this_database_is_refused_and_changes_nothing(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    made = database.backup(settings, tmp_path / "backups", True, "3")
    assert (
        "is not a backup"
        in tool(settings, tmp_path, "restore", "--backup", str(tmp_path))["failed"]
    )
    other = {**settings, "backend_store_uri": "postgresql://localhost/mlflow"}
    assert (
        "is not for a postgresql database"
        in tool(other, tmp_path, "restore", "--backup", str(made))["failed"]
    )
    (made / "artifacts.tar").unlink()
    assert (
        "lacks artifacts.tar"
        in tool(settings, tmp_path, "restore", "--backup", str(made))["failed"]
    )
    assert rows(tmp_path / "mlflow.db") == [("doubler",)]


def test_a_restore_that_fails_leaves_the_artifacts_as_they_are(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    made = database.backup(settings, tmp_path / "backups", True, "3")
    (tmp_path / "mlflow.db").unlink()
    (tmp_path / "mlflow.db/in the way").mkdir(parents=True)
    (tmp_path / "artifacts/later").mkdir()
    assert "mlflow.db" in tool(settings, tmp_path, "restore", "--backup", str(made))["failed"]
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir()) == ["1", "later"]


def test_a_backup_leaves_out_what_a_killed_restore_left(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "artifacts/.restored/1").mkdir(parents=True)
    made = database.backup(settings, tmp_path / "backups", True, "3")
    with tarfile.open(made / "artifacts.tar") as archive:
        assert archive.getnames() == [".", "./1", "./1/model.bin"]


def test_a_backup_that_fails_leaves_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    content = bytearray((tmp_path / "mlflow.db").read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    (tmp_path / "mlflow.db").write_bytes(content)
    assert "failed" in tool(settings, tmp_path, "backup", "--backups", str(tmp_path / "backups"))
    assert list((tmp_path / "backups").iterdir()) == []


def test_an_empty_database_needs_no_upgrade_and_no_backup(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mlflow.db").unlink()
    assert tool(settings, tmp_path, "upgrade", "--backups", str(tmp_path / "backups")) == {
        "changed": False
    }
    assert not (tmp_path / "mlflow.db").exists() and list((tmp_path / "backups").iterdir()) == []


def test_what_cannot_be_saved_is_not_upgraded(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "has_tables", lambda _uri: True)
    with pytest.raises(
        database.Problem,
        match="not of mysql: make one with its own means, and set mlflow_backup_before_upgrade",
    ):
        database.upgrade(
            {**settings, "backend_store_uri": "mysql+pymysql://h/d"}, tmp_path / "backups", "3"
        )


@pytest.mark.parametrize(
    ("uri", "place", "password"),
    [
        ("postgresql://u:p%40ss@h:5432/d", "postgresql://u@h:5432/d", "p@ss"),
        ("postgresql+psycopg2://u@h/d?sslmode=require", "postgresql://u@h/d?sslmode=require", None),
        (
            "postgresql://u@/d?host=/run/postgresql&password=x%2By",
            "postgresql://u@/d?host=%2Frun%2Fpostgresql",
            "x+y",
        ),
    ],
)
def test_passwords_go_to_postgresql_through_the_environment(
    uri: str, place: str, password: str | None
) -> None:
    assert database.libpq(uri) == (place, {"PGPASSWORD": password} if password else {})
    assert "p@ss" not in database.without_secrets(
        "said p@ss and p%40ss", ["postgresql://u:p%40ss@h/d"]
    )


def test_a_missing_program_of_postgresql_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(database.Problem, match="There is no pg_dump where MLflow runs: install"):
        database.save("postgresql://u@h/d", tmp_path, "database")


# ---- start ---------------------------------------------------------------------------------------


def test_no_secret_is_on_the_servers_command_line(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("session-key\n")
    settings = {
        "service": "s",
        "host": "127.0.0.1",
        "port": 5000,
        "workers": 1,
        "backend_store_uri": "postgresql://u:pg-word@h/d",
        "artifacts_destination": "s3://bucket",
        "allowed_hosts": [],
        "metrics_dir": str(tmp_path),
        "extra_args": [],
        "auth": {
            "config_file": "/auth.ini",
            "database_uri": "sqlite:////auth.db",
            "secret_key_file": str(tmp_path / "key"),
        },
        "environment": {"AWS_SECRET_ACCESS_KEY": "s3-word"},
    }
    argv, environment = start.make_argv(settings), start.make_environment(settings)
    assert "--app-name basic-auth" in " ".join(
        argv
    ) and f"--expose-prometheus {tmp_path}" in " ".join(argv)
    assert "-word" not in " ".join(argv) and "session-key" not in " ".join(argv)
    assert (
        environment["MLFLOW_FLASK_SERVER_SECRET_KEY"] == "session-key"
        and environment["AWS_SECRET_ACCESS_KEY"] == "s3-word"
    )


def test_counters_of_processes_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "counter_17.db").write_bytes(b"")
    (tmp_path / "note").write_bytes(b"")
    start.forget_metrics(str(tmp_path))
    start.forget_metrics(None)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


# ---- the plugin's wheel --------------------------------------------------------------------------


def test_the_packed_plugin_is_a_wheel_that_works_alone(tmp_path: Path) -> None:
    wheel = plugin_wheel.make_wheel(ROOT, tmp_path)
    (tmp_path / "again").mkdir()
    assert plugin_wheel.make_wheel(ROOT, tmp_path / "again").read_bytes() == wheel.read_bytes()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-qq",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
    ]
    subprocess.run([*pip, str(tmp_path / "site"), str(wheel)], check=True, capture_output=True)
    (script,) = (tmp_path / "site").rglob("publish_model_to_mlflow.py")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, str(script), "--help"], check=True, capture_output=True, env=kept
    )
    plugin = "ansible_collections.mlops.triton.plugins.mlflow_deployments"
    code = (
        f"import sys; sys.path.insert(0, sys.argv[1]); import {plugin} as plugin;"
        " print(plugin.__file__)"
    )
    # Without the hook of the editable installation, which would find the checkout first.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, "PYTHONPATH": sysconfig.get_path("purelib")},
    )
    assert done.stdout.startswith(str(tmp_path / "site")), done.stderr


def test_the_packed_plugin_asks_for_what_the_project_asks_for(tmp_path: Path) -> None:
    wheel = plugin_wheel.make_wheel(ROOT, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        asked = {
            line.partition(": ")[2]
            for line in archive.read(name).decode().splitlines()
            if line.startswith("Requires-Dist")
        }
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert asked and all(f'"{requirement}"' in project for requirement in asked)


def test_an_installed_collection_has_its_version_in_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": "1.2.3"}}))
    assert plugin_wheel.version_of(tmp_path) == "1.2.3"
