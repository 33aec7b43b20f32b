# SPDX-License-Identifier: Apache-2.0
"""The table of Triton's releases, and what filter triton_release makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.mlops.triton.plugins.filter.triton_release import triton_release
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import releases

ROLE = Path(__file__).resolve().parents[2] / "roles/triton"
TABLE = yaml.safe_load((ROLE / "files/releases.yml").read_text(encoding="utf-8"))
ROWS = {row["release"]: row for row in TABLE["releases"]}
HOLES = {hole["cve"]: hole for hole in TABLE["holes"]}
COLUMNS = {
    "release": r"\d\d\.\d\d",
    "triton": r"2\.\d+\.\d",
    "date": r"\d{4}-\d\d-\d\d",
    "cuda": r"\d\d\.\d+(\.\d)?",
    "driver": r"5\d\d",
    "data_center_drivers": r"\['470\.57'.*\]",
    "compute_capability": r"\d\.\d",
    "python": r"3\.\d+",
    "backends": r"\['dali'.*\]",
}
OLD = {
    "index": "0",
    "uuid": "GPU-a",
    "name": "NVIDIA GTX",
    "driver": "565.57.01",
    "compute_capability": "6.1",
}
NEW = {**OLD, "index": "1", "uuid": "GPU-b", "name": "NVIDIA L4", "compute_capability": "8.9"}


def card(driver: str, **values: str) -> dict[str, str]:
    return {**NEW, "driver": driver, **values}


def test_each_row_has_each_column_and_what_is_not_known_is_null() -> None:
    for row in TABLE["releases"]:
        assert list(row) == list(COLUMNS), row
        for name, pattern in COLUMNS.items():
            assert row[name] is None or re.fullmatch(pattern, str(row[name])), (name, row)


def test_rows_are_in_the_order_of_their_releases() -> None:
    assert list(ROWS) == sorted(ROWS) and len(ROWS) == len(TABLE["releases"])
    versions = [row["triton"] for row in TABLE["releases"] if row["triton"]]
    assert versions == sorted(versions, key=lambda text: [int(part) for part in text.split(".")])
    dates = [row["date"] for row in TABLE["releases"] if row["date"]]
    assert dates == sorted(dates)


def test_each_hole_says_when_it_was_closed_and_is_there_once() -> None:
    assert len(HOLES) == len(TABLE["holes"]) > 50
    order = [hole["fixed"] for hole in TABLE["holes"]]
    assert order == sorted(order)
    for hole in TABLE["holes"]:
        assert re.fullmatch(r"CVE-\d{4}-\d{4,5}", hole["cve"])
        assert re.fullmatch(r"\d\d\.\d\d", hole["fixed"])
        assert hole.get("since", "") < hole["fixed"] and 0 < hole["score"] <= 10
        assert hole["leads_to"].isprintable()


@pytest.mark.parametrize(
    ("cve", "fixed"),
    [
        ("CVE-2025-23310", "25.07"),
        ("CVE-2025-23311", "25.07"),
        ("CVE-2025-23319", "25.07"),
        ("CVE-2025-23320", "25.07"),
        ("CVE-2025-23334", "25.07"),
        ("CVE-2025-23316", "25.08"),
        ("CVE-2026-24206", "26.03"),
        ("CVE-2026-24207", "26.03"),
        ("CVE-2026-47481", "26.05"),
    ],
)
def test_the_release_that_closed_a_hole_does_not_have_it(cve: str, fixed: str) -> None:
    assert HOLES[cve]["fixed"] == fixed
    before = max(release for release in ROWS if release < fixed)
    assert cve in triton_release(TABLE, f"{before}-py3")["cves"]
    assert cve not in triton_release(TABLE, f"{fixed}-py3")["cves"]


def test_a_hole_that_came_with_a_release_is_not_said_of_older_ones() -> None:
    assert HOLES["CVE-2024-53880"]["since"] == "24.11"
    having = [
        tag
        for tag in ("24.10-py3", "24.11-py3", "24.12-py3")
        if "CVE-2024-53880" in triton_release(TABLE, tag)["cves"]
    ]
    assert having == ["24.11-py3"]


def test_the_core_and_the_table_name_the_same_versions() -> None:
    known = {
        name: (version, release)
        for name, (version, release) in releases.SINCE.items()
        if release in ROWS
    }
    assert known
    for name, (version, release) in known.items():
        assert ROWS[release]["triton"].startswith("{}.{}.".format(*version)), name


def test_of_the_newest_release_no_hole_is_known() -> None:
    newest = f"{TABLE['releases'][-1]['release']}-py3"
    assert triton_release(TABLE, newest) == {
        "release": newest[:5],
        "newest": newest,
        "cves": [],
        "holes": "",
        "needs": triton_release(TABLE, newest)["needs"],
        "problems": [],
        "warnings": [],
        "unknown": "",
        "client_shared_memory": "flag",
    }


def test_the_sentence_names_what_is_worst_and_counts_the_rest() -> None:
    said = triton_release(TABLE, "24.10-py3")["holes"]
    assert said.startswith("Triton 24.10 has known holes that later releases closed: ")
    assert "authentication bypass (CVE-2026-24206, CVE-2026-24207, CVE-2026-47481)" in said
    assert "code execution (CVE-2025-23268, CVE-2025-23310, CVE-2025-23311" in said
    assert "CVE-2025-23322" not in said
    assert triton_release(TABLE, "26.06-py3")["holes"] == (
        "Triton 26.06 has known holes that later releases closed: 1 of them, such as denial of"
        " service."
    )


@pytest.mark.parametrize(
    ("tag", "newest", "words"),
    [
        ("27.01-py3", "26.11-py3", "is newer than what this release of the collection knows"),
        ("23.02-py3", "26.11-py3", "is older than what this collection has figures of"),
        ("latest", "26.11-py3", "does not tell which release of Triton it is"),
        ("24.1", "26.11-py3", "does not tell which release of Triton it is"),
        ("", "26.11-py3", "The digest of the image does not tell"),
        ("24.10-vllm-python-py3", "26.11-vllm-python-py3", ""),
    ],
)
def test_a_tag_that_is_not_known_is_said_and_passes(tag: str, newest: str, words: str) -> None:
    verdict = triton_release(TABLE, tag, [card("400.1", compute_capability="3.0")])
    assert verdict["newest"] == newest
    assert words in verdict["unknown"] and bool(words) == bool(verdict["unknown"])
    assert not words or not verdict["problems"]


def test_an_old_release_without_a_row_has_its_holes_all_the_same() -> None:
    assert "CVE-2025-23310" in triton_release(TABLE, "23.02-py3")["holes"]


@pytest.mark.parametrize(
    ("tag", "cards", "problem"),
    [
        ("26.11-py3", [card("580.95.05")], ""),
        ("26.11-py3", [card("615.10")], ""),
        ("26.11-py3", [card("575.57.08")], "Triton 26.11 needs NVIDIA's driver 580 or newer"),
        ("25.08-py3", [card("575.57.08")], ""),
        ("25.08-py3", [card("570.10")], "needs NVIDIA's driver 575 or newer"),
        ("25.08-py3", [card("535.86.10")], ""),
        ("25.08-py3", [card("535.54")], "needs NVIDIA's driver 575 or newer"),
        ("24.10-py3", [card("525.60")], ""),
        ("24.10-py3", [card("470.42")], "needs NVIDIA's driver 525 or newer"),
        ("24.10-py3", [OLD], ""),
        ("25.03-py3", [OLD], "needs a GPU of compute capability 7.5 or higher, and NVIDIA GTX has"),
        ("25.03-py3", [OLD, NEW], ""),
        ("25.07-py3", [card("300.1")], ""),
        ("26.11-py3", [card("", compute_capability="")], ""),
        ("26.11-py3", [], ""),
    ],
)
def test_a_driver_or_gpu_that_cannot_do_is_a_problem(
    tag: str, cards: list[dict[str, str]], problem: str
) -> None:
    said = triton_release(TABLE, tag, cards)["problems"]
    assert (problem in said[0] if said else not problem) and len(said) == bool(problem)


def remedy(sentence: str) -> str:
    found = re.search(r"\(triton_image_tag: (\S+)\)", sentence)
    assert found, sentence
    return found[1]


@pytest.mark.parametrize("driver", ["575.57.08", "560.35", "535.86", "525.60", "470.57.02"])
@pytest.mark.parametrize("capability", ["6.1", "8.9"])
def test_the_release_that_a_refusal_names_runs_on_that_driver(driver: str, capability: str) -> None:
    cards = [card(driver, compute_capability=capability)]
    (sentence,) = triton_release(TABLE, "26.11-py3", cards)["problems"]
    named = remedy(sentence)
    assert triton_release(TABLE, named, cards)["problems"] == []
    for release in ROWS:
        if release > named[:5] and ROWS[release]["driver"]:
            assert triton_release(TABLE, f"{release}-py3", cards)["problems"]


def test_without_a_release_that_runs_there_the_gpus_are_left_out() -> None:
    (sentence,) = triton_release(TABLE, "26.11-py3", [card("390.1")])["problems"]
    assert "set triton_gpus to none" in sentence and "triton_image_tag" not in sentence
    assert triton_release(TABLE, "26.11-py3", [card("390.1")], "none")["problems"] == []


def test_the_gpus_that_were_asked_for_are_judged() -> None:
    assert triton_release(TABLE, "25.03-py3", [OLD, NEW], [0])["problems"]
    assert triton_release(TABLE, "25.03-py3", [OLD, NEW], ["GPU-b"]) == triton_release(
        TABLE, "25.03-py3", [NEW]
    )
    part = triton_release(TABLE, "25.03-py3", [NEW], ["MIG-1"])
    assert part["problems"] == []


def test_what_does_less_well_is_a_warning() -> None:
    def said(tag: str, *cards: Any, **options: Any) -> str:
        return " ".join(triton_release(TABLE, tag, cards, **options)["warnings"])

    assert "asks for driver 560 or newer" in said("24.10-py3", card("550.54"))
    assert "less some features of CUDA 12.6.2" in said("24.10-py3", card("550.54"))
    assert "with data center GPUs only" in said("24.10-py3", card("470.57.02"))
    assert "GPU 0: Triton 25.03 needs a GPU of compute capability" in said("25.03-py3", OLD, NEW)
    assert "needs NVIDIA's driver 580" in said("26.11-py3", card("535.1"), required=False)
    assert said("26.11-py3", card("580.1")) == ""


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        ("24.10-py3", "always"),
        ("26.03-py3", "always"),
        ("26.04-py3", "flag"),
        ("27.01-py3", "flag"),
        ("latest", "unknown"),
        ("", "unknown"),
    ],
)
def test_memory_is_shared_with_clients_on_request_by_releases_that_know_the_flag(
    tag: str, word: str
) -> None:
    assert triton_release(TABLE, tag)["client_shared_memory"] == word


def test_what_a_release_needs_is_said_as_far_as_it_is_known() -> None:
    assert triton_release(TABLE, "26.10-py3")["needs"] == (
        "Triton 26.10 is made with CUDA 13.4.3. With GPUs it needs NVIDIA's driver 580 or newer and"
        " compute capability 7.5 or higher."
    )
    assert "driver (unknown)" in triton_release(TABLE, "25.07-py3")["needs"]
