# SPDX-License-Identifier: Apache-2.0
"""Where artifacts may lie when it is the registry that says where: in no folder of this host that
the operator did not name, and in no store whose kind is not known.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ..errors import ArtifactError
from ..redact import mask

REMOTE_SCHEMES = ("s3", "gs", "wasbs", "abfss", "r2", "b2", "hdfs", "viewfs", "ftp", "sftp")
"""What MLflow's own code may fetch: none of these can mean a folder of this host."""
# The host stands in the location, and is shown the credentials of the environment: a token, or a
# signature that others could use.
_AZURE = r"core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)"
_HOSTS = {
    "r2": ("Cloudflare R2", r"r2\.cloudflarestorage\.com"),
    "b2": ("Backblaze B2", r"backblazeb2\.com"),
    "wasbs": ("Azure Blob Storage", rf"blob\.{_AZURE}"),
    "abfss": (
        "Azure Data Lake Storage",
        rf"dfs\.(?:{_AZURE}|storage\.azure\.net|fabric\.microsoft\.com)",
    ),
}
_OWN = re.compile(r"/[0-9]+/(?:models/m-)?[0-9a-f]{32}/artifacts(?:/|$)")
_STEP = "find the artifact"


class PlaceRefused(ArtifactError):
    """The registry named a place from which nothing is read, and to which nothing is written."""

    shown_as = "ArtifactError"


@dataclass(frozen=True)
class ArtifactPlaces:
    """The folders of this host that a registry may name.

    Attributes:
        folders: those of the operator; absolute.
        beside_mlflow: also the folders that MLflow itself made for files of a run or of a logged
            model, ``<experiment>/<id>/artifacts``. For command lines on the host of MLflow.
    """

    folders: tuple[str, ...] = ()
    beside_mlflow: bool = False

    def permit(self, root: str) -> str:
        """The folder that a location of a registry means, with all links resolved.

        Raises:
            PlaceRefused: nobody said that artifacts lie there.
        """
        folder = folder_of(root)
        real = os.path.realpath(folder)
        if any(_contains(os.path.realpath(listed), real) for listed in self.folders):
            return real
        if self.beside_mlflow and _OWN.search(real):
            return real
        raise PlaceRefused(
            f"the registry says that the files lie in the folder {folder} of this host, and no"
            " folder of option artifact_folders holds it; where MLflow keeps its artifacts there,"
            " add that folder, or one above it, to artifact_folders",
            step=_STEP,
        )


def is_local(root: str) -> bool:
    """Whether an artifact location means a folder of the host that reads it."""
    return _scheme(root) in ("", "file")


def folder_of(root: str) -> str:
    """The folder that a local artifact location names.

    Raises:
        PlaceRefused: it is not said in one unmistakable way.
    """
    parts = urlsplit(root)
    folder = unquote(parts.path) if parts.scheme else root
    reason = (
        f"names the host {parts.hostname}"
        if parts.scheme and parts.netloc.lower() not in ("", "localhost")
        else "has a NUL character"
        if "\0" in folder
        else "is no absolute path"
        if not folder.startswith("/") or folder.startswith("//")
        else "has '..' in it"
        if ".." in folder.split("/")
        else ""
    )
    if reason:
        raise PlaceRefused(
            f"the registry says that the files lie at {mask(root)!r}, which {reason}, and is not"
            " read",
            step=_STEP,
        )
    return folder


def check_remote(root: str) -> None:
    """Refuse a location whose kind is not known to be on another host, or whose host is not that of
    its kind.

    Raises:
        PlaceRefused: MLflow's code, or a plugin of it, might find a folder of this host there, or
            show credentials to somebody's server.
    """
    scheme = _scheme(root)
    if scheme not in REMOTE_SCHEMES:
        raise PlaceRefused(
            f"the registry says that the files lie at {mask(root)!r}, and locations of kind"
            f" '{scheme}:' are not read: possible are those behind an MLflow server and"
            f" {', '.join(f'{name}:' for name in REMOTE_SCHEMES)}; publish the model again to one"
            " of these",
            step=_STEP,
        )
    if scheme in _HOSTS:
        store, ending = _HOSTS[scheme]
        if not re.fullmatch(rf"(?:[\w.$-]+@)?(?:[\w-]+\.)+{ending}", urlsplit(root).netloc, re.A):
            raise PlaceRefused(
                f"the registry says that the files lie at {mask(root)!r}, which is no server of"
                f" {store}, and would be shown its credentials: publish the model again to that"
                " store",
                step=_STEP,
            )


def _scheme(root: str) -> str:
    try:
        return urlsplit(root).scheme
    except ValueError as error:
        raise PlaceRefused(
            f"the registry says that the files lie at {mask(root)!r}, which is no address",
            step=_STEP,
        ) from error


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
