# SPDX-License-Identifier: Apache-2.0
"""An environment is proven by its own Python, which imports what loads a model in it.

That runs the code of packages: without root's rights, with bounds, and without anything to write to
but a temporary folder.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable

from ..errors import DeliveryError
from ..redact import mask
from ..terminal import one_line
from .bounded import STEP, Bounds, Run, User, run

_SECONDS = 300
_MEMORY = 8 << 30
_OUTPUT = 64 << 20
# Where a package of this name is there, this can be imported, or nothing loads a model that has
# it. Of the others nobody knows which modules they have.
_MODULES = {
    "mlflow": "mlflow.pyfunc",
    "mlflow-skinny": "mlflow.pyfunc",
    "numpy": "numpy",
    "pandas": "pandas",
}
_IMPORT = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"


def prove(
    python: str, packages: Iterable[str], scratch: str, user: User | None, run: Run = run
) -> None:
    """Import.

    Args:
        scratch: a folder that ``user`` may write to.

    Raises:
        DeliveryError: what is missing, in Python's own words.
    """
    modules = sorted({_MODULES[name] for name in packages if name in _MODULES})
    bounds = Bounds(
        _SECONDS,
        (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, 2 * _SECONDS),
            (resource.RLIMIT_DATA, _MEMORY),
            (resource.RLIMIT_FSIZE, _OUTPUT),
        ),
    )
    ended = run(
        [python, "-I", "-B", "-c", _IMPORT, *modules],
        {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": scratch,
            "TMPDIR": scratch,
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        bounds,
        user,
        folder=scratch,
    )
    listed = ", ".join(modules) or "nothing"
    if ended.late:
        why = f"that did not end within {_SECONDS} seconds"
    elif ended.code < 0:
        why = f"that was ended by signal {-ended.code}"
    elif ended.code:
        last = ended.errors.strip().splitlines()[-1:] or [f"it ended with {ended.code}"]
        why = one_line(mask(last[0]))[:300]
    else:
        return
    raise DeliveryError(
        f"the environment was made, and does not work: {listed} cannot be imported in it ({why}):"
        " log the model again with packages that go together",
        step=STEP,
    )
