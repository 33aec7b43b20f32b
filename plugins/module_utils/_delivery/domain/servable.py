# SPDX-License-Identifier: Apache-2.0
"""What is known, before Triton is asked, to keep a model from loading. Pure.

Nothing is refused that is not certain: a backend of which it is not known what it needs may need
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..errors import ArtifactError, ConfigError
from . import config_pbtxt
from .backends import FIL_FILES, Loading, backends_of
from .config_pbtxt import ModelConfig
from .config_rules import why_refused
from .ensembles import why_no_ensemble
from .layout import META_NAME, OWN_FILES, STEP, Layout
from .manifest import Manifest
from .named_files import why_no_file
from .record import Record
from .releases import dated_fields, too_new

_LARGEST_BATCH = (1 << 31) - 1
_TREES = frozenset({"xgboost", "lightgbm", "sklearn"})


def refuse_unservable(
    config: ModelConfig, name: str, versions: Collection[int], paths: Iterable[str]
) -> None:
    """Refuse what Triton could not load.

    Args:
        config: as it will be deployed.
        versions: numbers of the version folders.
        paths: files of the model folder, and folders without a file.

    Raises:
        ConfigError, ArtifactError: with what would work.
    """
    present, loading = list(paths), Loading.of(config)
    told = backends_of(config, present)
    backend = told[0] if len(told) == 1 else ""
    reason = (
        why_no_ensemble(config, name)
        or why_refused(config, backend)
        or why_no_file(config, backend, present)
    )
    if reason:
        raise ConfigError(reason, step="read the configuration")
    loaded = loading.versions(versions)
    if versions and not loaded:
        raise ConfigError(
            "its version_policy loads none of its version folders"
            f" ({', '.join(map(str, sorted(versions)))}): leave it out (config: {{version_policy:"
            " null}), or name one of them",
            step="read the configuration",
        )
    if not config_pbtxt.is_ensemble(config):
        _refuse_unknown_backend(config, name, loaded, present)
    lacking = loading.lacking(versions, present)
    if lacking is not None:
        raise ArtifactError(_say_lacking(loading, lacking, present), step=STEP)


def _refuse_unknown_backend(
    config: ModelConfig, name: str, loaded: Collection[int], paths: Collection[str]
) -> None:
    """Triton tells a backend from files called model.*, or from a model's name of that form."""
    heads = {f"{version}/model." for version in loaded}
    if (
        backends_of(config, paths)
        or config.default_model_filename
        or "." in name
        or any(path.startswith(tuple(heads)) for path in paths)
    ):
        return
    raise ConfigError(
        f"{config_pbtxt.CONFIG_NAME} names no backend, and no file tells it (as model.onnx or"
        " model.py would): name it (config: {backend: …})",
        step="read the configuration",
    )


def _say_lacking(loading: Loading, version: int, paths: Collection[str]) -> str:
    wanted = " or ".join(loading.needed)
    endings = tuple(name[name.rfind(".") :] for name in loading.needed)
    others = [
        path.partition("/")[2]
        for path in paths
        if path.startswith(f"{version}/") and path.endswith(endings)
    ]
    if loading.needed == ("model.json",):  # of vLLM, which looks for no other name
        remedy = "name it so"
    elif len(others) == 1 and not loading.filename:
        remedy = f"name it so, or say config: {{default_model_filename: {others[0]}}}"
        wanted += f", only {others[0]}"
    elif loading.filename:
        remedy = "default_model_filename says so, and names a file of each version folder"
    else:
        remedy = "name it so, or say its name as config: {default_model_filename: …}"
    backend = loading.backend or loading.platform
    return f"version folder {version} has no {wanted}, which backend {backend} loads: {remedy}"


def refuse_layout(config: bytes, name: str, layout: Layout) -> None:
    """``refuse_unservable`` for a model folder that is to be made; what is converted gets its name
    then, of those that the backend looks for.
    """
    paths = [target for _source, target, _size in layout.files] + [*layout.folders]
    paths += [path for path in layout.paths if layout.pyfunc and path not in paths]
    taken = next((path for path in sorted(paths) if path.split("/")[0] in OWN_FILES), None)
    if taken and taken != META_NAME:
        raise ArtifactError(
            f"it has {taken!r} where {taken.split('/')[0]} is written: name the folder otherwise",
            step=STEP,
        )
    if layout.conversion in _TREES:
        paths += [f"{version}/{file}" for version in layout.versions for file in FIL_FILES.values()]
    message = config_pbtxt.parse(config)
    if layout.is_configured_later and not message.max_batch_size:
        message.max_batch_size = _LARGEST_BATCH  # the conversion may write any
    refuse_unservable(message, name, layout.versions, paths)


def refuse_deployed(config: bytes, record: Record) -> None:
    """``refuse_unservable`` for files that were deployed, under another configuration."""
    manifest = Manifest.from_dict(record.manifest)
    paths = [*(entry.path for entry in manifest.files), *manifest.folders]
    refuse_unservable(config_pbtxt.parse(config), record.name, record.triton_versions, paths)


def refuse_lacking(config: bytes, record: Record, versions: Collection[int]) -> None:
    """Refuse versions that were deployed, and lack what their backend looks for under this
    configuration. Triton waits without end for some of it.
    """
    manifest = Manifest.from_dict(record.manifest)
    paths = [*(entry.path for entry in manifest.files), *manifest.folders]
    loading = Loading.of(config_pbtxt.parse(config))
    lacking = loading.lacking(versions, paths)
    if lacking is not None:
        raise ArtifactError(_say_lacking(loading, lacking, paths), step=STEP)


def refuse_newer_fields(config: bytes, releases: Mapping[str, str | None]) -> None:
    """Refuse a field that one of the servers does not know.

    Args:
        config: as it will be deployed.
        releases: URL of a server → its version, None where that is not known.

    Raises:
        ConfigError: names the field, the line and the server.
    """
    for field in dated_fields(config):
        for url, release in releases.items():
            if too_new(field, release):
                since = ".".join(map(str, field.since))
                raise ConfigError(
                    f"{config_pbtxt.CONFIG_NAME} has the field '{field.name}' (line {field.line}),"
                    f" which Triton knows since {since} ({field.release}), and {url} is Triton"
                    f" {release}: take it out{_overlay(field.name)}",
                    step="compare with the server",
                )


def _overlay(field: str) -> str:
    top = field in config_pbtxt.new_message().DESCRIPTOR.fields_by_name
    return f" (config: {{{field}: null}})" if top else ""
