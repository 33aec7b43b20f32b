# SPDX-License-Identifier: Apache-2.0
"""The option ``environments``: where environments lie, and where Pythons and packages come from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from ..errors import InvalidOption
from ..redact import hide_secrets_of, mask

_STEP = "read the options"
# What separates several values where uv is told them.
_NO_ADDRESS = re.compile(r"[\s,\x00-\x1f\x7f]")
_SCHEMES = ("https://", "http://", "file://")
_TEXTS = ("folder", "python_mirror", "index_url", "container", "container_engine")
_LISTS = ("pythons", "extra_index_urls", "find_links")
_SWITCHES = ("no_index", "source_distributions")


@dataclass(frozen=True)
class EnvironmentOptions:
    """What a place says about environments.

    Attributes:
        folder: in which they lie; None: where the caller has its state.
        pythons: interpreters that are asked before those that are found.
        python_mirror: an address from which uv installs Pythons that this host does not have.
        index_url, extra_index_urls, find_links, no_index: as pip has them.
        source_distributions: packages that have no wheel are built, which runs their code.
        container: whose image has the Python that runs the models; None: this host has it.
        container_engine: address of the Docker Engine.
        locks: what other hosts have resolved, by the key of ``Environments.key``.
    """

    folder: str | None = None
    pythons: tuple[str, ...] = ()
    python_mirror: str | None = field(default=None, repr=False)
    index_url: str | None = field(default=None, repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    no_index: bool = False
    source_distributions: bool = False
    container: str | None = None
    container_engine: str | None = None
    locks: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_options(cls, given: Mapping[str, object] | None) -> EnvironmentOptions:
        """Raises InvalidOption, naming the key."""
        given = given if given is not None else {}
        if not isinstance(given, Mapping):
            _refuse("environments is not a mapping of options")
        known = (*_TEXTS, *_LISTS, *_SWITCHES, "locks")
        unknown = sorted(str(key) for key in given if key not in known)
        if unknown:
            _refuse(f"environments has no option '{unknown[0][:40]}': it has {', '.join(known)}")
        texts = {key: _text(key, given.get(key)) for key in _TEXTS}
        lists = {key: _texts(key, given.get(key)) for key in _LISTS}
        switches = {key: _switch(key, given.get(key)) for key in _SWITCHES}
        for key in ("folder", "pythons"):
            for path in lists.get(key, ()) or filter(None, [texts.get(key)]):
                if not os.path.isabs(path):
                    _refuse(f"{key} of environments: '{path}' is no absolute path")
        made = cls(
            texts["folder"] and os.path.normpath(texts["folder"]),
            lists["pythons"],
            _address("python_mirror", texts["python_mirror"]),
            _address("index_url", texts["index_url"]),
            tuple(_must("extra_index_urls", one) for one in lists["extra_index_urls"]),
            tuple(_must("find_links", one) for one in lists["find_links"]),
            switches["no_index"],
            switches["source_distributions"],
            _name("container", texts["container"]),
            _name("container_engine", texts["container_engine"]),
            _locks(given.get("locks")),
        )
        if made.no_index and (made.index_url or made.extra_index_urls):
            _refuse("no_index of environments contradicts index_url and extra_index_urls")
        if made.no_index and not made.find_links:
            _refuse("no_index of environments needs find_links, or no package can be had")
        return made

    @property
    def local_paths(self) -> tuple[str, ...]:
        """Folders and files of this host that uv reads."""
        named = (self.python_mirror, self.index_url, *self.extra_index_urls, *self.find_links)
        paths = (one.removeprefix("file://") for one in named if one)
        return tuple(path for path in paths if os.path.isabs(path))

    @property
    def sources(self) -> list[object]:
        """What decides what a resolution finds, without credentials."""
        return [
            mask(self.index_url or ""),
            [mask(one) for one in self.extra_index_urls],
            [mask(one) for one in self.find_links],
            self.no_index,
            self.source_distributions,
        ]


def _refuse(why: str) -> NoReturn:
    raise InvalidOption(why, step=_STEP)


def _text(key: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\0" in value:
        _refuse(f"{key} of environments is not a text")
    return value


def _texts(key: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        _refuse(f"{key} of environments is not a list")
    found = tuple(_text(key, one) for one in value)
    if None in found:
        _refuse(f"{key} of environments has an empty entry")
    return tuple(one for one in found if one)


def _switch(key: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        _refuse(f"{key} of environments is neither true nor false")
    return bool(value)


def _name(key: str, value: str | None) -> str | None:
    """One word that docker does not take for an option."""
    if value is not None and (value.startswith("-") or _NO_ADDRESS.search(value)):
        _refuse(f"{key} of environments: '{value[:80]}' is no name")
    return value


def _locks(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
        _refuse("locks of environments is not a mapping of keys to locks")
    return {str(key): one for key, one in value.items()}


def _must(key: str, value: str) -> str:
    return _address(key, value) or ""


def _address(key: str, value: str | None) -> str | None:
    """An address, or a folder of this host as one."""
    if value is None:
        return None
    if _NO_ADDRESS.search(value):
        _refuse(f"{key} of environments: '{mask(value)[:80]}' has spaces or commas in it")
    if os.path.isabs(value):
        return value if key == "find_links" else f"file://{value}"
    if not value.startswith(_SCHEMES):
        _refuse(
            f"{key} of environments: '{mask(value)[:80]}' is neither an address ({_SCHEMES[0]}…)"
            " nor an absolute path"
        )
    hide_secrets_of(value)
    return value
