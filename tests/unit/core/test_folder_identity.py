# SPDX-License-Identifier: Apache-2.0
"""A folder of this host is named by its bytes, read as seldom as can be."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from unittest.mock import patch

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts import (
    folder_identity,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.folder_identity import (  # noqa: E501
    folder_source,
    with_identity,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.disk import hash_stream
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.sources import (
    Sources,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)

SIZE = 1 << 20
BETWEEN = SIZE // 2 + 6000
"""A byte of a file of that size which is in no sample."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "net"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "weights").write_bytes(bytes(SIZE))
    (folder / "MLmodel").write_text("a file that the model does not need")
    os.utime(folder / "1" / "weights", (1, 1))
    return folder


def planned(model: Path, record: Record | None) -> tuple[Source, int]:
    """What a plan says of it, and how many files it read whole."""
    uri = parse_model_uri(str(model))
    source = Source(uri, None, None, None, f"file://{model}", str(model), None, None)
    with patch.object(folder_identity, "hash_stream", wraps=hash_stream) as read:
        return folder_source(source, LocalRoot(str(model), 5), record), read.call_count


def deployed(model: Path) -> Record:
    source = planned(model, None)[0]
    files = LocalRoot(str(model), 5)
    copy = model.parent / "copy"
    copy.unlink(missing_ok=True)
    came = files.fetch({"1/weights": str(copy)})
    source = with_identity(source, files, came)
    return Record(
        "net", "id", str(model), str(model), source.source, "triton", (1,), {"files": []}, "", "",
        {}, "then", "me",
        source_fingerprint=source.fingerprint, source_samples=source.samples,
    )  # fmt: skip


def test_a_folder_that_nothing_is_compared_with_is_not_read(model: Path) -> None:
    record = deployed(model)
    other = dataclasses.replace(record, source=f"file:///elsewhere#{record.source[-16:]}")
    for before in (None, other):
        source, read = planned(model, before)
        assert (source.source, read) == (f"file://{model}#", 0)


def test_what_came_names_it_as_its_bytes_do(model: Path) -> None:
    record = deployed(model)
    assert planned(model, record) == (planned(model, record)[0], 0)
    os.utime(model / "1" / "weights", (2, 2))
    source, read = planned(model, record)
    assert (source.source, read) == (record.source, 2)


@pytest.mark.parametrize("time", [1, 2])
def test_other_samples_are_enough_to_tell_another_model(model: Path, time: int) -> None:
    """Also where size and time are the same, as an archive may make them."""
    record = deployed(model)
    (model / "1" / "weights").write_bytes(b"\1" * SIZE)
    os.utime(model / "1" / "weights", (time, time))
    source, read = planned(model, record)
    assert (source.source, read) == (f"file://{model}#", 0)


@pytest.mark.parametrize("former", [False, True])
def test_a_byte_between_the_samples_is_found(model: Path, former: bool) -> None:
    """As is any byte where the record is of a release that took no samples."""
    record = deployed(model)
    if former:
        record = dataclasses.replace(record, source_samples=None)
    with open(model / "1" / "weights", "r+b") as stream:
        stream.seek(BETWEEN)
        stream.write(b"1")
    source, read = planned(model, record)
    assert read == 2
    assert source.source not in (record.source, f"file://{model}#")


def test_a_folder_that_changed_after_the_plan_is_not_known_by_its_look_then(model: Path) -> None:
    """``cp -p`` of one of two models over the other gives it the size and the times back."""
    weights, copy = model / "1" / "weights", model.parent / "copy"
    source, files = planned(model, None)[0], LocalRoot(str(model), 5)
    weights.write_bytes(b"\1" * SIZE)
    source = with_identity(source, files, files.fetch({"1/weights": str(copy)}))
    record = dataclasses.replace(
        deployed(model), source=source.source, source_fingerprint=source.fingerprint,
        source_samples=source.samples,
    )  # fmt: skip
    assert planned(model, record)[0].source == record.source
    weights.write_bytes(bytes(SIZE))
    os.utime(weights, (1, 1))
    assert planned(model, record)[0].source != record.source


def test_a_file_that_the_model_does_not_need_is_part_of_it(model: Path) -> None:
    record = deployed(model)
    (model / "MLmodel").write_text("a file that the model does not mind")
    assert planned(model, record)[0].source != record.source
    assert deployed(model).source != record.source


def test_what_another_run_deployed_meanwhile_is_known(model: Path) -> None:
    """A plan is made again under the model's lock, where the record may be another one."""
    uri = parse_model_uri(str(model))
    sources = Sources(Registry(None, 5), None)
    wanted = DesiredModel("net", "present", uri)
    assert sources.resolve(wanted, uri, None).source.endswith("#")
    record = deployed(model)
    root = sources.resolve(wanted, uri, None).source[:-1]
    record = dataclasses.replace(record, source=f"{root}#{record.source[-16:]}")
    assert sources.resolve(wanted, uri, record).source == record.source
