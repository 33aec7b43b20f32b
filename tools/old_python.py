# SPDX-License-Identifier: Apache-2.0
"""Old interpreters for the tests of what runs on any host: Python 3.9, the oldest that the start
wrapper runs on, and 2.7, which it refuses.

    python tools/old_python.py

They are packages of Debian 11, fetched from the mirror that this machine's apt uses and unpacked
into .cache/old-python; nothing is installed, and root is not needed. Prints their paths.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache" / "old-python"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITE = "bullseye"
PACKAGES = {
    "python3.9": ("python3.9-minimal", "libpython3.9-minimal", "libpython3.9-stdlib"),
    "python2.7": ("python2.7-minimal", "libpython2.7-minimal"),
}
# Of the same release, because newer ones have other names.
LIBRARIES = ("libssl1.1", "libffi7", "libmpdec3")
SECONDS = 120


class NoOldPython(Exception):
    """Old interpreters cannot be had here; the text is one sentence."""


def run(*command: str | os.PathLike[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS
        )
    except FileNotFoundError:
        raise NoOldPython(f"{command[0]} is not there: this is no Debian.") from None
    except subprocess.TimeoutExpired:
        raise NoOldPython(f"{command[0]} {command[-1]} takes over {SECONDS} s.") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no word"])[-1]
        raise NoOldPython(f"{command[0]} {command[-1]} failed: {last}") from None
    return done.stdout


def mirror(folder: Path) -> str:
    """The mirror of Debian's packages that this machine is set up for."""
    sites = run("apt-get", "indextargets", "--format", "$(SITE)", folder=folder).split()
    fitting = [site for site in sites if site.rstrip("/").endswith("/debian")]
    if not fitting or not os.path.exists(KEYS):
        raise NoOldPython("apt names no mirror of Debian, or Debian's keys are missing.")
    return fitting[0]


def unpack(names: Sequence[str], work: Path, root: Path) -> None:
    """Fetch packages with a state of apt's own, and unpack them below ``root``."""
    sources = work / "sources.list"
    sources.write_text(f"deb [signed-by={KEYS}] {mirror(work)} {SUITE} main\n")
    for name in ("state/lists/partial", "cache/archives/partial", "debs"):
        (work / name).mkdir(parents=True)
    apt = ["apt-get", "-qq"]
    for option in (
        f"Dir::Etc::SourceList={sources}",
        f"Dir::Etc::SourceParts={work / 'none'}",
        f"Dir::State={work / 'state'}",
        f"Dir::Cache={work / 'cache'}",
        f"Dir::State::status={os.devnull}",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    ):
        apt += ["-o", option]
    run(*apt, "update", folder=work)
    run(*apt, "download", *names, folder=work / "debs")
    for package in sorted((work / "debs").glob("*.deb")):
        run("dpkg-deb", "-x", package, root, folder=work)


def make(target: Path) -> None:
    root = target / "files"
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=target) as work:
        names = [name for packages in PACKAGES.values() for name in packages]
        unpack([*names, *LIBRARIES], Path(work), root)
    for name in PACKAGES:
        program = target / name
        program.write_text(
            '#!/bin/sh\nroot="$(dirname "$0")/files/usr"\n'
            'export LD_LIBRARY_PATH="$(echo "$root"/lib/*-linux-gnu)"\n'
            f'exec "$root/bin/{name}" "$@"\n'
        )
        program.chmod(0o755)


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Tests that run at the same time make one copy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find() -> dict[str, Path]:
    """Version → program, fetched where that was not done before. Raises NoOldPython."""
    with hold(FOLDER.with_suffix(".lock")):
        if not FOLDER.exists():
            half = FOLDER.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            make(half)
            half.rename(FOLDER)
    return {name.removeprefix("python"): FOLDER / name for name in PACKAGES}


def main() -> int:
    try:
        print(*find().values(), sep="\n")
    except NoOldPython as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
