# SPDX-License-Identifier: Apache-2.0
"""Makes the lists of exact packages, with the hashes of their files, which roles install from.

    python tools/lock.py            anew, with the newest versions that the requirements allow
    python tools/lock.py --keep     only what is missing; versions that are there stay

Each list is complete for itself, for Linux and the Pythons that the roles support; lists that may
go into one environment agree in their versions. They name no index: the hashes say which files are
meant, wherever they come from. Needs uv (.venv/uv), which asks the index that it is set up for.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRITON = ROOT / "roles/triton/files"
LOWEST_PYTHON = "3.10"
HEAD = """\
# SPDX-License-Identifier: Apache-2.0
# Made by tools/lock.py (make lock); do not edit.
"""
# Where the parts of one environment are, and what each asks for.
ENVIRONMENTS: tuple[tuple[Path, dict[str, str]], ...] = (
    (
        TRITON,
        {
            "client": (TRITON / "requirements-client.txt").read_text(encoding="utf-8"),
            "client-s3": "boto3",
            "client-sklearn": "treelite>=4.4,<5",
            "client-signing": "model-signing>=1.1,<2\npyOpenSSL>=24",
        },
    ),
    (TRITON, {"server": (TRITON / "requirements-server.txt").read_text(encoding="utf-8")}),
    (TRITON, {"supervisor": (TRITON / "requirements-supervisor.txt").read_text(encoding="utf-8")}),
)


def path_of(folder: Path, part: str) -> Path:
    return folder / f"requirements-{part}-locked.txt"


def resolve(wanted: str, constraints: str, hashes: bool) -> str:
    """Exact versions of what is wanted and of what that needs. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        bound = Path(folder) / "constraints.txt"
        bound.write_text(constraints, encoding="utf-8")
        return subprocess.run(
            [
                str(ROOT / ".venv/uv/bin/uv"),
                "pip",
                "compile",
                "--quiet",
                "--universal",
                f"--python-version={LOWEST_PYTHON}",
                "--no-header",
                "--no-annotate",
                f"--constraint={bound}",
                *(["--generate-hashes"] if hashes else []),
                "-",
            ],
            input=wanted,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout


def versions_of(locked: str) -> str:
    """The requirements of a list without their hashes."""
    return "".join(
        line.removesuffix("\\").strip() + "\n"
        for line in locked.splitlines()
        if line and not line.startswith((" ", "#"))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="keep the versions that are there")
    keep = parser.parse_args().keep
    for folder, parts in ENVIRONMENTS:
        there = [path_of(folder, part) for part in parts]
        former = "".join(
            versions_of(path.read_text(encoding="utf-8"))
            for path in there
            if keep and path.exists()
        )
        # Together first, so that the parts agree.
        together = resolve("\n".join(parts.values()), former, hashes=False)
        for part, wanted in parts.items():
            path = path_of(folder, part)
            path.write_text(HEAD + resolve(wanted, together, hashes=True), encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
