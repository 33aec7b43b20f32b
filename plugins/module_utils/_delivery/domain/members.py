# SPDX-License-Identifier: Apache-2.0
"""Why Triton cannot load an ensemble over its members, as their configurations tell; pure.

The rules are those of the server: ``tests/integration/test_config_oracle.py`` compares them with a
real one. Nothing is said of what a backend may complete when it loads a member.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import config_pbtxt
from .backends import Loading
from .config_pbtxt import ModelConfig
from .ensembles import NEWEST

# They add no input or output to a configuration that names some of each.
_COMPLETE = frozenset({"python", "onnxruntime", "pytorch", "fil", "ensemble"})
_ANY = -1


@dataclass(frozen=True)
class Member:
    """A model that an ensemble uses, as it is deployed or will be.

    Attributes:
        config: None where it is not known.
        folders: the version folders; empty where they are not known.
        adds: its program may add inputs, outputs and a larger batch to what its configuration says.
    """

    config: ModelConfig | None
    folders: tuple[int, ...] = ()
    adds: bool = False

    @property
    def loaded(self) -> tuple[int, ...]:
        """The versions that Triton loads; empty where that is not known."""
        return Loading.of(self.config).versions(self.folders) if self.config else self.folders


@dataclass(frozen=True)
class _Tensor:
    """What one configuration says of a tensor between the steps; ``kind`` is 0, and ``dims`` are
    empty, where it leaves that to be completed.
    """

    owner: str
    kind: int
    dims: tuple[int, ...]
    batched: bool

    @property
    def whole(self) -> tuple[int, ...]:
        """The shape with the batch dimension."""
        return (_ANY, *self.dims) if self.batched else self.dims


def why_members_do_not_fit(config: ModelConfig, members: Mapping[str, Member]) -> str | None:
    """Why an ensemble cannot be loaded over its members, with what to do; None where nothing speaks
    against it.

    Args:
        members: those of which something is known, by name.
    """
    tensors: dict[str, _Tensor | None] = {**dict(_own_tensors(config))}
    for number, step in enumerate(config.ensemble_scheduling.step, 1):
        member = members.get(step.model_name, Member(None))
        reason = _why_no_version(step, member)
        if reason is None and member.config is not None:
            reason = (
                (None if member.adds else _why_no_batch(config, step.model_name, member.config))
                or _why_not_mapped(number, step, member.config, member.adds)
                or _why_other_tensor(step, member.config, tensors)
            )
        if reason:
            return reason
        if member.config is None:
            # The first to name a tensor decides what it is, and that is not known.
            for tensor in (*step.input_map.values(), *step.output_map.values()):
                tensors.setdefault(tensor, None)
    return None


def _why_no_version(step: ModelConfig, member: Member) -> str | None:
    wanted, loaded = step.model_version, member.loaded
    if wanted < 1 or not loaded or wanted in loaded:
        return None
    there = ", ".join(map(str, member.folders))
    remedy = f"pin one of these, or write {NEWEST} for the newest"
    if wanted in member.folders:
        there = f"{there} and of these loads {', '.join(map(str, loaded))} alone"
        remedy = (
            f"pin what it loads, write {NEWEST} for the newest, or let its version_policy load it"
            f" (config: {{version_policy: {{specific: {{versions: [{wanted}]}}}}}})"
        )
    return f"it asks for version {wanted} of '{step.model_name}', which has {there}: {remedy}"


def _why_no_batch(config: ModelConfig, name: str, member: ModelConfig) -> str | None:
    """A member that makes no batches takes them as its first dimension."""
    if 0 < member.max_batch_size < config.max_batch_size:
        return (
            f"its max_batch_size is {config.max_batch_size}, and that of its member '{name}' is"
            f" {member.max_batch_size}: lower the one, or raise the other"
        )
    return None


def _why_not_mapped(number: int, step: ModelConfig, member: ModelConfig, adds: bool) -> str | None:
    """Which tensor of a step its member does not have, and which input of the member has none."""
    name = step.model_name
    for kind, mapped, has in (
        ("input", step.input_map, member.input),
        ("output", step.output_map, member.output),
    ):
        known = [tensor.name for tensor in has]
        says_all = _says_all(member) and not adds
        for unknown in sorted(mapped.keys() - {*known}) if says_all else ():
            return (
                f"step {number} of the ensemble maps the {kind} '{unknown}' of '{name}', which has"
                f" {', '.join(known)}: name one of these as the key in {kind}_map"
            )
    for tensor in member.input:
        if not tensor.optional and tensor.name not in step.input_map:
            return (
                f"step {number} of the ensemble leaves out the input '{tensor.name}' of '{name}':"
                " name it in input_map, as the key, or make it optional there"
            )
    return None


def _says_all(member: ModelConfig) -> bool:
    """True where Triton loads it with these inputs and outputs and no others."""
    backend = "ensemble" if config_pbtxt.is_ensemble(member) else Loading.of(member).backend
    return backend in _COMPLETE and bool(member.input) and bool(member.output)


def _why_other_tensor(
    step: ModelConfig, member: ModelConfig, tensors: dict[str, _Tensor | None]
) -> str | None:
    """Where a member's tensor is another than what the ensemble, or a step before it, says of it.
    What this step is the first to say is added to ``tensors``.
    """
    batched = member.max_batch_size > 0
    for mapped, has in ((step.input_map, member.input), (step.output_map, member.output)):
        by_name = {tensor.name: tensor for tensor in has}
        for key, tensor in sorted(mapped.items()):
            said = None
            if found := by_name.get(key):
                dims = tuple(found.dims)
                said = _Tensor(f"'{step.model_name}'", found.data_type, dims, batched)
            first = tensors.setdefault(tensor, said)
            if first and said and (reason := _why_not_the_same(tensor, first, said)):
                return reason
    return None


def _own_tensors(config: ModelConfig) -> Iterator[tuple[str, _Tensor]]:
    """What an ensemble says of its own inputs and outputs, the former last, as they decide."""
    for tensor in (*config.output, *config.input):
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        yield (
            tensor.name,
            _Tensor("the ensemble", tensor.data_type, tuple(dims), config.max_batch_size > 0),
        )


def _why_not_the_same(tensor: str, one: _Tensor, other: _Tensor) -> str | None:
    if one.kind and other.kind and one.kind != other.kind:
        kinds = [_name_of_type(said.kind) for said in (one, other)]
        return (
            f"its tensor '{tensor}' is {kinds[0]} for {one.owner} and {kinds[1]} for"
            f" {other.owner}: both need the same data_type"
        )
    if not one.dims or not other.dims:
        return None
    if _same_shape(one.dims, other.dims) or _same_shape(one.whole, other.whole):
        return None
    shapes = [str(list(said.whole)) for said in (one, other)]
    return (
        f"its tensor '{tensor}' has the shape {shapes[0]} for {one.owner} and {shapes[1]} for"
        f" {other.owner} (batches included): both need the same dims"
    )


def _same_shape(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) == len(other) and all(
        first == second or _ANY in (first, second) for first, second in zip(one, other)
    )


def _name_of_type(kind: int) -> str:
    field = config_pbtxt.new_message().DESCRIPTOR.fields_by_name["input"].message_type
    return str(field.fields_by_name["data_type"].enum_type.values_by_number[kind].name)
