# SPDX-License-Identifier: Apache-2.0
"""What is in a file of scikit-learn, without scikit-learn and without running anything of it.

A skops archive is read as the JSON and the arrays that it is. A pickle is a program: this reader
knows numpy's arrays, takes everything of scikit-learn for a bag of values, and refuses any other
name that the pickle asks for.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

from ..errors import ArtifactError
from ..libraries import require
from .pickled_arrays import PickledType, array_class, from_buffer, reconstruct, scalar

_LARGEST_SCHEMA = 1 << 30
_NUMPY_NAMES = frozenset({"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"})
# As types, of an encoder for one; numbers are made by "scalar".
_NUMPY_TYPES = frozenset(
    {"bool", "bool_", "float16", "float32", "float64", "object_", "str_"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
# What a preprocessor checks its columns with; a bag of it can do nothing.
_PARTIAL = ("functools", "partial")
_PLAIN = {
    "set": set,
    "frozenset": frozenset,
    "list": list,
    "dict": dict,
    "tuple": tuple,
    "slice": slice,
    "bytearray": bytearray,
}


class Bag:
    """An object of scikit-learn: its class by name, what it was made with, and its attributes."""

    origin = ""

    def __init__(self, *args: object, **_named: object) -> None:
        self.args = args
        self.values: dict[str, object] = {}

    def __new__(cls, *args: object, **_named: object) -> Bag:
        made = super().__new__(cls)
        made.args, made.values = args, {}
        return made

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.values.update(part)

    @property
    def kind(self) -> str:
        return self.origin.rpartition(".")[2]

    def get(self, name: str) -> Any:
        """An attribute.

        Raises:
            ArtifactError: a model that was never trained, or one of a version of scikit-learn that
                kept this elsewhere.
        """
        if name not in self.values:
            raise ArtifactError(
                f"its {self.kind} has no '{name}': it was not trained, or by an unknown version of"
                " scikit-learn"
            )
        return self.values[name]


class Outline(Bag):
    """An object of anybody, in a file that is read for what it is made of: what its class would do
    with a call, an item or a key is not done.
    """

    def __call__(self, *_args: object, **_named: object) -> Outline:
        return self

    def append(self, _item: object) -> None:
        """As a list's."""

    def extend(self, _items: object) -> None:
        """As a list's."""

    def __setitem__(self, key: object, value: object) -> None:
        self.values[str(key)] = value


def read_outline(path: str) -> object:
    """Read a skops archive or a pickle of whatever classes. Nothing of it is run: each name that a
    pickle asks for is a bag of values.

    Raises:
        ArtifactError: neither, or a damaged one.
        MissingLibrary: numpy.
    """
    return _read(path, _OutlineReader, "is not a whole pickle or skops archive")


def read_estimator(path: str) -> Bag:
    """Read a skops archive or a pickle.

    Raises:
        ArtifactError: neither, a damaged one, or a pickle that would run something.
        MissingLibrary: numpy.
    """
    found = _read(path, _Reader, "is no whole model of scikit-learn")
    if not isinstance(found, Bag):
        raise ArtifactError(f"{path} holds a {type(found).__name__} and no model of scikit-learn")
    return found


def feature_names(outline: object) -> tuple[str, ...]:
    """The names of the columns that an estimator was trained on; none where they had no names."""
    found = outline.values.get("feature_names_in_") if isinstance(outline, Bag) else None
    names = found.tolist() if hasattr(found, "tolist") else found
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if isinstance(names, list) and named else ()


def _read(path: str, reader: type[pickle.Unpickler], otherwise: str) -> object:
    with require("numpy", "to read a model of scikit-learn"):
        import numpy  # noqa: F401 - the readers below rely on it
    try:
        if zipfile.is_zipfile(path):
            return _Skops(path).read()
        with open(path, "rb") as file:
            return reader(file).load()
    except ArtifactError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ArtifactError(f"{path} {otherwise} ({type(error).__name__}: {error})") from error


class _Reader(pickle.Unpickler):
    """Finds no class but numpy's arrays and bags."""

    def find_class(self, module: str, name: str) -> Any:
        top = module.partition(".")[0]
        if top == "sklearn" or (top == "numpy" and module.startswith("numpy.random")):
            return bag_of(f"{module}.{name}")
        if top == "numpy" and name in _NUMPY_NAMES:
            return _of_numpy(name)
        if (module == "numpy" and name in _NUMPY_TYPES) or (module, name) == _PARTIAL:
            return bag_of(f"{module}.{name}")
        if module == "copyreg" and name == "_reconstructor":
            return _make_anew
        if module == "builtins" and (name in _PLAIN or name == "object"):
            return _PLAIN.get(name, object)
        raise ArtifactError(
            f"the pickle asks for {module}.{name}, which is not scikit-learn's: a pickle is a"
            " program, and this one was not run; log the model with serialization_format='skops',"
            " or as ONNX"
        )


class _OutlineReader(pickle.Unpickler):
    """Finds no class but numpy's arrays and outlines."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _NUMPY_NAMES:
            return _of_numpy(name)
        if module == "copyreg" and name == "_reconstructor":
            return _make_anew
        if module == "builtins" and (name in _PLAIN or name == "object"):
            return _PLAIN.get(name, object)
        return type("Outline", (Outline,), {"origin": f"{module}.{name}"})


def bag_of(origin: str) -> type[Bag]:
    return type("Bag", (Bag,), {"origin": origin})


def _of_numpy(name: str) -> Any:
    if name == "ndarray":
        return array_class()
    return {
        "dtype": PickledType,
        "_reconstruct": reconstruct,
        "scalar": scalar,
        "_frombuffer": from_buffer,
    }[name]


def _make_anew(kind: object, _base: object, _state: object) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, Bag)):
        raise ArtifactError("the pickle makes an object of a kind that is not scikit-learn's")
    return kind()


class _Skops:
    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[object, Any] = {}

    def read(self) -> Any:
        with zipfile.ZipFile(self._path) as self._archive:
            if (
                "schema.json" not in self._archive.namelist()
                or self._archive.getinfo("schema.json").file_size > _LARGEST_SCHEMA
            ):
                raise ArtifactError(f"{self._path} is no skops archive")
            return self._value(json.loads(self._archive.read("schema.json")))

    def _value(self, node: object) -> Any:
        """What a node stands for. One that occurs again is only named."""
        if not isinstance(node, Mapping):
            return None
        key = node.get("__id__")
        if node.get("__loader__") == "CachedNode":
            return self._known.get(key)
        found = self._known[key] = self._new(node)
        return found

    def _new(self, node: Mapping[str, object]) -> Any:
        loader, content = node.get("__loader__"), node.get("content")
        if loader in ("BytesNode", "BytearrayNode"):
            return self._archive.read(str(node["file"]))
        if loader == "JsonNode":
            return json.loads(str(content))
        if loader == "NdArrayNode":
            return self._array(node)
        if isinstance(content, list):
            return [self._value(item) for item in content]
        if loader == "DictNode" and isinstance(content, Mapping):
            return {key: self._value(item) for key, item in content.items()}
        if isinstance(content, Mapping) and "__loader__" in content:
            made = bag_of(f"{node.get('__module__')}.{node.get('__class__')}")()
            made.__setstate__(self._value(content))
            return made
        # Types, functions, random generators: none of them is part of what a forest answers.
        return bag_of(f"{node.get('__module__')}.{node.get('__class__')}")()

    def _array(self, node: Mapping[str, object]) -> Any:
        import numpy

        if node.get("type") != "numpy":
            content = node.get("content")
            return (
                [self._value(item) for item in content]
                if isinstance(content, list)
                else self._value(content)
            )
        return numpy.load(io.BytesIO(self._archive.read(str(node["file"]))), allow_pickle=False)
