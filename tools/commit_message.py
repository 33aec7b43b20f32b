# SPDX-License-Identifier: Apache-2.0
"""Says what is wrong with a commit's message, as CONTRIBUTING.md asks for it; silent where nothing
is.

    python tools/commit_message.py FILE

A git hook (commit-msg) gives the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

LONGEST_SUBJECT = 60
SCISSORS = "# ------------------------ >8 ------------------------"
# What git writes itself, or folds into another commit.
GIT_WRITES = ("Merge ", 'Revert "', "fixup! ", "squash! ", "amend! ")


def find_problems(text: str) -> list[str]:
    """One sentence each. ``text`` is what the editor left, with git's comments."""
    lines = [line.rstrip() for line in text.partition(SCISSORS)[0].splitlines() if line[:1] != "#"]
    while lines and not lines[0]:
        del lines[0]
    # Without any text git gives up by itself.
    if not lines or lines[0].startswith(GIT_WRITES):
        return []
    subject, body = lines[0], lines[1:]
    problems = []
    if len(subject) > LONGEST_SUBJECT:
        problems.append(
            f"The subject has {len(subject)} characters, {LONGEST_SUBJECT} at most: {subject}"
        )
    if subject.endswith("."):
        problems.append("The subject ends with a full stop: leave it out.")
    if body and body[0]:
        problems.append("The line below the subject is not empty.")
    if not any(body):
        problems.append("There is no body: say why the change is made.")
    return problems


def main() -> int:
    (path,) = sys.argv[1:]
    problems = find_problems(Path(path).read_text(encoding="utf-8"))
    for sentence in problems:
        print(sentence, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
