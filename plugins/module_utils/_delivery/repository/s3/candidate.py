# SPDX-License-Identifier: Apache-2.0
"""A new deployment in S3 under the candidate's name, for as long as it is being proven: copies that
the store makes.
"""

from __future__ import annotations

from ...domain.config_pbtxt import CONFIG_NAME
from ...domain.journal import Trial
from ...domain.layout import META_NAME
from ...errors import ForeignModel
from ...names import candidate_of
from .bucket import Objects
from .state_store import S3Store


def refuse_taken(store: S3Store, name: str) -> str:
    """The candidate's key. Raises ForeignModel where somebody else has put something there."""
    key = store.location.key(candidate_of(name))
    if store.bucket.objects(f"{key}/"):
        raise ForeignModel(
            f"there are objects below {key}/, which this collection did not make, and a candidate"
            " is proven under that name: remove them, or leave out verify_aside",
            model=name,
            step="try aside",
        )
    return key


def put(store: S3Store, name: str, source: str, found: Objects, config: bytes) -> None:
    """Copies of the objects below ``source``, and this configuration."""
    key = store.location.key(candidate_of(name))

    def copy(rel: str) -> None:
        store.check_lock(name)
        store.bucket.copy(f"{source}{rel}", f"{key}{rel}", int(found[rel][0]))

    own = (f"/{CONFIG_NAME}", f"/{META_NAME}")
    store.bucket.each(copy, [rel for rel in found if rel not in own])
    store.bucket.put(f"{key}/{CONFIG_NAME}", config)


def take_away(store: S3Store, name: str, journal: Trial) -> bool:
    """Remove the copies; False where there are none."""
    key = f"{store.location.key(candidate_of(name))}/"
    if not store.bucket.objects(key):
        return False
    store.bucket.delete_below(key)
    return True
