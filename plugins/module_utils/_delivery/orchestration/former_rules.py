# SPDX-License-Identifier: Apache-2.0
"""What an older release of this collection has deployed, judged by the rules of today. It is served
on: whoever runs it is told.
"""

from __future__ import annotations

import io
import os

from ..disk import is_folder
from ..domain.backends import FIL_FILES
from ..domain.manifest import Manifest
from ..domain.record import RULES, Record
from ..errors import ArtifactError, OtherAnswers
from ..formats import trees
from ..formats.lightgbm_text import refuse_what_fil_computes_otherwise
from ..no_follow import open_to_read
from ..readers import questions

_PIECE = 1 << 16
# Where a file says of itself what makes it answer otherwise: XGBoost in its first member and in its
# old format's last, LightGBM in the parameters behind the trees.
_SIGNS = {
    "xgboost": (b"best_iteration", b"feature_types"),
    "lightgbm": (
        b"[zero_as_missing: 1]",
        b"[linear_tree: 1]",
        b"pandas_categorical:[[",
        b"is_linear=1",
    ),
}
_ANEW = "deploy it anew, with state absent and then present"


def judge(record: Record | None, folder: str) -> str | None:
    """Why the model would be refused, or be made otherwise, today; None where it would not, or
    where today's rules have made it.

    Reads 128 kB of a file of trees, and all of one that has a sign of what is refused.

    Args:
        folder: of the model, on this host. In S3 there is none, and nothing is judged.
    """
    if record is None or record.rules >= RULES or not is_folder(folder):
        return None
    try:
        paths = [entry.path for entry in Manifest.from_dict(record.manifest).files]
    except ArtifactError:
        return None  # told of where it is needed
    for model_type, filename in FIL_FILES.items():
        for path in paths:
            if path.count("/") == 1 and path.endswith(f"/{filename}"):
                said = _judge_path(record, model_type, os.path.join(folder, path), path)
                if said:
                    return f"an older release of this collection deployed it: {said}"
    return None


def _judge_path(record: Record, model_type: str, location: str, path: str) -> str | None:
    try:
        with open_to_read(location) as file:  # others may exchange it meanwhile
            return _judge_file(record, model_type, f"/proc/self/fd/{file.fileno()}", path)
    except OSError:
        return None


def _judge_file(record: Record, model_type: str, location: str, path: str) -> str | None:
    try:
        if model_type == "treelite_checkpoint":
            if record.flavor != "sklearn" or trees.read_forest(location, "treelite").averages:
                return None  # trees that are added up may be a HistGradientBoosting model
            return (
                "it was converted from scikit-learn by rules which mixed up the columns of some"
                f" HistGradientBoosting models with categories; {_ANEW}"
            )
        if not _has_sign(location, model_type.partition("_")[0]):
            return None
        questions.refuse_other_answers(location, model_type)
    except OtherAnswers as error:
        if record.flavor != "triton" and isinstance(error, trees.UnusedTrees):
            return f"it answers with trees that the class which trained it leaves out; {_ANEW}"
        reason = error.message.replace(location, path)
        return f"it would be refused today, because {reason}"
    except (ArtifactError, OSError):
        return None  # it is served: what is wrong with the file is not told here
    return None


def _has_sign(location: str, family: str) -> bool:
    with open(location, "rb") as file:
        head = file.read(_PIECE)
        file.seek(max(0, os.path.getsize(location) - _PIECE))
        tail = file.read(_PIECE)
    if any(sign in head or sign in tail for sign in _SIGNS[family]):
        return True
    return family == "lightgbm" and _shows_other_answers(head)


def _shows_other_answers(head: bytes) -> bool:
    """Whether the first trees of LightGBM have thresholds that single precision does not tell
    apart, of which no parameter tells.
    """
    try:
        refuse_what_fil_computes_otherwise(io.BytesIO(head))
    except OtherAnswers:
        return True
    except (ValueError, IndexError):
        return False  # where the piece ends, or no text of LightGBM
    return False
