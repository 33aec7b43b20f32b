# SPDX-License-Identifier: Apache-2.0
"""The paths that a configuration names, and whether they stay in the model's folder; pure.

Two measures: what a user is warned of has left the folder, however it is written; what a policy
lets pass is written so that nobody can take it for anything else.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .allowed_parts import CACHE_KEYS, OWN_KEYS
from .backends import ENVIRONMENT_KEY
from .config_pbtxt import ModelConfig

MODEL_FOLDER = "$$TRITON_MODEL_DIRECTORY"
# Relative to the model's folder: Triton adds them to its path, absolute ones too.
_JOINED = "joined"
# Relative to a version folder, from which an absolute one leads away where a backend is written in
# Python.
_FILE = "file"
# Relative to what the server's working directory happens to be.
_AWAY = "away"
# The same, and nobody puts the model's folder in the place of its name.
_CACHE = "cache"
# Of parameters it is not known whether they are paths.
_TEXT = "text"

_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
_PART = r"[A-Za-z0-9_.\u0080-\U0010ffff][A-Za-z0-9_.+@ \u0080-\U0010ffff-]*"
_PLAIN = re.compile(f"{_PART}(?:/{_PART})*/?")
_URL = re.compile(r"https?://[^\s\"',;<>]*")
_WORDS = re.compile(r"[\s,;:=\"'()\[\]{}|<>&`?*#@!]+")


@dataclass(frozen=True)
class NamedPath:
    """A text of a configuration that is a path, or may be one.

    Attributes:
        what: where it stands, for sentences.
        kind: what a relative one is relative to.
        program: the model is one for the Python backend, whose texts are its own.
    """

    what: str
    value: str
    kind: str
    program: bool = False

    @property
    def leaves(self) -> bool:
        """It leads out of the model's folder, for whoever takes it for a path."""
        value = self.value.lstrip("/") if self.kind == _JOINED else self.value
        if self.kind != _TEXT:
            inside = _below_model(value)
            if inside is None or self.kind == _CACHE:
                return self.kind in (_AWAY, _CACHE) or _is_outside(value)
            return _is_outside(inside)
        rest = value.replace(MODEL_FOLDER, ".")
        return any(_is_outside(word) for word in _WORDS.split(_URL.sub("", rest)))

    def stays(self, folders: Collection[str]) -> bool:
        """It is in the model's folder or in one of these, beyond doubt."""
        value = self.value
        parts = re.split(r"[/\\]", value)
        if "\0" in value or ".." in parts:
            return False
        if any(_is_below(value, folder) for folder in folders):
            return True
        inside = None if self.kind == _CACHE else _below_model(value)
        if inside is not None:
            return not inside or _PLAIN.fullmatch(inside) is not None
        if self.program and self.kind == _TEXT:
            words = _WORDS.split(_URL.sub("", value))
            return not any(word.startswith(("/", "~", "$")) for word in words)
        if _ODD.search(value) or value.startswith("~") or "$" in value or "://" in value:
            return False
        if self.kind in (_AWAY, _CACHE):
            return False
        if self.kind == _TEXT and "/" not in value:
            return True
        return _PLAIN.fullmatch(value) is not None and (self.kind != _TEXT or " " not in value)


def _below_model(value: str) -> str | None:
    """What follows the name of the model's folder; None where the value does not begin with it."""
    rest = value.removeprefix(MODEL_FOLDER)
    if rest == value or (rest and not rest.startswith("/")):
        return None
    return rest.strip("/")


def _is_outside(value: str) -> bool:
    if value.startswith(("/", "~")):
        return True
    return posixpath.normpath(value).split("/")[0] == ".."


def _is_below(value: str, folder: str) -> bool:
    """An absolute path, and nothing but one, in a folder."""
    if _ODD.search(value) or "$" in value or not value.startswith("/") or value.startswith("//"):
        return False
    path, base = posixpath.normpath(value), posixpath.normpath(folder).rstrip("/")
    if path != base and not path.startswith(f"{base}/"):
        return False
    return not _WORDS.search(path[len(base) :].replace(" ", ""))


def text_of(what: str, value: str) -> NamedPath:
    """A text of which it is not known whether it is a path."""
    return NamedPath(what, value, _TEXT)


def named_paths(config: ModelConfig, backend: str) -> Iterator[NamedPath]:
    """All of a configuration.

    Args:
        backend: that runs the model; "" where it is not known.
    """
    if name := config.default_model_filename:
        yield NamedPath("its default_model_filename", name, _FILE)
    for key, name in sorted(config.cc_model_filenames.items()):
        yield NamedPath(f"its cc_model_filenames for {key}", name, _FILE)
    for output in config.output:
        if name := output.label_filename:
            yield NamedPath(f"the label_filename of its output '{output.name}'", name, _JOINED)
    for sample in config.model_warmup:
        for tensor, given in sorted(sample.inputs.items()):
            if name := given.input_data_file:
                what = f"the input_data_file of its model_warmup '{sample.name}' for '{tensor}'"
                yield NamedPath(what, name, _JOINED)
    for state in config.sequence_batching.state:
        for initial in state.initial_state:
            if name := initial.data_file:
                what = f"the data_file of its initial_state '{initial.name}'"
                yield NamedPath(what, name, _JOINED)
    for key, entry in sorted(config.parameters.items()):
        if key not in OWN_KEYS and entry.string_value:
            kind = _AWAY if key == ENVIRONMENT_KEY else _TEXT
            program = backend == "python"
            yield NamedPath(f"its parameter {key}", entry.string_value, kind, program)
    accelerators = config.optimization.execution_accelerators
    for one in (*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator):
        for key, text in sorted(one.parameters.items()):
            what = f"the parameter {key} of its accelerator {one.name}"
            yield NamedPath(what, text, _CACHE if key in CACHE_KEYS else _TEXT)


def warn_of_paths(config: ModelConfig, backend: str) -> tuple[str, ...]:
    """A sentence on each path that leaves the model's folder."""
    return tuple(
        f"{one.what} is {one.value!r}, which leads out of the model's folder: with allowed_paths,"
        " allowed_backends or model_code: refused such a model is refused"
        for one in named_paths(config, backend)
        if one.leaves
    )
