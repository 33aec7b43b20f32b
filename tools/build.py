# SPDX-License-Identifier: Apache-2.0
"""The Galaxy tarball and the wheel in ``dist/``, both from a clean copy so that nothing private
gets in.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from collection_copy import ROOT, copy_collection


def main() -> int:
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="mlops-triton-") as base:
        target = copy_collection(Path(base))
        galaxy = [
            str(programs / "ansible-galaxy"),
            "collection",
            "build",
            "--output-path",
            str(dist),
        ]
        wheel = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(dist)]
        for command in (galaxy, wheel):
            subprocess.run(command, cwd=target, check=True, stdin=subprocess.DEVNULL)
    print("\n".join(sorted(str(path.relative_to(ROOT)) for path in dist.iterdir())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
