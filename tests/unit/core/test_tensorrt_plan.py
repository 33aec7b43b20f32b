# SPDX-License-Identifier: Apache-2.0
"""What a TensorRT plan was built for, next to what the servers have."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.tensorrt import (
    CAPABILITY_TAG,
    VERSION_TAG,
    TensorRtTarget,
    read_target,
    unknown,
    version_of_plan,
    why_not,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.publication import (  # noqa: E501
    DesiredPublication,
)

HERE = ("localhost:8000", "grpc://127.0.0.1:8001", "http://[::1]:8000")


@pytest.mark.parametrize(
    ("built", "has", "fits"),
    [
        ("10.5", "10.5", True),
        ("10.5.0.18", "10.5", True),
        ("10.5", "10.5.0.18", True),
        ("10.5", "10.4", False),
        ("10.5", "10.50", False),
        ("8.6.1", "8.6.2", False),
        ("10", "10.9", True),
        ("10.3+", "10.5", True),
        ("10.3+", "11.0", True),
        ("10.5+", "10.3.9", False),
    ],
)
def test_versions(built: str, has: str, fits: bool) -> None:
    reason = why_not({VERSION_TAG: built}, TensorRtTarget(has))
    assert (reason is None) == fits
    if reason:
        assert has in reason and built.rstrip("+") in reason


@pytest.mark.parametrize(
    ("built", "has", "fits"),
    [
        ("9.0", ("9.0",), True),
        ("8.9", ("9.0",), False),
        ("8.0+", ("9.0",), True),
        ("8.0+", ("7.5",), False),
        ("9.0", ("8.0", "9.0"), True),
    ],
)
def test_gpus(built: str, has: tuple[str, ...], fits: bool) -> None:
    assert (why_not({CAPABILITY_TAG: built}, TensorRtTarget("", has)) is None) == fits


def test_what_is_not_known_is_not_refused_and_said() -> None:
    assert why_not({}, TensorRtTarget("10.5", ("9.0",))) is None
    assert why_not({VERSION_TAG: "10.5", CAPABILITY_TAG: "9.0"}, TensorRtTarget()) is None
    assert "tags triton.tensorrt.version and triton.tensorrt.compute_capability" in str(
        unknown({}, TensorRtTarget())
    )
    assert "which compute capability the server has" in str(
        unknown({VERSION_TAG: "10.5", CAPABILITY_TAG: "9.0"}, TensorRtTarget("10.5"))
    )
    assert (
        unknown({VERSION_TAG: "10.5", CAPABILITY_TAG: "9.0"}, TensorRtTarget("10.5", ("9.0",)))
        is None
    )


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (b"ftrt" + bytes(20) + bytes([10, 5, 0, 18]) + bytes(40), "10.5.0.18"),
        (b"ftrt" + bytes(20), None),
        (b"ftrt" + bytes(60), None),
        (b"ptrt" + bytes(20) + bytes([10, 5, 0, 18]), None),
        (b"", None),
    ],
)
def test_header(tmp_path: Path, data: bytes, version: str | None) -> None:
    (tmp_path / "a.plan").write_bytes(data)
    assert version_of_plan(str(tmp_path / "a.plan")) == version


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """A host with this nvidia-smi."""
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


class TestTarget:
    def test_given(self) -> None:
        assert read_target(
            {"version": "10.5", "compute_capability": 9.0}, ["far:8000"]
        ) == TensorRtTarget("10.5", ("9.0",))

    @pytest.mark.parametrize(
        "option", [{"version": "ten"}, {"compute_capability": "9.0+"}, {"gpu": "9.0"}]
    )
    def test_cannot_be_meant(self, option: dict[str, str]) -> None:
        with pytest.raises(InvalidOption, match="compute_capability"):
            read_target(option, HERE)

    def test_gpus_of_this_host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        smi(tmp_path, monkeypatch, "printf '9.0\\n9.0\\n8.0\\n'")
        assert read_target({"version": "10.5"}, HERE) == TensorRtTarget("10.5", ("8.0", "9.0"))
        assert read_target(None, [*HERE, "far:8000"]) == TensorRtTarget()

    @pytest.mark.parametrize(
        "program", ["exit 9", "echo '[Not Supported]'", "echo NVIDIA-SMI has failed; exit 0"]
    )
    def test_gpus_that_do_not_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
    ) -> None:
        smi(tmp_path, monkeypatch, program)
        assert read_target(None, HERE) == TensorRtTarget()


@pytest.mark.parametrize("value", ["ten", "10.5-rc", "", "10."])
def test_tags_that_cannot_be_compared(value: str) -> None:
    with pytest.raises(InvalidOption, match=r"should be like '10\.5'"):
        DesiredPublication("name", "/nowhere", tags={VERSION_TAG: value})
