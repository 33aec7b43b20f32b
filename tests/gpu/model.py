# SPDX-License-Identifier: Apache-2.0
"""A model of Triton's Python backend: y = 2 x + 1, computed where its instance is placed, and that
place: a GPU's UUID, or CPU.

Its parameter ``library`` says what computes on a GPU: ``torch``, or ``driver``, which is NVIDIA's
driver and nothing else.
"""

import ctypes
import json
import uuid

import numpy as np
import triton_python_backend_utils as pb_utils

PTX = b"""
.version 6.0
.target sm_60
.address_size 64
.visible .entry affine(.param .u64 data, .param .u32 count) {
    .reg .pred %p;
    .reg .b32 %r<5>;
    .reg .f32 %f<2>;
    .reg .b64 %a<3>;
    ld.param.u64 %a0, [data];
    ld.param.u32 %r0, [count];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.s32 %r4, %r1, %r2, %r3;
    setp.ge.u32 %p, %r4, %r0;
    @%p bra DONE;
    cvta.to.global.u64 %a1, %a0;
    mul.wide.u32 %a2, %r4, 4;
    add.s64 %a1, %a1, %a2;
    ld.global.f32 %f0, [%a1];
    fma.rn.f32 %f1, %f0, 0f40000000, 0f3F800000;
    st.global.f32 [%a1], %f1;
DONE:
    ret;
}
"""
THREADS = 128


class Driver:
    """One GPU through libcuda."""

    def __init__(self, number):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, self.context, module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.function = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), number)
        raw = (ctypes.c_ubyte * 16)()
        self.call("cuDeviceGetUuid", raw, device)
        self.name = f"GPU-{uuid.UUID(bytes=bytes(raw))}"
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
        self.call("cuCtxSetCurrent", self.context)
        self.call("cuModuleLoadData", ctypes.byref(module), PTX)
        self.call("cuModuleGetFunction", ctypes.byref(self.function), module, b"affine")

    def call(self, name, *arguments):
        code = getattr(self.cuda, name)(*arguments)
        if code:
            raise pb_utils.TritonModelException(f"{name} failed with code {code}")

    def affine(self, values):
        data, count = ctypes.c_uint64(), ctypes.c_uint32(values.size)
        result = np.full_like(values, np.nan)
        size = ctypes.c_size_t(values.nbytes)
        self.call("cuCtxSetCurrent", self.context)
        self.call("cuMemAlloc_v2", ctypes.byref(data), size)
        try:
            self.call("cuMemcpyHtoD_v2", data, values.ctypes.data_as(ctypes.c_void_p), size)
            arguments = (ctypes.c_void_p * 2)(ctypes.addressof(data), ctypes.addressof(count))
            blocks = (values.size + THREADS - 1) // THREADS
            self.call(
                "cuLaunchKernel",
                self.function,
                blocks,
                1,
                1,
                THREADS,
                1,
                1,
                0,
                None,
                arguments,
                None,
            )
            self.call("cuMemcpyDtoH_v2", result.ctypes.data_as(ctypes.c_void_p), data, size)
        finally:
            self.call("cuMemFree_v2", data)
        return result


class Torch:
    """One GPU through PyTorch."""

    def __init__(self, number):
        import torch

        self.torch, self.device = torch, torch.device(f"cuda:{number}")
        self.name = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"

    def affine(self, values):
        return (2 * self.torch.from_numpy(values).to(self.device) + 1).cpu().numpy()


class Cpu:
    name = "CPU"

    def affine(self, values):
        return 2 * values + 1


class TritonPythonModel:
    def initialize(self, args):
        library = json.loads(args["model_config"])["parameters"]["library"]["string_value"]
        if args["model_instance_kind"] == "GPU":
            self.device = {"torch": Torch, "driver": Driver}[library](
                int(args["model_instance_device_id"])
            )
        else:
            self.device = Cpu()

    def execute(self, requests):
        responses = []
        for request in requests:
            values = np.ascontiguousarray(
                pb_utils.get_input_tensor_by_name(request, "x").as_numpy(), dtype=np.float32
            )
            device = np.array([self.device.name.encode()], dtype=object)
            tensors = [
                pb_utils.Tensor("y", self.device.affine(values)),
                pb_utils.Tensor("place", device),
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
