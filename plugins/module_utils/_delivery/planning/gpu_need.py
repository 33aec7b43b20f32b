# SPDX-License-Identifier: Apache-2.0
"""How much memory of GPUs a deployment is expected to take. Pure.

It is what was measured when the same was proven before, else the size of its files for each
instance. What a framework adds (its context, workspaces, caches) is not known before a load.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..domain import config_pbtxt
from ..domain.config_pbtxt import ModelConfig, config_for
from ..domain.manifest import Manifest
from ..domain.record import Record
from ..errors import DeliveryError, MissingLibrary
from .plan import Plan
from .versions import loaded_versions

Memory = Mapping[str, int]
"""Bytes by the UUID of a GPU."""
Free = Mapping[str, Memory]
"""What is free, by the URL of a server that has GPUs."""

_SAME = 0.05
"""Models whose sizes differ by less are taken to need the same."""


class _Brought(NamedTuple):
    """What is to be loaded.

    Attributes:
        known: a record of something like it.
    """

    config: ModelConfig
    size: int
    known: Record | None


def needs_of(plan: Plan, free: Free) -> dict[str, Memory]:
    """What the deployment after a plan takes, by the URL of a server; nothing of servers on which
    it has no instance on a GPU, and nothing at all where that cannot be known.
    """
    brought = _known(plan)
    if brought is None:
        return {}
    found = {}
    for url, gpus in free.items():
        if need := _need(brought, url, gpus):
            found[url] = need
    return found


def has_no_copy(plan: Plan) -> bool:
    """True of an ensemble, which has no memory but that of its members."""
    brought = _known(plan)
    return brought is not None and config_pbtxt.is_ensemble(brought.config)


def needs_together(needs: Iterable[Free]) -> dict[str, Memory]:
    """Of deployments of which none is proven before the others."""
    found: dict[str, dict[str, int]] = {}
    for one in needs:
        for url, gpus in one.items():
            for uuid, size in gpus.items():
                rooms = found.setdefault(url, {})
                rooms[uuid] = rooms.get(uuid, 0) + size
    return dict(found)


def taken_by(record: Record | None, url: str) -> Memory | None:
    """What a deployment takes on a server, as it was measured there; None where it was not."""
    said = record.gpu_memory.get(url) if record else None
    if not isinstance(said, Mapping):
        return None
    known = {
        uuid: size
        for uuid, size in said.items()
        if isinstance(uuid, str) and isinstance(size, int) and size >= 0
    }
    # One that has taken nothing when it was proven takes its memory later.
    return known if any(known.values()) else None


def _known(plan: Plan) -> _Brought | None:
    with contextlib.suppress(DeliveryError, MissingLibrary):
        return _brought(plan)
    return None


def _brought(plan: Plan) -> _Brought | None:
    desired, record = plan.desired, plan.observed.record
    if step := plan.replacement:
        layout = step.layout
        versions = sorted(layout.versions)[-max(1, desired.serve_versions) :]
        sizes = [(target, size or 0) for _source, target, size in layout.files]
        config = _config(layout.author_config.decode(), desired.name, desired.request)
        return _Brought(config, _size(sizes, versions), record)
    if plan.rollback:
        record = plan.rollback.target
    if record is None:
        return None
    config = _config(record.author_config, desired.name, desired.request)
    return _Brought(config, _size_of(record), record)


def _config(author: str, name: str, request: Mapping[str, object]) -> ModelConfig:
    return config_pbtxt.parse(config_for(author, name, "-", request))


def _size_of(record: Record) -> int:
    files = Manifest.from_dict(record.manifest).files
    return _size([(one.path, one.size) for one in files], loaded_versions(record))


def _size(files: Iterable[tuple[str, int]], versions: Iterable[int]) -> int:
    """Of the files that are loaded: those of other version folders are not."""
    loaded = {str(version) for version in versions}
    heads = [(path.partition("/")[0], size) for path, size in files]
    return sum(size for head, size in heads if not head.isdigit() or head in loaded)


def _need(brought: _Brought, url: str, gpus: Memory) -> Memory:
    placed = _instances(brought.config)
    if not placed or not gpus:
        return {}
    known = brought.known
    measured = taken_by(known, url) if known else None
    if known and measured and measured.keys() <= gpus.keys() and _is_alike(brought, known):
        return measured
    need = dict.fromkeys(gpus, 0)
    # Which GPU has which number the metrics do not say: the one with the most room is hoped for.
    roomy = max(gpus, key=lambda uuid: gpus[uuid])
    for everywhere, count in placed:
        for uuid in gpus if everywhere else (roomy,):
            need[uuid] += count * brought.size
    return {uuid: size for uuid, size in need.items() if size}


def _is_alike(brought: _Brought, known: Record) -> bool:
    size = _size_of(known)
    config = _config(known.author_config, known.name, known.request)
    return (
        abs(size - brought.size) <= _SAME * max(size, 1)
        and config.backend == brought.config.backend
        and _instances(config) == _instances(brought.config)
    )


def _instances(config: ModelConfig) -> list[tuple[bool, int]]:
    """Groups of instances on GPUs: whether each GPU of the server gets them, and how many."""
    if config_pbtxt.is_ensemble(config):
        return []
    # Triton makes one on each GPU where nothing is said.
    groups = config.instance_group or [None]
    found = []
    for group in groups:
        if group is None:
            found.append((True, 1))
        elif group.kind == group.KIND_MODEL:  # the model itself decides
            found.append((False, 1))
        elif group.kind != group.KIND_CPU:
            found.append((not group.gpus, max(1, group.count)))
    return found
