# SPDX-License-Identifier: Apache-2.0
"""What MLflow's servers want to see before they answer, where options say it.

Nothing is written into the environment, which the plugin shares with whatever else runs in the
user's process. MLflow makes its stores by the scheme of an address; ``store_uri`` gives an address
of a scheme of ours, whose stores ask here for each request.
"""

from __future__ import annotations

import contextlib
import copy
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

from ..errors import InvalidOption
from ..outside import MlflowObject, Options
from ..redact import hide
from .redirects import guard_redirects

VARIABLES: Mapping[str, str] = {
    "mlflow_username": "MLFLOW_TRACKING_USERNAME",
    "mlflow_password": "MLFLOW_TRACKING_PASSWORD",
    "mlflow_token": "MLFLOW_TRACKING_TOKEN",
    "mlflow_ca_file": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "mlflow_client_cert": "MLFLOW_TRACKING_CLIENT_CERT_PATH",
}
"""What MLflow reads itself where the option is omitted."""
_REMEDIES = {
    "error code 401": "give mlflow_username and mlflow_password, or mlflow_token, that it accepts",
    "CERTIFICATE_VERIFY_FAILED": "mlflow_ca_file names certificates to trust",
    "CERTIFICATE_REQUIRED": "it asks for a certificate, which mlflow_client_cert names",
    "HANDSHAKE_FAILURE": "it may ask for a certificate, which mlflow_client_cert names",
}
# A server that got no certificate ends the connection, and its reason may be lost on the way.
_ENDED = ("EOF occurred in violation of protocol", "Connection reset by peer", "Broken pipe")
_SECRETS = ("mlflow_password", "mlflow_token")
_CERTIFICATE = VARIABLES["mlflow_client_cert"]
_SCHEME = "mlops-triton"
_ABOUT = {"step": "read the options", "left": "nothing was changed"}
_STORES: dict[str, tuple[str, Credentials]] = {}
_REGISTERING = threading.Lock()


@dataclass(frozen=True)
class Credentials:
    """What the options say; None: as MLflow's environment has it."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    @classmethod
    def from_options(
        cls, options: Options, environment: Mapping[str, str] | None = None
    ) -> Credentials:
        """Read them, and the files that they name.

        Raises:
            InvalidOption: one that lacks another, two that exclude each other, or a file that
                cannot be used.
        """
        surroundings = os.environ if environment is None else environment
        names = (*VARIABLES, "mlflow_client_key")
        given = {name: str(options[name]) for name in names if options.get(name)}
        # The lookup's options have the environment's values; these are not the user's choice.
        for name, variable in VARIABLES.items():
            if given.get(name) == surroundings.get(variable):
                given.pop(name, None)
        if "mlflow_client_key" in given and surroundings.get(_CERTIFICATE):
            given.setdefault("mlflow_client_cert", surroundings[_CERTIFICATE])
        for name in _SECRETS:
            hide(given.get(name))
        _check(given, surroundings)
        pair = {name: given.get(name) for name in ("mlflow_username", "mlflow_password")}
        if any(pair.values()):  # MLflow's variable completes what the options leave out
            pair = {name: one or surroundings.get(VARIABLES[name]) for name, one in pair.items()}
        return cls(
            pair["mlflow_username"],
            pair["mlflow_password"],
            *(
                given.get(name)
                for name in (
                    "mlflow_token",
                    "mlflow_ca_file",
                    "mlflow_client_cert",
                    "mlflow_client_key",
                )
            ),
        )

    def __bool__(self) -> bool:
        return self != Credentials()

    def for_host(self, host: str) -> MlflowObject:
        """MLflow's own value, with what the options say in place of the environment."""
        from mlflow.utils.credentials import get_default_host_creds

        made: MlflowObject = copy.copy(get_default_host_creds(host))
        if self.username or self.token:
            made.username, made.password = self.username, self.password
            made.token = self.token
        if self.ca_file:
            made.server_cert_path, made.ignore_tls_verification = self.ca_file, False
        if self.client_cert:
            made.client_cert_path = (
                (self.client_cert, self.client_key) if self.client_key else self.client_cert
            )
        return made

    def for_questions(self, host: str) -> MlflowObject:
        """``for_host`` for requests that follow redirects: none to another server."""
        made = self.for_host(host)
        made.auth = guard_redirects(made.auth)
        return made

    def store_uri(self, uri: str) -> str:
        """The address under which MLflow's client uses these for a server."""
        if not uri.startswith(("http://", "https://")):
            return uri
        with _REGISTERING:
            known = next((key for key, one in _STORES.items() if one == (uri, self)), None)
            if known is None:
                known = f"{_SCHEME}://{len(_STORES)}"
                _STORES[known] = (uri, self)
            _register()
        return known


def _register() -> None:
    from mlflow.tracking._model_registry import utils as models
    from mlflow.tracking._tracking_service import utils as tracking

    for registry in (tracking._tracking_store_registry, models._get_store_registry()):
        registry.register(_SCHEME, partial(_make_store, registry))


def _make_store(registry: MlflowObject, store_uri: str, **_others: object) -> MlflowObject:
    uri, credentials = _STORES[store_uri]
    # Not from MLflow's table of stores: what is changed here is nobody else's.
    store: MlflowObject = registry.get_store_builder(uri)(store_uri=uri)
    store.get_host_creds = partial(credentials.for_questions, uri)
    return store


def remedy_for(said: str, url: str) -> str:
    """The end of a sentence about what MLflow's client said of a server."""
    remedies = dict(_REMEDIES)
    if url.startswith("https:"):
        remedies |= dict.fromkeys(_ENDED, _REMEDIES["HANDSHAKE_FAILURE"])
    return next((f"; {remedy}" for part, remedy in remedies.items() if part in said), "")


# -- checks ----------------------------------------------------------------------------------------


def _check(given: Mapping[str, str], environment: Mapping[str, str]) -> None:
    if "mlflow_token" in given and {"mlflow_username", "mlflow_password"} & set(given):
        raise InvalidOption(
            "mlflow_token is given beside mlflow_username or mlflow_password, and a request can"
            " have one of them",
            **_ABOUT,
        )
    for name, other in (
        ("mlflow_username", "mlflow_password"),
        ("mlflow_password", "mlflow_username"),
    ):
        if name in given and not (given.get(other) or environment.get(VARIABLES[other])):
            raise InvalidOption(
                f"{name} is given without {other}, and {VARIABLES[other]} is not set", **_ABOUT
            )
    if "mlflow_client_key" in given and "mlflow_client_cert" not in given:
        raise InvalidOption("mlflow_client_key is given without mlflow_client_cert", **_ABOUT)
    for name in ("mlflow_ca_file", "mlflow_client_cert", "mlflow_client_key"):
        if name in given:
            _check_readable(name, given[name])
    if "mlflow_ca_file" in given:
        _check_authority(given["mlflow_ca_file"])
    if "mlflow_client_cert" in given:
        _check_certificate(given["mlflow_client_cert"], given.get("mlflow_client_key"))


def _check_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InvalidOption(f"{name} {path} cannot be read ({error.strerror})", **_ABOUT) from error


def _check_authority(path: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise InvalidOption(f"mlflow_ca_file {path} has no certificates", **_ABOUT) from error


def _check_certificate(certificate: str, key: str | None) -> None:
    try:
        # A key with a password would be asked for on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, lambda: "")
    except (ssl.SSLError, ValueError) as error:
        beside = (
            f"mlflow_client_key {key} is not" if key else "without mlflow_client_key, it has not"
        )
        raise InvalidOption(
            f"mlflow_client_cert {certificate} cannot be used: {beside} its key, in PEM form and"
            " without a password",
            **_ABOUT,
        ) from error


# -- of one run ------------------------------------------------------------------------------------

_USED: ContextVar[Credentials] = ContextVar("registry credentials", default=Credentials())  # noqa: B039


@contextlib.contextmanager
def use_credentials(credentials: Credentials) -> Iterator[None]:
    """Every connection that is made meanwhile has them."""
    before = _USED.set(credentials)
    try:
        yield
    finally:
        _USED.reset(before)


def current_credentials() -> Credentials:
    return _USED.get()
