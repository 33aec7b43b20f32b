# SPDX-License-Identifier: Apache-2.0
"""Two copies that do not fit on one GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from support.deliveries import deliver_model
from support.gpu_host import ROOT, Here

NAME = "large"
GIB = 1 << 30
CONFIG = """backend: "python"
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_GPU count: 1 } ]
"""


def make(folder: Path, number: int, size: int) -> str:
    place = folder / str(number) / NAME
    (place / "1").mkdir(parents=True)
    (place / "1/model.py").write_bytes((ROOT / "tests/gpu/holder.py").read_bytes())
    parameters = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in (("bytes", size), ("number", number))
    )
    (place / "config.pbtxt").write_text(CONFIG + parameters, encoding="utf-8")
    return str(place)


def answers(number: int) -> dict[str, Any]:
    return {"inputs": {"x": [1.0]}, "outputs": {"y": [1.0 + number]}}


class Card:
    """Deliveries to a server, and the memory of its GPU."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.metrics_url = f"127.0.0.1:{here.ports[2]}"

    def deliver(
        self, drained: bool = False, check: bool = False, name: str = NAME, **options: Any
    ) -> Result:
        place = Target(
            str(self.here.folder / "models"),
            servers=(self.here.url,),
            metrics_servers=(self.metrics_url,),
            timeout=120,
            drained=drained,
        )
        return deliver_model(place, name, check, **options)

    def good(self, **options: Any) -> Result:
        done = self.deliver(**options)
        assert done.error is None, str(done.error)
        return done

    @property
    def free(self) -> int:
        ((_used, free),) = self.here.gpu_memory().values()
        return free

    @property
    def answer(self) -> float:
        return float(self.here.infer(NAME, [1.0])["y"][0])


@pytest.fixture
def card(here: Here) -> Iterator[Card]:
    made = Card(here)
    yield made
    made.good(state="absent")
    here.wait_until_ended(NAME)


@pytest.fixture
def size(card: Card) -> int:
    """More than a half of what is free."""
    return card.free * 6 // 10


def test_out_of_memory_is_told_in_our_words_and_the_old_one_serves(
    card: Card, size: int, tmp_path: Path
) -> None:
    card.good(model_uri=make(tmp_path, 1, size), verify=answers(1))
    failed = card.deliver(model_uri=make(tmp_path, 2, size), verify=answers(2))
    text = str(failed.error)
    assert "the GPU's memory is too small for it (it asked for " in text
    assert "free before); swap: unload_first unloads the old deployment before" in text
    assert "is in place as before" in text
    assert card.answer == 2.0


def test_a_model_that_fits_once_is_updated_with_an_outage_and_comes_back_where_it_fails(
    card: Card, size: int, tmp_path: Path
) -> None:
    first = card.good(model_uri=make(tmp_path, 1, size), verify=answers(1))
    assert first.record is not None
    (taken,) = first.record.gpu_memory[card.here.url].values()
    assert size <= taken <= size + 2 * GIB
    # What auto expects is what was measured: the files have a few kilobytes.
    asked = {"model_uri": make(tmp_path, 2, size), "swap": "auto", "verify": answers(2)}
    in_service = card.deliver(check=True, **asked)
    assert in_service.to_dict()["swap"] == "overlap"
    assert any("may not fit beside the old one" in said for said in in_service.warnings)
    done = card.good(drained=True, **asked)
    assert done.to_dict()["swap"] == "unload_first"
    assert card.answer == 3.0
    wrong = card.deliver(model_uri=make(tmp_path, 3, size), swap="unload_first", verify=answers(4))
    assert "had unloaded it first, has loaded it again, and it answers" in str(wrong.error)
    assert card.answer == 3.0
    back = card.good(state="rolled_back", swap="unload_first")
    assert back.to_dict()["swap"] == "unload_first"
    assert card.answer == 2.0


def test_a_load_ends_when_the_memory_of_the_old_copy_is_free(card: Card, tmp_path: Path) -> None:
    before = card.free
    size = before * 3 // 10
    card.good(model_uri=make(tmp_path, 1, size), verify=answers(1))
    card.good(model_uri=make(tmp_path, 2, size), verify=answers(2))
    assert card.free >= before - size - 2 * GIB
    # So that another one has room at once.
    other = make(tmp_path / "other", 1, before * 5 // 10)
    card.good(name="other", model_uri=other, verify=answers(1))
    card.good(name="other", state="absent")
