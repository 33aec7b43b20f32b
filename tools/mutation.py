# SPDX-License-Identifier: Apache-2.0
"""Changes decisions and recovery in small ways, and shows which changes no unit test minds.

    python tools/mutation.py [run|results|show NAME] …

Words go to mutmut, which the environment must have; ``run`` alone begins with a new copy. It works
on a copy under the name that Ansible gives the collection, because mutmut knows functions by the
path of their file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from collection_copy import ROOT, copy_collection

BASE = ROOT / ".cache/mutation"
COLLECTION = "ansible_collections/mlops/triton"
CORE = f"{COLLECTION}/plugins/module_utils/_delivery"
SETTINGS = f"""\
[tool.mutmut]
source_paths = ["{COLLECTION}/plugins"]
only_mutate = ["{CORE}/planning/*.py", "{CORE}/repository/recovery.py"]
also_copy = ["ansible_collections"]
pytest_add_cli_args_test_selection = ["{COLLECTION}/tests/unit/core"]
"""


def main() -> int:
    words = sys.argv[1:] or ["run"]
    if words == ["run"]:
        shutil.rmtree(BASE, ignore_errors=True)
        copy_collection(BASE)
        (BASE / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *words], cwd=BASE, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
