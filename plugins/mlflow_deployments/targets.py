# SPDX-License-Identifier: Apache-2.0
"""From a target URI, a profile, the environment and ``-C key=value`` to the options of the
modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..module_utils._delivery.errors import InvalidOption, NotFound
from ..module_utils._delivery.orchestration.target import DEFAULT_URL

PROFILES_VARIABLE = "MLOPS_TRITON_PROFILES"
PROTOCOLS = ("http", "https", "grpc", "grpcs")
_NOTHING = "nothing was changed"
_KEY = "admin-key"


@dataclass(frozen=True)
class Option:
    """How a value is read that may come as a string."""

    kind: str = "str"
    choices: tuple[str, ...] = ()


TARGET_OPTIONS: Mapping[str, Option] = {
    "triton_url": Option("list"),
    "admin_key": Option("dict"),
    "ca_file": Option(),
    "client_cert": Option(),
    "client_key": Option(),
    "server_log": Option(),
    "tensorrt_target": Option("dict"),
    "model_repository": Option(),
    "state_dir": Option(),
    "s3": Option("dict"),
    "tracking_uri": Option(),
    "registry_uri": Option(),
    "timeout": Option("float"),
    "lock_timeout": Option("float"),
    "progress": Option("bool"),
    "allowed_backends": Option("list"),
    "max_size": Option(),
    "require_digest": Option("bool"),
    "registry_status": Option(),
}
MODEL: Mapping[str, Option] = {
    "alias": Option(),
    "flavor": Option(choices=("triton", "onnx", "xgboost", "lightgbm", "sklearn", "pytorch")),
    "config": Option("dict"),
    "instance_kind": Option(choices=("cpu", "gpu", "auto")),
    "version_folders": Option(choices=("auto", "registry", "artifact")),
    "serve_versions": Option("int"),
    "verify": Option("raw"),
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
    """Options of the target, without ``triton_url``."""

    def urls(self, endpoint: str | None) -> list[str]:
        """Every server, or that of one endpoint.

        Raises:
            NotFound: no such endpoint.
        """
        if endpoint is None:
            return list(self.servers.values())
        if endpoint not in self.servers:
            raise NotFound(
                f"the target {self.uri} has no endpoint '{endpoint}' (endpoints there:"
                f" {', '.join(self.servers)})",
                step="find the endpoint",
                left=_NOTHING,
            )
        return [self.servers[endpoint]]

    def with_options(self, given: Mapping[str, Any]) -> Target:
        """The same target with options of one call over its own."""
        servers = _name_by_url(given["triton_url"]) if given.get("triton_url") else self.servers
        others = {
            key: value
            for key, value in given.items()
            if key in TARGET_OPTIONS and key != "triton_url" and value is not None
        }
        return Target(self.uri, servers, {**self.options, **others})


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
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    protocol = query.pop("protocol", None)
    given = read_options(query, TARGET_OPTIONS, f"the target {uri}")
    profile: Mapping[str, Any] = {}
    if parts.netloc:
        given["triton_url"] = _urls_of(uri, parts.netloc, parts.path, protocol)
    elif protocol:
        raise InvalidOption(
            f"the target {uri} has a protocol and no host", step="read the target", left=_NOTHING
        )
    elif parts.scheme and parts.path.strip("/"):
        profile = read_profile(parts.path.strip("/"), environment)
    variables = {"triton_url": "TRITON_URL", "model_repository": "TRITON_MODEL_REPO"}
    surroundings = {
        option: environment[name] for option, name in variables.items() if environment.get(name)
    }
    found = {**read_options(surroundings, TARGET_OPTIONS, "the environment"), **profile, **given}
    servers = found.pop("triton_url", None) or [DEFAULT_URL]
    named = servers if isinstance(servers, Mapping) else _name_by_url(servers)
    return Target(uri, named, _with_secret(found, environment))


def _urls_of(uri: str, netloc: str, path: str, protocol: str | None) -> list[str]:
    if path.strip("/"):
        raise InvalidOption(
            f"the target {uri} has a path after its host; a profile is written triton:/<profile>",
            step="read the target",
            left=_NOTHING,
        )
    if protocol not in (None, *PROTOCOLS):
        raise InvalidOption(
            f"protocol={protocol} of the target {uri} is not one of {', '.join(PROTOCOLS)}",
            step="read the target",
            left=_NOTHING,
        )
    hosts = [host.strip() for host in netloc.split(",") if host.strip()]
    return [host if protocol in (None, "http") else f"{protocol}://{host}" for host in hosts]


def _name_by_url(urls: Iterable[str]) -> dict[str, str]:
    return {str(url).strip(): str(url).strip() for url in urls}


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
    return _read_profile(dict(profile), f"the profile '{name}' in {path}")


def _read_profile(profile: dict[str, Any], origin: str) -> dict[str, Any]:
    servers = profile.pop("servers", None)
    options = read_options(profile, TARGET_OPTIONS, origin, also=("servers",))
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


def _with_secret(options: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    key = options.get("admin_key")
    if key is None:
        return options
    about = {"step": "read admin_key", "left": _NOTHING}
    if set(key) - {"name", "secret", "secret_env"} or len({"secret", "secret_env"} & set(key)) != 1:
        raise InvalidOption(
            "admin_key is a mapping with name and one of secret and secret_env", **about
        )
    secret = key.get("secret")
    if "secret_env" in key:
        secret = environment.get(str(key["secret_env"]))
        if not secret:
            raise InvalidOption(
                f"admin_key takes its secret from the environment variable {key['secret_env']},"
                " which is not set",
                **about,
            )
    return {**options, "admin_key": {"name": str(key.get("name") or _KEY), "secret": str(secret)}}


# -- values ----------------------------------------------------------------------------------------


def read_options(
    given: Mapping[str, Any], known: Mapping[str, Option], origin: str, also: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Values as the core wants them; ``null`` and None clear an option.

    Raises:
        InvalidOption: an unknown key, with the list of known ones, or a value that its option
            cannot have.
    """
    unknown = [str(key) for key in given if key not in known]
    for key in unknown:
        if key in _ELSEWHERE and key not in also:
            raise InvalidOption(
                f"{key} is not an option of {origin}: {_ELSEWHERE[key]}",
                step="read the options",
                left=_NOTHING,
            )
    if unknown:
        raise InvalidOption(
            f"{origin} has the unknown option {', '.join(sorted(unknown))}; known are"
            f" {', '.join(sorted([*known, *also]))}",
            step="read the options",
            left=_NOTHING,
        )
    return {key: _value(key, value, known[key]) for key, value in given.items()}


def _value(key: str, value: Any, option: Option) -> Any:
    if value is None:
        return None
    read = _READERS[option.kind]
    try:
        found = read(value)
    except (TypeError, ValueError) as error:
        shown = "its value" if key in ("admin_key", "s3") else repr(value)
        raise InvalidOption(
            f"{key}: {shown} is not {_WANTED[option.kind]}", step="read the options", left=_NOTHING
        ) from error
    if option.choices and found is not None and found not in option.choices:
        raise InvalidOption(
            f"{key}: {value!r} is not one of {', '.join(option.choices)}",
            step="read the options",
            left=_NOTHING,
        )
    return found


_WANTED = {
    "str": "a text",
    "mode": "an octal number such as 0644",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a mapping such as {key: value}",
    "list": "a list",
    "raw": "YAML",
}


def _parse(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(value) from error


def _text(value: Any) -> str | None:
    if value in ("null", "~"):
        return None
    if isinstance(value, (Mapping, list, tuple)):
        raise TypeError(value)
    return os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)


def _mode(value: Any) -> str | None:
    return (
        f"{value:04o}" if isinstance(value, int) and not isinstance(value, bool) else _text(value)
    )


def _number(value: Any) -> float | None:
    found = _parse(value)
    if isinstance(found, bool):
        raise TypeError(value)
    return None if found is None else float(found)


def _whole(value: Any) -> int | None:
    found = _number(value)
    if found is not None and found != int(found):
        raise ValueError(value)
    return None if found is None else int(found)


def _bool(value: Any) -> bool | None:
    found = _parse(value)
    if found is not None and not isinstance(found, bool):
        raise TypeError(value)
    return found


def _mapping(value: Any) -> dict[str, Any] | None:
    found = _parse(value)
    if found is not None and not isinstance(found, Mapping):
        raise TypeError(value)
    return None if found is None else dict(found)


def _list(value: Any) -> list[str] | None:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    found = _parse(value)
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise TypeError(value)
    return list(found)


_READERS = {
    "str": _text,
    "mode": _mode,
    "int": _whole,
    "float": _number,
    "bool": _bool,
    "dict": _mapping,
    "list": _list,
    "raw": _parse,
}
