# SPDX-License-Identifier: Apache-2.0
"""Registry versions side by side in one model folder. Pure.

Triton initialises again what changed and nothing else: a version folder that comes or goes leaves
the others alone, and so does a ``version_policy``. Any other change of config.pbtxt, and any other
file that comes or goes, reloads all of them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from ..domain.backends import Loading
from ..domain.config_pbtxt import config_for, parse
from ..domain.desired import DesiredModel
from ..domain.layout import Layout
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..errors import DeliveryError


@dataclass(frozen=True)
class SideBySide:
    """``wanted`` becomes the highest version; ``kept`` stay loaded below it, ``retired`` go.
    ``fetch``: its files have to come.
    """

    wanted: int
    kept: tuple[int, ...]
    retired: tuple[int, ...]
    fetch: bool


def staying(record: Record, desired: DesiredModel) -> tuple[int, ...]:
    """The versions of a deployment that are left where its files are not replaced."""
    versions = tuple(sorted(record.triton_versions))
    return versions[-desired.serve_versions :] if serves_side_by_side(record) else versions


def serves_side_by_side(record: Record) -> bool:
    return int(record.request.get("serve_versions") or 1) > 1


def must_be_ready(record: Record) -> frozenset[int]:
    """Versions that a server has to have ready, where that is known: an artifact's own policy may
    load only some of its folders.
    """
    return frozenset(record.triton_versions) if serves_side_by_side(record) else frozenset()


def loaded_versions(record: Record) -> tuple[int, ...]:
    """The version folders that its ``version_policy`` loads, lowest first; all of them where its
    configuration cannot be understood.
    """
    folders = tuple(sorted(record.triton_versions))
    if "version_policy" not in record.author_config and "version_policy" not in (
        record.request.get("config") or {}
    ):
        return folders[-max(1, int(record.request.get("serve_versions") or 1)) :]
    with contextlib.suppress(DeliveryError):
        config = config_for(record.author_config, record.name, "-", record.request)
        return Loading.of(parse(config)).versions(folders) or folders
    return folders


def version_to_ask(record: Record) -> int:
    """The highest version that a server has of a deployment; of others it knows nothing."""
    return loaded_versions(record)[-1]


def serves(ready: tuple[int, ...], deploy_id: str | None, record: Record | None) -> bool:
    """True where a server's READY versions and the id in its configuration are those of the
    record.
    """
    if (
        record is None
        or (deploy_id or "") != record.deploy_id
        or not set(ready) & set(record.triton_versions)
    ):
        return False
    return must_be_ready(record) <= set(ready) <= set(record.triton_versions)


def plan_side_by_side(
    observed: ObservedModel,
    desired: DesiredModel,
    registry_version: int | None,
    layout: Layout | None,
) -> SideBySide | None:
    """How the wanted version goes beside those that are there; None where the whole folder is to be
    replaced.
    """
    record = observed.record
    if (
        record is None
        or layout is None
        or desired.serve_versions < 2
        or not observed.folder
        or len(layout.versions) != 1
    ):
        return None
    if observed.lost_files or observed.lost_environment or _serves_otherwise(record, layout):
        return None
    wanted = layout.versions[0]
    if wanted != registry_version or record.registry_version not in record.triton_versions:
        return None  # the folders are numbered by the artifact and say nothing of each other
    below = [version for version in record.triton_versions if version < wanted]
    kept = tuple(sorted(below)[-(desired.serve_versions - 1) :])
    fetch = wanted not in record.triton_versions
    if (fetch and not kept) or not (fetch or _is_claimed(record, wanted, layout)):
        return None
    retired = tuple(version for version in record.triton_versions if version not in (*kept, wanted))
    return SideBySide(wanted, kept, retired, fetch)


def _serves_otherwise(record: Record, layout: Layout) -> bool:
    """The versions of a model have one configuration, and that of pyfunc is made of a signature."""
    other = (record.flavor, record.served_as) != (layout.flavor, layout.served_as)
    return other or bool(layout.pyfunc and layout.author_config.decode() != record.author_config)


def _is_claimed(record: Record, version: int, layout: Layout) -> bool:
    """Whether what lies in a version folder is what is claimed of the artifact now: the record of
    today must not vouch for files of before. Of what was converted that is not known.
    """
    if layout.provenance is None:
        return True
    if layout.conversion:
        return False
    claims, folder = layout.provenance.claims, f"{version}/"
    wanted = {
        target: claims[source].sha256
        for source, target, _size in layout.files
        if target.startswith(folder)
    }
    return wanted == {
        entry["path"]: entry["sha256"]
        for entry in record.manifest["files"]
        if entry["path"].startswith(folder)
    }
