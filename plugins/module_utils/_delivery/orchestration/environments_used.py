# SPDX-License-Identifier: Apache-2.0
"""Python environments and the deployments that need them: which is gone, and which nobody needs."""

from __future__ import annotations

import os

from .. import disk
from ..domain.environments import Environments
from ..domain.record import Record
from ..errors import DeliveryError, as_delivery_error
from ..outside import JsonDict
from ..repository.protocol import Repository

FOLDER = "environments"
"""In the state."""
_SHOWN = 12


def why_lost(environments: Environments | None, record: Record) -> str | None:
    """What is wrong with an environment that a deployment needs; None where nothing is known to
    be.
    """
    if environments is None:
        return None
    there = {one.digest for one in environments.present()}
    for digest in sorted(record.environments):
        if digest not in there:
            return f"its environment {digest[:_SHOWN]} is gone"
        if not environments.has_python(digest):
            return f"the Python of its environment {digest[:_SHOWN]} is gone"
    return None


def users_of(repository: Repository) -> dict[str, list[str]]:
    """Digest → names of the models that need it, or a retained copy of theirs does."""
    found: dict[str, list[str]] = {}
    for name, record in repository.store.readable_records().items():
        digests = set(record.environments)
        for retained in repository.store.retained_records(name):
            digests |= retained.environments
        for digest in sorted(digests):
            found.setdefault(digest, []).append(name)
    return found


def has_environments(repository: Repository) -> bool:
    """Whether any was ever made beside it."""
    return disk.is_folder(os.path.join(repository.store.path, FOLDER))


def remove_unused(environments: Environments, repository: Repository) -> str | None:
    """Remove what no record and no retained copy refers to. Left alone where that is not known, and
    while a run may be about to use one.

    Returns:
        Why it could not be done, as a warning.
    """
    try:
        if not environments.present() or _is_at_work(repository):
            return None
        if {*repository.store.recorded_names()} == repository.store.readable_records().keys():
            environments.remove_unused(users_of(repository).keys())
    except (DeliveryError, OSError) as error:
        said = as_delivery_error(error, "remove environments").message
        return f"environments that no model needs were not removed ({said})"
    return None


def _is_at_work(repository: Repository) -> bool:
    """A run has its staging before it asks for an environment, and its journal until it is over."""
    state = repository.store.path
    return any(disk.entries(os.path.join(state, folder)) for folder in ("staging", "journals"))


def describe_all(environments: Environments | None, repository: Repository) -> list[JsonDict]:
    """What a user is told of the environments of a host, by digest."""
    if environments is None:
        return []
    users = users_of(repository)
    return [
        {
            "digest": one.digest,
            "python": one.version,
            "packages": len(one.packages),
            "size": one.size,
            "models": users.get(one.digest, []),
        }
        for one in sorted(environments.present(), key=lambda one: one.digest)
    ]
