# SPDX-License-Identifier: Apache-2.0
"""Claims folders of a host for one name of the inventory. Of several names that ask for a folder at
the same time exactly one gets it; who does not get all of its folders keeps none.

    python claim.py '{"names": ["gpu-1"], "places": [{"option": …, "path": …, "note": …}]}'

The first of the names is written into the notes; the others are former ones. Role triton sends this
file to the host through stdin. It must parse on Python 3.6, as host.py must.
"""

import contextlib
import errno
import json
import os
import stat
import sys
import tempfile
from typing import Any, Dict, List

LONGEST = 4096


def make_folders(path: str) -> List[str]:
    """Makes a folder and those above it; gives those that were not there, the innermost first."""
    if os.path.isdir(path):
        return []
    above = make_folders(os.path.dirname(path))
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        # Another name was faster. What is there and is no folder fails when its note is written.
        return above
    return [path, *above]


def write_exclusively(path: str, text: str) -> bool:
    """Whether the file was not there, and now has the text. It gets its name when it is complete,
    so that nobody reads a part of it.
    """
    descriptor, draft = tempfile.mkstemp(prefix=".mlops-triton-", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            # By its descriptor: whose folder it is could put a link in its place meanwhile.
            os.fchmod(descriptor, 0o644)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        except OSError:
            return _write_in_place(path, text)
        return True
    finally:
        os.unlink(draft)


def _write_in_place(path: str, text: str) -> bool:
    """Where the file system has no hard links."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    return True


def owner_of(note: str) -> str:
    """Raises OSError for a link, which could show what root alone may read, and for what is no
    file.
    """
    descriptor = os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, errors="replace") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "its note is no file", note)
        return stream.read(LONGEST).strip()


def claim(names: List[str], places: List[Dict[str, str]]) -> Dict[str, Any]:
    """Writes the notes; gives what is wrong, one sentence at most, and the foreign notes found."""
    made, written, problems = [], [], []  # type: List[str], List[str], List[str]
    foreign = {}  # type: Dict[str, str]
    for place in places:
        try:
            made = make_folders(place["path"]) + made
            if write_exclusively(place["note"], names[0] + "\n"):
                written.append(place["note"])
            elif owner_of(place["note"]) not in names:
                foreign[place["note"]] = owner_of(place["note"])
        except OSError as error:
            problems.append(
                "{} is {}, which cannot be made or written into ({}): give the user of this"
                " connection that right, or choose another folder.".format(
                    place["option"], place["path"], error.strerror
                )
            )
    if problems or foreign:
        give_back(made, written)
    claimed = bool(written) and not problems and not foreign
    return {"problems": problems, "foreign": foreign, "claimed": claimed}


def give_back(folders: List[str], notes: List[str]) -> None:
    for note in notes:
        os.unlink(note)
    for folder in folders:
        # Somebody else may have put something into it meanwhile.
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def main() -> int:
    question = json.loads(sys.argv[1])
    os.umask(0o022)
    print(json.dumps(claim(question["names"], question["places"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
