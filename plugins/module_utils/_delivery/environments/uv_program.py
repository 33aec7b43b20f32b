# SPDX-License-Identifier: Apache-2.0
"""uv, found, and run with the settings of the place and no others.

Nothing that may hold a password is an argument: everybody may read those. uv is told addresses by
its environment, which only its own user may read.
"""

from __future__ import annotations

import functools
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence

from ..deadline import Deadline
from ..errors import DeliveryError, MissingLibrary
from ..libraries import MINIMUM
from .bounded import STEP, Bounds, Ended, Run, User, run
from .options import EnvironmentOptions
from .uv_words import explain

# The network of this host, as its other programs have it.
_KEPT = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS"),
    # Whether a further index may have newer versions of what the first one has.
    "UV_INDEX_STRATEGY",
)
_VERSION = re.compile(rb"uv (\d+)\.(\d+)\.")
_OLDEST = (0, 9)


def find_uv() -> str:
    """The program of this Python's package ``uv``, else the one on PATH.

    Raises:
        MissingLibrary: there is none, or one of another release than is known here.
    """
    found = _of_this_python() or shutil.which("uv")
    if found is None:
        raise MissingLibrary(
            f"the program uv is needed to make environments of Python models: install"
            f" '{MINIMUM['uv']}' for {sys.executable}, or put uv on PATH",
            step=STEP,
            library="uv",
        )
    version = _version_of(os.path.realpath(found))
    # Its words and options are known for these: it promises neither between minor releases.
    if version is None or not _OLDEST <= version < (1, 0):
        shown = ".".join(map(str, version)) if version else "an unknown release"
        raise MissingLibrary(
            f"{found} is uv {shown}, and environments are made with '{MINIMUM['uv']}': install that"
            f" for {sys.executable}",
            step=STEP,
            library="uv",
        )
    return os.path.realpath(found)


def _of_this_python() -> str | None:
    try:
        import uv
    except ImportError:
        return None
    try:
        return str(uv.find_uv_bin())
    except (OSError, AttributeError):
        return None


@functools.cache
def _version_of(program: str) -> tuple[int, int] | None:
    ended = run([program, "--version"], {"UV_NO_CONFIG": "1"}, Bounds(20))
    found = _VERSION.match(ended.output)
    return (int(found[1]), int(found[2])) if found else None


class Uv:
    """uv as a user who owns ``home`` and ``cache``."""

    def __init__(
        self,
        options: EnvironmentOptions,
        timeout: float,
        deadline: Deadline,
        user: User | None,
        home: str,
        run: Run = run,
    ) -> None:
        self._program = find_uv()
        self._options = options
        self._timeout = timeout
        self._deadline = deadline
        self._user = user
        self._home = home
        self._run = run

    def __call__(self, arguments: Sequence[str], cache: str, **more: str) -> None:
        """Run it.

        Raises:
            DeliveryError: one sentence on what failed, with the package's name.
        """
        left = self._deadline.remaining()
        bounds = Bounds(left if left is not None else math.inf)
        ended = self._run(
            [self._program, *arguments],
            {**self._environment(cache), **more},
            bounds,
            self._user,
            folder=self._home,
            by_descriptor=True,
        )
        if ended.late:
            raise DeliveryError(
                f"uv did not end within {self._deadline.seconds:g} s; {' '.join(arguments[:2])} was"
                " given up on",
                step=STEP,
            )
        if ended.code:
            raise DeliveryError(self._why(ended), step=STEP)

    def _why(self, ended: Ended) -> str:
        if ended.code < 0:
            return f"uv was ended by signal {-ended.code}, as this host does where memory runs out"
        return explain(ended.errors, self._options)

    def _environment(self, cache: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if os.environ.get(name)}
        if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
            kept.setdefault("SSL_CERT_FILE", bundle)
        options = self._options
        told = {
            "UV_DEFAULT_INDEX": options.index_url or "",
            "UV_INDEX": " ".join(options.extra_index_urls),
            "UV_FIND_LINKS": ",".join(options.find_links),
        }
        return {
            **kept,
            **{name: value for name, value in told.items() if value},
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": os.path.join(self._home, "home"),
            "TMPDIR": os.path.join(self._home, "tmp"),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "UV_CACHE_DIR": cache,
            "UV_HTTP_TIMEOUT": str(max(1, math.ceil(self._timeout))),
            # What root has must not be linked with what another user may write to.
            "UV_LINK_MODE": "copy" if self._user else "hardlink",
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }

    @property
    def builds(self) -> bool:
        """Packages without a wheel are built, which runs their code."""
        return self._options.source_distributions

    @property
    def choice(self) -> list[str]:
        """The options that hold no address."""
        return [
            *(["--no-index"] if self._options.no_index else []),
            *([] if self._options.source_distributions else ["--only-binary", ":all:"]),
        ]
