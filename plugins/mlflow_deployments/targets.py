# SPDX-License-Identifier: Apache-2.0
"""From a target URI, a profile, the environment and ``-C key=value`` to the options of the
modules.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..module_utils._delivery.errors import InvalidOption, NotFound
from ..module_utils._delivery.orchestration.target import DEFAULT_URL
from ..module_utils._delivery.redact import mask
from ..module_utils._delivery.triton.address import ADMIN_KEY

PROFILES_VARIABLE = "MLOPS_TRITON_PROFILES"
PROTOCOLS = ("http", "https", "grpc", "grpcs")
_BESIDE = ("load_url", "metrics_url")
"""Options with an address for each server."""
_NOTHING = "nothing was changed"
_STEP = "read the options"


@dataclass(frozen=True)
class Option:
    """How a value is read that may come as a string.

    Attributes:
        fields: what a mapping may have; without them, anything.
        is_secret: no message shows it, and ``<name>_env`` names an environment variable that has
            it.
        required, usual: of a field that is omitted.
    """

    kind: str = "str"
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Option] = field(default_factory=dict)
    is_secret: bool = False
    required: bool = False
    usual: str | None = None


_PATH = Option("path")
_SECRET = Option(is_secret=True)


TARGET_OPTIONS: Mapping[str, Option] = {
    "triton_url": Option("list"),
    "load_url": Option("list"),
    "metrics_url": Option("list"),
    "admin_key": Option(
        "dict",
        fields={
            "name": Option(usual=ADMIN_KEY),
            "secret": Option(is_secret=True, required=True),
        },
    ),
    "ca_file": _PATH,
    "client_cert": _PATH,
    "client_key": _PATH,
    "server_log": _PATH,
    "tensorrt_target": Option("dict", fields={"version": Option(), "compute_capability": Option()}),
    "model_repository": Option(),
    "state_dir": _PATH,
    "s3": Option(
        "dict",
        fields={
            "access_key": Option(),
            "secret_key": _SECRET,
            "session_token": _SECRET,
            "profile": Option(),
            "region": Option(),
            "ca_file": _PATH,
        },
    ),
    "environments": Option(
        "dict",
        fields={
            "folder": _PATH,
            "pythons": Option("paths"),
            "python_mirror": Option(),
            "index_url": _SECRET,
            "extra_index_urls": Option("list"),
            "find_links": Option("list"),
            "no_index": Option("bool"),
            "source_distributions": Option("bool"),
            "container": Option(),
            "container_engine": Option(),
            "locks": Option("dict"),
        },
    ),
    "tracking_uri": Option(),
    "registry_uri": Option(),
    "mlflow_username": Option(),
    "mlflow_password": _SECRET,
    "mlflow_token": _SECRET,
    "mlflow_ca_file": _PATH,
    "mlflow_client_cert": _PATH,
    "mlflow_client_key": _PATH,
    "timeout": Option("float"),
    "load_timeout": Option("float"),
    "drained": Option("bool"),
    "lock_timeout": Option("float"),
    "progress": Option("bool"),
    "artifact_folders": Option("paths"),
    "allowed_backends": Option("list"),
    "allowed_paths": Option("paths"),
    "model_code": Option(choices=("allowed", "refused")),
    "max_size": Option(),
    "require_digest": Option("bool"),
    "require_signature": Option(
        "dict",
        fields={
            "public_keys": Option("list"),
            "ca_certificates": Option("list"),
            "identities": Option("list"),
            "sigstore": Option("raw"),
            "trust_config": _PATH,
        },
    ),
    "revoked_digests": Option("list"),
    "revoked_keys": Option("list"),
    "registry_status": Option(),
}
MODEL: Mapping[str, Option] = {
    "alias": Option(),
    "flavor": Option(choices=("triton", "onnx", "xgboost", "lightgbm", "sklearn", "pytorch")),
    "serve_as": Option(choices=("auto", "native", "pyfunc")),
    "batch_requests": Option("bool"),
    "predict_timeout": Option("float"),
    "config": Option("dict"),
    "instance_kind": Option(choices=("cpu", "gpu", "auto")),
    "version_folders": Option(choices=("auto", "registry", "artifact")),
    "serve_versions": Option("int"),
    "verify": Option("raw"),
    "verify_aside": Option("bool"),
    "swap": Option(choices=("overlap", "unload_first", "auto")),
    "keep": Option("int"),
    "adopt": Option("bool"),
    "check_files": Option("bool"),
    "depends_on": Option("list"),
    "owner": Option(),
    "group": Option(),
    "mode": Option("mode"),
}
_ELSEWHERE = {
    "name": "the deployment's name is given with --name",
    "model_uri": "the model is given with --model-uri",
    "state": "create, update and delete are commands of their own",
}


@dataclass(frozen=True)
class Target:
    """Which servers and which repository. ``servers`` maps the names of the endpoints to their
    URLs.
    """

    uri: str
    servers: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the target, without ``triton_url``; ``load_url`` and ``metrics_url`` have an
    address for each of ``servers``, in their order.
    """

    def urls(self, endpoint: str | None) -> list[str]:
        """Every server, or that of one endpoint.

        Raises:
            NotFound: no such endpoint.
        """
        if endpoint is None:
            return list(self.servers.values())
        if endpoint not in self.servers:
            raise NotFound(
                f"the target {_shown(self.uri)} has no endpoint '{endpoint}' (endpoints there:"
                f" {', '.join(self.servers)})",
                step="find the endpoint",
                left=_NOTHING,
            )
        return [self.servers[endpoint]]

    def addresses(self, endpoint: str | None) -> dict[str, list[str]]:
        """The options with addresses, of every server or of one endpoint.

        Raises:
            NotFound: no such endpoint.
            InvalidOption: not as many addresses as servers.
        """
        found = {"triton_url": self.urls(endpoint)}
        for key in _BESIDE:
            if (given := self.options.get(key)) is None:
                continue
            if len(given) != len(self.servers):
                raise _invalid(
                    f"{key} has {len(given)} addresses, and triton_url {len(self.servers)}: each"
                    " server needs its own, in the same order"
                )
            paired = dict(zip(self.servers, given))
            found[key] = list(paired.values()) if endpoint is None else [paired[endpoint]]
        return found

    def with_options(self, given: Mapping[str, Any]) -> Target:
        """The same target with options of one call over its own; None clears one."""
        chosen = {key: value for key, value in given.items() if key in TARGET_OPTIONS}
        servers, own = self.servers, self.options
        if "triton_url" in chosen:
            servers = _name_servers(chosen.pop("triton_url"))
            own = _without_addresses(own)
        return Target(self.uri, servers, _without_none({**own, **chosen}))


def read_target(uri: str, environment: Mapping[str, str] | None = None) -> Target:
    """``triton``, ``triton://host:8000``, ``triton://host:8001?protocol=grpc``,
    ``triton:/profile``.

    Each of these may end with ``?option=value``, and what it says goes before the profile, the
    profile before the environment.

    Raises:
        InvalidOption: not one of these forms, or an option that is not known.
        NotFound: no such profile.
    """
    environment = os.environ if environment is None else environment
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidOption(
            f"the target {_shown(uri)} is no address ({error})",
            step="read the target",
            left=_NOTHING,
        ) from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    protocol = query.pop("protocol", None)
    given = read_options(query, TARGET_OPTIONS, f"the target {_shown(uri)}", environment)
    profile: Mapping[str, Any] = {}
    if parts.netloc:
        given["triton_url"] = _urls_of(uri, parts.netloc, parts.path, protocol)
    elif protocol:
        raise InvalidOption(
            f"the target {_shown(uri)} has a protocol and no host",
            step="read the target",
            left=_NOTHING,
        )
    elif parts.scheme and parts.path.strip("/"):
        profile = read_profile(parts.path.strip("/"), environment)
    variables = {"triton_url": "TRITON_URL", "model_repository": "TRITON_MODEL_REPO"}
    surroundings = {
        option: environment[name] for option, name in variables.items() if environment.get(name)
    }
    if "triton_url" in given:
        profile = _without_addresses(profile)
    found = {
        **read_options(surroundings, TARGET_OPTIONS, "the environment", environment),
        **profile,
        **given,
    }
    return Target(uri, _name_servers(found.pop("triton_url", None)), _without_none(found))


def _shown(uri: str) -> str:
    """A target in a message: what follows the question mark may be a secret."""
    return mask(uri.partition("?")[0])


def _without_addresses(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of servers that others take the place of."""
    return {key: value for key, value in options.items() if key not in _BESIDE}


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _name_servers(servers: Mapping[str, str] | Iterable[str] | None) -> Mapping[str, str]:
    """Endpoints and their URLs: those of a profile, or each URL under itself."""
    if isinstance(servers, Mapping):
        return servers
    return {url.strip(): url.strip() for url in (servers or [DEFAULT_URL])}


def _urls_of(uri: str, netloc: str, path: str, protocol: str | None) -> list[str]:
    if path.strip("/"):
        raise InvalidOption(
            f"the target {_shown(uri)} has a path after its host; a profile is written"
            " triton:/<profile>",
            step="read the target",
            left=_NOTHING,
        )
    if protocol not in (None, *PROTOCOLS):
        raise InvalidOption(
            f"protocol={protocol} of the target {_shown(uri)} is not one of {', '.join(PROTOCOLS)}",
            step="read the target",
            left=_NOTHING,
        )
    hosts = [host.strip() for host in netloc.split(",") if host.strip()]
    return [host if protocol in (None, "http") else f"{protocol}://{host}" for host in hosts]


# -- profiles --------------------------------------------------------------------------------------


def profiles_path(environment: Mapping[str, str]) -> str:
    if environment.get(PROFILES_VARIABLE):
        return os.path.expanduser(environment[PROFILES_VARIABLE])
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "mlops-triton", "profiles.yml")


def read_profile(name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The options of one profile; ``triton_url`` maps endpoint names to URLs where the profile has
    ``servers``.
    """
    import yaml

    path = profiles_path(environment)
    about = {"step": "read the profile", "left": _NOTHING}
    try:
        with open(path, encoding="utf-8") as stream:
            profiles = yaml.safe_load(stream) or {}
    except FileNotFoundError as error:
        raise NotFound(
            f"the target names the profile '{name}', and there is no file {path}"
            f" ({PROFILES_VARIABLE} names another one)",
            **about,
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidOption(
            f"{path} cannot be read ({' '.join(str(error).split())})", **about
        ) from error
    if not isinstance(profiles, Mapping):
        raise InvalidOption(f"{path} does not map names of profiles to their options", **about)
    if name not in profiles:
        raise NotFound(
            f"{path} has no profile '{name}' (profiles there:"
            f" {', '.join(map(str, profiles)) or 'none'})",
            **about,
        )
    profile = profiles[name]
    if not isinstance(profile, Mapping):
        raise InvalidOption(f"the profile '{name}' in {path} is not a mapping of options", **about)
    return _read_profile(dict(profile), f"the profile '{name}' in {path}", environment)


def _read_profile(
    profile: dict[str, Any], origin: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    servers = profile.pop("servers", None)
    if isinstance(servers, Mapping):
        for key in _BESIDE:
            if isinstance(profile.get(key), Mapping):
                profile[key] = _in_order_of(servers, profile[key], f"{key} of {origin}")
    options = read_options(profile, TARGET_OPTIONS, origin, environment, also=("servers",))
    if servers is None:
        return options
    if (
        not isinstance(servers, Mapping)
        or not servers
        or not all(isinstance(url, str) for url in servers.values())
    ):
        raise InvalidOption(
            f"servers of {origin} does not map names to URLs",
            step="read the profile",
            left=_NOTHING,
        )
    if "triton_url" in options:
        raise InvalidOption(
            f"{origin} has both servers and triton_url", step="read the profile", left=_NOTHING
        )
    return {**options, "triton_url": {str(key): url for key, url in servers.items()}}


def _in_order_of(servers: Mapping[str, Any], given: Mapping[str, Any], what: str) -> list[Any]:
    """Addresses that a profile gives by the names of its endpoints."""
    if given.keys() != servers.keys():
        names = ", ".join(map(str, servers))
        raise _invalid(f"{what} does not have an address for each of its servers ({names})")
    return [given[name] for name in servers]


# -- values ----------------------------------------------------------------------------------------


def read_options(
    given: Mapping[str, Any],
    known: Mapping[str, Option],
    origin: str,
    environment: Mapping[str, str] | None = None,
    also: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Values as the core wants them, wherever they come from; ``null`` and None clear an option,
    and are None.

    Args:
        environment: has the secrets of which only the variable is given; this process's when
            omitted.

    Raises:
        InvalidOption: an unknown key, with the list of known ones, a value that its option cannot
            have, or a variable that is not set.
    """
    every = [*known, *_variables_of(known)]
    unknown = [str(key) for key in given if key not in every]
    for key in unknown:
        if key in _ELSEWHERE and key not in also:
            raise _invalid(f"{key} is not an option of {origin}: {_ELSEWHERE[key]}")
    if unknown:
        raise _invalid(
            f"{origin} has the unknown option {', '.join(sorted(unknown))}; known are"
            f" {', '.join(sorted([*every, *also]))}"
        )
    return _read_all(given, known, os.environ if environment is None else environment)


def _variables_of(known: Mapping[str, Option]) -> list[str]:
    return [f"{key}_env" for key, option in known.items() if option.is_secret]


def _read_all(
    given: Mapping[str, Any],
    known: Mapping[str, Option],
    environment: Mapping[str, str],
    of: str = "",
) -> dict[str, Any]:
    """Args: of: the option that has these as its fields, with a dot, for messages."""
    found = {
        key: _value(f"{of}{key}", value, known[key], environment)
        for key, value in given.items()
        if key in known
    }
    for name in _variables_of(known):
        if name not in given:
            continue
        key = name.removesuffix("_env")
        variable = _value(f"{of}{name}", given[name], Option(), environment)
        if variable is not None and found.get(key) is not None:
            raise _invalid(f"{of}{key} and {of}{name} are both given, and one of them is enough")
        if variable is not None and not environment.get(variable):
            raise _invalid(
                f"{of}{name} names the environment variable {variable}, which is not set"
            )
        if variable is not None or key not in found:
            found[key] = environment[variable] if variable is not None else None
    return found


def _value(key: str, value: Any, option: Option, environment: Mapping[str, str]) -> Any:
    if value is None:
        return None
    wanted = _WANTED[option.kind]
    try:
        if option.is_secret and not isinstance(value, str):
            # YAML makes another number of 0123, and nobody sees which.
            wanted = "a text; put it in quotes"
            raise TypeError(key)
        found = _READERS[option.kind](value)
    except (TypeError, ValueError, OverflowError):
        # What it was made from may be a secret, and is in the exception.
        shown = "its value" if option.is_secret or option.fields else mask(repr(value))
        raise _invalid(f"{key}: {shown} is not {wanted}") from None
    if option.choices and found is not None and found not in option.choices:
        raise _invalid(f"{key}: {value!r} is not one of {', '.join(option.choices)}")
    if option.fields and found is not None:
        return _fields(key, found, option.fields, environment)
    return found


def _fields(
    key: str, given: Mapping[str, Any], known: Mapping[str, Option], environment: Mapping[str, str]
) -> dict[str, Any]:
    every = [*known, *_variables_of(known)]
    if unknown := sorted(str(one) for one in given if one not in every):
        raise _invalid(f"{key} has no field {', '.join(unknown)}; it has {', '.join(every)}")
    usual = {one: option.usual for one, option in known.items() if option.usual is not None}
    found = {**usual, **_without_none(_read_all(given, known, environment, f"{key}."))}
    for one, option in known.items():
        if option.required and not found.get(one):
            raise _invalid(
                f"{key} needs {one}, or {one}_env with the name of a variable that has it"
            )
    return found


def _invalid(message: str) -> InvalidOption:
    return InvalidOption(message, step=_STEP, left=_NOTHING)


_WANTED = {
    "str": "a text",
    "path": "a path",
    "mode": "an octal number such as 0644",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a mapping such as {key: value}",
    "list": "a list of texts such as a,b",
    "paths": "a list of paths such as /a,/b",
    "raw": "YAML",
}


def _parse(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    import yaml

    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(value) from error


def _text(value: Any) -> str | None:
    if _is_null(value):
        return None
    if isinstance(value, (Mapping, list, tuple, set, bool, bytes)):
        raise TypeError(value)
    return os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)


def _is_null(value: Any) -> bool:
    """As YAML has it, for kinds that are not read as YAML."""
    return isinstance(value, str) and value in ("null", "Null", "NULL", "~")


def _path(value: Any) -> str | None:
    """As Ansible reads its paths: no shell expands what follows ``-C option=``."""
    found = _text(value)
    return None if found is None else os.path.expanduser(os.path.expandvars(found))


def _mode(value: Any) -> str | None:
    return (
        f"{value:04o}" if isinstance(value, int) and not isinstance(value, bool) else _text(value)
    )


def _number(value: Any) -> float | None:
    found = _parse(value)
    if isinstance(found, bool):
        raise TypeError(value)
    if found is not None and not math.isfinite(float(found)):
        raise ValueError(value)
    return None if found is None else float(found)


def _whole(value: Any) -> int | None:
    found = _number(value)
    if found is not None and found != int(found):
        raise ValueError(value)
    return None if found is None else int(found)


def _bool(value: Any) -> bool | None:
    found = _parse(value)
    if found is None or isinstance(found, bool):
        return found
    if not isinstance(found, int) or found not in (0, 1):
        raise TypeError(value)
    return bool(found)


def _mapping(value: Any) -> dict[str, Any] | None:
    found = _parse(value)
    if found is not None and not isinstance(found, Mapping):
        raise TypeError(value)
    return None if found is None else dict(found)


def _list(value: Any) -> list[str] | None:
    if _is_null(value):
        return None
    if isinstance(value, str) and not value.lstrip().startswith("["):
        found = [part.strip() for part in value.split(",") if part.strip()]
    else:
        found = _parse(value)
    if not isinstance(found, (list, tuple)):
        raise TypeError(value)
    texts = [_text(one) for one in found]
    if None in texts:
        raise TypeError(value)
    return [str(one) for one in texts]


def _paths(value: Any) -> list[str] | None:
    found = _list(value)
    return None if found is None else [str(_path(one)) for one in found]


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "path": _path,
    "mode": _mode,
    "int": _whole,
    "float": _number,
    "bool": _bool,
    "dict": _mapping,
    "list": _list,
    "paths": _paths,
    "raw": _parse,
}
