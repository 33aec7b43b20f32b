# SPDX-License-Identifier: Apache-2.0
"""A model of this host becomes a version in the registry: observe, plan, apply.

A version is known by its content id, kept as a tag, so that the same content is published once; the
digest of its bytes is another tag. The version is made last, when all files are there: a
publication that breaks leaves none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ..artifacts.places import PlaceRefused
from ..artifacts.roots import LocalRoot, Progress
from ..domain.manifest import DIGEST_TAG, MANIFEST_NAME, FileEntry, Manifest, sha256
from ..domain.provenance import SIGNATURE_NAME
from ..domain.published import (
    LARGEST_MANIFEST,
    PUBLISHED_SCHEMA,
    SCHEMA_TAG,
    PublishedManifest,
    read_published,
)
from ..errors import ArtifactError, DeliveryError, InvalidOption, NotFound
from ..formats.mlmodel import example_id, in_words
from ..formats.tensorrt import check_tags
from ..outside import JsonDict, JsonObject, Options
from ..progress import set_model
from ..registry.registry import Registry, VersionInfo
from ..registry.status_tags import with_block, without_block
from ..trust.signing import is_signed_by, read_signing_key
from .comparison import COMPARED_TAG
from .local_model import LocalModel, compared, read_local_model
from .upload import upload
from .upload_location import UploadLocation, close_location, make_location

CONTENT_TAG = "triton.content"
BACKEND_TAG = "triton.backend"
EXAMPLE_TAG = "triton.example"
SIGNER_TAG = "triton.signer"
"""Who signed a version, as ``SigningKey.name`` has it; what it says is not proven."""
_OWN_TAGS = (
    DIGEST_TAG,
    SCHEMA_TAG,
    CONTENT_TAG,
    BACKEND_TAG,
    EXAMPLE_TAG,
    COMPARED_TAG,
    SIGNER_TAG,
)
NEW = "new"
_LARGEST_LIST = 64 << 20
# A version's files lie in <experiment>/models/<id>/artifacts or
# <experiment>/<run>/artifacts/triton.
_DEPTH = 3
_ALIAS = re.compile(r"(?!(?i:latest|v[0-9]+)$)[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class DesiredPublication:
    """What should be in the registry. What is None or empty stays as it is; symbolic links may lead
    anywhere below ``root``.
    """

    name: str
    path: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    root: str | None = None
    experiment: str | None = None
    config: JsonObject | None = None
    input_example: JsonObject | None = None
    check_files: bool = False
    sign: JsonObject | None = field(default=None, repr=False)
    """With what key, see ``trust.signing``; the secrets in it are in no text of this value."""

    @classmethod
    def from_options(cls, options: Options) -> DesiredPublication:
        """Build from a module's parameters."""
        texts = {
            str(key): value if isinstance(value, str) else json.dumps(value, default=str)
            for key, value in (options.get("tags") or {}).items()
        }
        return cls(
            **{
                **options,
                "aliases": tuple(options.get("aliases") or ()),
                "tags": texts,
                "check_files": bool(options.get("check_files")),
            }
        )

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or ":" in self.name:
            raise InvalidOption(
                "a registered model's name is not empty and has no '/' and no ':'", model=self.name
            )
        for alias in self.aliases:
            if not _ALIAS.fullmatch(alias):
                raise InvalidOption(
                    f"the alias '{alias}' is not possible: letters, digits, _ and -, and neither"
                    " 'latest' nor 'v' with a number",
                    model=self.name,
                )
        for tag in _OWN_TAGS:
            if tag in self.tags:
                raise InvalidOption(
                    f"the tag '{tag}' is set by the publication itself", model=self.name
                )
        check_tags(self.tags)


@dataclass(frozen=True)
class ObservedPublication:
    """What the registry has. ``same`` is the version with this content, ``newest`` the one before a
    new one.

    ``lost`` is a version that has this content and whose files are gone or others; ``root`` is
    where those of ``same`` are.
    """

    exists: bool
    aliases: Mapping[str, int]
    same: VersionInfo | None = None
    newest: VersionInfo | None = None
    newest_manifest: PublishedManifest | None = None
    lost: VersionInfo | None = None
    root: str | None = None


@dataclass(frozen=True)
class PublicationPlan:
    """What is to be done; ``before`` and ``after`` are what a user sees in a diff."""

    desired: DesiredPublication
    model: LocalModel
    version: int | None
    """The version that has this content already."""
    makes_model: bool
    moved_aliases: tuple[str, ...]
    changed_tags: Mapping[str, str]
    new_description: str | None
    before: JsonObject
    after: JsonObject
    actions: tuple[str, ...]
    found_digest: str | None = None
    found_signer: str | None = None
    lost: int = 0
    """A version with this content whose files are gone or others."""
    root: str | None = None
    """Where the files of the version are that has this content."""

    @property
    def warnings(self) -> tuple[str, ...]:
        said = [self.model.warning] if self.model.warning else []
        if self.lost:
            said.append(
                f"version {self.lost} of '{self.desired.name}' has this content, and its files are"
                " gone or not those that were published: it is published anew"
            )
        return tuple(said)

    @property
    def changed(self) -> bool:
        return bool(self.actions)

    def as_diff(self) -> JsonDict:
        return {
            "before": dict(self.before),
            "after": dict(self.after),
            "before_header": self.desired.name,
            "after_header": self.desired.name,
        }

    @property
    def signer(self) -> str | None:
        """Who signed the version, or signs it; None where it is not known of anybody."""
        return self.model.key.name if self.model.key else self.found_signer

    @property
    def digest(self) -> str | None:
        """Of the manifest which the version has; None where there is none yet: MLmodel names what
        MLflow only then makes.
        """
        return self.found_digest


@dataclass(frozen=True)
class Published:
    """The version that now has the content."""

    name: str
    version: int
    artifact_uri: str
    digest: str | None
    warnings: tuple[str, ...] = ()


def plan_publication(registry: Registry, desired: DesiredPublication) -> PublicationPlan:
    """Compare the model of this host with the registry. Reads only.

    Raises:
        DeliveryError: nothing that could be published, or the registry does not answer.
    """
    try:
        model = read_local_model(
            desired.path, desired.name, desired.root, desired.config, desired.input_example
        )
        model = replace(model, key=read_signing_key(desired.sign))
        found = observe_publication(registry, desired.name, model, desired.check_files)
        # What is there already is not judged again, nor are libraries imported for it.
        return _plan(desired, model if found.same else compared(model, desired.path), found)
    except DeliveryError as error:
        error.about(model=desired.name, left="nothing was published")
        raise


def observe_publication(
    registry: Registry, name: str, model: LocalModel, check_files: bool = False
) -> ObservedPublication:
    """Ask the registry for the model, for this content, and where it is new, for the content before
    it.

    Args:
        check_files: ask for the list of the files of a version that has the content, and not for
            what describes them alone.
    """
    try:
        info = registry.model_info(name, with_versions=False)
    except NotFound:
        return ObservedPublication(False, {})
    same = next(iter(registry.search(name, _identity(model), limit=1)), None)
    root = registry.artifact_root(name, same.version) if same else None
    if same and root:
        digest = same.tags.get(DIGEST_TAG)
        if _has_files(registry, root, check_files, digest, model):
            return ObservedPublication(True, info.aliases, same, root=root)
    newest = same or next(iter(registry.search(name, limit=1)), None)
    manifest = _manifest_of(registry, newest) if newest else None
    return ObservedPublication(True, info.aliases, None, newest, manifest, lost=same)


def _has_files(
    registry: Registry, root: str, check_files: bool, digest: str | None, model: LocalModel
) -> bool:
    """Whether a version still has what was published: the manifest that its tag names, and MLmodel
    as that has it, which names the content (a tag is anybody's who may write tags), and the
    signature of a key that is to sign; with ``check_files``, whether all of
    its files are listed with their sizes.
    """
    try:
        files = registry.files_at(root)
    except PlaceRefused:
        if check_files:
            raise
        # Nothing is read there, so that nothing can be said of it.
        return True
    if isinstance(files, LocalRoot) and not os.path.isdir(
        os.path.join(files.folder, *[os.pardir] * _DEPTH)
    ):
        # A folder that this host does not share with the registry: nothing can be said of it.
        return True
    try:
        described = files.read("MLmodel", limit=LARGEST_MANIFEST)
        text = files.read(MANIFEST_NAME, limit=LARGEST_MANIFEST)
        key = model.key
        signature = files.read(SIGNATURE_NAME, limit=LARGEST_MANIFEST) if key else b""
        listed = {file.path: file.size for file in files.list()} if check_files else None
    except NotFound:
        return False
    try:
        manifest = read_published(text)
    except ArtifactError:
        return False
    return (
        manifest.digest == digest
        and model.content.encode() in described
        and (key is None or is_signed_by(key, signature, str(sha256(text))))
        and FileEntry("MLmodel", len(described), sha256(described)) in manifest.files
        and (
            listed is None or all(listed.get(entry.path) == entry.size for entry in manifest.files)
        )
    )


def _identity(model: LocalModel) -> dict[str, str]:
    """The tags by which a version is known."""
    return {
        CONTENT_TAG: model.content,
        # What was published with a manifest that covers less is published anew.
        SCHEMA_TAG: str(PUBLISHED_SCHEMA),
        **({EXAMPLE_TAG: example_id(model.example)} if model.example else {}),
        # What nobody signed, or somebody else, is published anew where this key is to sign.
        **({SIGNER_TAG: model.key.name} if model.key else {}),
    }


def _manifest_of(registry: Registry, version: VersionInfo) -> PublishedManifest | None:
    with suppress(DeliveryError):
        root = registry.artifact_root(version.name, version.version)
        return read_published(registry.files_at(root).read(MANIFEST_NAME, limit=LARGEST_MANIFEST))
    return None


def _plan(
    desired: DesiredPublication, model: LocalModel, found: ObservedPublication
) -> PublicationPlan:
    same = found.same
    digest = same.tags.get(DIGEST_TAG) if same else None
    number: int | str = same.version if same else NEW
    aliases = tuple(
        alias for alias in desired.aliases if not same or found.aliases.get(alias) != same.version
    )
    tags = {
        key: value for key, value in desired.tags.items() if not same or same.tags.get(key) != value
    }
    # What deployments noted in a description is no part of it.
    describes = desired.description is not None and (
        not same or without_block(same.description) != desired.description
    )
    return PublicationPlan(
        desired,
        model,
        same.version if same else None,
        not found.exists,
        aliases,
        tags,
        (
            with_block(desired.description, same.tags if same else {})
            if describes and desired.description is not None
            else None
        ),
        _document(
            desired,
            same or found.newest,
            found.aliases,
            _model_files(found.newest_manifest) or (same and model.manifest) or None,
        ),
        {
            "name": desired.name,
            "version": number,
            "digest": (digest or "") if same else NEW,
            "files": _files(model.manifest),
            "aliases": dict.fromkeys(desired.aliases, number),
            "tags": {**({} if same else model.tags), **desired.tags},
            "description": _wanted_description(desired, model, same),
            **({"signer": model.key.name} if model.key else {}),
        },
        tuple(_actions(desired, model, found, aliases, tags, describes)),
        digest,
        same.tags.get(SIGNER_TAG) if same else None,
        found.lost.version if found.lost else 0,
        found.root,
    )


def _wanted_description(
    desired: DesiredPublication, model: LocalModel, same: VersionInfo | None
) -> str:
    if desired.description is not None:
        return desired.description
    return without_block(same.description) if same else in_words(model.description)


def _document(
    desired: DesiredPublication,
    version: VersionInfo | None,
    aliases: Mapping[str, int],
    manifest: Manifest | None,
) -> JsonDict:
    if version is None:
        return {}
    return {
        "name": desired.name,
        "version": version.version,
        "digest": version.tags.get(DIGEST_TAG, ""),
        "files": _files(manifest) if manifest else {},
        "aliases": {alias: aliases[alias] for alias in desired.aliases if alias in aliases},
        "tags": {key: version.tags[key] for key in desired.tags if key in version.tags},
        "description": without_block(version.description),
        **({"signer": version.tags.get(SIGNER_TAG, "")} if desired.sign is not None else {}),
    }


def _model_files(manifest: PublishedManifest | None) -> Manifest | None:
    """What a version has of a model folder, with the paths that it has in there."""
    if manifest is None:
        return None
    if not manifest.covers_all:
        return Manifest.of(manifest.files, manifest.folders)
    inside = [(entry, entry.path.partition("/")[2]) for entry in manifest.files]
    return Manifest.of(
        (FileEntry(path, entry.size, entry.sha256) for entry, path in inside if path),
        (folder.partition("/")[2] for folder in manifest.folders),
    )


def _files(manifest: Manifest) -> dict[str, str]:
    files = {
        entry.path: f"{entry.size} bytes, sha256 {(entry.sha256 or 'unknown')[:16]}"
        for entry in manifest.files
    }
    return files | {f"{folder}/": "empty folder" for folder in manifest.folders}


def _actions(
    desired: DesiredPublication,
    model: LocalModel,
    found: ObservedPublication,
    aliases: tuple[str, ...],
    tags: Mapping[str, str],
    describes: bool,
) -> list[str]:
    if not found.same:
        made = [] if found.exists else [f"make the registered model '{desired.name}'"]
        if model.key:
            made.append(f"sign it as {model.key}")
        count, size = len(model.manifest.files), model.manifest.size
        made.append(
            f"upload {count} file{'s' * (count != 1)} ({size} bytes) and register them as a new"
            " version"
        )
        return made + [f"point alias '{alias}' at the new version" for alias in aliases]
    version = f"version {found.same.version}"
    return (
        [f"point alias '{alias}' at {version}" for alias in aliases]
        + [f"set tag '{key}' of {version}" for key in tags]
        + [f"set the description of {version}"] * describes
    )


def apply_publication(
    registry: Registry, plan: PublicationPlan, progress: Progress | None = None
) -> Published:
    """Do what the plan says.

    Args:
        progress: called with an artifact path and its bytes so far.

    Raises:
        DeliveryError: saying what was left in place.
    """
    desired, said = plan.desired, list(plan.warnings)
    set_model(desired.name)
    try:
        version, digest = (
            (plan.version, plan.digest)
            if plan.version is not None
            else _publish(registry, plan, progress, said)
        )
    except DeliveryError as error:
        error.about(model=desired.name, step="publish", left="no version was made")
        raise
    try:
        for alias in plan.moved_aliases:
            registry.set_alias(desired.name, alias, version)
        if plan.version is not None:
            for key, value in plan.changed_tags.items():
                registry.set_version_tag(desired.name, version, key, value)
            if plan.new_description is not None:
                registry.set_version_description(desired.name, version, plan.new_description)
        root = plan.root or registry.artifact_root(desired.name, version)
    except DeliveryError as error:
        error.about(model=desired.name, left=f"version {version} is in the registry")
        raise
    return Published(
        desired.name, version, root, digest, (*said, *_warn_of_twins(registry, plan, version))
    )


def _warn_of_twins(registry: Registry, plan: PublicationPlan, version: int) -> tuple[str, ...]:
    """Two publishers at the same moment may not see each other; what came of it is said."""
    if plan.version is not None:
        return ()
    with suppress(DeliveryError):
        return tuple(
            f"version {other.version} of '{other.name}' has the same content as version {version}:"
            " another publisher was at work"
            for other in _same_content(registry, plan)
            if other.version != version
        )
    return ()


def _same_content(registry: Registry, plan: PublicationPlan) -> list[VersionInfo]:
    """Versions that came to be meanwhile, the newest first."""
    return [
        found
        for found in registry.search(plan.desired.name, _identity(plan.model))
        if found.version > plan.lost
    ]


def _publish(
    registry: Registry, plan: PublicationPlan, progress: Progress | None, said: list[str]
) -> tuple[int, str | None]:
    """Returns the version and the digest of its manifest; ``said`` takes warnings."""
    desired, model = plan.desired, plan.model
    location, given_up = make_location(registry, desired.name, desired.experiment)
    if given_up:
        said.append(
            f"{given_up} publication{'s' * (given_up != 1)} of '{desired.name}' that had been"
            f" interrupted {'were' if given_up != 1 else 'was'} given up"
        )
    try:
        pieces, manifest = model.uploads(
            registry.mlflow_version, location.model_id, location.run_id
        )
        upload(registry, location.root, pieces, progress)
        if plan.makes_model:
            registry.create_model(desired.name)
        # The upload may have taken long enough for another publisher to be first.
        twin = next(iter(_same_content(registry, plan)), None)
        close_location(registry, location, whole=twin is None)
    except BaseException:
        with suppress(DeliveryError):
            close_location(registry, location, whole=False)
        raise
    if twin:
        return twin.version, twin.tags.get(DIGEST_TAG)
    return _register(registry, plan, location, manifest.digest), manifest.digest


def _register(
    registry: Registry, plan: PublicationPlan, location: UploadLocation, digest: str
) -> int:
    desired, model = plan.desired, plan.model
    tags = {
        **model.tags,
        **desired.tags,
        DIGEST_TAG: digest,
        **_identity(model),
        BACKEND_TAG: model.backend,
    }
    try:
        return registry.create_version(
            desired.name,
            location.source,
            location.run_id,
            location.model_id,
            {key: value for key, value in tags.items() if value},
            _wanted_description(desired, model, None),
        )
    except DeliveryError:
        # The version may have been made, and only the answer lost. Where that cannot be known
        # either, nothing is taken away.
        with suppress(DeliveryError):
            made = next(
                (
                    found
                    for found in _same_content(registry, plan)
                    if found.source == location.source
                ),
                None,
            )
            if made:
                return made.version
            close_location(registry, location, whole=False)
        raise
