# SPDX-License-Identifier: Apache-2.0
"""Which column of a table is which of the model: its rows are asked in the model's order, whatever
the table's is.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from ..errors import InvalidOption

_SHOWN = 5


def places_of(columns: tuple[str, ...], labels: Sequence[object]) -> list[int] | None:
    """Where each of the model's columns stands in a table; None where the table is taken as it
    stands, as the model's columns or the table's have no names. What the model does not have is
    left out, as MLflow does with the columns that a signature does not name.

    Raises:
        InvalidOption: the table has names, and not those of the model.
    """
    if not columns or not labels:
        return None
    named = [str(label) for label in labels]
    # LightGBM writes spaces in names as underscores.
    for wanted, there in ((columns, named), (_joined(columns), _joined(named))):
        if {*wanted} <= {*there}:
            twice = next((name for name in wanted if there.count(name) > 1), None)
            if twice is not None:
                raise InvalidOption(f"the table has two columns called {twice}")
            places = {name: place for place, name in enumerate(there)}
            return [places[name] for name in wanted]
    if all(isinstance(label, Integral) for label in labels) or named == [
        *map(str, range(len(named)))
    ]:
        return None
    raise InvalidOption(_said(columns, named))


def _joined(names: Sequence[str]) -> Sequence[str]:
    return [name.replace(" ", "_") for name in names]


def _said(columns: Sequence[str], named: Sequence[str]) -> str:
    missing = [name for name in columns if name not in named]
    unknown = [name for name in named if name not in columns]
    also = f", and has {_listed(unknown)}, which the model does not know" if unknown else ""
    return (
        f"the table has no column {_listed(missing)}{also}: name its columns as the model's"
        f" ({_listed(columns)}), or give rows without names, as frame.to_numpy() does, in the"
        " model's order"
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
