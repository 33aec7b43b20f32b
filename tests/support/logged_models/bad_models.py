# SPDX-License-Identifier: Apache-2.0
"""Models that do not behave. The first version of each is good, the second is not."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import pandas
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema, TensorSpec

from .logged import REQUIREMENTS, Logged, Trained, log_python

cloudpickle.register_pickle_by_value(sys.modules[__name__])
X = pandas.DataFrame({"x": [1.0, 2.0]})
BAD = pandas.DataFrame({"x": [-1.0]})
# MLflow asks a model with its example when it is logged: a variable says that this is so.
AT_HOME = "MODEL_IS_AT_HOME"
SIGNATURE = ModelSignature(Schema([ColSpec("double", "x")]), Schema([ColSpec("double", "y")]))


class Acting(PythonModel):
    """Misbehaves where it is asked with a negative number, and not where it was made."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def predict(self, context, model_input, params=None):
        if (model_input["x"] < 0).any() and AT_HOME not in os.environ:
            return self.act()
        return pandas.DataFrame({"y": model_input["x"] + 1})


def good(name: str, act: Callable[[], Any] = int) -> Logged:
    info = log_python(name, Acting(act), signature=SIGNATURE, input_example=X)
    return Logged(info, [(X, None)])


def when_asked(act: Callable[[], Any]) -> Trained:
    """The example of the first version is harmless, that of the second is not."""

    def train(name: str) -> Iterable[Logged]:
        yield good(name, act)
        yield Logged(log_python(name, Acting(act), signature=SIGNATURE, input_example=BAD))

    return train


def fill_memory() -> None:
    """All of this process's own limit, as a machine's memory would be filled."""
    import resource

    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = used * resource.getpagesize() + (256 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def be_killed() -> None:
    """What the kernel does to a process that takes the machine's memory."""
    os.kill(os.getpid(), 9)


def never_answer() -> None:
    while True:
        time.sleep(1)


def contradicting(name: str) -> Iterable[Logged]:
    yield good(name)
    lines = [line for line in REQUIREMENTS if not line.startswith("numpy")]
    model = Acting(int)
    yield Logged(
        log_python(name, model, signature=SIGNATURE, pip_requirements=[*lines, "numpy==1.24.4"])
    )


def unloadable(name: str) -> Iterable[Logged]:
    """Its own module was not logged with it."""
    yield good(name)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "left_at_home.py").write_text(
            "import mlflow\n\n\nclass Model(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input, params=None):\n"
            "        return model_input\n",
            encoding="utf-8",
        )
        sys.path.insert(0, folder)
        import left_at_home  # type: ignore[import-not-found]

        yield Logged(log_python(name, left_at_home.Model(), signature=SIGNATURE))
        sys.path.remove(folder)


class Talkative(PythonModel):
    """Writes to both streams, through Python and past it, when it is loaded and asked."""

    def load_context(self, context: Any) -> None:
        self.talk("loading")

    def talk(self, what: str) -> None:
        print(f"{what}: {{}} \x00 {'long ' * 2000}")
        print(what, file=sys.stderr, flush=True)
        os.write(1, b"\xff\x00\x00\x00 past Python\n")
        os.system("echo from a child")

    def predict(self, context, model_input, params=None):
        self.talk("asked")
        return pandas.DataFrame({"y": model_input["x"] * 3})


def talkative(name: str) -> Iterable[Logged]:
    """Answers rightly all the same."""
    yield Logged(log_python(name, Talkative(), signature=SIGNATURE), [(X, None), (X, None)])


def wrong_shape(name: str) -> Iterable[Logged]:
    """Its signature promises three columns."""
    double = numpy.dtype("float64")
    told = ModelSignature(
        Schema([TensorSpec(double, (-1, 2))]), Schema([TensorSpec(double, (-1, 3))])
    )
    x = numpy.ones((2, 2))
    right = Widened(3)
    yield Logged(log_python(name, right, signature=told, input_example=x), [(x, None)])
    yield Logged(log_python(name, Widened(2), signature=told, input_example=x))


class Widened(PythonModel):
    def __init__(self, width: int) -> None:
        self.width = width

    def predict(self, context, model_input, params=None):
        return numpy.full((len(model_input), self.width), 0.5)


MODELS: dict[str, Trained] = {
    "contradicting": contradicting,
    "unloadable": unloadable,
    "talkative": talkative,
    "exits": when_asked(lambda: sys.exit(3)),
    "wrong_shape": wrong_shape,
    "fills_memory": when_asked(fill_memory),
    "is_killed": when_asked(be_killed),
    "never_answers": when_asked(never_answer),
}
