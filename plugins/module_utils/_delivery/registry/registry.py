# SPDX-License-Identifier: Apache-2.0
"""The model registry: what a model URI means now, and what a registered model has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlsplit

from ..artifacts.roots import ArtifactRoot, LocalRoot
from ..artifacts.union import UnionRoot, listing_of
from ..deadline import Deadline
from ..domain.source import Source
from ..domain.uri import ModelUri, parse_model_uri
from ..effects import effect
from ..errors import InvalidOption, NotFound, RegistryError
from ..outside import JsonDict, MlflowObject
from ..redact import mask
from .answers import number
from .connection import UNKNOWN_ENDPOINT, Connection, code_of

_FEW = 20
_PAGE = 1000
_MOST = 1_000_000
_LOGGED_MODEL = re.compile(r"models:/+(m-[^/]+)")


@dataclass(frozen=True)
class VersionInfo:
    """A version of a registered model."""

    name: str
    version: int
    source: str
    status: str
    description: str
    run_id: str | None
    model_id: str | None
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    created: int
    """Milliseconds since 1970."""

    def to_dict(self) -> JsonDict:
        return {
            **asdict(self),
            "aliases": list(self.aliases),
            "model_uri": f"models:/{self.name}/{self.version}",
        }


@dataclass(frozen=True)
class ModelInfo:
    """A registered model and its versions, the newest first."""

    name: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    versions: tuple[VersionInfo, ...]

    def to_dict(self) -> JsonDict:
        return {
            "name": self.name,
            "description": self.description,
            "tags": dict(self.tags),
            "aliases": dict(self.aliases),
            "versions": [version.to_dict() for version in self.versions],
        }


class Registry(Connection):
    """One MLflow, asked with deadlines. Making it does no I/O and imports nothing."""

    def resolve(self, uri: ModelUri) -> Source:
        """Find out what a URI means now.

        Raises:
            NotFound: no such model, version, alias, run or folder; the message says what there is.
            RegistryError: MLflow refused, failed or did not answer within the time-out, all
                questions together.
        """
        if uri.kind == "folder":
            return _folder(uri)
        deadline = Deadline(self.timeout)
        match uri.kind:
            case "logged_model":
                return self._logged_model(uri, str(uri.model_id), deadline)
            case "run":
                return self._run(uri, deadline)
        found = self._ready(uri, deadline)
        root, beside = self._root_of(found.name, str(found.version), deadline)
        return Source(
            uri,
            found.name,
            self._number(found),
            uri.alias,
            mask(found.source or root),
            root,
            found.run_id or None,
            _model_id(found),
            dict(found.tags),
            beside,
        )

    def _root_of(self, name: str, version: str, deadline: Deadline) -> tuple[str, str | None]:
        """Where the files of a version are, and where further ones are beside them."""
        asked = set()
        while (name, version) not in asked:
            asked.add((name, version))
            root: str = self.ask(
                "resolve",
                self.client.get_model_version_download_uri,
                name,
                version,
                deadline=deadline,
            )
            if not root.startswith(("models:", "runs:")):
                return root, None
            meant = self._parsed(root)
            if meant.kind in ("logged_model", "run"):
                source = self.resolve(meant)
                return source.artifact_root, source.beside
            found = self._ready(meant, deadline)
            name, version = found.name, str(found.version)
        raise RegistryError(
            f"MLflow at {self.masked_uri} says that the files of version {version} of '{name}' are"
            " those of that version itself",
            step="resolve",
        )

    def _parsed(self, root: str) -> ModelUri:
        try:
            return parse_model_uri(root)
        except InvalidOption as error:
            raise RegistryError(
                f"MLflow at {self.masked_uri} says that the files lie at {mask(root)!r}, which is"
                " no place",
                step="resolve",
            ) from error

    def _number(self, version: MlflowObject) -> int:
        """The number of a version. Raises RegistryError."""
        return self._whole(version.version, f"a version of '{version.name}'")

    def _whole(self, value: object, what: str) -> int:
        return number(value, what, f"MLflow at {self.masked_uri}")

    def ready_version(self, uri: ModelUri) -> int:
        """The version that a URI of a registered model means now, wherever its files are.

        Raises:
            NotFound, RegistryError: as ``resolve``.
        """
        return self._number(self._ready(uri, Deadline(self.timeout)))

    def _ready(self, uri: ModelUri, deadline: Deadline) -> MlflowObject:
        try:
            found = self._version(uri, deadline)
        except (NotFound, RegistryError) as error:
            # A missing alias is an invalid value to MLflow.
            if (
                isinstance(error, NotFound)
                or uri.kind == "alias"
                and code_of(error) == "INVALID_PARAMETER_VALUE"
            ):
                raise self._absent(uri, deadline) from error
            raise
        if found.status != "READY":
            raise RegistryError(
                f"version {found.version} of '{found.name}' is not ready ({found.status})",
                step="resolve",
            )
        return found

    def version(self, uri: ModelUri) -> int:
        """The version number that an alias or ``latest`` means now: one question, where ``resolve``
        asks several.

        Raises:
            NotFound: there is none; ``resolve`` says what there is instead.
            RegistryError: as ``resolve``.
        """
        return self._number(self._version(uri, Deadline(self.timeout)))

    def _version(self, uri: ModelUri, deadline: Deadline) -> MlflowObject:
        match uri.kind:
            case "version":
                return self.ask(
                    "resolve",
                    self.client.get_model_version,
                    uri.name,
                    str(uri.version),
                    deadline=deadline,
                )
            case "alias":
                return self.ask(
                    "resolve",
                    self.client.get_model_version_by_alias,
                    uri.name,
                    uri.alias,
                    deadline=deadline,
                )
        found = self.ask(
            "resolve",
            self.client.search_model_versions,
            _named(uri.name),
            max_results=1,
            order_by=["version_number DESC"],
            deadline=deadline,
        )
        if not found:
            raise NotFound("no version")
        return found[0]

    def _absent(self, uri: ModelUri, deadline: Deadline) -> NotFound:
        """Say what there is instead."""
        try:
            model = self.ask(
                "resolve", self.client.get_registered_model, uri.name, deadline=deadline
            )
        except NotFound:
            return NotFound(
                f"the registry at {self.masked_uri} has no model '{uri.name}'",
                model=uri.name,
                step="resolve",
            )
        if uri.kind == "alias":
            there = ", ".join(sorted(model.aliases)) or "none"
            return NotFound(
                f"the registered model has no alias '{uri.alias}' (aliases there: {there})",
                model=uri.name,
                step="resolve alias",
            )
        numbers = [info.version for info in self._versions(str(uri.name), {}, deadline)]
        there = (
            ", ".join(map(str, numbers[:_FEW])) + (", …" if len(numbers) > _FEW else "") or "none"
        )
        wanted = f"no version {uri.version}" if uri.kind == "version" else "no version"
        return NotFound(
            f"the registered model has {wanted} (versions there: {there})",
            model=uri.name,
            step="resolve version",
        )

    def _logged_model(
        self, uri: ModelUri, model_id: str, deadline: Deadline, below: str = ""
    ) -> Source:
        if not hasattr(self.client, "get_logged_model"):
            raise RegistryError(
                "logged models (models:/m-…) need MLflow 3 on this host", step="resolve"
            )
        model = self.ask("resolve", self.client.get_logged_model, model_id, deadline=deadline)
        return Source(
            uri,
            None,
            None,
            None,
            _below(f"models:/{model_id}", below),
            _below(model.artifact_location, below),
            model.source_run_id or None,
            model_id,
            dict(model.tags or {}),
        )

    def _run(self, uri: ModelUri, deadline: Deadline) -> Source:
        """Since MLflow 3 what a run logs as a model lies under the logged model, not under the
        run; what it logged under the model's name besides, such as config.pbtxt, belongs to it.
        """
        run_id, path = str(uri.run_id), str(uri.path)
        run = self.ask("resolve", self.client.get_run, run_id, deadline=deadline)
        name, _slash, below = path.partition("/")
        model_id = self._logged_in_run(run, name, deadline)
        if model_id is not None:
            model = self._logged_model(uri, model_id, deadline, below)
            beside = _below(run.info.artifact_uri, path)
            if not listing_of(self.files_at(beside)).files:
                return model
            said = f"{model.source} and runs:/{run_id}/{path}"
            return replace(model, source=said, beside=beside)
        return Source(
            uri,
            None,
            None,
            None,
            f"runs:/{run_id}/{path}",
            _below(run.info.artifact_uri, path),
            run_id,
            None,
        )

    def _logged_in_run(self, run: MlflowObject, name: str, deadline: Deadline) -> str | None:
        if not hasattr(self.client, "search_logged_models") or "'" in name:
            return None
        token = None
        while True:
            try:
                page = self.ask(
                    "resolve",
                    self.client.search_logged_models,
                    [run.info.experiment_id],
                    filter_string=f"name = '{name}'",
                    page_token=token,
                    deadline=deadline,
                )
            except RegistryError as error:
                if code_of(error) == UNKNOWN_ENDPOINT:
                    return None  # a server of MLflow 2 has no logged models
                raise
            for model in page:
                if model.source_run_id == run.info.run_id:
                    return str(model.model_id)
            token = page.token
            if not token:
                return None

    def model_info(self, name: str, *, with_versions: bool = True) -> ModelInfo:
        """A registered model. Raises NotFound without such a model."""
        deadline = Deadline(self.timeout)
        try:
            model = self.ask("read", self.client.get_registered_model, name, deadline=deadline)
        except NotFound as error:
            raise NotFound(
                f"the registry at {self.masked_uri} has no model '{name}'", model=name, step="read"
            ) from error
        aliases = {
            alias: self._whole(version, f"the version of alias '{alias}'")
            for alias, version in (model.aliases or {}).items()
        }
        versions = self._versions(name, aliases, deadline) if with_versions else ()
        return ModelInfo(name, model.description or "", dict(model.tags), aliases, tuple(versions))

    def _versions(
        self, name: str, aliases: Mapping[str, int], deadline: Deadline
    ) -> list[VersionInfo]:
        return self._pages(_named(name), aliases, None, deadline)

    def search(
        self, name: str, tags: Mapping[str, str] | None = None, limit: int | None = None
    ) -> tuple[VersionInfo, ...]:
        """Versions that have all these tags, the newest first; their aliases are not told."""
        terms = [
            _named(name),
            *(f"tags.`{key}` = '{value}'" for key, value in (tags or {}).items()),
        ]
        return tuple(self._pages(" and ".join(terms), {}, limit, Deadline(self.timeout)))

    def _pages(
        self, question: str, aliases: Mapping[str, int], limit: int | None, deadline: Deadline
    ) -> list[VersionInfo]:
        found: list[VersionInfo] = []
        token = None
        while True:
            page = self.ask(
                "read",
                self.client.search_model_versions,
                question,
                max_results=limit or _PAGE,
                page_token=token,
                order_by=["version_number DESC"],
                deadline=deadline,
            )
            found += [self._info(version, aliases) for version in page]
            self._bound(len(found), "versions")
            token = page.token
            if not token or limit is not None and len(found) >= limit:
                return found[:limit]

    def names(self) -> tuple[str, ...]:
        """The names of all registered models."""
        deadline = Deadline(self.timeout)
        found: list[str] = []
        token = None
        while True:
            page = self.ask(
                "read", self.client.search_registered_models, page_token=token, deadline=deadline
            )
            found += [model.name for model in page]
            self._bound(len(found), "models")
            token = page.token
            if not token:
                return tuple(found)

    def artifact_root(self, name: str, version: int) -> str:
        """Where the files of a version are."""
        return self._root_of(name, str(version), Deadline(self.timeout))[0]

    def version_info(self, name: str, version: int) -> VersionInfo:
        """One version; its aliases are not told. Raises NotFound without it."""
        return self._info(self.ask("read", self.client.get_model_version, name, str(version)), {})

    def _info(self, version: MlflowObject, aliases: Mapping[str, int]) -> VersionInfo:
        return _version_info(version, self._number(version), aliases)

    def _bound(self, count: int, what: str) -> None:
        """One page after the other may come without end."""
        if count > _MOST:
            raise RegistryError(
                f"MLflow at {self.masked_uri} lists more than {_MOST} {what}", step="read"
            )

    def create_model(self, name: str) -> None:
        """Make a registered model; one that came to be meanwhile is as good."""
        try:
            self.change("create model", name, self.client.create_registered_model, name)
        except RegistryError as error:
            if code_of(error) != "RESOURCE_ALREADY_EXISTS":
                raise

    def create_version(
        self,
        name: str,
        source: str,
        run_id: str | None,
        model_id: str | None,
        tags: Mapping[str, str],
        description: str | None,
    ) -> int:
        """Register what lies at ``source`` and return the version number."""
        if urlsplit(self.registry_uri).scheme in ("http", "https"):
            given = {
                "name": name,
                "source": source,
                "run_id": run_id,
                "model_id": model_id,
                "description": description,
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
            }
            said = self.post_once(
                "create version",
                name,
                "model-versions/create",
                {key: value for key, value in given.items() if value},
            )
            made = said.get("model_version")
            version = made.get("version") if isinstance(made, Mapping) else None
            return self._whole(version, "the version that was made")
        # The parameter is MLflow 3's; a client of 2.x has no logged models to name.
        logged = {"model_id": model_id} if model_id else {}
        created = self.change(
            "create version",
            name,
            self.client.create_model_version,
            name,
            source,
            run_id=run_id,
            tags=dict(tags),
            description=description,
            await_creation_for=0,
            **logged,
        )
        return self._number(created)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._set(
            "set alias",
            f"{name}@{alias}",
            self.client.set_registered_model_alias,
            name,
            alias,
            str(version),
        )

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        self._set(
            "set tag",
            f"{name}/{version} {key}",
            self.client.set_model_version_tag,
            name,
            str(version),
            key,
            value,
        )

    def _set(self, kind: str, subject: str, function: Callable[..., object], *args: str) -> None:
        """``change`` for a row that MLflow inserts or updates, after it looked which of both.

        Where another client inserted it in between, the database refuses the second, and MLflow
        says BAD_REQUEST: now the row is there to be updated.
        """
        with effect(kind, subject):
            try:
                self.ask(kind, function, *args)
            except RegistryError as error:
                if code_of(error) != "BAD_REQUEST":
                    raise
                self.ask(kind, function, *args)

    def delete_version_tag(self, name: str, version: int, key: str) -> None:
        """Remove a tag; one that is gone already is as good."""
        with suppress(NotFound):
            self.change(
                "delete tag",
                f"{name}/{version} {key}",
                self.client.delete_model_version_tag,
                name,
                str(version),
                key,
            )

    def set_version_description(self, name: str, version: int, text: str) -> None:
        self.change(
            "describe version",
            f"{name}/{version}",
            self.client.update_model_version,
            name,
            str(version),
            text,
        )

    def models(self, names: Iterable[str] | None = None) -> tuple[ModelInfo, ...]:
        """Registered models sorted by name, all when no names are given; names that do not exist
        are left out.
        """
        found: list[ModelInfo] = []
        for name in sorted(set(self.names() if names is None else names)):
            with suppress(NotFound):
                found.append(self.model_info(name))
        return tuple(found)

    def files(self, source: Source) -> ArtifactRoot:
        """The files of what was resolved. Nothing is asked yet."""
        if source.uri.kind == "folder":  # the operator named it, and not the registry
            return LocalRoot(source.artifact_root, self.timeout)
        files = self.files_at(source.artifact_root)
        return UnionRoot(files, self.files_at(source.beside)) if source.beside else files


def _folder(uri: ModelUri) -> Source:
    folder = os.path.abspath(os.path.expanduser(str(uri.path)))
    if not os.path.isdir(folder):
        raise NotFound(f"the folder {folder} does not exist on this host", step="resolve")
    return Source(uri, None, None, None, folder, folder, None, None)


def _named(name: str | None) -> str:
    quote = '"' if "'" in str(name) else "'"
    return f"name = {quote}{name}{quote}"


def _model_id(version: MlflowObject) -> str | None:
    found = _LOGGED_MODEL.match(version.source or "")
    return getattr(version, "model_id", None) or (found[1] if found else None)


def _version_info(version: MlflowObject, number: int, aliases: Mapping[str, int]) -> VersionInfo:
    return VersionInfo(
        version.name,
        number,
        mask(version.source or ""),
        version.status,
        version.description or "",
        version.run_id or None,
        _model_id(version),
        dict(version.tags),
        tuple(sorted(alias for alias, at in aliases.items() if at == number)),
        version.creation_timestamp,
    )


def _below(root: str, path: str) -> str:
    return f"{root.rstrip('/')}/{path}" if path else root
