# SPDX-License-Identifier: Apache-2.0
"""Start Triton with exactly the models that the deployment records want.

    python3 start_triton --config server.json [--check | --prepare | --recover | --print | --health]

``start_triton`` is this folder, or the zip that role triton makes of it (``start_triton.pyz``).
Native runtime: run it with the Python of the virtual environment that holds nvidia-pytriton.
Container runtime: any Python 3.9 or newer inside the container. Only the standard library is used.

This file parses on every Python, because it says which one is needed.
"""

import os
import sys

OLDEST = (3, 9)
EXIT_CONFIG = 78
HERE = os.path.dirname(os.path.abspath(__file__))


def find_packages():  # type: () -> None
    """A zip holds all packages beside this file; a checkout or a wheel has them where they are."""
    if os.path.isdir(HERE):
        files = os.path.dirname(HERE)
        collection = os.path.dirname(os.path.dirname(os.path.dirname(files)))
        core = os.path.join(collection, "plugins", "module_utils")
        # Without this folder itself, whose files would be modules of their own.
        sys.path[:] = [files, core] + [place for place in sys.path if place != HERE]


def main():  # type: () -> int
    if sys.version_info[:2] < OLDEST:
        sys.stderr.write(
            "start_triton: Python {}.{} or newer is needed, and {} is Python {}.{}.\n".format(
                OLDEST[0], OLDEST[1], sys.executable, sys.version_info[0], sys.version_info[1]
            )
        )
        return EXIT_CONFIG
    find_packages()
    try:
        from start_triton.cli import main as start

        return start()
    except ImportError as error:
        sys.stderr.write(
            "start_triton: {} is incomplete ({}): install it again.\n".format(HERE, error)
        )
        return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main())
