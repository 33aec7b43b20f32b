# SPDX-License-Identifier: Apache-2.0
"""Which Python an environment is made with: those that the options name, then those of this host.

The minor version must be that with which the model was logged: packages and what was pickled depend
on it. Another patch release is fine.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..domain.fields import Fields, WrongShape, read_json
from ..errors import DeliveryError
from .bounded import STEP, Bounds, Run, User, run
from .options import EnvironmentOptions

_SECONDS = 20
_NOT_BEGUN = 126
_ASK = (
    "import json, os, sys, sysconfig;"
    "musl = 'musl' in str(sysconfig.get_config_var('HOST_GNU_TYPE'));"
    "free = sysconfig.get_config_var('Py_GIL_DISABLED');"
    "print(json.dumps({"
    "'version': '.'.join(map(str, sys.version_info[:3])),"
    "'implementation': sys.implementation.name,"
    "'platform': sysconfig.get_platform() + '-musl' * musl + '-t' * bool(free),"
    "'base': os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)}))"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SAFE_PATH = ("/usr/local/bin", "/usr/bin", "/bin")


@dataclass(frozen=True)
class Python:
    """An interpreter: the file that is run, its version ("3.11.2"), and what wheels it takes."""

    path: str
    version: str
    platform: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


class Pythons:
    """The interpreters of this host, as the user ``user`` can run them."""

    def __init__(self, options: EnvironmentOptions, managed: str, user: User | None) -> None:
        self._options = options
        self._managed = managed
        self._user = user
        self._asked: dict[str, Python | str] = {}

    def find(self, minor: str | None) -> Python | None:
        """The first one of this minor version; None where this host has none.

        Args:
            minor: None: whichever the options name first, else the version of this process.
        """
        wanted = minor or f"{sys.version_info.major}.{sys.version_info.minor}"
        for path in self._options.pythons:
            found = self._ask(path)
            if isinstance(found, Python) and found.minor == (minor or found.minor):
                return found
        for path in self._candidates(wanted):
            found = self._ask(path)
            if isinstance(found, Python) and found.minor == wanted:
                return found
        return None

    def refuse(self, minor: str | None) -> DeliveryError:
        """The sentence for a version that this host does not have."""
        wanted = minor or f"{sys.version_info.major}.{sys.version_info.minor}"
        unusable = [
            f"{path} ({why})"
            for path, why in self._asked.items()
            if isinstance(why, str)
            and (path in self._options.pythons or path.endswith(f"/python{wanted}"))
        ]
        also = f" (unusable: {', '.join(unusable[:3])})" if unusable else ""
        return DeliveryError(
            f"the model needs Python {wanted}, and this host has none that {self._who} can"
            f" run{also}: install python{wanted} for all users, or name it in pythons of the"
            " option environments, or set python_mirror there",
            step=STEP,
        )

    @property
    def _who(self) -> str:
        """Root makes environments for others, who must be able to run their Python too."""
        return "every user" if self._user else "this user"

    def _ask(self, path: str) -> Python | str:
        if path not in self._asked:
            self._asked[path] = self.ask(path)
        return self._asked[path]

    def ask(self, path: str) -> Python | str:
        """What a program says it is now, or why it is no Python that can be used."""
        return ask(path, self._user)

    def _candidates(self, minor: str) -> Iterator[str]:
        return filter(os.path.lexists, self._places(minor))

    def _places(self, minor: str) -> Iterator[str]:
        folders = [
            one for one in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(one)
        ]
        for folder in dict.fromkeys([*folders, *_SAFE_PATH]):
            yield os.path.join(folder, f"python{minor}")
        home = os.path.expanduser("~")
        data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local/share")
        pyenv = os.environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv")
        for pattern in (
            os.path.join(glob.escape(self._managed), f"*-{minor}.*"),
            os.path.join(glob.escape(data), f"uv/python/*-{minor}.*"),
            os.path.join(glob.escape(pyenv), f"versions/{minor}.*"),
        ):
            for folder in sorted(glob.glob(pattern), reverse=True):
                yield os.path.join(folder, "bin", f"python{minor}")
        yield str(getattr(sys, "_base_executable", None) or sys.executable)
        for folder in dict.fromkeys([*folders, *_SAFE_PATH]):
            yield os.path.join(folder, "python3")


def ask(path: str, user: User | None, run: Run = run) -> Python | str:
    """What a program says it is, or why it is no Python that this user can run."""
    words = [path, "-I", "-S", "-B", "-c", _ASK]
    try:
        ended = run(words, {"LC_ALL": "C.UTF-8"}, Bounds(_SECONDS), user)
    except DeliveryError as error:
        return error.message
    if ended.code:
        return "it cannot be run" if ended.code != _NOT_BEGUN else "that user may not run it"
    try:
        said = Fields(read_json(ended.output, 10))
        version, base = said.text("version"), said.text("base")
        platform, implementation = said.text("platform"), said.text("implementation")
    except WrongShape:
        return "it does not answer as Python does"
    if implementation != "cpython":
        return f"it is {implementation[:20]}, not CPython"
    if not _VERSION.fullmatch(version) or not os.path.isabs(base):
        return "it does not answer as Python does"
    return Python(base, version, platform[:60])
