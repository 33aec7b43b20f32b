# SPDX-License-Identifier: Apache-2.0
"""Whether a TensorRT plan fits where it goes: it runs with the TensorRT and on the kind of GPU that
it was built for, and on no other.

What a plan was built for stands in two tags of its version. "10.5" is that TensorRT and "10.5+" a
version-compatible plan; "8.0" is that compute capability and "8.0+" a hardware-compatible plan.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..domain.config_pbtxt import ModelConfig
from ..errors import InvalidOption

VERSION_TAG = "triton.tensorrt.version"
CAPABILITY_TAG = "triton.tensorrt.compute_capability"
_PLATFORM = "tensorrt_plan"
PLAN_MAGIC = b"ftrt"
# NVIDIA/TensorRT issue 3073: four bytes from here on are major, minor, patch and build.
_VERSION_AT = 24
_OLDEST, _NEWEST = 8, 40
_NUMBERS = re.compile(r"[0-9]+(\.[0-9]+)*\+?")
_SMI_SECONDS = 20
_INSTEAD = "build it there, or publish it as ONNX"
_HERE = re.compile(r"localhost|127\..*|::1")


@dataclass(frozen=True)
class TensorRtTarget:
    """What the servers have. Empty: not known."""

    version: str = ""
    capabilities: tuple[str, ...] = ()
    """Of each GPU."""


def version_of_plan(path: str) -> str | None:
    """The TensorRT that built a plan, as the beginning of the file says it; None where it does
    not.
    """
    with open(path, "rb") as file:
        head = file.read(_VERSION_AT + 4)
    numbers = head[_VERSION_AT:]
    if not head.startswith(PLAN_MAGIC) or len(numbers) < 4 or not _OLDEST <= numbers[0] <= _NEWEST:
        return None
    return ".".join(map(str, numbers))


def is_plan(config: ModelConfig) -> bool:
    """Whether a configuration is that of a TensorRT plan."""
    return config.backend == "tensorrt" or config.platform == _PLATFORM


def check_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that nothing can be compared with.

    Raises:
        InvalidOption: not numbers with dots between them and perhaps a plus.
    """
    for key in (VERSION_TAG, CAPABILITY_TAG):
        if key in tags and not _NUMBERS.fullmatch(tags[key]):
            raise InvalidOption(
                f"the tag {key} is '{tags[key]}', and should be like '10.5' or '10.5+'",
                step="read the options",
            )


def read_target(option: Mapping[str, object] | None, servers: Iterable[str]) -> TensorRtTarget:
    """What was given, else what this host says of itself where all servers are on it."""
    given = {key: str(value) for key, value in (option or {}).items() if value is not None}
    wrong = next(
        (value for value in given.values() if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", value)), None
    )
    if wrong is not None or set(given) - {"version", "compute_capability"}:
        raise InvalidOption(
            "tensorrt_target has a version such as '10.5' and a compute_capability such as '9.0'",
            step="read the options",
            left="nothing was changed",
        )
    capability = given.get("compute_capability")
    if capability:
        return TensorRtTarget(given.get("version", ""), (capability,))
    hosts = [urlsplit(url if "://" in url else f"http://{url}").hostname or "" for url in servers]
    return TensorRtTarget(
        given.get("version", ""),
        _own_capabilities() if all(_HERE.fullmatch(host) for host in hosts) else (),
    )


def _own_capabilities() -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, "--query-gpu=compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SMI_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    found = {line.strip() for line in done.stdout.splitlines()}
    return tuple(sorted(line for line in found if re.fullmatch(r"[0-9]+\.[0-9]+", line)))


def why_not(tags: Mapping[str, str], target: TensorRtTarget) -> str | None:
    """Why the plan cannot run there, as a sentence; None where nothing that is known speaks against
    it.
    """
    built, capability = tags.get(VERSION_TAG, ""), tags.get(CAPABILITY_TAG, "")
    if not _fits(built, target.version):
        return (
            f"the plan was built with TensorRT {_spell(built)}, and the server has"
            f" {target.version}: {_INSTEAD}"
        )
    if target.capabilities and not any(_fits(capability, own) for own in target.capabilities):
        return (
            f"the plan was built for GPUs of compute capability {_spell(capability)}, and the"
            f" server has {', '.join(target.capabilities)}: {_INSTEAD}"
        )
    return None


def unknown(tags: Mapping[str, str], target: TensorRtTarget) -> str | None:
    """What could not be compared, as a sentence; None where all was."""
    sides = (
        ("TensorRT", tags.get(VERSION_TAG), target.version),
        ("compute capability", tags.get(CAPABILITY_TAG), target.capabilities),
    )
    untold = [name for name, built, _own in sides if not built]
    unseen = [name for name, built, own in sides if built and not own]
    parts = (
        [
            (
                f"tags {VERSION_TAG} and {CAPABILITY_TAG} of the version could say for which"
                f" {' and '.join(untold)} it was built"
            )
        ]
        if untold
        else []
    )
    parts += (
        [f"tensorrt_target could say which {' and '.join(unseen)} the server has"] if unseen else []
    )
    return (
        "whether the TensorRT plan fits the server is not known before it is loaded:"
        f" {'; '.join(parts)}"
        if parts
        else None
    )


def _fits(built: str, own: str) -> bool:
    """Numbers that both sides name are equal; with a plus the other side may be newer."""
    pairs = list(zip(_numbers(built), _numbers(own)))
    wanted, has = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return has >= wanted if built.endswith("+") else has == wanted


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.rstrip("+").split(".")] if _NUMBERS.fullmatch(text) else []


def _spell(text: str) -> str:
    return f"{text[:-1]} and newer" if text.endswith("+") else text
