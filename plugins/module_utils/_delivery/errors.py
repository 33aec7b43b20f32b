# SPDX-License-Identifier: Apache-2.0
"""The errors that a user can see. Each message is one sentence in the user's words."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Mapping
from typing import ClassVar

from .redact import mask
from .terminal import one_line

_LONGEST = 300


class DeliveryError(Exception):
    """Something that was asked for could not be done.

    Code asks for the class and for attributes; ``facts`` are for a user alone.

    Args:
        message: what went wrong, without the model's name and the step.
        model: name of the model in the Triton repository, or of the registered model.
        step: what was being done, as a user would say it ("resolve alias", "load").
        left: what was left in place ("version 3 is still served").
        facts: further keys for the caller's result (holder of a lock, a missing library, …).
    """

    shown_as: ClassVar[str | None] = None
    """The name that users see for a class that only tells the code more than its parent does."""

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        step: str | None = None,
        left: str | None = None,
        **facts: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.model = model
        self.step = step
        self.left = left
        self._facts = facts

    def about(
        self, *, model: str | None = None, step: str | None = None, left: str | None = None
    ) -> DeliveryError:
        """Fill in what the place that raised could not know; what is already said stays."""
        self.model = self.model or model
        self.step = self.step or step
        self.left = self.left or left
        return self

    def __str__(self) -> str:
        return one_line(self._text())

    def _text(self) -> str:
        head = ", ".join(
            part
            for part in (f"model '{self.model}'" if self.model else "", self.step or "")
            if part
        )
        text = f"{head}: {self.message}" if head else self.message
        if not self.left:
            return text.rstrip("; ")
        begins_with_word = self.left.split(" ", 1)[0].isalpha()  # and not with a model's URI
        return (
            f"{text.rstrip('.; ')}."
            f" {self.left[0].upper() if begins_with_word else self.left[0]}"
            f"{self.left[1:].rstrip('.; ')}."
        )

    @property
    def facts(self) -> dict[str, object]:
        """Keys for a module's failure result: error, model_name, step, left_in_place and further
        ones.
        """
        return {
            "error": self.shown_as or type(self).__name__,
            "model_name": self.model,
            "step": self.step,
            "left_in_place": self.left,
            **self._facts,
        }


class InvalidOption(DeliveryError):
    """An option or a combination of options that cannot be meant."""


class MissingLibrary(DeliveryError):
    """A Python library that this step needs is not installed for this interpreter."""


class NotFound(DeliveryError):
    """The registry, the repository or the server does not have what was named."""


class RegistryError(DeliveryError):
    """MLflow refused, failed or did not answer."""


class RegistryUnreachable(RegistryError):
    """Nobody listens there, or the connection broke."""

    shown_as = "RegistryError"

    def __init__(self, message: str, *, step: str | None = None) -> None:
        super().__init__(message, step=step, no_answer=True)


class RegistryTimeout(RegistryError):
    """MLflow did not answer in time."""

    shown_as = "RegistryError"

    def __init__(self, message: str, *, step: str | None = None) -> None:
        super().__init__(message, step=step, silent=True)


class RegistryRefused(RegistryError):
    """MLflow answered with an error; ``code`` is the name that MLflow gives it, or empty."""

    shown_as = "RegistryError"

    def __init__(self, message: str, *, code: str, step: str | None = None) -> None:
        super().__init__(message, step=step, mlflow_error_code=code)
        self.code = code


class ArtifactError(DeliveryError):
    """The artifact cannot be used: no model in it, two models, a path that leaves it, a digest that
    differs.
    """


class OtherAnswers(ArtifactError):
    """A model for which a server would compute other numbers than the library that trained it."""

    shown_as = "ArtifactError"


class ConfigError(DeliveryError):
    """A config.pbtxt or an overlay that Triton would refuse."""


class ServerError(DeliveryError):
    """Triton refused, failed or did not answer. ``server`` is its URL, where there is one."""

    def __init__(
        self,
        message: str,
        *,
        server: str | None = None,
        model: str | None = None,
        step: str | None = None,
        left: str | None = None,
        **facts: object,
    ) -> None:
        known = {"server": server} if server is not None else {}
        super().__init__(message, model=model, step=step, left=left, **known, **facts)
        self.server = server


class ServerUnreachable(ServerError):
    """Nobody listens there, the connection broke, or the server is not asked any more."""

    shown_as = "ServerError"

    def __init__(
        self, message: str, *, server: str, model: str | None = None, step: str | None = None
    ) -> None:
        super().__init__(message, server=server, model=model, step=step, no_answer=True)


class ServerTimeout(ServerError):
    """Triton did not answer in time."""

    shown_as = "ServerError"

    def __init__(
        self, message: str, *, server: str, model: str | None = None, step: str | None = None
    ) -> None:
        super().__init__(message, server=server, model=model, step=step, silent=True)


class ServerRefused(ServerError):
    """Triton answered with an error.

    Attributes:
        status: as over HTTP, where gRPC has a code of its own too.
        reason: Triton's own words.
    """

    shown_as = "ServerError"

    def __init__(
        self,
        message: str,
        *,
        server: str,
        status: int,
        reason: str,
        model: str | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(
            message, server=server, model=model, step=step, status=status, reason=reason
        )
        self.status = status
        self.reason = reason

    @property
    def knows_no_such_model(self) -> bool:
        """For a question about one model: the server does not serve it."""
        return self.status in (400, 404)


class LoadFailed(ServerError):
    """Triton answered that the model cannot be loaded; ``reason`` is its own words."""

    def __init__(
        self,
        message: str,
        *,
        server: str,
        reason: str,
        model: str | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(message, server=server, model=model, step=step, reason=reason)
        self.reason = reason


class LoadPending(ServerError):
    """The deadline passed while Triton was still loading; such a load cannot be cancelled."""


class LoadHangs(LoadPending):
    """A load that an earlier run gave up on has not ended since; ``hanging`` are the servers."""

    shown_as = "LoadPending"


class VerificationFailed(ServerError):
    """The model is loaded and does not answer as it should."""


class ForeignModel(DeliveryError):
    """A model which this collection did not deploy is in the way."""


class AlreadyDeployed(DeliveryError):
    """The name exists and the caller asked for a new one."""


class PolicyRefused(DeliveryError):
    """An option that says what may be deployed refuses it."""


class NeedsOther(DeliveryError):
    """A model of the same list on which this one depends failed, or is still needed."""


class RepositoryError(DeliveryError):
    """The model repository or its state folder cannot be used."""


class RecordRefused(RepositoryError):
    """A model's record is newer or damaged.

    Attributes:
        document: what is written there, where that can be read at all.
    """

    shown_as = "RepositoryError"
    document: Mapping[str, object] | None = None


class JournalRefused(RepositoryError):
    """A model's journal is newer or damaged, so that nothing of the model is touched."""

    shown_as = "RepositoryError"


class LockTimeout(DeliveryError):
    """Another run holds the model's lock."""


class DeadlineExceeded(DeliveryError):
    """A network step did not end in time."""


class Defect(DeliveryError):
    """An exception that nobody foresaw: the fault is in this collection."""


def as_delivery_error(error: Exception, step: str | None = None) -> DeliveryError:
    """Whatever came up, in a sentence: what the operating system refused, and what nobody foresaw.

    Args:
        step: what was being done, where the error does not say it itself.
    """
    if isinstance(error, DeliveryError):
        return error
    if isinstance(error, MemoryError):
        return DeliveryError("this host has no memory left for it", step=step)
    if not isinstance(error, OSError):
        return Defect(_describe_defect(error), step=step)
    known = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission is denied",
        errno.EPERM: "permission is denied",
    }
    reason = known.get(error.errno or 0, error.strerror or str(error))
    return RepositoryError(
        mask(f"{reason}{f' ({error.filename})' if error.filename else ''}"),
        step="write the model's files",
    )


def _describe_defect(error: Exception) -> str:
    """Type, text and place, which a report needs; the text in one line, without credentials, and
    fit for any output.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}" if frames else ""
    text = one_line(mask(" ".join(str(error).split())))
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    details = "; ".join(part for part in (text, place) if part)
    return (
        f"an unexpected {type(error).__name__}{f' ({details})' if details else ''}: this is a"
        " defect of mlops.triton, please report it"
    )
