# SPDX-License-Identifier: Apache-2.0
"""A model of Triton's Python backend that holds memory of its GPU: y = x + number. Its parameters
``bytes`` and ``number`` say how much, and which.
"""

import ctypes
import json

import numpy as np
import triton_python_backend_utils as pb_utils

OUT_OF_MEMORY = 2


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.number = float(parameters["number"]["string_value"])
        size = int(parameters["bytes"]["string_value"])
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, context, data = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), int(args["model_instance_device_id"]))
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        code = self.cuda.cuMemAlloc_v2(ctypes.byref(data), ctypes.c_size_t(size))
        if code == OUT_OF_MEMORY:
            raise RuntimeError(f"CUDA out of memory. Tried to allocate {size / 2**30:.2f} GiB.")
        if code:
            raise RuntimeError(f"cuMemAlloc failed with code {code}")

    def call(self, name, *arguments):
        code = getattr(self.cuda, name)(*arguments)
        if code:
            raise RuntimeError(f"{name} failed with code {code}")

    def execute(self, requests):
        responses = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answer = (values + self.number).astype(np.float32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", answer)]))
        return responses
