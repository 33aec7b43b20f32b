# SPDX-License-Identifier: Apache-2.0
"""A model of Triton's Python backend that takes memory of its GPU, in a time like that of reading:
y = x + NUMBER, which benchmarks/gpu.py sets.

Parameters: ``bytes``, ``seconds`` that the load takes, ``place`` (gpu or cpu). Where there is a
file weights.bin beside this one, its bytes are read and copied instead, as fast as that is.
"""

import ctypes
import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils

PIECE = 1 << 30
CHUNK = 64 << 20
OUT_OF_MEMORY = 2
NUMBER = 0


class Gpu:
    """cuMemAlloc of NVIDIA's driver, so never managed memory, which could be paged out."""

    def __init__(self, number):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), number)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments):
        code = getattr(self.cuda, name)(*arguments)
        if code == OUT_OF_MEMORY:
            raise pb_utils.TritonModelException(
                f"CUDA out of memory. Tried to allocate {arguments[1].value / 2**30:.2f} GiB."
            )
        if code:
            raise pb_utils.TritonModelException(f"{name} failed with code {code}")

    def take(self, size):
        data = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(data), ctypes.c_size_t(size))
        return data

    def fill(self, data, chunk):
        pointer = ctypes.c_void_p(chunk.ctypes.data)
        self.call("cuMemcpyHtoD_v2", data, pointer, ctypes.c_size_t(chunk.nbytes))


class Cpu:
    def take(self, size):
        return np.zeros(size, dtype=np.uint8)

    def fill(self, data, chunk):
        data[: chunk.nbytes] = chunk


class TritonPythonModel:
    def initialize(self, args):
        given = {
            key: value["string_value"]
            for key, value in json.loads(args["model_config"])["parameters"].items()
        }
        self.held = []
        device = Cpu() if given["place"] == "cpu" else Gpu(int(args["model_instance_device_id"]))
        weights = os.path.join(os.path.dirname(os.path.abspath(__file__)), "weights.bin")
        if os.path.exists(weights):
            self.read(device, weights)
        else:
            self.take(device, int(given["bytes"]), float(given["seconds"]))

    def take(self, device, size, seconds):
        begin, left = time.monotonic(), size
        while left > 0:
            self.held.append(device.take(min(PIECE, left)))
            left -= PIECE
            done = 1 - max(left, 0) / size
            time.sleep(max(0, begin + seconds * done - time.monotonic()))

    def read(self, device, path):
        with open(path, "rb", buffering=0) as stream:
            buffer = np.empty(CHUNK, dtype=np.uint8)
            while count := stream.readinto(buffer):
                self.held.append(device.take(count))
                device.fill(self.held[-1], buffer[:count])

    def execute(self, requests):
        responses = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answer = pb_utils.Tensor("y", (values + NUMBER).astype(np.float32))
            responses.append(pb_utils.InferenceResponse([answer]))
        return responses
