# SPDX-License-Identifier: Apache-2.0
"""Where a server listens, and what it wants to see before it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import InvalidOption
from ..outside import Options
from ..redact import mask

_DEFAULT_PORT = {"http": 8000, "https": 8000, "grpc": 8001, "grpcs": 8001}
ADMIN_KEY = "admin-key"
"""The name of a key where none is given."""


@dataclass(frozen=True)
class Address:
    """Where a server listens. ``scheme`` is http, https, grpc or grpcs."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.netloc if self.scheme == "http" else f"{self.scheme}://{self.netloc}"


def parse_address(text: str) -> Address:
    """``host:port``, ``http://…``, ``https://…``, ``grpc://…``, ``grpcs://…``.

    Raises:
        InvalidOption: anything else.
    """
    text = text.strip()
    whole = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(whole)
        if (
            parts.scheme not in _DEFAULT_PORT
            or not parts.hostname
            or parts.path.strip("/")
            or parts.username
        ):
            raise ValueError(text)
        return Address(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORT[parts.scheme])
    except ValueError as error:
        shown = mask(whole).removeprefix("" if "://" in text else "http://")
        raise InvalidOption(
            f"triton_url {shown!r} is not host:port, http://, https://, grpc:// or grpcs://",
            step="read triton_url",
            left="nothing was changed",
        ) from error


def parse_load_address(text: str) -> Address:
    """``grpc://…`` or ``grpcs://…``: over HTTP a load would disturb clients wherever it is sent.

    Raises:
        InvalidOption: anything else.
    """
    with contextlib.suppress(InvalidOption):
        found = parse_address(text)
        if found.scheme in ("grpc", "grpcs"):
            return found
    raise InvalidOption(
        f"load_url {mask(text.strip())!r} is not grpc://host:port or grpcs://host:port",
        step="read load_url",
        left="nothing was changed",
    )


@dataclass(frozen=True)
class Access:
    """What a server wants to see before it answers.

    Attributes:
        admin_key: ``{"name", "secret"}`` of restricted APIs.
        ca_file: certificates in PEM form to trust instead of the system's, for https and grpcs.
        client_cert, client_key: of this client, in PEM form, for servers that ask for them.
    """

    admin_key: Mapping[str, str] | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    @classmethod
    def from_options(cls, options: Options) -> Access:
        """Raises InvalidOption for a certificate without its key, or the other way round, and for
        an admin_key that no header can have.
        """
        key = _key(options["admin_key"]) if options.get("admin_key") else None
        found = cls(
            key,
            *(options.get(option) or None for option in ("ca_file", "client_cert", "client_key")),
        )
        if bool(found.client_cert) != bool(found.client_key):
            raise InvalidOption(
                "client_cert and client_key go together",
                step="read the options",
                left="nothing was changed",
            )
        return found

    def readable(self) -> Access:
        """This, where its files can be read. Raises InvalidOption otherwise."""
        for option in ("ca_file", "client_cert", "client_key"):
            path = getattr(self, option)
            try:
                with open(path, "rb") if path else contextlib.nullcontext():
                    pass
            except OSError as error:
                raise InvalidOption(
                    f"{option} {path} cannot be read ({error.strerror})",
                    step="read the options",
                    left="nothing was changed",
                ) from error
        return self


def _key(given: object) -> Mapping[str, str]:
    """The secret is in no sentence."""
    about = {"step": "read the options", "left": "nothing was changed"}
    secret = given.get("secret") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(secret, str):
        raise InvalidOption("admin_key is not a mapping with secret, a text, and name", **about)
    name = given.get("name")
    found = {"name": ADMIN_KEY if name is None else str(name), "secret": secret}
    for part, text in found.items():
        if not text.isascii() or not text.isprintable():
            raise InvalidOption(
                f"the {part} in admin_key has characters that no header can have, such as a line"
                " break",
                **about,
            )
    return found
