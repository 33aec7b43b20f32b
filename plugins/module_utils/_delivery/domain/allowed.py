# SPDX-License-Identifier: Apache-2.0
"""What may stand in a model's folder and configuration where the options of a place say so: what no
table of ``allowed_parts`` lists is refused by its name. And what of a model is code. Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from .allowed_amounts import too_much
from .allowed_parts import (
    CACHED_IN,
    DATA_BACKENDS,
    DOCUMENTS,
    FIELDS,
    LIBRARY_KEYS,
    OWN_KEYS,
    PARTS,
)
from .backends import ENVIRONMENT_KEY, FILES, LIBRARIES, STUB, backends_of
from .config_paths import named_paths
from .config_pbtxt import CONFIG_NAME, ModelConfig, is_ensemble

_BACKEND = re.compile(r"[A-Za-z0-9_-]+")
_VERSION = re.compile(r"[1-9][0-9]*")
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OFF = ("", "0", "false")
_TELL_AS_FOLDERS = ("model.onnx", "model.savedmodel")
_PROGRAM_ENDINGS = (".so", ".py", ".pyc", ".sh")
# What is code of backends that read no data, beside whatever else the model brings.
_PROGRAMS = {
    "python": (("model.py", ".py"), "the program"),
    "pytorch": ((".pt", ".pt2", ".pth"), "the TorchScript program"),
    "tensorflow": (("saved_model.pb", ".graphdef"), "the TensorFlow graph"),
    "dali": ((".dali", "dali.py"), "the DALI pipeline"),
    "vllm": (("model.json",), "what vLLM loads as says"),
}


@dataclass(frozen=True)
class Rules:
    """Options that say what a model may be made of.

    Attributes:
        backends: names of Triton's backends; None: all.
        paths: folders into which a configuration may point; None: the option is not set.
        code: whether a model may be code.
    """

    backends: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    code: bool = True

    def __bool__(self) -> bool:
        return self != Rules()

    @property
    def said(self) -> str:
        """The options that are set, as the end of a sentence."""
        named = [
            *(["allowed_backends"] if self.backends is not None else []),
            *([] if self.code else ["model_code: refused"]),
            *(["allowed_paths"] if self.paths is not None else []),
        ]
        return f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} set"


def why_not_allowed(
    rules: Rules, config: ModelConfig, files: Collection[str], folders: Collection[str] = ()
) -> str | None:
    """What of a model the rules do not allow, and the ways out; None where they allow all of it.

    Args:
        config: as it will be deployed.
        files: of the model folder, ``config.pbtxt`` not among them.
        folders: of the model folder, without a file.
    """
    found = _reasons(rules, config, sorted(files), sorted(folders))
    return next(found, None) if rules else None


def _reasons(
    rules: Rules, config: ModelConfig, files: list[str], folders: list[str]
) -> Iterator[str]:
    backends = backends_of(config, files)
    yield from _of_backends(rules, config, backends, [*files, *(f"{one}/" for one in folders)])
    if not rules.code and (code := code_of(config, files)):
        yield (
            f"{code} counts as code, and model_code: refused is set: publish it as ONNX, or as"
            " another model that is data, or set model_code: allowed"
        )
    backend = backends[0]
    yield from _of_fields(rules, config, backend)
    yield from _of_instances(rules, config)
    yield from _of_amounts(rules, config)
    yield from _of_parameters(rules, config, backend)
    yield from _of_accelerators(rules, config, backend)
    yield from _of_environment(rules, config, backend)
    for one in named_paths(config, backend):
        if not one.stays(rules.paths or ()):
            yield (
                f"{one.what} is {one.value!r}, which is no plain path in the model's folder or in"
                f" one of allowed_paths ({', '.join(rules.paths or ()) or 'none'}), and"
                f" {rules.said}: name a file of the model, or add the folder to allowed_paths"
            )
    yield from _of_files(rules, config, backend, files)
    for folder in folders:
        if why := _why_no_name(folder, backend):
            yield _say_brought(rules, folder, why)


# ---- the backend ---------------------------------------------------------------------------------


def _of_backends(
    rules: Rules, config: ModelConfig, backends: Collection[str], files: Collection[str]
) -> Iterator[str]:
    allowed = ", ".join(rules.backends or ()) or "none"
    if rules.backends is not None and (not backends or not set(backends) <= set(rules.backends)):
        what = (
            f"the backend {' or '.join(backends)}"
            if backends
            else "a backend that its configuration does not name"
        )
        yield f"it needs {what}, and allowed_backends has {allowed}"
    name_it = f"name the backend in {CONFIG_NAME} (config: {{backend: …}})"
    if not backends:
        yield f"its configuration names no backend, and {rules.said}: {name_it}"
    for backend in backends:
        if not _BACKEND.fullmatch(backend):
            yield (
                f"the name of its backend is {backend!r}, which may be a path, and {rules.said}:"
                " write it with letters, digits, _ and - only (config: {backend: …})"
            )
    if not (config.backend or config.platform or is_ensemble(config)):
        if config.default_model_filename or not _is_told_by_files(files):
            yield (
                "its configuration names no backend, and not each of its folders is a version with"
                f" a file that tells it, and {rules.said}: {name_it}"
            )
        return
    first = next(iter(backends), "")
    platforms = PARTS[first].platforms if first in PARTS else frozenset()
    if config.platform and config.backend and config.platform not in platforms:
        yield (
            f"its platform '{config.platform}' is none of the backend {first}, and {rules.said}:"
            " leave it out (config: {platform: null})"
        )


def _is_told_by_files(files: Collection[str]) -> bool:
    """Each folder is a version with a file from whose name Triton tells the backend: it asks the
    folder that comes first, whether that is a version or not.
    """
    told: dict[str, bool] = {}
    for path in files:
        head, slash, rest = path.partition("/")
        if slash:
            name, below, _rest = rest.partition("/")
            tells = name in _TELL_AS_FOLDERS if below else name in FILES
            told[head] = told.get(head, False) or (tells and bool(_VERSION.fullmatch(head)))
    return bool(told) and all(told.values())


# ---- the configuration ---------------------------------------------------------------------------


def _of_fields(rules: Rules, config: ModelConfig, backend: str) -> Iterator[str]:
    for path, name in _fields_in(config, ()):
        if name in FIELDS:
            continue
        top = path.partition(".")[0]
        out = f"config: {{{top}: null}}" if path == top else f"out of {CONFIG_NAME}"
        yield (
            f"its configuration has the field {path}, which is none that a model of the backend"
            f" {backend} is known to need, and {rules.said}: take it out"
            f"{f' ({out})' if path == top else f' {out}'}"
        )


def _fields_in(message: ModelConfig, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The fields that are set, in whatever message: path, and name as ``FIELDS`` has it."""
    for field, value in message.ListFields():
        path = (*above, field.name)
        yield ".".join(path), field.full_name.partition(".")[2]
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            values = [value[key] for key in sorted(value)] if inner is not None else []
        else:
            values = [*value] if isinstance(value, Sequence) else [value]
        for one in values:
            yield from _fields_in(one, path)


def _of_instances(rules: Rules, config: ModelConfig) -> Iterator[str]:
    """Backends that are written in Python hand the name to a shell."""
    for group in config.instance_group:
        if not _PLAIN_NAME.fullmatch(group.name):
            yield (
                f"its instance_group has the name {group.name!r}, which is not made of letters,"
                f" digits and . _ - only, and {rules.said}: leave it out (config: {{instance_group:"
                " null})"
            )


def _of_amounts(rules: Rules, config: ModelConfig) -> Iterator[str]:
    for what, field in too_much(config):
        yield (
            f"{what}, for which a server may fail with all that it serves, and {rules.said}: write"
            f" less, or leave it out (config: {{{field}: null}})"
        )


def _of_parameters(rules: Rules, config: ModelConfig, backend: str) -> Iterator[str]:
    known = PARTS[backend].parameters if backend in PARTS else None
    for key in sorted(config.parameters):
        if key in OWN_KEYS or key == ENVIRONMENT_KEY:
            continue
        if key in LIBRARY_KEYS or (known is not None and key not in known):
            why = (
                "which makes the server load a library"
                if key in LIBRARY_KEYS
                else f"which is none that the backend {backend} is known to take"
            )
            named = key if _WORD.fullmatch(key) else repr(key)
            yield (
                f"its configuration has the parameter {named}, {why}, and {rules.said}: take it out"
                f" (config: {{parameters: {{{named}: null}}}})"
            )


def _of_accelerators(rules: Rules, config: ModelConfig, backend: str) -> Iterator[str]:
    parts, accelerators = PARTS.get(backend), config.optimization.execution_accelerators
    for one in (*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator):
        known = parts.accelerators.get(one.name) if parts and parts.accelerators else None
        if parts and known is None:
            yield (
                f"its configuration has the accelerator {one.name!r}, which is none of the backend"
                f" {backend}, and {rules.said}: take it out (config: {{optimization: null}})"
            )
        for key, value in sorted(one.parameters.items()):
            if key in LIBRARY_KEYS or (known is not None and key not in known):
                yield (
                    f"its accelerator {one.name} has the parameter {key!r}, which is none that is"
                    f" known to load no code, and {rules.said}: take it out (config:"
                    " {optimization: null})"
                )
            place = CACHED_IN.get(key)
            if place and place not in one.parameters and value.lower() not in _OFF:
                yield (
                    f"its accelerator {one.name} has {key}, and no {place}, so that the server"
                    f" reads and writes in its working directory, and {rules.said}: add {place}"
                    " with a folder of allowed_paths, or take it out (config: {optimization: null})"
                )


def _of_environment(rules: Rules, config: ModelConfig, backend: str) -> Iterator[str]:
    """Its ``bin/activate`` is run. In the model's folder it is the publisher's program, which is
    the Python backend's own and nobody else's.
    """
    if ENVIRONMENT_KEY not in config.parameters or backend == "python":
        return
    value = config.parameters[ENVIRONMENT_KEY].string_value
    if not value.startswith("/"):
        yield (
            f"its parameter {ENVIRONMENT_KEY} is {value!r}, an environment of the model's own, and"
            f" {rules.said}: leave it out (config: {{parameters: {{{ENVIRONMENT_KEY}: null}}}}), or"
            " name one in a folder of allowed_paths"
        )


# ---- the files -----------------------------------------------------------------------------------


def _of_files(
    rules: Rules, config: ModelConfig, backend: str, files: Collection[str]
) -> Iterator[str]:
    named = _named_files(config)
    for path in files:
        if why := _why_no_part(path, backend, named):
            yield _say_brought(rules, path, why)


def _say_brought(rules: Rules, path: str, why: str) -> str:
    return (
        f"it brings {path!r}, {why}, and {rules.said}: take it out of the model folder, and publish"
        " the model again"
    )


def _named_files(config: ModelConfig) -> frozenset[str]:
    """The files outside version folders that a configuration names, as Triton finds them."""
    labels = [output.label_filename for output in config.output]
    warmup = [
        f"warmup/{tensor.input_data_file.lstrip('/')}"
        for sample in config.model_warmup
        for tensor in sample.inputs.values()
        if tensor.input_data_file
    ]
    states = [
        f"initial_state/{initial.data_file.lstrip('/')}"
        for state in config.sequence_batching.state
        for initial in state.initial_state
        if initial.data_file
    ]
    return frozenset(
        posixpath.normpath(name.lstrip("/")) for name in (*labels, *warmup, *states) if name
    )


def _why_no_part(path: str, backend: str, named: Collection[str]) -> str | None:
    """Why a file may not be part of a model; None where it may."""
    if why := _why_no_name(path, backend):
        return why
    head, _slash, rest = path.partition("/")
    parts = PARTS.get(backend)
    if parts is None or DOCUMENTS.fullmatch(posixpath.basename(path)):
        return None
    if not (rest and _VERSION.fullmatch(head)):
        is_named = path in named and not path.endswith(_PROGRAM_ENDINGS)
        return None if is_named else "which its configuration does not name"
    if parts.endings and path.endswith(parts.endings):
        return None
    if parts.files and parts.files.fullmatch(rest) and not path.endswith(_PROGRAM_ENDINGS):
        return None
    return f"which is none that a model of the backend {backend} is known to need"


def _why_no_name(path: str, backend: str) -> str | None:
    """Why nothing that a model brings, file or folder, may have this name; None where it may."""
    parts = path.split("/")
    if _ODD.search(path) or path.startswith("/") or {"", ".", ".."} & {*parts}:
        return "which has no plain name"
    if _is_library(path):
        return "which the server would load as a library"
    if STUB in parts and backend != "python":
        return "which the server would run as a program"
    if parts[0] == "configs":
        return "which may take the place of its configuration"
    return None


def _is_library(path: str) -> bool:
    """A folder is none, but stands where the server looks for one."""
    prefixes = ("libtriton_", "libtritonrepoagent_", "libtritoncache_")
    return any(name.startswith(prefixes) or name == "batchstrategy.so" for name in path.split("/"))


# ---- what is code --------------------------------------------------------------------------------


def code_of(config: ModelConfig, files: Collection[str]) -> str | None:
    """What a model makes the server run beside its backend, in words; None where it is data."""
    found = [*dict.fromkeys(_code_in(config, sorted(files)))]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found) or None


def _code_in(config: ModelConfig, files: list[str]) -> Iterator[str]:
    backends = backends_of(config, files)
    for backend in backends:
        if backend not in DATA_BACKENDS:
            yield _program_of(backend, config.default_model_filename, files)
    if not backends:
        yield "whatever a backend runs that its configuration does not name"
    yield from (f"the library {path}" for path in files if _is_library(path))
    if config.runtime:
        yield f"the runtime {config.runtime!r}"
    yield from (f"the library {name!r}" for name in config.model_operations.op_library_filename)
    yield from (
        f"the repository agent {one.name!r}" for one in config.model_repository_agents.agents
    )
    accelerators = config.optimization.execution_accelerators
    for keys in (
        {key: entry.string_value for key, entry in config.parameters.items()},
        *(one.parameters for one in accelerators.gpu_execution_accelerator),
        *(one.parameters for one in accelerators.cpu_execution_accelerator),
    ):
        yield from (f"the library {keys[key]!r}" for key in sorted(LIBRARY_KEYS & keys.keys()))
    if not LIBRARIES.union(["ensemble"]).issuperset(backends):
        if STUB in files:
            yield f"the program {STUB}"
        if ENVIRONMENT_KEY in config.parameters:
            yield f"the environment {config.parameters[ENVIRONMENT_KEY].string_value!r}"


def _program_of(backend: str, named: str, files: list[str]) -> str:
    if backend not in _PROGRAMS:
        return f"whatever the backend {backend} runs"
    endings, what = _PROGRAMS[backend]
    wanted = (f"/{named}", *endings) if named else endings
    found = next((path for one in wanted for path in files if path.endswith(one)), None)
    if backend == "vllm":
        return f"what vLLM loads as {found or 'model.json'} says"
    return f"{what} {found}" if found else what
