# SPDX-License-Identifier: Apache-2.0
"""Where models are delivered to, and from which registry, as one value."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import InvalidOption
from ..outside import JsonObject, Options
from ..planning.policy import Policy
from ..planning.policy_options import folders
from ..repository.s3.location import is_s3, parse_s3
from ..triton.address import Access

DEFAULT_URL = "localhost:8000"
_STEP = "read the options"
_LONGEST = 10**9
"""Seconds; a thread cannot wait for more than some times that."""


@dataclass(frozen=True)
class Target:
    """Where models are delivered to, and from which registry."""

    repository: str
    state_dir: str | None = None
    servers: tuple[str, ...] = (DEFAULT_URL,)
    load_servers: tuple[str, ...] | None = None
    """Where loads of each of ``servers`` go, in their order; None: to these themselves."""
    metrics_servers: tuple[str, ...] | None = None
    """Where the metrics of each of ``servers`` are, in their order; None: not known."""
    access: Access = field(default_factory=Access)
    server_log: str | None = None
    tensorrt_target: JsonObject | None = None
    tracking_uri: str | None = None
    registry_uri: str | None = None
    timeout: float = 300.0
    load_timeout: float | None = None
    """Seconds for one load; None: the larger of ``timeout`` and what fits large models."""
    lock_timeout: float = 60.0
    policy: Policy = field(default_factory=Policy)
    artifact_folders: tuple[str, ...] = ()
    """Folders of this host in which the registry may say that artifacts lie."""
    beside_mlflow: bool = False
    """It may also name the folders that an MLflow on this host made itself."""
    parallel_downloads: int = 4
    parallel_loads: int = 4
    s3: JsonObject | None = field(default=None, repr=False)
    environments: JsonObject | None = field(default=None, repr=False)
    """How Python environments of models are made: see the option of this name."""
    drained: bool = False
    """No client sends requests to the servers now."""
    registry_status: str | None = None
    """The name under which the registry is told what is deployed here."""

    @property
    def addresses(self) -> list[tuple[str, str | None, str | None]]:
        """Of each server: its address, where its loads go, and where its metrics are."""
        nowhere = (None,) * len(self.servers)
        loads, metrics = self.load_servers or nowhere, self.metrics_servers or nowhere
        return list(zip(self.servers, loads, metrics))

    @classmethod
    def from_options(cls, options: Options) -> Target:
        """Build from a module's parameters or a plugin's options; absent and None keys mean
        omitted.

        Raises:
            InvalidOption: no repository, a kind of repository that is not supported, a time-out
                that is not positive, a value of another type.
        """
        # Pasted and exported texts bring spaces along, which are part of no address.
        repository = str(options.get("model_repository") or "").strip()
        if not repository:
            raise InvalidOption(
                "model_repository (or the environment variable TRITON_MODEL_REPO) is required",
                step="read the options",
            )
        repository = parse_s3(repository).url if is_s3(repository) else repository
        if "://" in repository and not is_s3(repository):
            raise InvalidOption(
                f"model_repository {repository} is neither a folder of this host nor in S3",
                step="read the options",
            )
        names = (
            "server_log",
            "tensorrt_target",
            "tracking_uri",
            "registry_uri",
            "state_dir",
            "timeout",
            "load_timeout",
            "drained",
            "lock_timeout",
            "parallel_downloads",
            "parallel_loads",
            "s3",
            "environments",
            "registry_status",
        )
        given = {key: options[key] for key in names if options.get(key) is not None}
        for key in ("tracking_uri", "registry_uri"):
            if key in given:
                given[key] = str(given[key]).strip()
        _check(given)
        if "registry_status" in given:
            from ..registry.status_tags import check_target

            check_target(str(given["registry_status"]))
        servers = _servers("triton_url", options.get("triton_url") or [DEFAULT_URL])
        target = repository if is_s3(repository) else os.path.abspath(repository)
        return cls(
            repository=target,
            servers=servers,
            load_servers=_beside("load_url", options, servers),
            metrics_servers=_beside("metrics_url", options, servers),
            access=Access.from_options(options),
            policy=Policy.from_options(options),
            artifact_folders=folders("artifact_folders", options.get("artifact_folders")) or (),
            **given,
        )


def _check(given: Options) -> None:
    for key in ("timeout", "load_timeout", "lock_timeout"):
        if key in given and not 0 < _number(key, given[key]) <= _LONGEST:
            raise InvalidOption(
                f"{key} must be more than 0 seconds, and at most {_LONGEST}", step=_STEP
            )
    for key in ("parallel_downloads", "parallel_loads"):
        if key in given and not _number(key, given[key]) >= 1:
            raise InvalidOption(f"{key} must be at least 1", step=_STEP)
    for key in ("s3", "environments", "tensorrt_target"):
        if not isinstance(given.get(key, {}), Mapping):
            raise InvalidOption(f"{key} is not a mapping", step=_STEP)


def _number(key: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or math.isnan(number):
        raise InvalidOption(f"{key} {value!r} is not a number", step=_STEP)
    return number


def _servers(key: str, given: object) -> tuple[str, ...]:
    urls = given.split(",") if isinstance(given, str) else given
    if isinstance(urls, Mapping) or not isinstance(urls, Iterable):
        raise InvalidOption(f"{key} is not a list of addresses", step=_STEP)
    return tuple(str(url).strip() for url in urls)


def _beside(key: str, options: Options, servers: tuple[str, ...]) -> tuple[str, ...] | None:
    """Addresses of which each belongs to one of ``servers``."""
    given = _servers(key, options[key]) if options.get(key) else None
    if given and len(given) != len(servers):
        raise InvalidOption(
            f"{key} has {len(given)} addresses, and triton_url {len(servers)}: each server needs"
            " its own, in the same order",
            step=_STEP,
        )
    return given
