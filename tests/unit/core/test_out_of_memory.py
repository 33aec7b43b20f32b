# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501
"""Reasons of backends, collected from threads of their users, that mean too little memory."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.out_of_memory import (
    explain,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.metrics import GpuMemory
from support.gpu_metrics import GPU

GIB = 1 << 30
FREE = GpuMemory(GPU, 77 * GIB, 80 * GIB)


@pytest.mark.parametrize(
    ("reason", "asked"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a", "20.0 GiB"),
        ("RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be", None),
        ("onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 2147483648", "2.0 GiB"),
        ("[TRT] Requested amount of GPU memory (34359738368 bytes) could not be allocated. There may", "32.0 GiB"),
        ("[safeDeserialize.cpp::load::269] Error Code 2: OutOfMemory (no further information)", None),
        ("../rtSafe/safeRuntime.cpp (25) - Cuda Error in allocate: 2 (out of memory)", None),
        ("Error Code 1: Cuda Runtime (out of memory)", None),
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc((void**)&p, size)", None),
        ("std::bad_alloc: out_of_memory: CUDA error at: cuda_memory_resource: cudaErrorMemoryAllocation out of memory", None),
        ("cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 4,294,967,296 bytes (allocated so far: 0 bytes).", "4.0 GiB"),
        ("failed to allocate 1.25G (1342177280 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory", "1.2 GiB"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", None),
        ("ValueError: Free memory on device (3.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.9, 71.2 GiB)", None),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", None),
    ],
)  # fmt: skip
def test_too_little_memory_of_a_gpu_is_told_in_our_words(reason: str, asked: str | None) -> None:
    details = f"it asked for {asked}, and 3.0 GiB was free" if asked else "3.0 GiB was free"
    said = f"the GPU's memory is too small for it ({details} before); do this"
    assert explain(reason, [(GPU, FREE)], "do this") == said


@pytest.mark.parametrize(
    "reason",
    [
        "RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes",
        "MemoryError: std::bad_alloc",
    ],
)  # fmt: skip
def test_too_little_memory_of_the_host_is_told_apart(reason: str) -> None:
    said = explain(reason, [(GPU, FREE)], "")
    asked = " (it asked for 8.0 GiB)" if "bytes" in reason else ""
    assert said == f"the host's memory is too small for it{asked}"


@pytest.mark.parametrize(
    "reason",
    [
        "RuntimeError: no weights for you",
        "CUDA driver version is insufficient for CUDA runtime version",
        "unsupported gpu id 1 for instance group, supported gpu ids are: 0",
        "the tensor is out of range",
    ],
)
def test_another_reason_is_left_as_it_is(reason: str) -> None:
    assert explain(reason, [(GPU, FREE)], "do this") is None
