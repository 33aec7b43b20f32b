# SPDX-License-Identifier: Apache-2.0
"""Each parser of foreign bytes as a function of bytes, which ends well or raises an error of ours.

The core is imported as the process that reads model files does it: without Ansible, from the folder
that it lies in.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).resolve().parent / "corpus"
if str(ROOT / "plugins/module_utils") not in sys.path:
    sys.path.append(str(ROOT / "plugins/module_utils"))

from _delivery.artifacts import metadata  # noqa: E402
from _delivery.domain import config_pbtxt, pbtxt, releases  # noqa: E402
from _delivery.domain.fields import WrongShape  # noqa: E402
from _delivery.domain.journal import FolderSwap, JournalFile, S3Swap, read_journal  # noqa: E402
from _delivery.domain.manifest import Manifest  # noqa: E402
from _delivery.domain.published import read_published  # noqa: E402
from _delivery.domain.record import Record  # noqa: E402
from _delivery.errors import DeliveryError, MissingLibrary  # noqa: E402
from _delivery.formats import mlmodel  # noqa: E402
from _delivery.formats.given_file import GivenFile  # noqa: E402
from _delivery.formats.model_file import why_no_torchscript  # noqa: E402
from _delivery.formats.onnx import read_onnx  # noqa: E402
from _delivery.formats.served import read_served  # noqa: E402
from _delivery.formats.trees import read_forest  # noqa: E402


def _given(data: bytes, name: str = "model.bin") -> GivenFile:
    return GivenFile.of_bytes(name, data)


def pickled(data: bytes) -> None:
    read_served(_given(data), "sklearn", None)


def booster(data: bytes) -> None:
    read_served(_given(data, "model.pkl"), "lightgbm", None)


def skops(data: bytes) -> None:
    """The schema up to a NUL, then an array: a mutated archive would not survive its checksums."""
    schema, _nul, array = data.partition(b"\0")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", schema)
        archive.writestr("a.npy", array)
    read_served(_given(file.getvalue()), "sklearn", None)


def archive(data: bytes) -> None:
    why_no_torchscript(_given(data))
    read_served(_given(data), "sklearn", None)


def xgboost(data: bytes) -> None:
    read_forest(_given(data), "xgboost", scikit_learn=True)


def lightgbm(data: bytes) -> None:
    read_forest(_given(data), "lightgbm")


def treelite(data: bytes) -> None:
    read_forest(_given(data), "treelite")


def onnx(data: bytes) -> None:
    read_onnx(_given(data))


def config(data: bytes) -> None:
    with suppress(pbtxt.TextRefused):
        pbtxt.read_fields(pbtxt.decode(data))
    message = config_pbtxt.parse(data)
    releases.dated_fields(data)
    config_pbtxt.parse(config_pbtxt.render(message))


def description(data: bytes) -> None:
    found = metadata._parsed({"MLmodel": data})
    for side in ("inputs", "outputs"):
        mlmodel.tensors_of(found, side)
    mlmodel.columns_of(found)
    repr(found)


def state(data: bytes) -> None:
    """Records, journals and manifests."""
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError):
        document = None
    with suppress(DeliveryError, WrongShape):
        read_published(data)
    file = JournalFile("m", "journal", "m", ("staging/m", "retained/m"), ("staging", "retained"))
    with suppress(DeliveryError, WrongShape):
        read_journal(data, file, FolderSwap)
    with suppress(DeliveryError, WrongShape):
        read_journal(data, file, S3Swap)
    if not isinstance(document, dict):
        return
    for read in (Record.from_dict, Manifest.from_dict):
        with suppress(DeliveryError, WrongShape):
            read(document)


PARSERS: dict[str, Callable[[bytes], None]] = {
    "pickle": pickled,
    "booster": booster,
    "skops": skops,
    "archive": archive,
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "treelite": treelite,
    "onnx": onnx,
    "config": config,
    "mlmodel": description,
    "state": state,
}


def refused(name: str, data: bytes) -> str | None:
    """What the parser says of bytes that it does not take; None where it takes them.

    Raises:
        Exception: whatever a parser must not raise.
    """
    try:
        PARSERS[name](data)
    except MissingLibrary:
        raise
    except (DeliveryError, WrongShape) as error:
        return str(error)
    return None
