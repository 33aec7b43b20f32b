# SPDX-License-Identifier: Apache-2.0
"""What ``make fuzz`` begins with, and what it once found: each file is read, or refused in a
sentence.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
CORPUS = sorted(path for path in (FUZZ / "corpus").rglob("*") if path.is_file())
# In a process of its own: the core is imported there as the readers of model files import it.
PROGRAM = """
import json, sys
sys.path[:0] = [sys.argv[1]]
from fuzz import parsers
for line in sys.stdin:
    name, path = json.loads(line)
    with open(path, "rb") as file:
        print(json.dumps([path, parsers.refused(name, file.read())]))
"""


def test_the_corpus_has_a_folder_for_each_parser_and_is_small() -> None:
    there = {path.relative_to(FUZZ / "corpus").parts[0] for path in CORPUS}
    program = f"import sys; sys.path.insert(0, {str(FUZZ.parent)!r})"
    words = [sys.executable, "-c", f"{program}; from fuzz import parsers; print(*parsers.PARSERS)"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == there
    assert sum(path.stat().st_size for path in CORPUS) < 1 << 20


def test_each_file_of_the_corpus_is_read_or_refused_in_a_sentence() -> None:
    pytest.importorskip("treelite")
    pytest.importorskip("tritonclient.grpc")
    asked = [json.dumps([path.relative_to(FUZZ / "corpus").parts[0], str(path)]) for path in CORPUS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(FUZZ.parent)],
        input="\n".join(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = dict(json.loads(line) for line in done.stdout.splitlines())
    assert set(said) == {str(path) for path in CORPUS}
    for name in ("forest_4", "histogram_5", "boosted_regressor_4", "tree_2"):
        real = FUZZ / "corpus/pickle" / name
        assert said[str(real)] is None, said[str(real)]
    assert said[str(FUZZ / "corpus/pickle/hidden_objects")]
