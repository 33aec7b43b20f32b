# SPDX-License-Identifier: Apache-2.0
"""What is wanted and what is there, as frozen values. Reading writes nothing, not even a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import disk, recovery
from .errors import InvalidOption
from .manifest import FileEntry, Manifest, hash_file
from .model_uri import ModelUri, parse_model_uri
from .names import check_model_name
from .record import Record
from .state_store import StateStore
from .triton_server import ServedModel

META_NAME = "mlflow-meta.json"
OWN_FILES = ("config.pbtxt", META_NAME)
_AS_GIVEN = (
    "flavor",
    "config",
    "instance_kind",
    "version_folders",
    "adopt",
    "check_files",
    "owner",
    "group",
    "deployment_set",
    "alias",
)
_REQUEST = (
    "flavor",
    "config",
    "instance_kind",
    "version_folders",
    "serve_versions",
    "owner",
    "group",
    "mode",
)


@dataclass(frozen=True)
class DesiredModel:
    """One model as asked for. None means omitted: as the author has it."""

    name: str
    state: str = "present"
    uri: ModelUri | None = None
    flavor: str | None = None
    config: Mapping[str, Any] | None = None
    instance_kind: str | None = None
    version_folders: str = "auto"
    verify: str | Mapping[str, Any] | None = None
    keep: int = 1
    adopt: bool = False
    check_files: bool = False
    owner: str | None = None
    group: str | None = None
    mode: str | None = None
    deployment_set: str | None = None
    rollback_to: str | None = None
    must_be_new: bool = False
    """Refuse a name that exists in any form; not an option of a user, but a verb of MLflow's."""
    keep_source: bool = False
    """What is deployed stays, whatever an alias says by now; only the other options are applied."""
    alias: str | None = None
    serve_versions: int = 1
    depends_on: tuple[str, ...] | None = None
    purged_from: str | None = None
    """Remove it only while it belongs to this deployment set; not an option of a user, but what
    purging a list does.
    """

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> DesiredModel:
        """Build from a module's parameters or a plugin's ``-C`` options; absent and None keys mean
        omitted.

        Raises:
            InvalidOption: a name that cannot be, a missing or unreadable model_uri, a combination
                that cannot be meant.
        """
        given = {key: value for key, value in options.items() if value is not None}
        name = check_model_name(given.get("name"))
        try:
            state = given.get("state", "present")
            uri = parse_model_uri(given["model_uri"]) if given.get("model_uri") else None
            if state == "present" and uri is None:
                raise InvalidOption(
                    "model_uri is required with state=present", step="read the options"
                )
            if state in ("absent", "rolled_back"):
                uri = None  # a list of models keeps its model_uri when only the state is turned
            if "rollback_to" in given and state != "rolled_back":
                raise InvalidOption(
                    "rollback_to goes with state=rolled_back", step="read the options"
                )
            if int(given.get("keep", 1)) < 0 or int(given.get("serve_versions", 1)) < 1:
                raise InvalidOption(
                    "keep cannot be negative, nor serve_versions less than 1",
                    step="read the options",
                )
            known = {key: given[key] for key in _AS_GIVEN if key in given}
            if "depends_on" in given:
                known["depends_on"] = tuple(
                    check_model_name(other) for other in given["depends_on"]
                )
            return cls(
                name=name,
                state=state,
                uri=uri,
                keep=int(given.get("keep", 1)),
                serve_versions=int(given.get("serve_versions", 1)),
                verify=_verify(given.get("verify")),
                mode=_mode(given.get("mode")),
                rollback_to=str(given["rollback_to"]) if "rollback_to" in given else None,
                **known,
            )
        except InvalidOption as error:
            raise error.about(model=name, left="nothing was changed") from error

    @property
    def asked_alias(self) -> str | None:
        """The alias that was asked for, also where the controller pinned it to a version before."""
        return self.alias or (self.uri.alias if self.uri else None)

    @property
    def request(self) -> dict[str, Any]:
        """The options that shape the files, for the record."""
        return {key: getattr(self, key) for key in _REQUEST}


def _verify(value: Any) -> str | Mapping[str, Any] | None:
    if value is None or value in ("auto", "none"):
        return value
    if value is False:
        return "none"
    if (
        isinstance(value, Mapping)
        and value.get("inputs")
        and not set(value) - {"inputs", "outputs", "tolerance"}
    ):
        return value
    raise InvalidOption(
        "verify is none, auto, or a dictionary with inputs and, where wanted, outputs and"
        " tolerance",
        step="read the options",
    )


def _mode(value: Any) -> str | None:
    if value is None:
        return None
    try:
        number = value if isinstance(value, int) else int(str(value), 8)
        if not 0 <= number <= 0o777:
            raise ValueError(value)
    except ValueError as error:
        raise InvalidOption(
            f"mode {value!r} is not an octal number between 0000 and 0777", step="read the options"
        ) from error
    return f"{number:04o}"


@dataclass(frozen=True)
class ObservedModel:
    """What is there.

    Attributes:
        record: of the deployment, None where there is none of ours.
        folder: True where the model's folder exists.
        changed_files: paths whose bytes are not those that were deployed, missing and new ones too.
        touched_files: paths whose times or inode are not those of the record, and whose bytes are.
        half_made: True where the folder is what an interrupted run put there: the next run takes it
            away again.
        modes_differ: True where permission bits are not those that were deployed.
        served: one entry for each server that answered.
        unreachable: sentences on the servers that did not.
        journal: what a killed run, or a load that was given up on, left.
        retained: previous deployments, the newest first; read only where going back is asked for.
        config: bytes of the deployed config.pbtxt.
    """

    name: str
    record: Record | None = None
    folder: bool = False
    changed_files: tuple[str, ...] = ()
    touched_files: tuple[str, ...] = ()
    served: tuple[ServedModel, ...] = ()
    unreachable: tuple[str, ...] = ()
    journal: Mapping[str, Any] | None = None
    retained: tuple[Record, ...] = ()
    config: bytes | None = None
    modes_differ: bool = False
    half_made: bool = False

    @property
    def taken(self) -> bool:
        """The name is in use: a record, a folder, or a READY model; what an interrupted run left is
        not in the way.
        """
        return self.record is not None or self.foreign

    @property
    def foreign(self) -> bool:
        """Somebody else's: a folder without a record, or a READY model whose configuration does not
        carry our id.
        """
        if self.record or self.half_made:
            return False
        return self.folder or any(one.ready and not one.deploy_id for one in self.served)


def read_disk(store: StateStore, name: str, hashes: bool = False) -> dict[str, Any]:
    """The disk's part of an ObservedModel, as keyword arguments.

    Args:
        hashes: compare bytes with the record's manifest instead of trusting the stat values.
    """
    folder = os.path.join(store.repository, name)
    record = store.record(name)
    there = os.path.isdir(folder)
    values: dict[str, Any] = {"record": record, "folder": there, "journal": store.journal(name)}
    if record is None:
        values["half_made"] = recovery.moved_in(store, values["journal"], folder)
    if there:
        values["config"] = _bytes_of(os.path.join(folder, "config.pbtxt"))
    if record:
        found = disk.fingerprint(folder) if there else {}
        wanted = record.fingerprint
        # mlflow-meta.json is for readers of another tool; adding it back would cost a reload.
        paths = {
            path for path in {*wanted, *found} if path != META_NAME and not disk.is_byproduct(path)
        }
        touched = {
            path for path in paths if list(wanted.get(path, ())) != list(found.get(path, ()))
        }
        suspects = paths if hashes else touched
        values["changed_files"] = tuple(
            sorted(
                path
                for path in suspects
                if _bytes_differ(folder, path, record, values.get("config"))
            )
        )
        values["touched_files"] = tuple(
            sorted(touched - {*values["changed_files"], "config.pbtxt"})
        )
        values["modes_differ"] = any(
            path in found and path in wanted and found[path][4] != wanted[path][4] for path in paths
        )
    return values


def _bytes_differ(folder: str, path: str, record: Record, config: bytes | None) -> bool:
    """True where a suspect file's bytes are not those that were deployed: a touched file is not a
    changed one.
    """
    absolute = os.path.join(folder, path)
    if path == "config.pbtxt":
        from .config_pbtxt import digest_without_id  # bytes only: needs no protobuf

        return config is None or digest_without_id(config, record.deploy_id) != record.config_digest
    manifest = Manifest.from_dict(record.manifest)
    entry = next((e for e in manifest.files if e.path == path), None)
    if entry is None:
        return not (path in manifest.folders and os.path.isdir(absolute))
    if not os.path.isfile(absolute) or os.path.islink(absolute):
        return True
    return FileEntry(path, os.path.getsize(absolute), hash_file(absolute)) != entry


def _bytes_of(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, IsADirectoryError):
        return None


def sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
