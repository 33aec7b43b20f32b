# SPDX-License-Identifier: Apache-2.0
"""YAML that anybody may have written: MLmodel, and what says which environment a model needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_MOST_VALUES = 50_000
_DEEPEST = 64
_NULL = "tag:yaml.org,2002:null"


def read_yaml(data: bytes) -> object:
    """A document of mappings, lists and texts. Texts stay texts: what would be a number takes
    seconds where it has very many digits.

    Raises:
        ValueError: it is no YAML, it holds too many values, or it is too deep.
    """
    import yaml

    # The parser in C, where it was built, takes a tenth of the time.
    base = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    loader: Any = type("Loader", (base,), {})
    loader.add_implicit_resolver(_NULL, re.compile("(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
    loader.add_constructor(_NULL, lambda _loader, _node: None)
    try:
        _refuse_too_many(yaml.parse(data, loader))
        return yaml.load(data, loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except LookupError:  # an escape in it names a character that does not exist
        raise ValueError("it is no YAML") from None


def _refuse_too_many(events: Iterable[Any]) -> None:
    """Refuse what would be many values or deep ones. An alias counts as all that it stands for:
    whoever walks through the document meets it each time.
    """
    open_ones: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    count = 0
    for event in events:
        before = count
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if kind == "AliasEvent":
            if anchor not in sizes:
                raise ValueError(f"the alias {anchor} stands for nothing, or for what it is in")
            count += sizes[anchor]
        elif kind == "ScalarEvent":
            count += 1
            if anchor is not None:
                sizes[anchor] = 1
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            count += 1
            open_ones.append((anchor, before))
            # The name of an older one is this one's from here on.
            sizes.pop(anchor or "", None)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            anchor, begun = open_ones.pop()
            if anchor is not None:
                sizes[anchor] = count - begun
        if count > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        if len(open_ones) > _DEEPEST:
            raise ValueError("it is nested too deeply")
