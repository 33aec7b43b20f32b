# SPDX-License-Identifier: Apache-2.0
"""The settings of this machine's pip, and the same for programs that do not read them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# A later one wins, as in pip itself.
SECTIONS = ("global", "install", ":env:")
# They change what pip prints, or how it comes by its files, and not what it installs.
WITHOUT_EFFECT = {
    "break-system-packages",
    "cache-dir",
    "disable-pip-version-check",
    "no-color",
    "no-input",
    "no-python-version-warning",
    "no-warn-script-location",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "resume-retries",
    "retries",
    "root-user-action",
    "verbose",
}
# Name of the variable, and what separates its values.
UV_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "cert": ("SSL_CERT_FILE", ""),
    "client-cert": ("SSL_CLIENT_CERT", ""),
    "proxy": ("ALL_PROXY", ""),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "default-timeout": ("UV_HTTP_TIMEOUT", ""),
}
UV_SWITCHES = {
    "no-index": ("UV_NO_INDEX", "1"),
    "no-cache-dir": ("UV_NO_CACHE", "1"),
    "pre": ("UV_PRERELEASE", "allow"),
}


class UnknownSetting(Exception):
    """The name of an option that only pip knows how to follow."""


def parse(listing: str) -> dict[str, str]:
    """Options by their long names, of what ``pip config list`` prints; several values of one are
    separated by white space.
    """
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        key, sign, value = line.partition("=")
        section, _dot, option = key.rpartition(".")
        if sign and section in found:
            found[section][option] = str(ast.literal_eval(value))
    return {option: value for section in SECTIONS for option, value in found[section].items()}


def read(python: str | Path = sys.executable) -> dict[str, str]:
    """Those that ``python -m pip install`` follows here; none where this Python has no pip."""
    listing = subprocess.run(
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    return parse(listing)


def for_pip(settings: Mapping[str, str]) -> dict[str, str]:
    """The same as variables, for a pip that does not find the files in which they are written."""
    return {
        "PIP_" + option.upper().replace("-", "_"): " ".join(value.split())
        for option, value in settings.items()
        if option != "config-file"
    }


def is_on(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on", "t", "y")


def for_uv(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The same as variables of uv, which reads none of pip's; what ``environment`` says to uv
    itself wins.

    Raises UnknownSetting.
    """
    # pip takes the best version of all indexes, uv by itself that of the first which has one.
    told = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    own = {key: value for key, value in environment.items() if key.startswith("UV_")}
    bundle = environment.get("SSL_CERT_FILE") or environment.get("REQUESTS_CA_BUNDLE")
    if bundle:
        told["SSL_CERT_FILE"] = bundle
    for option, value in settings.items():
        if option in UV_VARIABLES:
            name, separator = UV_VARIABLES[option]
            told[name] = separator.join(value.split()) if separator else value.strip()
        elif option in UV_SWITCHES:
            name, wanted = UV_SWITCHES[option]
            if is_on(value):
                told[name] = wanted
        elif option not in WITHOUT_EFFECT and option != "config-file":
            raise UnknownSetting(option)
    return {**told, **own}


def of_this_machine() -> dict[str, str]:
    """What tells pip elsewhere where the index is, as variables of the environment; those of its
    network too.
    """
    network = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    bundles = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    kept = {key: value for key, value in os.environ.items() if key in (*network, *bundles)}
    return {**for_pip(read()), **kept}
