# SPDX-License-Identifier: Apache-2.0
"""A model that does what its input says. Runs in the environment of a model."""

import ctypes
import json
import os
import signal
import sys
import threading
import time

import mlflow.models
import mlflow.pyfunc
import pandas as pd
from helper_of_model import doubled  # of code_paths


def facts():
    with open("/proc/self/oom_score_adj") as file:
        score = int(file.read())
    names = ("HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONPATH", "SECRET")
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "oom_score_adj": score,
        "environment": {name: os.environ.get(name) for name in names},
        "folder": os.getcwd(),
        "path": sys.path,
        "version": sys.version.split()[0],
        "descriptors": [os.readlink(f"/proc/self/fd/{each}") for each in (0, 1, 2)],
        "threads": threading.active_count(),
    }


def act(do):
    if do == "sys.exit":
        sys.exit(3)
    if do == "os._exit":
        os._exit(7)
    if do == "segfault":
        ctypes.string_at(0)
    if do == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "memory":
        bytearray(1 << 50)
    if do == "raise":
        raise ValueError("this row is\nnot good")
    if do == "print":
        print("\x1b[31mred\rnoise")
        for number in range(5000):
            print("noise", number)
        os.write(1, b"raw noise\n\x1b[31mred\r\n")
        sys.stderr.write("noise of stderr\n")
    if do == "sleep":
        time.sleep(600)
    if do == "child":
        os.system("sleep 600 &")


class Troublesome(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        does = list(model_input["do"])
        for do in does:
            act(do)
        factor = (params or {}).get("factor", 1.0)
        texts = [json.dumps(facts()) if do == "facts" else f"{len(does)} rows" for do in does]
        values = doubled(model_input["x"]) * factor
        answer = pd.DataFrame({"value": values.astype("float64"), "text": texts})
        if "null" in does:
            answer["text"] = None
        return answer.iloc[:-1] if "few" in does else answer


mlflow.models.set_model(Troublesome())
