# SPDX-License-Identifier: Apache-2.0
"""Why a model cannot be loaded, or is not to be, for the files which its configuration names, and
for other names that a shell gets; pure.

The Python backend starts a model with a line for bash in which the names stand as they are, and so
do the backends that are written in Python: a space ends the name, after which Triton waits without
end, and ``$(…)`` is carried out. ``tests/integration/test_named_files.py`` asks a real server.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator

from .backends import ENVIRONMENT_KEY, LIBRARIES
from .config_pbtxt import ModelConfig

_MODEL_FOLDER = "$$TRITON_MODEL_DIRECTORY"
_RUNS = re.compile(r"[$`;&|<>\n\r]")
_SPLITS = re.compile(r"[^A-Za-z0-9._+=@,:%^~#!/\u0080-\U0010ffff-]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_WRITE = "write it with letters from a to z, digits and . _ + = @ - only"


def why_no_file(config: ModelConfig, backend: str, paths: Collection[str]) -> str | None:
    """Why the files which a configuration names keep the model from loading, with what to do; None
    where nothing speaks against it.

    Args:
        backend: that runs the model; "" where it is not known.
        paths: files of the model folder, and folders without a file.
    """
    reasons = [*_of_labels(config, paths)]
    if backend != "ensemble":  # it loads no file of a version
        reasons += _of_model_files(config, backend)
        reasons += _of_instances(config, backend)
        reasons += _of_warmup(config, paths)
        reasons += _of_environment(config, backend, paths)
    return reasons[0] if reasons else None


def _of_model_files(config: ModelConfig, backend: str) -> Iterator[str]:
    name = config.default_model_filename
    by_shell = backend not in LIBRARIES or bool(config.runtime)
    unsafe = (_SPLITS.search(name) or _NOT_ASCII.search(name)) if by_shell else _RUNS.search(name)
    if unsafe:
        yield (
            f"its default_model_filename '{name}' has {_shown(unsafe[0])}, and backends that are"
            f" written in Python hand it to a shell: rename the file, and {_WRITE}"
        )
    stem = posixpath.basename(name).removesuffix(".py")
    if backend == "python" and name.endswith(".py") and "." in stem:
        yield (
            f"its default_model_filename '{name}' has a dot before its ending, which Python takes"
            f" for a package: rename the file, such as to {stem.replace('.', '_')}.py"
        )
    for name in config.cc_model_filenames.values():
        if unsafe := _RUNS.search(name):
            yield (
                f"its cc_model_filenames have '{name}' with {_shown(unsafe[0])}, which a shell"
                f" would carry out: rename the file, and {_WRITE}"
            )


def _of_instances(config: ModelConfig, backend: str) -> Iterator[str]:
    """The name of an instance stands in the line for bash too."""
    by_shell = backend not in LIBRARIES or bool(config.runtime)
    for group in config.instance_group if by_shell else ():
        if unsafe := _SPLITS.search(group.name):
            yield (
                f"its instance_group '{group.name}' has {_shown(unsafe[0])}, and backends that are"
                f" written in Python hand the name to a shell: leave name out, or {_WRITE}"
            )


def _shown(character: str) -> str:
    return "a space" if character == " " else f"the character {character!r}"


def _of_labels(config: ModelConfig, paths: Collection[str]) -> Iterator[str]:
    for output in config.output:
        if name := output.label_filename:
            what = f"its output '{output.name}' has the label_filename '{name}'"
            yield from _of_file(what, name.lstrip("/"), paths, "label_filename")


def _of_warmup(config: ModelConfig, paths: Collection[str]) -> Iterator[str]:
    for sample in config.model_warmup:
        for name, tensor in sorted(sample.inputs.items()):
            if sample.batch_size and tensor.WhichOneof("input_data_type") == "input_data_file":
                file = tensor.input_data_file
                what = (
                    f"its model_warmup '{sample.name}' has the input_data_file '{file}' for"
                    f" '{name}'"
                )
                yield from _of_file(what, f"warmup/{file}", paths, "input_data_file")


def _of_file(what: str, name: str, paths: Collection[str], field: str) -> Iterator[str]:
    path = posixpath.normpath(name)
    if path.startswith(".."):  # where it leads to is not known
        return
    if _is_folder(path, paths):  # the server dies of it
        yield f"{what}, and {path} is a folder of the model: name a file"
    elif path not in paths:
        yield (f"{what}, and the model folder has no {path}: put it there, or leave {field} out")


def _is_folder(path: str, paths: Collection[str]) -> bool:
    return path == "." or any(other.startswith(f"{path}/") for other in paths)


def _of_environment(config: ModelConfig, backend: str, paths: Collection[str]) -> Iterator[str]:
    if ENVIRONMENT_KEY not in config.parameters or backend in LIBRARIES:
        return
    value = config.parameters[ENVIRONMENT_KEY].string_value
    what = f"its parameter {ENVIRONMENT_KEY} has '{value}'"
    rest = value.removeprefix(_MODEL_FOLDER)
    path = posixpath.normpath(rest.lstrip("/"))
    if rest == value or (rest and not rest.startswith("/")) or path.startswith(".."):
        if unsafe := _RUNS.search(rest):  # whether it is a folder is not known
            yield f"{what} with {_shown(unsafe[0])}, which a shell would carry out: {_WRITE}"
        return
    if _is_folder(path, paths):
        if unsafe := _SPLITS.search(path):
            yield (
                f"{what} with {_shown(unsafe[0])}, and the folder is handed to a shell: rename it,"
                f" and {_WRITE}"
            )
        elif backend == "python" and posixpath.normpath(f"{path}/bin/activate") not in paths:
            yield f"{what}, and the folder has no bin/activate: pack it with conda-pack"
    elif backend == "python" and path not in paths:
        yield (
            f"{what}, and the model folder has no {path}: put the archive there, or leave the"
            " parameter out"
        )
