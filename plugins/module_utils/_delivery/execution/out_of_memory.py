# SPDX-License-Identifier: Apache-2.0
"""Errors of backends that mean that memory was too little, said in our words."""

from __future__ import annotations

import re
from collections.abc import Collection

from ..planning.swap import in_words
from ..triton.metrics import GpuMemory

# What PyTorch, ONNX Runtime, TensorRT, CUDA's own libraries, CuPy, RAPIDS, TensorFlow and vLLM say.
_ON_GPU = (
    r"CUDA out of memory",
    r"CUDA error: out of memory",
    r"CUDA error 2\b",
    r"CUDA_ERROR_OUT_OF_MEMORY",
    r"CUDA failure 2\b.*out of memory",
    r"cudaErrorMemoryAllocation",
    r"cudaMalloc\w* .*(fail|out of memory)",
    r"cuda(?: error| runtime)? .*\(out of memory\)",
    r"BFCArena::AllocateRaw.*Failed to allocate memory",
    r"Requested amount of GPU memory",
    r"Error Code 2: OutOfMemory",
    r"CU(?:BLAS|DNN|SOLVER|SPARSE|FFT)_STATUS_ALLOC_FAILED",
    r"OutOfMemoryError",
    r"Out of memory allocating",
    r"out_of_memory",
    r"OOM when allocating tensor",
    r"failed to allocate .*(?:GPU|CUDA|device)",
    r"(?:GPU|CUDA) memory .*(?:could not be|cannot be|not) allocated",
    r"No available memory for the cache blocks",
    r"less than desired GPU memory utilization",
)
_OF_HOST = (
    r"DefaultCPUAllocator: .*allocate memory",
    r"DefaultCPUAllocator: not enough memory",
    r"std::bad_alloc",
    r"\bMemoryError\b",
    r"Cannot allocate memory",
)
_ASKED = (
    r"Tried to allocate (?P<size>[\d.]+) (?P<unit>[KMGT]?i?B)",
    r"tried to allocate (?P<size>\d+) (?P<unit>bytes)",
    r"requested buffer of size (?P<size>\d+)",
    r"Requested amount of GPU memory \((?P<size>\d+) (?P<unit>bytes)\)",
    r"[Oo]ut of memory allocating (?P<size>[\d,]+) (?P<unit>bytes)",
    r"failed to allocate [\d.]+\w? \((?P<size>\d+) (?P<unit>bytes)\)",
    r"failed to allocate (?P<size>\d+) (?P<unit>bytes)",
)
_UNITS = {"B": 0, "bytes": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_UNITS.update({f"{letter}B": _UNITS[f"{letter}iB"] for letter in "KMGT"})


def explain(reason: str, gpus: Collection[tuple[str, GpuMemory]], remedy: str) -> str | None:
    """A sentence where ``reason`` says that memory was too little; None where it does not.

    Args:
        gpus: with their UUIDs, as they were before.
        remedy: what a user can do about it; "" for nothing.
    """
    text = " ".join(reason.split())
    on_gpu = _has(text, _ON_GPU)
    if not on_gpu and not _has(text, _OF_HOST):
        return None
    asked = _asked(text)
    said = [f"it asked for {in_words(asked)}"] if asked else []
    if on_gpu and gpus:
        rooms = [
            in_words(gpu.free) + (f" on {uuid}" if len(gpus) > 1 else "") for uuid, gpu in gpus
        ]
        said.append(f"{' and '.join(rooms)} {'were' if len(rooms) > 1 else 'was'} free before")
    whose = "the GPU's memory" if on_gpu else "the host's memory"
    details = f" ({', and '.join(said)})" if said else ""
    return f"{whose} is too small for it{details}{f'; {remedy}' if remedy else ''}"


def _has(text: str, signs: Collection[str]) -> bool:
    return any(re.search(sign, text, re.IGNORECASE) for sign in signs)


def _asked(text: str) -> int | None:
    for sign in _ASKED:
        if found := re.search(sign, text):
            given = found.groupdict()
            size = float(given["size"].replace(",", ""))
            return int(size * (1 << _UNITS[given.get("unit") or "bytes"]))
    return None
