# SPDX-License-Identifier: Apache-2.0
"""What should be: models as they were asked for, and what an operation has to make of them.

Nothing here reads a file or asks a server. The walk compares this with what there really is.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

GOOD = (1, 2, 3)
RAISES, WRONG, LACKS, SLOW = 4, 5, 6, 7
"""Versions of each model: good ones, one that cannot be initialised, one whose answers are not what
``verify`` expects, one without its file, and one that takes long to load."""
MADE_ANEW = frozenset({"config.pbtxt"})
"""Files that a record is enough for."""
BY_HAND, FOREIGN = 900, 950
"""What a model answers whose file somebody edited, and a model which somebody else put there."""
BATCH, BATCH_BY_HAND = 8, 7

Must = Literal["succeed", "fail", "do either"]


@dataclass(frozen=True)
class Deployment:
    """What one run put in place.

    Attributes:
        version: which was asked for.
        registered: it was asked for as ``models:/NAME/VERSION``, otherwise as a folder.
        folders: the version folders, lowest first. A registered version keeps its number.
        serve: how many of them are served.
    """

    version: int
    registered: bool = False
    folders: tuple[int, ...] = (1,)
    serve: int = 1
    batch: int = BATCH

    @property
    def files(self) -> dict[int, int]:
        """Version folder to the version of the model in it."""
        return {number: number if self.registered else self.version for number in self.folders}

    @property
    def ready(self) -> dict[int, int]:
        """Triton version to the version of the model that answers there."""
        return {number: self.files[number] for number in self.folders[-self.serve :]}

    @property
    def answer(self) -> int:
        """The version that answers who asks for none."""
        return self.ready[max(self.ready)]


@dataclass(frozen=True)
class Request:
    """One operation as a user asks for it. ``to`` is the version to go back to."""

    state: str = "present"
    version: int | None = None
    registered: bool = False
    serve: int = 1
    batch: int | None = None
    keep: int = 1
    verify: bool = False
    check_files: bool = False
    mode: str | None = None
    adopt: bool = False
    to: int | None = None

    def __repr__(self) -> str:
        """As it is written in code, without what is usual."""
        said = [
            f"{field.name}={value!r}"
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"Request({', '.join(said)})"


@dataclass(frozen=True)
class Model:
    """What is known of one model.

    Attributes:
        now: what is deployed; None where nothing of ours is.
        possible: what may be deployed besides, as long as a killed run is not recovered from.
        retained: what can be gone back to, the newest first.
        went_back: it is deployed by a rollback.
        changed: files that somebody changed behind the engine's back, since it was deployed.
        touched: files have the deployed bytes, and other times.
        may_answer: identities that may be served besides that of ``now``, on any server.
        settled: each server serves what ``now`` and ``loaded`` say, and nothing else.
        interrupted: what a killed run left may lie about.
        foreign: somebody else's folder of this name is in the repository.
    """

    now: Deployment | None = None
    loaded: bool = False
    possible: frozenset[Deployment | None] = frozenset()
    retained: tuple[Deployment, ...] = ()
    went_back: bool = False
    changed: frozenset[str] = frozenset()
    touched: bool = False
    may_answer: frozenset[int] = frozenset()
    settled: bool = True
    interrupted: bool = False
    foreign: bool = False

    @property
    def starts(self) -> frozenset[Deployment | None]:
        return self.possible | {self.now}


@dataclass(frozen=True)
class Expected:
    """What an operation has to do, and what a success puts in place: one of ``new``."""

    must: Must
    new: frozenset[Deployment | None] = frozenset()
    loaded: bool = False


def expect(model: Model, request: Request) -> Expected:
    """What an operation has to lead to, if no server dies and nobody kills it."""
    if model.foreign and not request.adopt:
        return Expected("fail")
    if request.state == "absent":
        return Expected("succeed", frozenset({None}))
    if request.state == "rolled_back":
        return _expect_rollback(model, request)
    if request.version is None:  # unloaded, whatever is deployed
        there = model.starts - {None}
        sure = not model.changed and None not in model.starts
        must: Must = "succeed" if sure else "do either" if there else "fail"
        return Expected(must, there, loaded=False)
    lost = bool(model.changed - {"config.pbtxt"})  # which is made anew by itself
    new = frozenset(put(start, request, lost) for start in model.starts)
    # Nobody finds out that a version is bad where it is not loaded; the walk does not ask for that.
    return Expected(
        "succeed" if request.version in GOOD else "fail", new, request.state == "present"
    )


def _expect_rollback(model: Model, request: Request) -> Expected:
    if model.interrupted:
        # A killed run may have retained what it replaced, or not yet.
        there = (model.starts | set(model.retained)) - {None}
        return Expected("do either" if there else "fail", there, loaded=True)
    target = rollback_target(model, request)
    if target is None:
        return Expected("fail")
    # It brings no files but those of a retained copy: it may refuse, but not leave them so.
    sure = model.changed <= MADE_ANEW
    return Expected("succeed" if sure else "do either", frozenset({target}), loaded=True)


def rollback_target(model: Model, request: Request) -> Deployment | None:
    """What is in place after a rollback; None where there is nothing to go back to."""
    if model.now is None:
        return None
    if request.to is None:
        return model.now if model.went_back else next(iter(model.retained), None)
    asked = (request.to, request.registered)
    known = (model.now, *model.retained)
    return next((one for one in known if (one.version, one.registered) == asked), None)


def put(old: Deployment | None, request: Request, changed: bool) -> Deployment:
    """What a run deploys that is asked for a version.

    ``changed``: files differ from those that were deployed, so that all of them are brought anew.
    """
    assert request.version is not None
    wanted, batch = request.version, request.batch or BATCH
    alone = (wanted if request.registered else 1,)
    fresh = Deployment(wanted, request.registered, alone, request.serve, batch)
    if old is None or changed:
        return fresh
    if (old.version, old.registered) == (wanted, request.registered):
        return dataclasses.replace(old, serve=request.serve, batch=batch)
    if not (old.registered and request.registered and request.serve > 1):
        return fresh
    below = tuple(number for number in old.folders if number < wanted)[-(request.serve - 1) :]
    return dataclasses.replace(fresh, folders=(*below, wanted))
