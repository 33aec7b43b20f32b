# SPDX-License-Identifier: Apache-2.0
"""Why Triton cannot load an ensemble, as far as its own configuration tells; pure.

The rules are those of the server, asked one by one: ``tests/integration/test_config_oracle.py``
compares them with a real one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from . import config_pbtxt
from .config_pbtxt import ModelConfig

NEWEST = "model_version: -1"
_OF_MEMBERS = frozenset({"model_warmup", "optimization"})


def why_no_ensemble(config: ModelConfig, name: str | None) -> str | None:
    """Why an ensemble cannot be loaded, with what to do; None where nothing speaks against it, and
    for a model that is none.

    Args:
        name: of the model; None where it is not known yet.
    """
    if not config_pbtxt.is_ensemble(config):
        return None
    steps = config.ensemble_scheduling.step
    if config.platform != "ensemble" or config.backend not in ("", "ensemble"):
        return 'it has steps of an ensemble, which needs platform: "ensemble" and no backend'
    if config.instance_group:
        return "it is an ensemble and has an instance_group, which only its members may have"
    for field in _OF_MEMBERS & {field.name for field, _value in config.ListFields()}:
        return (
            f"it is an ensemble and has {field}, which only its members may have: leave it out"
            f" (config: {{{field}: null}})"
        )
    if not steps:
        return 'its platform is "ensemble", and its ensemble_scheduling has no step'
    for number, step in enumerate(steps, 1):
        if reason := _why_no_step(step, name):
            return f"step {number} of the ensemble {reason}"
    return _why_no_flow(config)


def _why_no_step(step: ModelConfig, name: str | None) -> str | None:
    if not step.model_name:
        return "has no model_name"
    model = f"('{step.model_name}')"
    if step.model_name == name:
        return f"{model} is the ensemble itself"
    if step.model_version == 0:
        return (
            f"{model} has no model_version, which Triton takes for version 0, and no model has"
            f" that: write {NEWEST} for the newest"
        )
    if step.model_version < -1:
        return f"{model} asks for version {step.model_version}: write {NEWEST} for the newest"
    lacks = [part for part in ("input_map", "output_map") if not getattr(step, part)]
    return f"{model} has no {lacks[0]}" if lacks else None


def _why_no_flow(config: ModelConfig) -> str | None:
    """What is wrong with the tensors between the steps."""
    steps = config.ensemble_scheduling.step
    made = Counter(tensor for step in steps for tensor in step.output_map.values())
    used = {tensor for step in steps for tensor in step.input_map.values()}
    inputs = _names(config.input)
    outputs = _names(config.output)
    twice = [tensor for tensor, count in made.items() if count > 1]
    reasons = [
        *(f"two of its steps make the tensor '{tensor}'" for tensor in twice),
        *(
            f"no step uses the ensemble's input '{tensor}': name it in an input_map, as the value"
            for tensor in inputs
            if tensor not in used
        ),
        *(
            f"no step makes the ensemble's output '{tensor}': name it in an output_map, as the"
            " value"
            for tensor in outputs
            if tensor not in made
        ),
        *(
            f"the tensor '{tensor}', which a step needs, is no input of the ensemble and no step"
            " makes it"
            for tensor in sorted(used - made.keys() - {*inputs})
        ),
        *(
            f"nothing uses the tensor '{tensor}', which a step makes"
            for tensor in made
            if tensor not in used and tensor not in outputs
        ),
    ]
    if reasons:
        return reasons[0]
    waiting = _waiting_for_each_other(config, set(inputs))
    return (
        f"its steps wait for each other: '{waiting[0]}' is made of what is made of it"
        if waiting
        else None
    )


def _waiting_for_each_other(config: ModelConfig, known: set[str]) -> list[str]:
    """Tensors that no order of the steps can make of those that are known."""
    steps = list(config.ensemble_scheduling.step)
    while steps:
        ready = [step for step in steps if known.issuperset(step.input_map.values())]
        if not ready:
            return sorted(tensor for step in steps for tensor in step.output_map.values())
        known = known.union(tensor for step in ready for tensor in step.output_map.values())
        steps = [step for step in steps if step not in ready]
    return []


def _names(tensors: Sequence[ModelConfig]) -> list[str]:
    return [tensor.name for tensor in tensors]
