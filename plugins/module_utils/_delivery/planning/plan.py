# SPDX-License-Identifier: Apache-2.0
"""What has to be done for one model, as one frozen value: steps, and the plan that lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Union

from ..domain.desired import Case, DesiredModel
from ..domain.journal import Swap
from ..domain.layout import Layout
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..domain.requirements import Requirements
from ..domain.source import Source
from ..domain.uri import ModelUri
from .versions import SideBySide


@dataclass(frozen=True)
class Recover:
    """What an interrupted run left is undone or finished. Done before the other steps, under the
    lock.
    """

    summary: str


@dataclass(frozen=True)
class BuildEnvironment:
    """The packages of a Python model are installed for it. Done before anything that serves is
    touched.
    """

    summary: str
    requirements: Requirements


@dataclass(frozen=True)
class Replace:
    """The artifact's files become the model folder.

    Attributes:
        asked: ``model_uri`` as the user gave it; ``source`` what it means now.
        layout: the model folder to be made.
    """

    summary: str
    asked: ModelUri
    source: Source
    layout: Layout


@dataclass(frozen=True)
class PutSideBySide:
    """The artifact's version is served side by side with those that are there.

    Attributes:
        record: of the deployment whose version folders stay.
        versions: which stay, which comes, which go.
    """

    summary: str
    asked: ModelUri
    source: Source
    layout: Layout
    record: Record
    versions: SideBySide


@dataclass(frozen=True)
class ReplaceUnread:
    """A replacement whose artifact could not be read, for want of a library: only a check run
    plans it.
    """

    summary: str


@dataclass(frozen=True)
class Reconfigure:
    """config.pbtxt is written anew, and the other files of ``record`` stay."""

    summary: str
    record: Record


@dataclass(frozen=True)
class SetPermissions:
    """Owner, group and mode of files that stay."""

    summary: str


@dataclass(frozen=True)
class Heal:
    """Files get new times, so that Triton reads them again though nothing changed."""

    summary: str
    servers: tuple[str, ...]


@dataclass(frozen=True)
class TryAside:
    """The new deployment is loaded, verified and unloaded under the candidate's name on each of the
    ``servers`` (URLs), before anything of what serves is touched.
    """

    summary: str
    servers: tuple[str, ...]


@dataclass(frozen=True)
class Load:
    """Load until each of the ``servers`` (URLs) proves that it serves the deployment."""

    summary: str
    servers: tuple[str, ...]


@dataclass(frozen=True)
class Verify:
    """An inference on each of the ``servers`` (URLs)."""

    summary: str
    servers: tuple[str, ...]


@dataclass(frozen=True)
class User:
    """A deployed model that uses another one, and how it is asked whether it still answers.

    Attributes:
        version: its Triton version to ask.
        case: as for ``verify``; None where there is none, and READY has to do.
    """

    name: str
    version: int
    case: Case | None = None


@dataclass(frozen=True)
class ProveUsers:
    """What used the model before, and answered, still does."""

    summary: str
    users: tuple[User, ...]


@dataclass(frozen=True)
class WriteRecord:
    """What is in place now is written down."""

    summary: str


@dataclass(frozen=True)
class RollBack:
    """The retained deployment ``target`` comes back in the place of ``record``."""

    summary: str
    record: Record
    target: Record


@dataclass(frozen=True)
class Unload:
    """Unload from each of the ``servers`` (URLs)."""

    summary: str
    servers: tuple[str, ...]


@dataclass(frozen=True)
class Remove:
    """The model's folder, record and retained copies go."""

    summary: str


# Evaluated at run time, where ansible-test still asks for the old form.
Replacement = Union[Replace, PutSideBySide]  # noqa: UP007
Step = Union[  # noqa: UP007
    Recover,
    BuildEnvironment,
    Replacement,
    ReplaceUnread,
    Reconfigure,
    SetPermissions,
    Heal,
    TryAside,
    Load,
    Verify,
    ProveUsers,
    WriteRecord,
    RollBack,
    Unload,
    Remove,
]
"""One step. ``summary`` says it as a user would."""

Document = Mapping[str, object]
"""What a diff shows of one side, by key."""


@dataclass(frozen=True)
class Plan:
    """What has to be done for one model.

    Attributes:
        before, after: what the diff shows.
        resolved: the registry was asked what ``model_uri`` means.
        proven: an inference showed that what is deployed answers as it should.
        swap: ``overlap`` or ``unload_first``, where a deployment that serves is replaced.
        gpu_needs: bytes that it is expected to take, by server and GPU.
        resumes: the change of an earlier run whose load had begun, and which is what is wanted.
    """

    desired: DesiredModel
    observed: ObservedModel
    steps: tuple[Step, ...]
    before: Document
    after: Document
    warnings: tuple[str, ...] = ()
    resolved: bool = False
    proven: bool = False
    swap: Literal["overlap", "unload_first"] | None = None
    gpu_needs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    resumes: Swap | None = None

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def actions(self) -> list[str]:
        return [step.summary for step in self.steps]

    @property
    def notes(self) -> list[str]:
        """Those of the actions that only write into the record: no file of the model and no server
        is touched.
        """
        return [step.summary for step in self.steps if isinstance(step, WriteRecord)]

    @property
    def replacement(self) -> Replacement | None:
        """The step that brings files."""
        for step in self.steps:
            if isinstance(step, (Replace, PutSideBySide)):
                return step
        return None

    @property
    def rollback(self) -> RollBack | None:
        return next((step for step in self.steps if isinstance(step, RollBack)), None)

    @property
    def changes_model(self) -> bool:
        """The folder of a model that is to be served gets other files or another configuration."""
        return self.resumes is not None or any(
            isinstance(step, (Replace, PutSideBySide, ReplaceUnread, Reconfigure, RollBack))
            for step in self.steps
        )

    @property
    def takes_away(self) -> bool:
        """A model that may be in use is unloaded or removed."""
        return self.desired.state in ("absent", "unloaded") and any(
            isinstance(step, (Unload, Remove)) for step in self.steps
        )

    @property
    def servers(self) -> frozenset[str]:
        """The URLs of the servers that a step acts on."""
        return frozenset(
            url
            for step in self.steps
            if isinstance(step, (Heal, TryAside, Load, Verify, Unload))
            for url in step.servers
        )

    def diff(self) -> dict[str, str]:
        """The before and after texts that Ansible shows."""
        header = f"model {self.desired.name}"
        return {
            "before": _text(self.before),
            "after": _text(self.after),
            "before_header": header,
            "after_header": header,
        }


def _text(document: Document) -> str:
    return "".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}\n"
        for key, value in document.items()
    )
