# SPDX-License-Identifier: Apache-2.0
"""Backups, restores and upgrades of what an MLflow server keeps, as the JSON file of its settings
describes it.

    python database.py --config server.json upgrade --backups FOLDER
    python database.py --config server.json backup --backups FOLDER [--artifacts]
    python database.py --config server.json restore --backup FOLDER/NAME

Run it with the Python of the environment that holds MLflow. It answers with one line of JSON:
whether it changed anything, or a sentence that says why it failed. Started by root it becomes the
owner of the settings, so that the server can read and write whatever it leaves. Passwords of
databases are in no command line: libpq gets them through the environment, MLflow in this very
process.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

ABOUT = "backup.json"
# In the folder of artifacts, while a restore works on it.
NEW, OLD = ".restored", ".replaced"
# Tables, sequences, functions of triggers and types, as far as MLflow's user made them; what else
# lies in the database stays.
DROP_ALL = """\
SET client_min_messages = warning;
DO $$ DECLARE word text; BEGIN
  FOR word IN
    SELECT format('TABLE %I.%I', schemaname, tablename) FROM pg_tables
      WHERE schemaname = current_schema() AND tableowner = current_user
    UNION ALL SELECT format('SEQUENCE %I.%I', schemaname, sequencename) FROM pg_sequences
      WHERE schemaname = current_schema() AND sequenceowner = current_user
    UNION ALL SELECT format('ROUTINE %s', oid::regprocedure) FROM pg_proc
      WHERE pronamespace = current_schema()::regnamespace AND proowner = current_user::regrole
    UNION ALL SELECT format('TYPE %s', oid::regtype) FROM pg_type
      WHERE typnamespace = current_schema()::regnamespace AND typowner = current_user::regrole AND typtype IN ('e', 'd')
  LOOP EXECUTE format('DROP %s CASCADE', regexp_replace(word, ' ', ' IF EXISTS ')); END LOOP;
END $$;
"""  # noqa: E501
CLIENT_PROGRAMS = (
    "install PostgreSQL's client programs, not older than the server (Debian and Ubuntu:"
    " postgresql-client)"
)


class Problem(Exception):
    """The text is one sentence for the user."""


# ---- databases -----------------------------------------------------------------------------------


def kind_of(uri: str) -> str:
    return uri.partition("://")[0].partition("+")[0]


def sqlite_path(uri: str) -> Path:
    return Path(uri.partition(":///")[2].partition("?")[0])


def libpq(uri: str) -> tuple[str, dict[str, str]]:
    """The URI as PostgreSQL's programs want it, without its password, and the environment that has
    it.
    """
    parts = urlsplit(uri)
    account, sign, place = parts.netloc.rpartition("@")
    user, _colon, password = account.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    secret = options.pop("password", "") or unquote(password)
    plain = f"postgresql://{user}{sign}{place}{parts.path}" + (
        f"?{urlencode(options)}" if options else ""
    )
    return plain, {"PGPASSWORD": secret} if secret else {}


def without_secrets(text: str, uris: list[str]) -> str:
    for uri in uris:
        if kind_of(uri) != "sqlite":
            for secret in {urlsplit(uri).password or "", libpq(uri)[1].get("PGPASSWORD", "")} - {
                ""
            }:
                text = text.replace(secret, "********")
    return text


def require_supported(uri: str) -> str:
    kind = kind_of(uri)
    if kind not in ("sqlite", "postgresql"):
        raise Problem(
            f"Backups are made of SQLite and PostgreSQL, not of {kind}: make one with its own means, and set "  # noqa: E501
            "mlflow_backup_before_upgrade to false for an upgrade."
        )
    return kind


def has_tables(uri: str) -> bool:
    if kind_of(uri) == "sqlite":
        if not sqlite_path(uri).is_file():
            return False
        with closing(sqlite3.connect(sqlite_path(uri))) as database:
            return bool(
                database.execute(
                    "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
                ).fetchone()[0]
            )
    import sqlalchemy  # type: ignore[import-not-found,unused-ignore]

    try:
        engine = sqlalchemy.create_engine(uri)
        with closing(engine.connect()) as connection:
            return bool(sqlalchemy.inspect(connection).get_table_names())
    except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise Problem(f"The database cannot be used: {error}") from None


def client(program: str, uri: str, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
    """A program of PostgreSQL at work on a database."""
    place, secret = libpq(uri)
    environment = {"PGCONNECT_TIMEOUT": "60", **os.environ, **secret}
    try:
        return subprocess.Popen(
            [program, *words, f"--dbname={place}", "--no-password"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **streams,
        )
    except FileNotFoundError:
        raise Problem(f"There is no {program} where MLflow runs: {CLIENT_PROGRAMS}.") from None


def finish(program: str, process: subprocess.Popen[bytes]) -> None:
    said = (process.stderr.read() if process.stderr else b"").decode("utf-8", "replace").strip()
    if process.wait():
        raise Problem(f"{program} failed: {said or process.returncode}")


def save(uri: str, folder: Path, name: str) -> str:
    """Copies a database, also under a running server; returns the file's name."""
    if require_supported(uri) == "postgresql":
        file = f"{name}.sql.gz"
        words = [
            "--format=plain",
            "--compress=6",
            "--no-owner",
            "--no-privileges",
            f"--file={folder / file}",
        ]
        finish("pg_dump", client("pg_dump", uri, *words, stdin=subprocess.DEVNULL))
        return file
    file = f"{name}.sqlite"
    with (
        closing(sqlite3.connect(sqlite_path(uri), timeout=60)) as source,
        closing(sqlite3.connect(folder / file)) as copy,
    ):
        source.backup(copy)
        found = copy.execute("PRAGMA quick_check").fetchone()[0]
    if found != "ok":
        raise Problem(f"{sqlite_path(uri)} is damaged: {found}")
    return file


def put_back(uri: str, file: Path) -> None:
    """Replaces a database by its copy, as a whole or not at all. The server must not run."""
    if require_supported(uri) == "postgresql":
        words = [
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--single-transaction",
            "--file=-",
        ]
        process = client("psql", uri, *words, stdin=subprocess.PIPE)
        try:
            with gzip.open(file) as script, process.stdin or closing(sys.stdin.buffer) as stdin:
                stdin.write(DROP_ALL.encode())
                shutil.copyfileobj(script, stdin)
        except BrokenPipeError:
            # What psql says of it is more than this.
            pass
        finish("psql", process)
        return
    path = sqlite_path(uri)
    new = path.with_name(path.name + ".restored")
    shutil.copyfile(file, new)
    for leftover in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + leftover).unlink(missing_ok=True)
    os.replace(new, path)


# ---- artifacts -----------------------------------------------------------------------------------


def artifact_folder(settings: dict[str, Any]) -> Path | None:
    """None where artifacts are elsewhere, in S3 for instance."""
    place = str(settings["artifacts_destination"]).removeprefix("file://")
    return None if "://" in place else Path(place)


def pack(file: Path, folder: Path) -> None:
    def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if entry.name in (f"./{NEW}", f"./{OLD}") else entry

    with tarfile.open(file, "w") as archive:
        archive.add(folder, ".", filter=keep)


def unpack(file: Path, folder: Path) -> Path:
    """Beside what is there, on its own file system: the folder itself may be a mount point."""
    new = folder / NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with tarfile.open(file) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = staticmethod(tarfile.data_filter)
        archive.extractall(new)
    return new


def exchange(folder: Path, new: Path) -> None:
    old = folder / OLD
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    for path in [path for path in folder.iterdir() if path not in (old, new)]:
        path.rename(old / path.name)
    for path in list(new.iterdir()):
        path.rename(folder / path.name)
    new.rmdir()
    shutil.rmtree(old)


# ---- commands ------------------------------------------------------------------------------------


def databases(settings: dict[str, Any]) -> dict[str, str]:
    found = {"database": settings["backend_store_uri"]}
    return {**found, "auth": settings["auth"]["database_uri"]} if settings["auth"] else found


def backup(settings: dict[str, Any], backups: Path, with_artifacts: bool, data_of: str) -> Path:
    """A folder of its own, which has its name when it is complete."""
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    place = next(
        path
        for number in range(1000)
        if not (path := backups / (f"{stamp}-{number}" if number else stamp)).exists()
    )
    new = backups / f".{place.name}.new"
    new.mkdir(mode=0o700)
    try:
        uris = {name: uri for name, uri in databases(settings).items() if has_tables(uri)}
        files = {name: save(uri, new, name) for name, uri in uris.items()}
        folder = artifact_folder(settings)
        # After the database: a file that nothing names does no harm, a row without its file does.
        if with_artifacts and folder is not None and folder.is_dir():
            files["artifacts"] = "artifacts.tar"
            pack(new / files["artifacts"], folder)
        about = {"schema": 1, "made": stamp, "mlflow_version": data_of, "files": files}
        (new / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        new.rename(place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return place


def upgrade(settings: dict[str, Any], backups: Path | None, data_of: str) -> dict[str, Any]:
    uri = settings["backend_store_uri"]
    # The server fills an empty one itself.
    if not has_tables(uri):
        return {"changed": False}
    made = backup(settings, backups, False, data_of) if backups else None
    try:
        from mlflow.db import commands

        commands.main(["upgrade", uri], standalone_mode=False)
    # MLflow, alembic, SQLAlchemy and the driver raise exceptions of their own.
    except Exception as error:
        kept = f"what was there before is in {made}" if made else "no backup was made"
        advice = (
            "run the role again when the cause is gone, or restore the backup with the former"
            " mlflow_version"
        )
        raise Problem(
            f"MLflow cannot upgrade the schema of its database ({error}); {kept}. The server stays"
            f" stopped: {advice}."
        ) from error
    return {"changed": True, **({"backup": str(made)} if made else {})}


def restore(settings: dict[str, Any], place: Path) -> dict[str, Any]:
    try:
        files = json.loads((place / ABOUT).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem(f"{place} is not a backup of this role ({error}).") from None
    uris = {name: uri for name, uri in databases(settings).items() if name in files}
    for name, uri in uris.items():
        if (
            files[name]
            != f"{name}{'.sql.gz' if require_supported(uri) == 'postgresql' else '.sqlite'}"
        ):
            raise Problem(
                f"{place} holds {files[name]}, which is not for a {kind_of(uri)} database: restore"
                " it with the former URI."
            )
    missing = [name for name in files.values() if not (place / name).is_file()]
    if missing:
        raise Problem(f"{place} lacks {', '.join(missing)}.")
    folder = artifact_folder(settings) if "artifacts" in files else None
    try:
        new = unpack(place / files["artifacts"], folder) if folder else None
        for name, uri in uris.items():
            put_back(uri, place / files[name])
        if folder and new:
            exchange(folder, new)
    finally:
        if folder:
            shutil.rmtree(folder / NEW, ignore_errors=True)
    return {"changed": True}


def become_owner(path: str) -> None:
    owner = os.stat(path)
    if os.geteuid() == 0 and owner.st_uid != 0:
        try:
            os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
        except KeyError:
            os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
        os.environ["HOME"] = "/"
    os.umask(0o077)


def run(arguments: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    if arguments.command == "upgrade":
        return upgrade(settings, arguments.backups, arguments.data_of)
    if arguments.command == "backup":
        return {
            "changed": True,
            "backup": str(
                backup(settings, arguments.backups, arguments.artifacts, arguments.data_of)
            ),
        }
    return restore(settings, arguments.backup)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Backups, restores and upgrades of what an MLflow server keeps."
    )
    parser.add_argument("--config", required=True, help="JSON file of the server's settings")
    parser.add_argument(
        "--data-of",
        metavar="VERSION",
        default="unknown",
        help="the MLflow that wrote the data; a backup keeps it",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    upgrades = commands.add_parser(
        "upgrade", help="bring the schema of the database to that of the installed MLflow"
    )
    upgrades.add_argument(
        "--backups", type=Path, help="folder into which a backup is made before; none without it"
    )
    saves = commands.add_parser("backup", help="copy the databases")
    saves.add_argument("--backups", type=Path, required=True, help="folder of backups")
    saves.add_argument("--artifacts", action="store_true", help="also the folder of artifacts")
    commands.add_parser("restore", help="put a backup back").add_argument(
        "--backup", type=Path, required=True, help="its folder"
    )
    arguments = parser.parse_args()
    become_owner(arguments.config)
    settings = json.loads(Path(arguments.config).read_text(encoding="utf-8"))
    # They may say how to reach the database.
    os.environ.update({key: str(value) for key, value in settings["environment"].items()})
    try:
        print(json.dumps(run(arguments, settings)))
    except (Problem, OSError, sqlite3.Error, tarfile.TarError) as error:
        print(
            json.dumps({"failed": without_secrets(str(error), list(databases(settings).values()))})
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
