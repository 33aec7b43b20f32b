# SPDX-License-Identifier: Apache-2.0
"""How much a configuration may ask of a server where a policy judges it: Triton reserves what the
numbers say, and ends, with all that it serves, where it cannot. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from .config_pbtxt import ModelConfig

INSTANCES = 256
SLOTS = 1 << 16
LEVELS = 1000
RUNS = 10_000
BYTES = 1 << 30
_WIDEST = 8  # bytes of an element


def too_much(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """What is asked for beyond each limit, as the beginning of a sentence, and the field."""
    instances = sum(max(group.count, 1) for group in config.instance_group)
    yield from _over("its instance_group has", instances, INSTANCES, "instances", "instance_group")
    levels = config.dynamic_batching.priority_levels
    yield from _over("its dynamic_batching has", levels, LEVELS, "levels", "dynamic_batching")
    batching = config.sequence_batching
    slots = batching.oldest.max_candidate_sequences
    if batching.WhichOneof("strategy_choice") != "oldest":
        slots = config.max_batch_size
    if config.HasField("sequence_batching"):
        slots *= max(instances, 1)
        yield from _over(
            "its sequence_batching keeps", slots, SLOTS, "sequences at once", "sequence_batching"
        )
    state = sum(
        math.prod(max(size, 1) for size in one.dims) * _WIDEST
        for state in batching.state
        for one in (state, *state.initial_state)
    )
    yield from _over(
        "its sequence_batching keeps", state, BYTES, "bytes of state", "sequence_batching"
    )
    yield from _of_warmup(config)


def _of_warmup(config: ModelConfig) -> Iterator[tuple[str, str]]:
    amount, runs = 0, 0
    for sample in config.model_warmup:
        runs += max(sample.count, 1)
        for tensor in sample.inputs.values():
            elements = math.prod(max(size, 1) for size in tensor.dims)
            amount += elements * max(sample.batch_size, 1) * _WIDEST
    yield from _over("its model_warmup has", amount, BYTES, "bytes of input", "model_warmup")
    yield from _over("its model_warmup has", runs, RUNS, "runs", "model_warmup")


def _over(what: str, amount: int, limit: int, unit: str, field: str) -> Iterator[tuple[str, str]]:
    if amount > limit:
        yield f"{what} {amount} {unit}, more than {limit}", field
