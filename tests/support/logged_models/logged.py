# SPDX-License-Identifier: Apache-2.0
"""What one model's program hands back to log.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import mlflow

# What is installed here, as MLflow itself would say: the same for all models, so that they share
# one environment where they are served.
LIBRARIES = ("mlflow-skinny", "cloudpickle", "numpy", "pandas", "scikit-learn", "scipy")
REQUIREMENTS = [f"{name}=={version(name)}" for name in LIBRARIES]


@dataclass(frozen=True)
class Logged:
    """A registered version, and what it is to be asked: inputs with params of the signature."""

    info: Any
    requests: list[tuple[Any, dict[str, Any] | None]] = field(default_factory=list)


Trained = Callable[[str], Iterable[Logged]]


def log_sklearn(name: str, model: Any, **more: Any) -> Any:
    return mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name=name,
        # MLflow would find out what the model needs by importing it in another process, for 3 s.
        pip_requirements=REQUIREMENTS,
        serialization_format="cloudpickle",
        **more,
    )


def log_python(name: str, model: Any, **more: Any) -> Any:
    more = {"pip_requirements": REQUIREMENTS, **more}
    return mlflow.pyfunc.log_model(
        name="model", python_model=model, registered_model_name=name, **more
    )
