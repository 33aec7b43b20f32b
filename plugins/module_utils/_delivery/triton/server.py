# SPDX-License-Identifier: Apache-2.0
"""One Triton server: what it serves, load, unload, inference.

Facts leaned on: an HTTP load has no deadline on the server's side and goes on when the client
leaves; asking again joins the load in progress; unloading an unknown name is answered 200 in
EXPLICIT mode and 503 in any other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from ..deadline import Deadline
from ..domain.fields import WrongShape
from ..domain.served import ServedModel, VersionRow, digest_of_answer
from ..effects import effect
from ..errors import (
    LoadFailed,
    LoadPending,
    NotFound,
    ServerError,
    ServerRefused,
    ServerTimeout,
    ServerUnreachable,
)
from ..progress import step
from ..redact import mask
from .address import Access, parse_address, parse_load_address
from .answers import (
    deploy_id_of_answer,
    read_config,
    read_index,
    read_metadata,
    read_release,
)
from .grpc_transport import GrpcTransport
from .http_transport import HttpTransport
from .log import NotRead, tail_of_named_log, tail_of_users_log
from .metrics import Metrics
from .same_server import SameServer
from .transport import Answer, Gone, JsonObject, Nonsense, Refused, Silent, Transport, WentDown

P = ParamSpec("P")
T = TypeVar("T")
_PROBE = "mlops-triton-mode-probe"
_POLL = 0.05
_PATIENCE = 0.5
"""Seconds for which Triton may say READY of what it has been asked to unload."""
_LONGEST_CAUSE = 1000
_VANISHING = 3.0
LOAD_TIMEOUT = 1800.0
"""Seconds: a model of 45 GiB takes some minutes from a slow disk."""
_METRICS = 5.0


class TritonServer:
    """One server.

    Args:
        url: see ``parse_address``.
        timeout: seconds that any one question may take.
        log_file: what the server prints, where that is a file of this host; Triton says there what
            it does not answer.
        once: a server that did not answer one question is not waited for again by this object,
            whoever asks.
        load_url: where loads and unloads of this server go instead, as ``grpc://…``.
        load_timeout: seconds that a load may take; the larger of ``timeout`` and what fits large
            models when omitted.
        metrics_url: where its metrics are; see ``Metrics``.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        access: Access | None = None,
        log_file: str | None = None,
        *,
        once: bool = False,
        load_url: str | None = None,
        load_timeout: float | None = None,
        metrics_url: str | None = None,
    ) -> None:
        self.address = parse_address(url)
        self.url = str(self.address)
        self.log_file = log_file
        self.timeout = timeout
        self.load_timeout = load_timeout or max(timeout, LOAD_TIMEOUT)
        self.metrics = Metrics(metrics_url, min(timeout, _METRICS)) if metrics_url else None
        self._once = once
        self._unloading = threading.Lock()
        self._silent_at: str | None = None
        self._release: str | None = None
        self.access = access or Access()
        over_grpc = self.address.scheme.startswith("grpc")
        transport = GrpcTransport if over_grpc else HttpTransport
        self.transport: Transport = transport(self.address, self.access)
        beside = parse_load_address(load_url) if load_url else self.address
        self.load_url = str(beside)
        self.loads_over_http = not beside.scheme.startswith("grpc")
        self._beside: Transport | None = (
            None if beside == self.address else GrpcTransport(beside, self.access)
        )
        self._same = SameServer(self, self._beside) if self._beside else None

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of the calling thread."""
        self.transport.close()
        if self._beside:
            self._beside.close()

    def ask(
        self,
        step: str,
        function: Callable[Concatenate[float, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function of the transport, for at most ``timeout`` seconds.

        Raises:
            ServerUnreachable: it cannot be reached, or did not answer another question before.
            ServerTimeout: it did not answer in time.
            ServerRefused: it answered with an error.
            ServerError: it answered what no Triton does.
        """
        return self.ask_at(self.url, step, lambda seconds: function(seconds, *args, **kwargs))

    def _ask_loader(
        self, step: str, method: str, *args: object, seconds: float | None = None
    ) -> Answer:
        """``ask`` the address where loads go, for at most ``seconds`` where that is given."""
        transport = self._beside or self.transport
        return self.ask_at(
            self.load_url,
            step,
            lambda usual: transport.call(usual if seconds is None else seconds, method, *args),
        )

    def ask_at(self, url: str, step: str, function: Callable[[float], T]) -> T:
        """See ``ask``; ``url`` is this server's address over which it is asked."""
        if self._silent_at:
            raise ServerUnreachable(
                f"Triton at {self.url} did not answer within {self.timeout:g} s before"
                f" ({self._silent_at})",
                step=step,
                server=self.url,
            )
        try:
            return function(self.timeout)
        except Silent as error:
            raise ServerTimeout(
                f"Triton at {url} did not answer within {self.timeout:g} s",
                step=step,
                server=self.url,
            ) from error
        except WentDown as error:
            raise ServerUnreachable(
                f"Triton at {url} went down during the {step}", step=step, server=self.url
            ) from error
        except Gone as error:
            raise ServerUnreachable(
                f"Triton at {url} cannot be reached ({error})", step=step, server=self.url
            ) from error
        except Refused as error:
            raise ServerRefused(
                self._explain(url, error),
                step=step,
                server=self.url,
                status=error.status,
                reason=error.text,
            ) from error
        except (Nonsense, WrongShape) as error:
            raise ServerError(
                f"{url} does not answer as a Triton server does ({error}): is this its address?",
                step=step,
                server=self.url,
            ) from error

    def _explain(self, url: str, error: Refused) -> str:
        if error.status == 403:
            return f"Triton at {url} restricts this API and wants {self._wanted_key(error.text)}"
        if error.status == 503 and "explicit" in error.text:
            return (
                f"Triton at {url} was not started with --model-control-mode=explicit, so that"
                " no model can be loaded or unloaded"
            )
        if error.status == 503 and "not ready" in error.text:
            return f"Triton at {url} is starting or shutting down ({error.text})"
        return f"Triton at {url} answered {error.status}: {error.text}"

    def _wanted_key(self, text: str) -> str:
        """Of a server's answer that names the header which it expects."""
        header = text.partition("header '")[2].partition("'")[0]
        name = header.removeprefix("triton-grpc-protocol-") or "that it does not name"
        if self.access.admin_key is None:
            return f"an admin_key with the name '{name}'"
        given = self.access.admin_key["name"]
        return (
            f"another secret in admin_key '{name}'"
            if given == name
            else f"the admin_key '{name}', and '{given}' was given"
        )

    def ask_cheaply(
        self,
        step: str,
        function: Callable[Concatenate[float, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """``ask`` what any live server answers at once: one that does not is taken to be down."""
        try:
            return self.ask(step, function, *args, **kwargs)
        except ServerTimeout:
            if self._once:
                self._silent_at = step
            raise

    # -- reading -----------------------------------------------------------------------------------

    def index(self) -> dict[str, tuple[VersionRow, ...]]:
        """The repository index: rows by model name."""
        # Triton lists the repository and then looks at each entry: one that is moved out in between
        # is an error of the whole index.
        deadline = Deadline(min(self.timeout, _VANISHING))
        while True:
            try:
                return self.ask_cheaply(
                    "ask Triton for its index",
                    lambda seconds: read_index(self.transport.index(seconds)),
                )
            except ServerRefused as error:
                if "failed to stat" not in error.reason or deadline.passed:
                    raise
            time.sleep(_POLL / 5)

    def served(self, name: str, rows: tuple[VersionRow, ...] | None = None) -> ServedModel:
        """What the server says of ``name``; ``rows`` from an index that the caller already has."""
        known = (self.index().get(name, ()) if rows is None else rows) or self._unlisted(name)
        if not any(row.state == "READY" for row in known):
            return ServedModel(self.url, known, answers=self._answers())
        try:
            config = self._ask_config(name)
        except ServerRefused as error:
            if error.knows_no_such_model:  # gone between the two questions
                return ServedModel(self.url, known, answers=self._answers())
            raise
        return ServedModel(
            self.url, known, deploy_id_of_answer(config), digest_of_answer(config), self._answers()
        )

    def _answers(self) -> str | None:
        """What has to be the same for two answers to be comparable: the server's version, and what
        writes the answer down.
        """
        release, spelling = self.release(), self.transport.spelling
        return f"{release} ({spelling})" if release and spelling else release

    def release(self) -> str | None:
        """The server's version, "2.51.0"; None where it does not say. Asked once."""
        if self._release is None:
            with contextlib.suppress(ServerError):
                said = self.ask_cheaply(
                    "ask Triton for its version",
                    lambda seconds: read_release(self.transport.release(seconds)),
                )
                self._release = said or None
        return self._release

    def _unlisted(self, name: str) -> tuple[VersionRow, ...]:
        """A model whose folder is gone is served on, and is not in the index."""
        try:
            versions = self.metadata(name).get("versions") or ()
        except NotFound:
            return ()
        return tuple(VersionRow(int(version), "READY") for version in versions)

    def metadata(self, name: str, version: str = "") -> JsonObject:
        """Triton's model metadata: ``inputs`` and ``outputs`` with name, datatype and shape.

        Raises:
            NotFound: the server does not serve it.
        """
        try:
            return self.ask_cheaply(
                "ask Triton for the model's metadata",
                lambda seconds: read_metadata(self.transport.metadata(seconds, name, version)),
            )
        except ServerRefused as error:
            if error.knows_no_such_model:
                raise NotFound(
                    f"Triton at {self.url} does not serve it ({error.reason})",
                    model=name,
                    step=error.step,
                ) from error
            raise

    def config(self, name: str) -> JsonObject:
        """The configuration that the server runs a model with, as it completed it.

        Raises:
            NotFound: the server does not serve it.
        """
        try:
            return self._ask_config(name)
        except ServerRefused as error:
            if error.knows_no_such_model:
                raise NotFound(
                    f"Triton at {self.url} does not serve it ({error.reason})",
                    model=name,
                    step=error.step,
                ) from error
            raise

    def _ask_config(self, name: str) -> JsonObject:
        return self.ask_cheaply(
            "ask Triton for the served configuration",
            lambda seconds: read_config(self.transport.config(seconds, name)),
        )

    def require_explicit(self) -> None:
        """Raises ServerError where the server is not in EXPLICIT mode, asked by a call that changes
        nothing there.
        """
        if self._same:
            self._same.require()
        self._ask_loader("check the server's model control mode", "unload_model", _PROBE)

    def is_live(self, seconds: float = 2.0) -> bool:
        try:
            live = bool(self.transport.call(min(seconds, self.timeout), "is_server_live"))
        except (Silent, Gone, Refused, Nonsense):
            return False
        if live:
            self._silent_at = None
        return live

    def wait_live(self, deadline: Deadline) -> bool:
        """Wait until the server answers; False where the deadline passes first, or has passed
        before in vain.
        """
        while not self.is_live():
            if deadline.passed or self._silent_at:
                self._silent_at = "wait until it is up again" if self._once else None
                return False
            time.sleep(_POLL)
        return True

    def prove_load(self, name: str, served: ServedModel) -> None:
        """To be called where a load is not seen in what this server says now, ``served``.

        Raises:
            ServerError: the load went to another server, and was taken back there.
        """
        if self._same:
            self._same.prove_load(name, served)

    def load_elsewhere(self, name: str) -> str | None:
        """See ``SameServer.load_again``."""
        return self._same.load_again(name) if self._same else None

    # -- changing ----------------------------------------------------------------------------------

    def load(self, name: str, seconds: float | None = None) -> None:
        """Load or reload, and return when Triton says that it is done.

        Args:
            seconds: to wait, where that is less than ``load_timeout``.

        Raises:
            LoadFailed: with Triton's own reason.
            LoadPending: no answer within ``load_timeout``; the load goes on.
            ServerError: not in EXPLICIT mode, restricted, or gone.
        """
        if self._same:
            self._same.require(name)
        most = self.load_timeout if seconds is None else min(seconds, self.load_timeout)
        with effect("load", name):
            try:
                with step(f"load on {self.url}"):
                    self._ask_loader("load", "load_model", name, seconds=most)
            except ServerTimeout as error:
                if not self.is_live():  # a dead server's stubs can hold its connections open
                    raise ServerUnreachable(
                        f"Triton at {self.url} went down during the load and cannot be reached",
                        model=name,
                        step="load",
                        server=self.url,
                    ) from error
                raise LoadPending(
                    f"Triton at {self.url} was still loading after {most:g} s; a load"
                    " cannot be cancelled and goes on",
                    model=name,
                    step="load",
                    server=self.url,
                ) from error
            except ServerRefused as error:
                if error.status not in (400, 500):
                    raise error.about(model=name) from error.__cause__
                raise LoadFailed(
                    self._cause(name, error.reason),
                    model=name,
                    step="load",
                    server=self.url,
                    reason=error.reason,
                ) from error
            except ServerError as error:
                raise error.about(model=name) from error.__cause__

    def _cause(self, name: str, reason: str) -> str:
        """Triton's reason; what it keeps to its log is read there, where that is a file of this
        host.
        """
        if "failed to poll" not in reason:
            return _first_cause(reason)
        if self._same:
            self._same.prove_repository(name)
        try:
            cause = poll_failure(self._log(), name)
            why_not = ""
        except NotRead as error:
            cause, why_not = None, f"; {error}"
        except (ServerError, NotFound):
            cause, why_not = None, ""
        return (
            f"Triton cannot use its folder: {mask(cause)}"
            if cause
            else (f"{_first_cause(reason)}; its log says why (option server_log reads it{why_not})")
        )

    def _log(self) -> str:
        """The end of its log. Raises NotRead, ServerError."""
        if self.log_file:
            return tail_of_users_log(self.log_file)
        said = self.ask("ask Triton for its log", self.transport.call, "get_log_settings")
        # gRPC has a message of settings, HTTP an object.
        named = said.get("log_file") if isinstance(said, dict) else None
        if not named:
            raise ServerError("it has no file of its own", server=self.url)
        return tail_of_named_log(named, self.address)

    def unload(self, name: str) -> None:
        """Unload, and return when no version is READY or on its way out; requests in flight are
        answered first.

        Unloads are asked for one after the other: two at once, of ensembles with a member in common
        of which a load has failed, make Triton 2.51 crash, or serve one of both on.
        """
        if self._same and self._same.is_other and not self._may_be_there(name):
            return  # what was loaded elsewhere never came here
        if self._same:
            self._same.require()
        with effect("unload", name), self._unloading:
            try:
                self._ask_loader("unload", "unload_model", name)
            except ServerRefused as error:
                if "versions that are still available" not in error.reason:
                    raise
        # Requests in flight may take as long as a load.
        seconds = max(self.timeout, self.load_timeout)
        deadline, patience = Deadline(seconds), Deadline(_PATIENCE)
        while states := self.states(name):
            if deadline.passed:
                doing = "serving it" if "READY" in states else "unloading"
                raise ServerError(
                    f"Triton at {self.url} was still {doing} after {seconds:g} s",
                    model=name,
                    step="unload",
                    server=self.url,
                )
            if "READY" not in states:
                patience = Deadline(_PATIENCE)
            elif patience.passed:
                if self._same:
                    self._same.prove_unload(name)
                self._unload_forgotten(name)
                patience = Deadline(_PATIENCE)
            time.sleep(_POLL)

    def states(self, name: str) -> list[str]:
        """Of the versions that are served, or on their way in or out."""
        return [
            row.state
            for row in self.index().get(name, ()) or self._unlisted(name)
            if row.state in ("READY", "UNLOADING", "LOADING")
        ]

    def _may_be_there(self, name: str) -> bool:
        try:
            return bool(self.states(name))
        except ServerError:
            return True

    def _unload_forgotten(self, name: str) -> None:
        """What Triton serves on after it has said that it unloads it: somebody loaded a member of
        this ensemble meanwhile, and Triton loaded the ensemble once more. It does not know it any
        more as what it could unload, until it has loaded it.
        """
        with self._unloading:
            for call in ("load_model", "unload_model"):
                with contextlib.suppress(ServerRefused):
                    self._ask_loader("unload", call, name)


def poll_failure(text: str, name: str) -> str | None:
    """The last reason in a server's log for which it could not read the folder of ``name``.

    Such a line reads ``… "Poll failed for model directory 'fraud': reason"``.
    """
    _before, found, after = text.rpartition(f"Poll failed for model directory '{name}': ")
    return after.splitlines()[0].rstrip('"')[:_LONGEST_CAUSE] if found and after else None


def _first_cause(text: str) -> str:
    """Triton's reason without the stack of a Python backend, in one line."""
    head = text.split("\n\nAt:", 1)[0]
    return "Triton answered: " + " ".join(head.split()).rstrip(".; ")
