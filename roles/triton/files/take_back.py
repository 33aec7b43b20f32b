# SPDX-License-Identifier: Apache-2.0
"""Makes root's what root's programs write into and the server's user owned until now, and removes
what lies in the place of root's logs.

    python take_back.py '{"user": "triton", "folders": ["/opt/triton_models"],
        "logs": {"folder": …, "names": […]}, "check": false}'

The server's user may run while this does: nothing is looked up twice by its name, and no link is
followed. Groups stay, so that the server can go on reading. Roles send this file to the host
through stdin; it must parse on Python 3.6, as host.py must. It answers with a sentence for each
folder and each file that it changed, or would change.
"""

import errno
import itertools
import json
import os
import pwd
import re
import shutil
import stat
import sys
from typing import Any, Dict, List

# Of marker and state. Deliveries believe those that are root's, which a forged one must not become.
BELIEVED = ".mlops-triton"
DEEPEST = 100


def take_back(folder: str, user: "pwd.struct_passwd", check: bool) -> int:
    """How many files and folders of the user there are, the folder itself included."""
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return 0
    try:
        return _take(top, user, check) + _take_inside(top, user, check, BELIEVED)
    except OSError as error:
        error.filename = folder
        raise
    finally:
        os.close(top)


def _take_inside(
    folder: int, user: "pwd.struct_passwd", check: bool, but: str = "/", depth: int = 0
) -> int:
    """A folder is root's before one looks into it, so that nothing is put there afterwards. What
    begins with ``but`` stays as it is, and what has a second name elsewhere, where it would become
    a file of root's that this user wrote.
    """
    if depth > DEEPEST:
        raise OSError(
            errno.ELOOP,
            "folders lie more than {0} deep in it: find them with find -mindepth {0}, remove them"
            " and run the role again".format(DEEPEST),
        )
    taken = 0
    for name in [name for name in os.listdir(folder) if not name.startswith(but)]:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode) and not stat.S_ISREG(info.st_mode):
            if info.st_uid == user.pw_uid and info.st_nlink == 1:
                taken += 1
                if not check:
                    os.chown(name, 0, -1, dir_fd=folder, follow_symlinks=False)
            continue
        try:
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError:
            # It was swapped a moment ago; the next run finds what it is now.
            continue
        try:
            taken += _take(opened, user, check)
            if stat.S_ISDIR(os.fstat(opened).st_mode):
                taken += _take_inside(opened, user, check, depth=depth + 1)
        finally:
            os.close(opened)
    return taken


def _take(opened: int, user: "pwd.struct_passwd", check: bool) -> int:
    info = os.fstat(opened)
    if info.st_uid != user.pw_uid or (info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode)):
        return 0
    if not check:
        os.fchown(opened, 0, -1)
        not_wanted = stat.S_IWOTH | (stat.S_IWGRP if info.st_gid == user.pw_gid else 0)
        if not stat.S_ISDIR(info.st_mode):
            not_wanted |= stat.S_ISUID | stat.S_ISGID
        os.fchmod(opened, stat.S_IMODE(info.st_mode) & ~not_wanted)
    return 1


def clear_logs(folder: str, names: List[str], check: bool) -> List[str]:
    """Removes what root's supervisor would open as a log or rename over, and root has not made."""
    pattern = re.compile("({})(\\.[0-9]+)?$".format("|".join(map(re.escape, names))))
    cleared = []  # type: List[str]
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return cleared
    try:
        for name in sorted(filter(pattern.match, os.listdir(opened))):
            info = os.stat(name, dir_fd=opened, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and info.st_uid == 0:
                continue
            cleared.append(os.path.join(folder, name))
            if not check and stat.S_ISDIR(info.st_mode):
                shutil.rmtree(os.path.join(folder, name))
            elif not check:
                os.unlink(name, dir_fd=opened)
    finally:
        os.close(opened)
    return cleared


def find_users(name: str) -> "List[pwd.struct_passwd]":
    """One at most; whose number is root's has given nothing away."""
    try:
        return [user for user in [pwd.getpwnam(name)] if user.pw_uid != 0]
    except KeyError:
        return []


def carry_out(request: Dict[str, Any]) -> List[str]:
    check, said = request["check"], []  # type: bool, List[str]
    users = find_users(request["user"])
    for user, folder in itertools.product(users, request["folders"]):
        taken = take_back(folder, user, check)
        if taken:
            said.append(
                "{}: {} files and folders of the user {} are root's.".format(
                    folder, taken, request["user"]
                )
            )
    logs = request.get("logs") or {"folder": "", "names": []}
    said += [
        "{}: was no log that root had made, and is removed.".format(path)
        for path in clear_logs(logs["folder"], logs["names"], check)
    ]
    return said


def main() -> int:
    try:
        print(json.dumps({"said": carry_out(json.loads(sys.argv[1])), "failed": ""}))
    except OSError as error:
        print(json.dumps({"said": [], "failed": "{}: {}".format(error.filename, error.strerror)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
