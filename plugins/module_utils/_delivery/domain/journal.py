# SPDX-License-Identifier: Apache-2.0
"""What is written down of a change before it begins, so that the next run, or the server's start
wrapper, can undo or finish what a killed run left. Standard library only.

A reader that does not understand a journal leaves everything alone: after an exchange the staging
folder is the only copy of the old deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar, Union

from ..errors import ArtifactError, JournalRefused, RepositoryError
from .fields import Fields, WrongShape, read_json
from .record import Record, check_shapes, is_part

SCHEMA = 2
"""The newest that is understood. What an older tool may take care of is written as schema 1."""
_OLDEST = 1
_STEP = "read the journal"


class Move(NamedTuple):
    """What is asked of a repository: ``live`` becomes what ``staged`` is. Both as the repository
    spells them: paths, or s3:// URLs.
    """

    live: str
    staged: str


@dataclass(frozen=True)
class JournalFile:
    """Where a model's journal lies, and what it may name.

    Attributes:
        path: as an operator finds it.
        live: the model as its journals spell it: relative to the repository, or a key.
        aside: its staging and its retained copies: relative to the state folder, or keys.
        copies: these two as an operator finds them.
    """

    model: str
    path: str
    live: str
    aside: tuple[str, ...]
    copies: tuple[str, ...]


@dataclass(frozen=True)
class FolderMove:
    """A move of a folder or a file, relative to the repository and to the state folder, because the
    start wrapper may see both under other mount points.

    Where both sides exist they are exchanged, else the one becomes the other. A rename keeps the
    inode, so that the inodes tell whether it was made; None stands for what does not exist.
    """

    live: str
    staged: str
    live_inode: int | None
    staged_inode: int | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "live": self.live,
            "staged": self.staged,
            "live_inode": self.live_inode,
            "staged_inode": self.staged_inode,
        }

    @classmethod
    def from_dict(cls, fields: Fields, file: JournalFile) -> FolderMove:
        return cls(
            live=_below(fields, "live", (file.live,)),
            staged=_below(fields, "staged", file.aside),
            live_inode=fields.number_or_none("live_inode"),
            staged_inode=fields.number_or_none("staged_inode"),
        )


Keys = Mapping[str, tuple[int, str]]
"""``{what follows a key: (size in bytes, ETag)}``."""


@dataclass(frozen=True)
class S3Move:
    """A move of keys. Sizes and ETags of both sides tell whether it was made.

    Attributes:
        staged: "" takes the live side away.
        backup: where the old keys are copied to before.
        old, new: what is there before, and what comes.
        first, later: old keys to be removed before the load, and when the deployment is proven.
    """

    live: str
    staged: str
    backup: str
    old: Keys
    new: Keys
    first: tuple[str, ...]
    later: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "live": self.live,
            "staged": self.staged,
            "backup": self.backup,
            "old": {rel: list(found) for rel, found in self.old.items()},
            "new": {rel: list(found) for rel, found in self.new.items()},
            "first": list(self.first),
            "later": list(self.later),
        }

    @classmethod
    def from_dict(cls, fields: Fields, file: JournalFile) -> S3Move:
        move = cls(
            live=_below(fields, "live", (file.live,)),
            staged=_below(fields, "staged", file.aside) if fields.text("staged") else "",
            backup=_below(fields, "backup", file.aside),
            old=_keys(fields, "old"),
            new=_keys(fields, "new"),
            first=fields.texts("first"),
            later=fields.texts("later"),
        )
        for key in ("first", "later"):
            if not set(getattr(move, key)) <= set(move.old):
                raise fields.wrong(key, "a part of old")
        return move


@dataclass(frozen=True)
class BegunLoad:
    """A load of the new files that has begun. Whether it has ended is not known: until that is, the
    files stay, because a load whose files are moved may hang for good.

    Attributes:
        since: when the last of them began, as a time in ISO form.
        servers: URLs of those that were asked, one after the other; the last one since then.
        record: to be written when the new deployment is proven.
        answering: servers and names of the model's users that answered before.
        unloaded: URLs of the servers that had unloaded the old deployment first.
    """

    since: str
    servers: tuple[str, ...]
    record: Record
    answering: tuple[tuple[str, str], ...] = ()
    unloaded: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "since": self.since,
            "servers": list(self.servers),
            "record": self.record.to_dict(),
            "answering": [list(pair) for pair in self.answering],
            "unloaded": list(self.unloaded),
        }

    @classmethod
    def from_dict(cls, fields: Fields, file: JournalFile) -> BegunLoad:
        record = _record(fields, "record")
        try:
            check_shapes(record, file.model)
        except (ArtifactError, OverflowError) as error:
            raise WrongShape(f"load: record: {error}") from error
        pairs = tuple(
            (one.text("server"), one.text("user"))
            for pair in fields.each("answering")
            for one in [_pair(pair)]
        )
        since, servers = fields.text("since"), fields.texts("servers")
        return cls(since, servers, record, pairs, fields.texts("unloaded"))


@dataclass(frozen=True)
class FolderSwap:
    """Moves of a model in a folder.

    Attributes:
        deploy_id: of the transaction; a record that carries it says that the change is complete.
        old_record: of what is replaced.
        keep: how many deployments stay retained; None: all.
        load: of the new files, where it has begun.
    """

    deploy_id: str
    old_record: Record | None
    keep: int | None
    moves: tuple[FolderMove, ...]
    load: BegunLoad | None = None
    op: ClassVar[str] = "swap"

    def to_dict(self) -> dict[str, Any]:
        return _swap_to_dict(self)

    @classmethod
    def from_dict(cls, fields: Fields, file: JournalFile) -> FolderSwap:
        moves = tuple(FolderMove.from_dict(one, file) for one in _moves(fields))
        return cls(*_swap_from_dict(fields), moves, _begun_load(fields, file))


@dataclass(frozen=True)
class S3Swap:
    """Moves of a model in S3; attributes as for ``FolderSwap``."""

    deploy_id: str
    old_record: Record | None
    keep: int | None
    moves: tuple[S3Move, ...]
    load: BegunLoad | None = None
    # Another word than a folder's: neither reader must take the other's.
    op: ClassVar[str] = "swap in s3"

    def to_dict(self) -> dict[str, Any]:
        return _swap_to_dict(self)

    @classmethod
    def from_dict(cls, fields: Fields, file: JournalFile) -> S3Swap:
        moves = tuple(S3Move.from_dict(one, file) for one in _moves(fields))
        return cls(*_swap_from_dict(fields), moves, _begun_load(fields, file))


@dataclass(frozen=True)
class Removal:
    """A model is being removed."""

    op: ClassVar[str] = "remove"

    def to_dict(self) -> dict[str, Any]:
        return {"schema": _OLDEST, "op": self.op}

    @classmethod
    def from_dict(cls, fields: Fields, file: JournalFile) -> Removal:
        return cls()


@dataclass(frozen=True)
class PendingLoad:
    """A load that was given up on while the server went on with it; ``since`` is a time in ISO
    form, ``server`` a URL.
    """

    deploy_id: str
    since: str
    server: str | None
    op: ClassVar[str] = "pending"

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": _OLDEST,
            "op": self.op,
            "deploy_id": self.deploy_id,
            "since": self.since,
            "server": self.server,
        }

    @classmethod
    def from_dict(cls, fields: Fields, file: JournalFile) -> PendingLoad:
        return cls(fields.text("deploy_id"), fields.text("since"), fields.text_or_none("server"))


@dataclass(frozen=True)
class Trial:
    """A new deployment is proven under the candidate's name.

    Attributes:
        home: where the candidate's files belong, relative to the state folder; "" where they are
            copies, or links to what serves.
        since: when the last load of it began, as a time in ISO form; "" before the first.
    """

    deploy_id: str
    home: str
    since: str = ""
    op: ClassVar[str] = "trial"

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "op": self.op,
            "deploy_id": self.deploy_id,
            "home": self.home,
            "since": self.since,
        }

    @classmethod
    def from_dict(cls, fields: Fields, file: JournalFile) -> Trial:
        home = _below(fields, "home", file.aside) if fields.text("home") else ""
        return cls(fields.text("deploy_id"), home, fields.text_or_none("since") or "")


# Evaluated at run time, where the start wrapper's Python 3.9 knows no other form.
Swap = Union[FolderSwap, S3Swap]  # noqa: UP007
Journal = Union[FolderSwap, S3Swap, Removal, PendingLoad, Trial]  # noqa: UP007
S = TypeVar("S", FolderSwap, S3Swap)


def begun_load(journal: Journal | None) -> BegunLoad | None:
    """The load of new files that may still be running."""
    return journal.load if isinstance(journal, (FolderSwap, S3Swap)) else None


def deployed_by(record: Record | None, journal: Journal | None) -> Record | None:
    """The record that says what the files are: that of the new deployment, while those of a load
    that has begun lie there.
    """
    load = begun_load(journal)
    return load.record if load else record


def read_journal(
    body: bytes, file: JournalFile, swap: type[S]
) -> S | Removal | PendingLoad | Trial:
    """Understand a journal, whole or not at all.

    Args:
        swap: the kind of swap that this kind of repository knows.

    Raises:
        JournalRefused: a newer version wrote it, or it is damaged; says what to do.
    """
    try:
        fields = Fields(read_json(body))
        schema = fields.number("schema")
        if schema > SCHEMA:
            raise _refused(
                file,
                f"has schema {schema} and this version of the collection reads up to {SCHEMA}:"
                " use the newer version that wrote it",
            )
        op = fields.text("op")
        if op == swap.op:
            return swap.from_dict(fields, file)
        if op == Removal.op:
            return Removal.from_dict(fields, file)
        if op == PendingLoad.op:
            return PendingLoad.from_dict(fields, file)
        if op == Trial.op:
            return Trial.from_dict(fields, file)
        raise WrongShape(f"this kind of repository knows no {op!r}")
    except WrongShape as error:
        raise _refused(
            file,
            f"cannot be understood ({error}): copy {' and '.join(file.copies)}, where the only copy"
            " of what was deployed before may lie, to another place, then remove the journal and"
            " run again",
        ) from error


def _refused(file: JournalFile, reason: str) -> JournalRefused:
    return JournalRefused(
        f"the journal {file.path} of an interrupted run {reason}",
        model=file.model,
        step=_STEP,
        left="nothing was changed",
    )


def _swap_to_dict(swap: Swap) -> dict[str, Any]:
    return {
        # An older tool would move the files under the load.
        "schema": SCHEMA if swap.load else _OLDEST,
        "op": swap.op,
        "deploy_id": swap.deploy_id,
        "old_record": swap.old_record.to_dict() if swap.old_record else None,
        "keep": swap.keep,
        "moves": [move.to_dict() for move in swap.moves],
        **({"load": swap.load.to_dict()} if swap.load else {}),
    }


def _swap_from_dict(fields: Fields) -> tuple[str, Record | None, int | None]:
    return fields.text("deploy_id"), _old_record(fields), fields.number_or_none("keep")


def _old_record(fields: Fields) -> Record | None:
    if fields.data.get("old_record", {}) is None:
        return None
    return _record(fields, "old_record")


def _record(fields: Fields, key: str) -> Record:
    try:
        record = Record.from_dict(fields.mapping(key))
    except RepositoryError as error:
        raise WrongShape(f"{key}: {error.message}") from error
    # Names a folder in which things are removed.
    if record.key and not is_part(record.key):
        raise WrongShape(f"{key} has the key {record.key!r}, which leads elsewhere")
    return record


def _begun_load(fields: Fields, file: JournalFile) -> BegunLoad | None:
    if fields.data.get("load") is None:
        return None
    return BegunLoad.from_dict(Fields(fields.mapping("load"), "load: "), file)


def _pair(value: object) -> Fields:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise WrongShape("answering is not a list of pairs")
    return Fields({"server": value[0], "user": value[1]}, "load: answering: ")


def _moves(fields: Fields) -> list[Fields]:
    return [
        Fields(one, f"move {number}: ") for number, one in enumerate(fields.each("moves"), start=1)
    ]


def _below(fields: Fields, key: str, heads: tuple[str, ...]) -> str:
    """A path or a key that stays in what belongs to the model."""
    path = fields.text(key)
    inside = any(path == head or path.startswith(f"{head}/") for head in heads)
    if not inside or {"", ".", ".."} & set(path.split("/")) or not _is_utf8(path) or "\0" in path:
        raise WrongShape(f"{fields.where}{key} is {path!r}, which leads elsewhere")
    return path


def _is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _keys(fields: Fields, key: str) -> Keys:
    found: dict[str, tuple[int, str]] = {}
    for rel, value in fields.mapping(key).items():
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise fields.wrong(key, "a listing")
        entry = Fields({"size": value[0], "ETag": value[1]}, f"{fields.where}{key} {rel}: ")
        found[rel] = entry.number("size"), entry.text("ETag")
        if not stays_below(rel):
            raise WrongShape(f"{fields.where}{key} has {rel!r}, which leads elsewhere")
    return found


def stays_below(rel: str) -> bool:
    """True of what follows a key in a listing, where no program on the way to the store could take
    it for another key.
    """
    if rel == "":
        return True
    first, *parts = rel.removesuffix("/").split("/")
    return (
        first == ""
        and not {"", ".", ".."} & set(parts)
        and _is_utf8(rel)
        and not any(letter < " " or letter == "\x7f" for letter in rel)
    )
