# SPDX-License-Identifier: Apache-2.0
"""Names of files in configurations: which of them Triton 2.51 loads, and what it needs."""

from __future__ import annotations

# A Python-based backend does not load a model whose file's name has one of these, or loads it only
# where no other file fits a pattern.
UNSAFE = [*" \t\"$&'()*;<>?[\\]`{|}", "\u00e9"]
# They stand in the name, and before it.
SAFE = "!#%+,-:=@^_~"

LABELS = 'output { name: "y" data_type: TYPE_FP32 dims: 3 label_filename: "%s" }'
WARMUP = (
    'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value {'
    ' data_type: TYPE_FP32 dims: 3 input_data_file: "%s" } } }'
)
_FOLDER = "$$TRITON_MODEL_DIRECTORY"


def named(name: str) -> str:
    """Names the model file; what is special to a configuration is escaped."""
    escaped = "".join(f"\\{byte:03o}" for byte in name.encode())
    return f'default_model_filename: "{escaped}"'


def with_environment(value: str) -> str:
    return f'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{value}" }} }}'


# Case → the part of a configuration, files of the model folder, words of what is said.
MISSING = {
    "labels": (LABELS % "l.txt", ("1/l.txt",), "'y' has the label_filename 'l.txt'"),
    "labels in a folder": (LABELS % "a/l.txt", ("l.txt",), "the model folder has no a/l.txt"),
    "labels that are a folder": (LABELS % "a", ("a/l.txt",), "a is a folder of the model"),
    "warmup": (WARMUP % "raw", (), "has no warmup/raw"),
    "warmup beside its folder": (WARMUP % "raw", ("raw",), "has no warmup/raw"),
    "warmup that is a folder": (WARMUP % "d", ("warmup/d/raw",), "warmup/d is a folder"),
    "warmup without a name": (WARMUP % "", ("warmup/raw",), "warmup is a folder"),
    "environment": (with_environment(f"{_FOLDER}/e.tar.gz"), ("1/e.tar.gz",), "no e.tar.gz"),
    "environment without its script": (
        with_environment(f"{_FOLDER}/1/env"),
        ("1/env/lib/x",),
        "no bin/activate",
    ),
    "environment with a space": (
        with_environment(f"{_FOLDER}/1/my env"),
        ("1/my env/bin/activate",),
        "a space, and the folder is handed to a shell",
    ),
}
THERE = {
    "labels": (LABELS % "l.txt", ("l.txt",)),
    "labels in a version folder": (LABELS % "1/l.txt", ("1/l.txt",)),
    "labels from the root": (LABELS % "/l.txt", ("l.txt",)),
    "warmup": (WARMUP % "raw", ("warmup/raw",)),
    "warmup of no request": (WARMUP.replace("size: 1", "size: 0") % "raw", ()),
    "environment": (with_environment(f"{_FOLDER}/1/env"), ("1/env/bin/activate",)),
    "environment with a slash": (with_environment(f"{_FOLDER}/1/env/"), ("1/env/bin/activate",)),
    "environment with dots": (with_environment(f"{_FOLDER}/1/../env"), ("env/bin/activate",)),
    "environment that is the model": (with_environment(_FOLDER), ("bin/activate",)),
    "environment beyond ASCII": (
        with_environment(f"{_FOLDER}/1/\u00f6env"),
        ("1/\u00f6env/bin/activate",),
    ),
}
