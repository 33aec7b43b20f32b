# SPDX-License-Identifier: Apache-2.0
"""``ansible-test sanity`` on a copy of the checkout, without root and from any folder; arguments go
through to it.
"""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from collection_copy import ROOT, copy_collection, git_environment

BASE = ROOT / ".cache/sanity"

# ansible-test fetches this script from a host of its own, which closed networks do not reach, for
# each of its eight environments. The pip of this one does it instead, which has been compiled
# already.
GET_PIP = f"""\
import subprocess
import sys

wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
pip = [{sys.executable!r}, "-m", "pip", "--python", sys.executable]
subprocess.run([*pip, "install", "-qq", *wanted], check=True)
"""


def pip_settings() -> configparser.RawConfigParser:
    """The user's pip settings of all sources in one file.

    ansible-test gives its own pip neither the environment's settings nor, with the home folder
    below, the user's file.
    """
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings = configparser.RawConfigParser()
    for line in listing.splitlines():
        key, __, value = line.partition("=")
        section, __, option = key.rpartition(".")
        # pip's own order: the environment wins over a section of a command, and that one over
        # [global].
        section = "install" if section == ":env:" else section
        if not settings.has_section(section):
            settings.add_section(section)
        settings.set(section, option, str(ast.literal_eval(value)).replace("\n", "\n\t"))
    if not settings.has_section("global"):
        settings.add_section("global")
    settings.set("global", "quiet", "2")
    # Most of it is never imported.
    if not settings.has_section("install"):
        settings.add_section("install")
    settings.set("install", "no-compile", "true")
    for option, variables in {
        "cert": ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
        "proxy": ("HTTPS_PROXY", "https_proxy"),
    }.items():
        found = [os.environ[name] for name in variables if os.environ.get(name)]
        if found and not settings.has_option("global", option):
            settings.set("global", option, found[0])
    return settings


def prepare_home(home: Path) -> None:
    """A home folder of its own, so that nothing is left in the user's."""
    ansible_core = distribution("ansible-core")
    source = Path(str(ansible_core.locate_file("ansible_test/_internal/python_requirements.py")))
    cache = home / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in set(re.findall(r"pip='([\d.]+)'", source.read_text(encoding="utf-8"))):
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP, encoding="utf-8")
    config = home / ".config/pip/pip.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    # Index addresses may carry passwords.
    with open(
        os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as stream:
        pip_settings().write(stream)


def main() -> int:
    home = BASE / "home"
    prepare_home(home)
    target = copy_collection(BASE)
    environment = git_environment()
    environment.update(
        HOME=str(home), PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    environment.pop("XDG_CONFIG_HOME", None)
    # Its own Python alone: ansible-test would try every pythonX.Y on PATH, and fail on pyenv's
    # stand-ins.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [
        str(Path(sys.executable).parent / "ansible-test"),
        "sanity",
        "--local",
        "--python",
        version,
        *sys.argv[1:],
    ]
    return subprocess.run(
        command, cwd=target, env=environment, stdin=subprocess.DEVNULL, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
