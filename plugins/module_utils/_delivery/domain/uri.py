# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from, as the user writes it. Pure: nothing is looked up here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from ..errors import InvalidOption
from ..redact import mask

FORMS = (
    "models:/<name>/<version>, models:/<name>@<alias>, models:/<name>/latest, models:/m-<id>, "
    "runs:/<run id>/<path> or a folder"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LOGGED_MODEL = re.compile(r"m-[A-Za-z0-9_-]+")
_ALIAS = re.compile(r"[A-Za-z0-9_-]+")
# "v1", "1.0", "1 # the good one": MLflow keeps such names from being aliases.
_NEARLY_A_VERSION = re.compile(r"v?\s*0*([1-9][0-9]*)(?![a-z0-9_])")
_STAGES = frozenset({"production", "staging", "archived", "none"})
LATEST = "latest"
"""Stands where an alias would; MLflow keeps it from being one."""
_QUOTED = re.compile(r"""(?is)(['"`])\s*(models|runs|file):.*\1""")


@dataclass(frozen=True)
class ModelUri:
    """A parsed model URI; which fields are set follows from ``kind``."""

    kind: str
    """``version``, ``alias``, ``latest``, ``logged_model``, ``run`` or ``folder``."""
    text: str
    """As the user wrote it, without the spaces around it."""
    name: str | None = None
    """The registered model."""
    version: int | None = None
    alias: str | None = None
    model_id: str | None = None
    run_id: str | None = None
    path: str | None = None
    """The folder, or the path inside the run."""


def parse_model_uri(text: str) -> ModelUri:
    """Parse what a user wrote in ``model_uri``.

    Spaces around it are no part of it, as for MLflow: guides print such URIs. A folder whose name
    begins or ends with one is written ``./ name`` or ``name /``.

    Raises:
        InvalidOption: none of the forms; the message lists them.
    """
    text = text.strip()
    if not text or "\0" in text:
        raise _refusal(text, "is empty" if not text else "has a NUL character")
    if _QUOTED.fullmatch(text):
        raise _refusal(text, "has quotation marks around it, which are no part of it")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return ModelUri("folder", text, path=text)
    rest = text[scheme.end() :]
    kind = scheme[1].lower()
    if kind == "models":
        return _parse_models(text, rest)
    if kind == "runs":
        return _parse_run(text, rest)
    if kind == "file":
        return ModelUri("folder", text, path=_file_path(text, rest))
    raise _refusal(
        text, f"begins with '{scheme[0]}' (a folder of such a name is written './{scheme[0]}…')"
    )


def is_alias(text: str) -> bool:
    return _ALIAS.fullmatch(text) is not None


def named_uri(name: str | None, alias: str) -> str:
    """The URI of what an alias, or ``latest``, means at any time."""
    return f"models:/{name}/{LATEST}" if alias == LATEST else f"models:/{name}@{alias}"


def _parse_models(text: str, rest: str) -> ModelUri:
    if rest.startswith("//"):
        raise _refusal(text, "names a registry; that is option tracking_uri or registry_uri")
    parts = rest.removeprefix("/").removesuffix("/").split("/")
    if len(parts) == 1 and "@" in parts[0]:
        name, _at, alias = parts[0].rpartition("@")
        if not name.strip() or not is_alias(alias):
            raise _refusal(
                text, "has no model name before '@' or no alias (letters, digits, _ and -) after it"
            )
        return ModelUri("alias", text, name=name, alias=alias)
    if len(parts) == 1 and _LOGGED_MODEL.fullmatch(parts[0]):
        return ModelUri("logged_model", text, model_id=parts[0])
    if len(parts) != 2 or not parts[0].strip():
        raise _refusal(text, "does not name one version of one model")
    name, which = parts
    if which.lower() == LATEST:
        return ModelUri("latest", text, name=name)
    if which.isascii() and which.isdigit() and int(which) > 0:
        return ModelUri("version", text, name=name, version=int(which))
    raise _refusal(text, f"has '{which}' where a version number belongs; {_instead(name, which)}")


def _instead(name: str, which: str) -> str:
    """What was probably meant with what stands in place of a version."""
    word = which.strip().lower()
    if word in _STAGES:
        return f"stages are gone from MLflow, an alias does their work: models:/{name}@{word}"
    number = _NEARLY_A_VERSION.match(word)
    if number or not is_alias(word) or not word[0].isalpha():
        return f"it is a whole number from 1 on, as in models:/{name}/{number[1] if number else 1}"
    return f"an alias is written models:/{name}@{which.strip()}"


def _parse_run(text: str, rest: str) -> ModelUri:
    run_id, _slash, path = rest.removeprefix("/").partition("/")
    pure = PurePosixPath(path)
    if rest.startswith("//") or not run_id or not path or pure.is_absolute() or ".." in pure.parts:
        raise _refusal(text, "does not name a run and a path inside it")
    return ModelUri("run", text, run_id=run_id, path=str(pure))


def _file_path(text: str, rest: str) -> str:
    if rest.startswith("//"):
        host, slash, tail = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise _refusal(
                text,
                f"names the host '{host.rpartition('@')[2]}'; only files of this host can be read",
            )
        rest = slash + tail
    if not rest.startswith("/"):
        raise _refusal(text, "has no absolute path")
    path = unquote(rest)
    if "\0" in path:
        raise _refusal(text, "has a NUL character")
    return path


def _refusal(text: str, reason: str) -> InvalidOption:
    return InvalidOption(
        f"the model URI {mask(text)!r} {reason}; possible are {FORMS}", step="read the model URI"
    )
