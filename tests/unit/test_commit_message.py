# SPDX-License-Identifier: Apache-2.0
"""What the commit-msg hook says of a message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[2] / "tools/commit_message.py"
BODY = "\n\nIt was said in two places, and they differed.\n"
LIMIT = "x" * 60


def check(folder: Path, text: str) -> tuple[int, str]:
    (folder / "message").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(HOOK), str(folder / "message")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert not done.stdout
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "text",
    [
        f"The sentence is said in one place{BODY}",
        f"{LIMIT}{BODY}",
        f"# a template of the user\n\nThe sentence is said in one place{BODY}# what git tells\n",
        f"Ünlaute zählen einmal, nicht zweimal, in sechzig Zeichen: ä{BODY}",
        # Without --cleanup, git takes what follows the scissors for the change itself.
        f"A subject{BODY}# ------------------------ >8 ------------------------\n+{'y' * 99}\n",
        "Merge branch 'a-branch-whose-name-is-as-long-as-branches-sometimes-are' into main\n",
        'Revert "A subject of which git makes one that is longer than sixty characters"\n',
        "fixup! A subject\n",
        "\n# nothing: git gives up by itself\n",
    ],
)
def test_a_sound_message_passes_in_silence(tmp_path: Path, text: str) -> None:
    assert check(tmp_path, text) == (0, "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{LIMIT}x{BODY}", f"The subject has 61 characters, 60 at most: {LIMIT}x"),
        (f"It ends.{BODY}", "The subject ends with a full stop: leave it out."),
        ("A subject\nand its rest\n", "The line below the subject is not empty."),
        ("A subject\n\n# only git's words\n", "There is no body: say why the change is made."),
    ],
)
def test_a_message_that_is_not_sound_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    assert check(tmp_path, text) == (1, f"{sentence}\n")
