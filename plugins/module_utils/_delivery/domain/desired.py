# SPDX-License-Identifier: Apache-2.0
"""What is wanted of one model, as a frozen value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

from ..errors import InvalidOption
from ..names import check_model_name
from ..outside import JsonDict, JsonObject, Options
from .cases import is_named, why_no_case
from .uri import LATEST, ModelUri, is_alias, named_uri, parse_model_uri

_AS_GIVEN = (
    "flavor",
    "serve_as",
    "batch_requests",
    "config",
    "instance_kind",
    "version_folders",
    "verify_aside",
    "swap",
    "adopt",
    "check_files",
    "undo",
    "owner",
    "group",
    "deployment_set",
    "alias",
)
_LONGEST = 86400
"""Seconds of the longest call of pyfunc: a day."""
_REQUEST = (
    "flavor",
    "serve_as",
    "batch_requests",
    "predict_timeout",
    "config",
    "instance_kind",
    "version_folders",
    "serve_versions",
    "owner",
    "group",
    "mode",
)


USUAL: JsonObject = {
    "serve_as": "auto",
    "predict_timeout": 60.0,
    "version_folders": "auto",
    "serve_versions": 1,
}
"""What those of a request's options are that nobody gave, where that is not None; records of former
releases lack some."""


@dataclass(frozen=True)
class Example:
    """The model's own example. Nobody said that it is a request: where none can be made of it, it
    is left out.
    """

    document: JsonObject


# Evaluated at run time, where ansible-test still asks for the old form.
Case = Union[JsonObject, Example]  # noqa: UP007
"""What to verify with: what a user says, or the model's own example."""


@dataclass(frozen=True)
class DesiredModel:
    """One model as asked for. None means omitted: as the author has it."""

    name: str
    state: str = "present"
    uri: ModelUri | None = None
    flavor: str | None = None
    serve_as: str = "auto"
    """What answers: ``native`` (a backend of Triton), ``pyfunc`` (MLflow's own) or ``auto``."""
    batch_requests: bool | None = None
    """Whether rows of several requests may become one call of pyfunc; None: of flavors that are
    known to answer each row by itself.
    """
    predict_timeout: float = 60.0
    """Seconds that one call of pyfunc may take."""
    config: JsonObject | None = None
    instance_kind: str | None = None
    version_folders: str = "auto"
    verify: str | JsonObject | None = None
    verify_aside: bool = False
    """Prove a new deployment under another name before it takes the place of the old one."""
    swap: str = "overlap"
    """Whether the old deployment serves while the new one is loaded: ``overlap``, ``unload_first``
    or ``auto``.
    """
    keep: int = 1
    adopt: bool = False
    check_files: bool = False
    owner: str | None = None
    group: str | None = None
    mode: str | None = None
    deployment_set: str | None = None
    rollback_to: str | None = None
    undo: bool = False
    """``rollback_to`` takes the last deployment back, and is no choice."""
    must_be_new: bool = False
    """Refuse a name that exists in any form; not an option of a user, but a verb of MLflow's."""
    keep_source: bool = False
    """What is deployed stays, whatever an alias says by now; only the other options are applied."""
    alias: str | None = None
    serve_versions: int = 1
    depends_on: tuple[str, ...] | None = None
    purged_from: str | None = None
    """Remove it only while it belongs to this deployment set; not an option of a user, but what
    purging a list does.
    """

    @classmethod
    def from_options(cls, options: Options) -> DesiredModel:
        """Build from a module's parameters or a plugin's ``-C`` options; absent and None keys mean
        omitted.

        Raises:
            InvalidOption: a name that cannot be, a missing or unreadable model_uri, a combination
                that cannot be meant.
        """
        given = {key: value for key, value in options.items() if value is not None}
        name = check_model_name(given.get("name"))
        try:
            state = given.get("state", "present")
            uri = parse_model_uri(given["model_uri"]) if given.get("model_uri") else None
            if state == "present" and uri is None:
                raise InvalidOption(
                    "model_uri is required with state=present", step="read the options"
                )
            if state in ("absent", "rolled_back"):
                uri = None  # a list of models keeps its model_uri when only the state is turned
            if "rollback_to" in given and state != "rolled_back":
                raise InvalidOption(
                    "rollback_to goes with state=rolled_back", step="read the options"
                )
            if given.get("undo") and "rollback_to" not in given:
                raise InvalidOption("undo goes with rollback_to", step="read the options")
            if int(given.get("keep", 1)) < 0 or int(given.get("serve_versions", 1)) < 1:
                raise InvalidOption(
                    "keep cannot be negative, nor serve_versions less than 1",
                    step="read the options",
                )
            if given.get("swap") == "unload_first" and given.get("verify_aside"):
                raise InvalidOption(
                    "verify_aside needs room for a second copy, and swap: unload_first says that"
                    " there is none",
                    step="read the options",
                )
            known = {key: given[key] for key in _AS_GIVEN if key in given}
            if "depends_on" in given:
                known["depends_on"] = tuple(
                    check_model_name(other) for other in given["depends_on"]
                )
            return cls(
                name=name,
                state=state,
                uri=uri,
                keep=int(given.get("keep", 1)),
                serve_versions=int(given.get("serve_versions", 1)),
                predict_timeout=_seconds("predict_timeout", given.get("predict_timeout", 60.0)),
                verify=_verify(given.get("verify")),
                mode=_mode(given.get("mode")),
                rollback_to=str(given["rollback_to"]) if "rollback_to" in given else None,
                **known,
            )
        except InvalidOption as error:
            raise error.about(model=name, left="nothing was changed") from error

    @property
    def asked_alias(self) -> str | None:
        """The alias that was asked for, also where the controller pinned it to a version before."""
        alias = self.alias or (self.uri.alias if self.uri else None)
        return None if alias == LATEST else alias

    @property
    def asked_uri(self) -> str:
        """``model_uri`` as it was asked for, also where the controller pinned it to a version
        before.
        """
        if self.uri is None:
            return ""
        if self.alias and is_alias(self.alias) and self.uri.kind == "version":
            return named_uri(self.uri.name, self.alias)
        return self.uri.text

    @property
    def is_choice(self) -> bool:
        """It says itself which deployment is to be in place, so that going back leaves that one."""
        if self.state == "rolled_back":
            return self.rollback_to is not None and not self.undo
        return self.uri is not None and not self.keep_source

    @property
    def request(self) -> JsonDict:
        """The options that shape the files, for the record."""
        return {key: getattr(self, key) for key in _REQUEST}

    def as_recorded(self, request: JsonObject) -> DesiredModel:
        """The same, with the options that shaped files which are there already."""
        known = {key: request[key] for key in _REQUEST if request.get(key) is not None}
        omitted = {key: USUAL.get(key) for key in _REQUEST}
        return dataclasses.replace(self, **{**omitted, **known})


def _verify(value: object) -> str | JsonObject | None:
    if value is None or value in ("auto", "none"):
        return value
    if value is False:
        return "none"
    if isinstance(value, Mapping):
        # Templates make these of what is not given.
        value = {
            key: one
            for key, one in value.items()
            if one or key == "inputs" or not isinstance(one, (str, list))
        }
    if (
        not isinstance(value, Mapping)
        or not is_named(value.get("inputs"))
        or set(value) - {"inputs", "outputs", "tolerance"}
        or not isinstance(value.get("outputs", {}), (Mapping, type(None)))
    ):
        raise InvalidOption(
            "verify is none, auto, or a dictionary with inputs and, where wanted, outputs and"
            " tolerance; inputs and outputs map names of tensors to nested lists, and inputs may be"
            " Triton's list of {name, shape, data} too",
            step="read the options",
        )
    if reason := why_no_case(value):
        raise InvalidOption(reason, step="read the options")
    _check_tolerance(value.get("tolerance"))
    return value


def _check_tolerance(value: object) -> None:
    """YAML reads 1e-3 as a text, and a template makes one of every number."""
    if value is None:
        return
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number < math.inf:
        raise InvalidOption(
            f"verify.tolerance {value!r} is not a number from 0 up", step="read the options"
        )


def _seconds(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 < number <= _LONGEST:
        raise InvalidOption(
            f"{name} must be more than 0 seconds, and at most {_LONGEST}", step="read the options"
        )
    return number


def _mode(value: object) -> str | None:
    if value is None:
        return None
    try:
        number = value if isinstance(value, int) else int(str(value), 8)
        if not 0 <= number <= 0o777:
            raise ValueError(value)
    except ValueError as error:
        raise InvalidOption(
            f"mode {value!r} is not an octal number between 0000 and 0777", step="read the options"
        ) from error
    return f"{number:04o}"
