# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: triton_release
short_description: What is known of a release of Triton, and whether it suits a host
version_added: 0.1.0
description:
  - Tells which holes a release of Triton has that later ones closed, and which driver and GPU it
    needs, by the table in C(files/releases.yml) of the role C(mlops.triton.triton).
  - A tag that the table does not know is no fault. What the table leaves open is not judged.
positional: _input, tag
options:
  _input:
    description: The table.
    type: dict
    required: true
  tag:
    description: Tag of NVIDIA's image, as V(26.11-py3), or a release, as V(26.11). Empty where
      nothing but a digest is known.
    type: str
    required: true
  cards:
    description: The GPUs of the host, each with C(index), C(uuid), C(name), C(driver) and
      C(compute_capability), which may be empty.
    type: list
    elements: dict
    default: []
  gpus:
    description: Which of them the server gets. V(all), V(none), or a list of indices and UUIDs.
    type: raw
    default: all
  required:
    description: Whether a server without these GPUs is refused; otherwise it is warned of.
    type: bool
    default: true
author:
  - MLOps Triton contributors (@mlops-triton)
"""

EXAMPLES = r"""
- name: Say which holes are known of an image
  ansible.builtin.debug:
    msg: "{{ (table | mlops.triton.triton_release('24.10-py3')).holes }}"
  vars:
    table: "{{ lookup('ansible.builtin.file', 'releases.yml') | from_yaml }}"
"""

RETURN = r"""
_value:
  description:
    - C(release), empty where the tag names none. C(newest), the tag of the same kind with the
      table's newest release. C(cves), the known holes, and C(holes), a sentence about them, empty
      where none is known. C(needs), a sentence about driver and GPU. C(problems) and C(warnings),
      sentences about those of the host.
      C(unknown), a sentence where the table does not know the tag.
    - C(client_shared_memory) is V(flag) where the release shares memory with clients on request,
      V(always) where it always does, and V(unknown) otherwise.
  type: dict
  sample:
    release: "24.10"
    newest: 26.11-py3
    cves: [CVE-2025-23310, CVE-2026-24207]
    holes: Triton 24.10 has known holes that later releases closed.
    needs: Triton 24.10 is made with CUDA 12.6.2.
    problems: []
    warnings: []
    unknown: ""
    client_shared_memory: always
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Table = Mapping[str, Any]
Row = Mapping[str, Any]
Card = Mapping[str, Any]
# What is named one by one; of the others the message says how many they are.
_SEVERE = ("authentication bypass", "code execution", "escalation")
_SCORE = 9.0


def triton_release(
    table: Table,
    tag: str,
    cards: Sequence[Card] = (),
    gpus: Any = "all",
    required: bool = True,
) -> dict[str, Any]:
    """What is known of a tag, and whether it suits a host."""
    release = _release_of(tag)
    row = next((row for row in table["releases"] if row["release"] == release), None)
    there = _holes(table, release)
    newest = table["releases"][-1]["release"]
    suffix = tag[len(release) :] if release else "-py3"
    misfits, remarks = _judge(table, row, _chosen(cards, gpus), suffix) if row else ([], [])
    return {
        "release": release,
        "newest": newest + suffix,
        "cves": [hole["cve"] for hole in there],
        "holes": _sentence(release, there),
        "needs": _needs(table, row) if row else "",
        "problems": misfits if required else [],
        "warnings": remarks + ([] if required else misfits),
        "unknown": "" if row else _unknown(table, tag, release),
        "client_shared_memory": _client_shared_memory(table, release),
    }


def _release_of(tag: str) -> str:
    found = re.match(r"\d\d\.\d\d(?=-|$)", tag)
    return found[0] if found else ""


def _unknown(table: Table, tag: str, release: str) -> str:
    newest = table["releases"][-1]["release"]
    what = f"The tag {tag}" if tag else "The digest of the image"
    if release > newest:
        what += f" is newer than what this release of the collection knows (up to {newest})"
    elif release:
        what += " is older than what this collection has figures of"
    else:
        what += " does not tell which release of Triton it is"
    return (
        what
        + ": which driver and GPU it needs is not checked"
        + ("." if release and release < newest else ", and neither are its known holes.")
    )


def _holes(table: Table, release: str) -> list[Row]:
    return [
        hole
        for hole in table["holes"]
        if release and hole.get("since", "") <= release < hole["fixed"]
    ]


def _sentence(release: str, there: Sequence[Row]) -> str:
    """Empty where no hole is known."""
    if not there:
        return ""
    severe = [
        hole for hole in there if hole["leads_to"] in _SEVERE or float(hole["score"]) >= _SCORE
    ]
    named = "; ".join(
        f"{kind} ({', '.join(hole['cve'] for hole in severe if hole['leads_to'] == kind)})"
        for kind in dict.fromkeys(hole["leads_to"] for hole in severe)
    )
    rest = len(there) - len(severe)
    others = f"{rest} {'more' if severe else 'of them'}, such as denial of service"
    told = " and ".join(part for part in (named, others if rest else "") if part)
    return f"Triton {release} has known holes that later releases closed: {told}."


def _needs(table: Table, row: Row) -> str:
    """What it needs to use GPUs, as a sentence; what is not known is said to be so."""
    driver = row["driver"] or _least_driver(table, row)
    return (
        f"Triton {row['release']} is made with CUDA {row['cuda'] or '(unknown)'}."
        f" With GPUs it needs NVIDIA's driver {f'{driver} or newer' if driver else '(unknown)'} and"
        f" compute capability {row['compute_capability'] or '(unknown)'} or higher."
    )


def _client_shared_memory(table: Table, release: str) -> str:
    if not release:
        return "unknown"
    return "flag" if release >= table["flags"]["allow-client-shm"] else "always"


def _chosen(cards: Sequence[Card], gpus: Any) -> list[Card]:
    if gpus == "none":
        return []
    if isinstance(gpus, str):
        return list(cards)
    names = {str(gpu) for gpu in gpus}
    # A part of a divided GPU is none of the cards; it is on one of them.
    return [card for card in cards if {str(card["index"]), card["uuid"]} & names] or list(cards)


def _judge(
    table: Table, row: Row, cards: Sequence[Card], suffix: str
) -> tuple[list[str], list[str]]:
    """Why the cards cannot serve with this release, and what else is to be said."""
    if not cards:
        return [], []
    found = [_misfit(table, row, card) for card in cards]
    # One GPU that suits is enough: Triton leaves the others alone.
    if not all(found):
        return [], [
            *dict.fromkeys(
                f"GPU {card['index']}: {why}." for card, why in zip(cards, found) if why
            ),
            *_remarks(table, row, cards[0]),
        ]
    return [f"{why}: {_remedy(table, cards, suffix)}." for why in dict.fromkeys(found)], []


def _remedy(table: Table, cards: Sequence[Card], suffix: str) -> str:
    fitting = [
        row["release"]
        for row in table["releases"]
        if _least_driver(table, row) and not all(_misfit(table, row, card) for card in cards)
    ]
    if not fitting:
        return "no release that this collection knows runs on it, so set triton_gpus to none"
    return (
        "bring the host what it lacks, set triton_gpus to none, or take the newest release that is"
        f" known to run there (triton_image_tag: {fitting[-1]}{suffix})"
    )


def _misfit(table: Table, row: Row, card: Card) -> str:
    """Why a card cannot be used, as a clause; empty where it can, or where that is not known."""
    needed, has = _parts(row["compute_capability"]), _parts(card["compute_capability"])
    if needed and has and has < needed:
        return (
            f"Triton {row['release']} needs a GPU of compute capability"
            f" {row['compute_capability']} or higher, and {card['name']} has"
            f" {card['compute_capability']}"
        )
    least, driver = _least_driver(table, row), _parts(card["driver"])
    if not least or not driver or driver >= (least,) or _is_data_center(row, driver):
        return ""
    return (
        f"Triton {row['release']} needs NVIDIA's driver {least} or newer, and this host has"
        f" {card['driver']}"
    )


def _remarks(table: Table, row: Row, card: Card) -> list[str]:
    driver = _parts(card["driver"])
    if not row["driver"] or not driver or driver >= (row["driver"],):
        return []
    asked = (
        f"NVIDIA asks for driver {row['driver']} or newer for Triton {row['release']}, and this"
        f" host has {card['driver']}"
    )
    if driver < (_least_driver(table, row) or 0,):
        return [f"{asked}, which does with data center GPUs only."]
    return [f"{asked}: it does, less some features of CUDA {row['cuda']}."]


def _least_driver(table: Table, row: Row) -> int | None:
    """The oldest driver that does with any GPU; None where that is not known."""
    generation = str(row["cuda"] or "").partition(".")[0]
    known = [row["driver"], table["cuda_drivers"].get(generation)]
    return min((number for number in known if number), default=None)


def _is_data_center(row: Row, driver: tuple[int, ...]) -> bool:
    return any(
        branch[0] == driver[0] and driver >= branch
        for branch in map(_parts, row["data_center_drivers"] or ())
    )


def _parts(version: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(version or "")))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"triton_release": triton_release}
