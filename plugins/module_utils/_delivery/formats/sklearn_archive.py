# SPDX-License-Identifier: Apache-2.0
"""What is in a file of scikit-learn, without scikit-learn and without running anything of it.

A skops archive is read as the JSON and the arrays that it is; a pickle by ``pickle_program``. What
either makes is inert, and not more than the file has bytes for.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import ArtifactError
from .given_file import opened, view_of
from .npy_file import read_npy
from .pickle_program import Bag, Name, Program
from .pickled_arrays import Array

# skops stores; somebody may have compressed it since, and leaves of many classes are mostly zeros.
_MOST_TIMES = 30
_SMALLEST_ROOM = 64 << 20
_MOST_ENTRIES = 1 << 20
# Unless the archive itself has more: JSON takes some 25 times its bytes.
_LARGEST_SCHEMA = 8 << 20
_DEEPEST = 200
_NUMPY_NAMES = frozenset({"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"})
# As types, of an encoder for one; numbers are made by "scalar".
_NUMPY_TYPES = frozenset(
    {"bool", "bool_", "float16", "float32", "float64", "object_", "str_"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
# The last is what a preprocessor checks its columns with; a bag of it can do nothing.
_OTHERS = frozenset(
    {("copyreg", "_reconstructor"), ("functools", "partial"), ("_codecs", "encode")}
)
_PLAIN = frozenset(
    {"set", "frozenset", "list", "dict", "tuple", "slice", "bytes", "bytearray", "object"}
)


@dataclass(frozen=True)
class Outline:
    """A file of whatever classes as inert values.

    Attributes:
        root: what it holds.
        foreign: the first name that is not scikit-learn's; None where all are.
        room: the bytes that arrays which lie in it may have together.
    """

    root: object
    foreign: Name | None
    room: int


def read_outline(path: str) -> Outline:
    """Read a skops archive or a pickle of whatever classes. Nothing of it is run: each name that a
    pickle asks for is a bag of values.

    Raises:
        ArtifactError: neither, or a damaged one.
    """
    with opened(path) as file:
        try:
            if zipfile.is_zipfile(file):
                return _Skops(file).read()
            data = view_of(file)
            program = Program(data, _is_known)
            root = program.run()
            return Outline(root, program.foreign, len(data))
        except ArtifactError as error:
            said = error.message
        except RecursionError:
            said = "it is nested too deeply"
        except _DAMAGED as error:
            said = f"{type(error).__name__}: {error}"
    raise ArtifactError(f"{path} is not a whole pickle or skops archive ({said})")


# What the standard library's readers of zip archives and JSON raise for a damaged one.
_DAMAGED = (
    zipfile.BadZipFile,
    zipfile.zlib.error,  # type: ignore[attr-defined]
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def estimator_of(outline: Outline, path: str) -> Bag:
    """The model of scikit-learn in a file that was read.

    Raises:
        ArtifactError: none, or a pickle that would run something.
    """
    if (foreign := outline.foreign) is not None:
        raise ArtifactError(
            f"the pickle asks for {foreign.origin}, which is not scikit-learn's: a pickle is a"
            " program, and this one was not run; log the model with serialization_format='skops',"
            " or as ONNX"
        )
    if not isinstance(outline.root, Bag):
        raise ArtifactError(
            f"{path} holds a {type(outline.root).__name__} and no model of scikit-learn"
        )
    return outline.root


def read_estimator(path: str) -> Bag:
    """Read a skops archive or a pickle.

    Raises:
        ArtifactError: neither, a damaged one, or a pickle that would run something.
    """
    return estimator_of(read_outline(path), path)


def feature_names(root: object) -> tuple[str, ...]:
    """The names of the columns that an estimator was trained on; none where they had no names."""
    found = root.values.get("feature_names_in_") if isinstance(root, Bag) else None
    if isinstance(found, Array):
        textual = found.type.holds_objects or found.type.code[0] == "U"
        found = found.tolist() if textual and len(found.shape) == 1 else None
    named = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if isinstance(found, list) and named else ()


def _is_known(asked: Name) -> bool:
    module, name = asked
    top = module.partition(".")[0]
    if top == "sklearn" or (top == "numpy" and module.startswith("numpy.random")):
        return True
    if top == "numpy" and name in _NUMPY_NAMES:
        return True
    if module == "numpy" and name in _NUMPY_TYPES:
        return True
    return asked in _OTHERS or (module == "builtins" and name in _PLAIN)


def room_of(size: int) -> int:
    """The bytes that an archive of ``size`` bytes may have when it is unpacked."""
    return max(_SMALLEST_ROOM, _MOST_TIMES * size)


class _Skops:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._known: dict[object, Any] = {}
        self._read: dict[str, memoryview] = {}

    def read(self) -> Outline:
        size = self._file.seek(0, 2)
        room = room_of(size)
        with zipfile.ZipFile(self._file) as self._archive:
            entries = self._archive.infolist()
            self._entries = {entry.filename: entry for entry in entries}
            if "schema.json" not in self._entries:
                raise ArtifactError("it is a zip archive without schema.json")
            if len(entries) > _MOST_ENTRIES:
                raise ArtifactError(f"it has {len(entries)} entries, of {_MOST_ENTRIES} at most")
            if sum(one.file_size for one in entries) > room:
                raise ArtifactError(
                    f"it would have more than {room >> 20} MiB when unpacked, of {size} bytes:"
                    " write it with skops.io.dump without a compression"
                )
            if self._entries["schema.json"].file_size > max(_LARGEST_SCHEMA, size):
                raise ArtifactError("its schema.json has more bytes than the archive")
            document = json.loads(bytes(self._bytes("schema.json")))
            return Outline(self._value(document, 0), None, room)

    def _bytes(self, name: str) -> memoryview:
        """An entry; one that is named again is not unpacked again."""
        if name not in self._read:
            entry = self._entries[name]
            # Others unpack at once what a few bytes of them ask for.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ArtifactError(f"{name} is packed as skops does not pack")
            with self._archive.open(entry) as stream:
                data = stream.read(entry.file_size)
            if len(data) != entry.file_size:
                raise ArtifactError(f"{name} has not the bytes that the archive says")
            self._read[name] = memoryview(data)
        return self._read[name]

    def _value(self, node: object, depth: int) -> Any:
        """What a node stands for. One that occurs again is only named."""
        if not isinstance(node, Mapping):
            return None
        if depth > _DEEPEST:
            raise ArtifactError("it is nested too deeply")
        key = node.get("__id__")
        key = key if isinstance(key, (str, int)) else None
        if node.get("__loader__") == "CachedNode":
            return self._known.get(key)
        found = self._new(node, depth + 1)
        if key is not None:
            self._known[key] = found
        return found

    def _new(self, node: Mapping[str, object], depth: int) -> Any:
        loader, content = node.get("__loader__"), node.get("content")
        if loader in ("BytesNode", "BytearrayNode"):
            return self._bytes(str(node["file"]))
        if loader == "JsonNode":
            return json.loads(content) if isinstance(content, str) else None
        if loader == "NdArrayNode":
            return self._array(node, depth)
        if isinstance(content, list):
            return [self._value(item, depth) for item in content]
        if loader == "DictNode" and isinstance(content, Mapping):
            return {key: self._value(item, depth) for key, item in content.items()}
        made = Bag(f"{_word(node, '__module__')}.{_word(node, '__class__')}")
        if isinstance(content, Mapping) and "__loader__" in content:
            made.add(self._value(content, depth))
        # Types, functions, random generators: none of them is part of what a forest answers.
        return made

    def _array(self, node: Mapping[str, object], depth: int) -> Any:
        if node.get("type") == "numpy":
            array = read_npy(self._bytes(str(node["file"])))
            return array if array.shape else array.tolist()
        content = node.get("content")
        if not isinstance(content, list):
            return self._value(content, depth)
        return [self._value(item, depth) for item in content]


def _word(node: Mapping[str, object], key: str) -> str:
    found = node.get(key)
    return found if isinstance(found, str) else ""
