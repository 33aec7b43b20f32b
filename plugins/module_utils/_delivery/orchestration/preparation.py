# SPDX-License-Identifier: Apache-2.0
"""The Python environments that the models of a list need, made before anything that serves is
touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..domain.environments import Environments
from ..domain.requirements import Requirements
from ..errors import DeliveryError, as_delivery_error
from ..outside import JsonDict
from .report import Result

_LEFT = "nothing that serves was changed"


@dataclass(frozen=True)
class Prepared:
    """What came of the environment of one model.

    Attributes:
        requirements: identifies what is asked for.
        key: what hosts have in common that install the same; None where no Python is known yet.
        lock: exact versions with hashes; None where they are not known yet.
        changed: it was built, or would be.
    """

    model: str
    requirements: str
    key: str | None = None
    digest: str | None = None
    packages: int | None = None
    size: int | None = None
    lock: str | None = None
    changed: bool = False
    error: DeliveryError | None = None

    def to_dict(self) -> JsonDict:
        keys = ("model", "requirements", "key", "digest", "packages", "size", "lock", "changed")
        return {key: getattr(self, key) for key in keys}


def prepare(
    results: Iterable[Result], environments: Callable[[], Environments | None], *, check: bool
) -> list[Prepared]:
    """The environments that planned models need, in their order.

    Args:
        results: of a check run.
        environments: gives those of this host; None where there is no place for them yet.
        check: only look.
    """
    found = []
    for result in results:
        if wanted := _needs(result):
            there = environments()
            found.append(
                _prepare(result.name, wanted, there, check=check)
                if there
                else Prepared(result.name, wanted.digest, changed=True)
            )
    return found


def _needs(result: Result) -> Requirements | None:
    """None for models of which nothing is brought, or for which no code of MLflow answers."""
    change = result.plan.replacement if result.plan else None
    return change.layout.requirements if change else None


def _prepare(
    name: str, wanted: Requirements, environments: Environments, *, check: bool
) -> Prepared:
    there = environments.look(wanted)
    if check:
        return Prepared(
            name,
            wanted.digest,
            environments.key(wanted),
            there.digest,
            there.packages,
            changed=not there.is_ready,
        )
    try:
        made = environments.build(wanted)
    except Exception as error:  # told for this model; the others go on
        said = as_delivery_error(error, "build the environment")
        said.left = None  # of the folder of environments; more is said here
        return Prepared(name, wanted.digest, error=said.about(model=name, left=_LEFT))
    return Prepared(
        name,
        wanted.digest,
        environments.key(wanted),
        made.digest,
        len(made.packages),
        made.size,
        made.lock,
        changed=not there.is_ready,
    )
