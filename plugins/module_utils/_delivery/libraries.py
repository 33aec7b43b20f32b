# SPDX-License-Identifier: Apache-2.0
"""Third-party imports, made where they are needed and turned into a sentence where they fail.

The doc fragment ``libraries`` names the same packages and minimum versions.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingLibrary

MINIMUM = {
    "mlflow": "mlflow-skinny>=2.11.3,<4",
    "tritonclient": "tritonclient[http,grpc]>=2.41",
    "boto3": "boto3>=1.36",
    "requests": "requests",
    "yaml": "PyYAML",
    "onnx": "onnx",
    "treelite": "treelite>=4.4,<5",
    "model_signing": "model-signing>=1.1,<2",
    # Before 1.0 uv changes its words and options between minor releases: both are relied upon.
    "uv": "uv>=0.9,<1",
}
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def require(library: str, purpose: str) -> Iterator[None]:
    """``with require("mlflow", "to read the registry"): import mlflow``.

    Raises:
        MissingLibrary: with the import's traceback in ``facts["import_traceback"]``.
    """
    try:
        # Libraries as large as MLflow import in circles, which two threads at once must not enter
        # from different sides.
        with _ONE_AT_A_TIME:
            yield
    except ImportError as error:
        package = MINIMUM.get(library, library)
        raise MissingLibrary(
            f"the Python library '{package}' is needed {purpose} and cannot be imported by"
            f" {sys.executable} ({error})",
            library=library,
            import_traceback=traceback.format_exc(),
        ) from error
