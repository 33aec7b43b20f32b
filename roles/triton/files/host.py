# SPDX-License-Identifier: Apache-2.0
"""Questions about a host, answered without changing it: can it run the servers, who holds a port,
what is still alive.

    python host.py '{"python": {…}, "ports": […], "service": "…", "exists": […], "stamps": […]}'

Roles send this file to the host through stdin; tools/ and the start wrapper import it. It must
parse on Python 3.6, because it reports what is too old.
"""

import argparse
import contextlib
import errno
import glob
import grp
import hashlib
import json
import os
import platform
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import time
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple, Union

# In the environment of every process of a service: how its own ports and leftovers are told from
# somebody else's.
SERVICE_VARIABLE = "MLOPS_TRITON_SERVICE"
# What the service was started with; roles compare it with what they want, so that a run which was
# killed between changing a file and restarting the service is completed by the next one.
DIGEST_VARIABLE = "MLOPS_TRITON_DIGEST"
GLIBC = (2, 35)
# AF_UNIX paths hold 107 bytes, and supervisord binds to "<path>.<pid>" first.
SOCKET_PATH_LIMIT = 99
NOBODY = 65534
# Of a file that says something about this host; none of them has more.
SMALL = 1 << 16
LINKS = 40
OPTION = "<the option>"
# Of marker and state: who wrote them decides whether they are believed, so that stays visible.
BELIEVED = ".mlops-triton"
# Who holds a port where no process is seen that does: one that ends just now, or another user's.
ANOTHER = "another program"
CLOSING = 3.0


def version_problems(low: Sequence[int], high: Sequence[int], advice: str) -> List[str]:
    """Why this interpreter is not one of those from ``low`` to ``high``, one sentence at most."""
    if tuple(low) <= sys.version_info[:2] <= tuple(high):
        return []
    return [
        "Python {} ({}) does not fit, {} to {} do: {}.".format(
            "{}.{}".format(*sys.version_info[:2]),
            sys.executable,
            "{}.{}".format(*low),
            "{}.{}".format(*high),
            advice,
        )
    ]


def python_problems(low: Sequence[int], high: Sequence[int], advice: str) -> List[str]:
    """Why this interpreter cannot make the virtual environments, one sentence at most."""
    problems = version_problems(low, high, advice)
    if problems:
        # Another one is needed anyway, so what this one lacks is of no interest.
        return problems
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return [
            "{} cannot make virtual environments: install venv and ensurepip (Debian and Ubuntu:"
            " apt-get install python{}.{}-venv).".format(sys.executable, *sys.version_info[:2])
        ]
    return []


def wheel_problems() -> List[str]:
    """Why Triton's wheel cannot run on this host, one sentence each."""
    problems = []
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        problems.append(
            "Triton's wheel on PyPI is for Linux on x86_64 only, this is {} on {}: use a machine of"
            " that kind.".format(platform.system(), platform.machine())
        )
    glibc = glibc_version()
    if glibc is None or glibc < GLIBC:
        problems.append(
            "Triton's wheel needs glibc {}.{} or newer, this host has {}: use Debian 12, Ubuntu"
            " 22.04, RHEL 10 or newer.".format(
                GLIBC[0], GLIBC[1], "{}.{}".format(*glibc) if glibc else "another C library"
            )
        )
    return problems


def libpython_problems() -> List[str]:
    """Why Triton's Python backend cannot run with this interpreter, one sentence at most."""
    if has_shared_libpython():
        return []
    return [
        "{0} has no shared libpython{1}.so.1.0, which Triton's Python backend loads: install it"
        " (Debian and Ubuntu: apt-get install libpython{1}, Fedora and RHEL: dnf install"
        " python3-libs), or use a Python built with --enable-shared.".format(
            sys.executable, "{}.{}".format(*sys.version_info[:2])
        )
    ]


def problems_of_this_host(
    low: Sequence[int], high: Sequence[int], advice: str, native: bool
) -> List[str]:
    """All that keeps this host and this interpreter from running the servers; native is Triton's
    wheel.
    """
    found = python_problems(low, high, advice)
    if native:
        found = wheel_problems() + (found or libpython_problems())
    return found


def glibc_version() -> Optional[Tuple[int, int]]:
    try:
        match = re.search(r"(\d+)\.(\d+)", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        return None
    return (int(match.group(1)), int(match.group(2))) if match else None


def has_shared_libpython() -> bool:
    return libpython_folder() is not None


def libpython_folder() -> Optional[str]:
    """Folder of the shared libpython of this interpreter, or None where there is none."""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    if not name.startswith("libpython") or ".so" not in name:
        # A static build names its archive here; distributions ship the shared library as a package
        # of its own.
        name = "libpython{}.{}.so.1.0".format(*sys.version_info[:2])
    libdir = sysconfig.get_config_var("LIBDIR") or ""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    places = [libdir, os.path.join(libdir, multiarch), os.path.join(sys.base_prefix, "lib")]
    for place in places:
        if place and os.path.exists(os.path.join(place, name)):
            return place
    return _loaded_from(name)


def _loaded_from(library: str) -> Optional[str]:
    """Folder in which the loader finds a library, or None; the library stays loaded."""
    try:
        import ctypes

        ctypes.CDLL(library)
        with open("/proc/self/maps", errors="replace") as stream:
            paths = [line.rstrip("\n").partition("/")[2] for line in stream]
    except (ImportError, OSError):
        return None
    found = [path for path in paths if os.path.basename(path) == library]
    return "/" + os.path.dirname(found[0]) if found else None


def port_problem(
    address: str, port: int, option: str, service: str = "", user: str = ""
) -> Optional[str]:
    """One sentence when a server of this service could not listen there, else None.

    A port that no process holds may be that of one which is about to end; it is waited for.
    """
    end = time.time() + CLOSING
    problem = _port_problem(address, port, option, service, user)
    while problem and ANOTHER in problem and time.time() < end:
        time.sleep(0.2)
        problem = _port_problem(address, port, option, service, user)
    return problem


def _port_problem(address: str, port: int, option: str, service: str, user: str) -> Optional[str]:
    try:
        family, kind, proto, _name, where = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, proto) as probe:
            # As the servers do: connections in TIME_WAIT do not keep a port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except socket.gaierror:
        return "{}: the address {} is unknown on this host.".format(option, address)
    except OSError as error:
        return _port_sentence(error, address, port, option, service, user)
    return None


def _port_sentence(
    error: OSError, address: str, port: int, option: str, service: str, user: str
) -> Optional[str]:
    if error.errno == errno.EADDRNOTAVAIL:
        return "{}: this host does not have the address {}.".format(option, address)
    if error.errno != errno.EADDRINUSE:
        return "Port {} on {} cannot be used ({}): set {} to another one.".format(
            port, address, error.strerror, option
        )
    holders = port_holders(port)
    if service and holders and all(carries(pid, service, user) for pid in holders):
        return None
    who = (
        ", ".join("{} (process {})".format(process_name(pid), pid) for pid in sorted(holders))
        or ANOTHER
    )
    return "Port {} on {} is taken by {}: stop that, or set {} to a free port.".format(
        port, address, who, option
    )


def port_holders(port: int) -> Set[int]:
    """Processes that listen on a port of any address; those of other users can be seen by root
    only.
    """
    inodes = set()  # type: Set[str]
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except OSError:
            continue
        inodes |= {
            "socket:[%s]" % row[9]
            for row in rows
            if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
        }
    return {pid for pid in all_processes() if inodes & _open_files(pid)} if inodes else set()


def _open_files(pid: int) -> Set[str]:
    folder = "/proc/{}/fd".format(pid)
    found = set()
    try:
        for name in os.listdir(folder):
            found.add(os.readlink(os.path.join(folder, name)))
    except OSError:
        pass
    return found


def all_processes() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def process_name(pid: int) -> str:
    try:
        with open("/proc/{}/comm".format(pid)) as stream:
            return stream.read().strip()
    except OSError:
        return "a program"


def environment_of(pid: int) -> Dict[str, str]:
    """Environment of a process; nothing for those of other users, unless the caller is root."""
    try:
        with open("/proc/{}/environ".format(pid), "rb") as stream:
            pairs = (item.partition(b"=") for item in stream.read().split(b"\0"))
            return {os.fsdecode(name): os.fsdecode(value) for name, _sign, value in pairs}
    except OSError:
        return {}


def carries(pid: int, service: str, user: str = "") -> bool:
    """Whether a process was started as part of the service. Anybody may give his own processes the
    variable: it counts where root, the caller or the server's user started the process, or a
    process of theirs, or systemd for the service.
    """
    if environment_of(pid).get(SERVICE_VARIABLE) != service:
        return False
    if real_user(pid) in {0, os.getuid(), number_of(user)} or _is_of_unit(pid, service):
        return True
    parent = _parent(pid)
    return parent > 1 and carries(parent, service, user)


def _is_of_unit(pid: int, service: str) -> bool:
    """Into the group of a unit of the system only root brings a process."""
    unit = "/system.slice/{}.service".format(service.rpartition(":")[2])
    return any(unit in line for line in (read_or_none("/proc/{}/cgroup".format(pid)) or "").split())


def real_user(pid: int) -> Optional[int]:
    """Who started a process; the effective user of a program like su says nothing of that."""
    try:
        with open("/proc/{}/status".format(pid), errors="replace") as stream:
            found = re.search(r"^Uid:\s+(\d+)", stream.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None


def number_of(user: str) -> Optional[int]:
    try:
        return pwd.getpwnam(user).pw_uid if user else None
    except KeyError:
        return None


def is_alive(pid: int) -> bool:
    """A zombie holds no port and answers no signal."""
    try:
        with open("/proc/{}/stat".format(pid), "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def processes_of(service: str, user: str = "") -> List[int]:
    """Living processes of the service, without the caller and those it descends from."""
    own, pid = set(), os.getpid()  # type: Set[int], int
    while pid > 1:
        own.add(pid)
        pid = _parent(pid)
    return [
        pid
        for pid in all_processes()
        if pid not in own and carries(pid, service, user) and is_alive(pid)
    ]


def running_digests(service: str, user: str = "") -> List[str]:
    """What the service's processes were started with; its supervisor has none."""
    return sorted(
        {environment_of(pid).get(DIGEST_VARIABLE, "") for pid in processes_of(service, user)} - {""}
    )


def _parent(pid: int) -> int:
    try:
        with open("/proc/{}/stat".format(pid), "rb") as stream:
            return int(stream.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def stop_processes_of(service: str, grace: float, user: str = "") -> int:
    """Ends the service's processes, first asking; returns how many there were."""
    pids = processes_of(service, user)
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10)):
        for pid in processes_of(service, user):
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        end = time.time() + seconds
        while processes_of(service, user) and time.time() < end:
            time.sleep(0.1)
    return len(pids)


def is_plain(path: str) -> bool:
    """Triton starts its Python backend through a shell, does not quote the paths it passes, and
    runs it in the C locale.
    """
    return re.search(r"[^A-Za-z0-9._/+@%:,=-]", path) is None


def nearest(path: str) -> str:
    """The path itself, or the folder above it that exists."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def disk_problem(option: str, path: str, least: int) -> Optional[str]:
    """One sentence when a folder lies on a read-only or full disk; least is in MiB."""
    place = nearest(path)
    try:
        disk = os.statvfs(place)
    except OSError as error:
        return "{}: {} cannot be used ({}).".format(option, place, error.strerror)
    if disk.f_flag & os.ST_RDONLY:
        return (
            "{} is {}, which lies on a read-only file system: mount it writable, or choose another"
            " folder.".format(option, path)
        )
    free = disk.f_bavail * disk.f_frsize // 2**20
    if free < least:
        return (
            "{} is {}, where {} MiB are free and {} are wanted (triton_min_free): make room, or"
            " choose another folder.".format(option, path, free, least)
        )
    if disk.f_files and not disk.f_favail:
        return (
            "{} is {}, whose file system can hold no more files (no inode is free): make room"
            " there.".format(option, path)
        )
    return None


def reading_problems(user: str, places: Dict[str, str], mounted: bool) -> List[str]:
    """What of {option: path} a user could not read, one sentence each; mounted: folders above do
    not matter, as in a container.
    """
    found = []
    for option, path in sorted(places.items()):
        if not os.path.exists(path):
            found.append("{}: {} does not exist on this host.".format(option, path))
        elif not can_read(user, path, mounted):
            found.append(
                "{}: {} cannot be read by the server's user {}: give it that right (chmod, chgrp or"
                " setfacl), or name another file.".format(
                    option, path, user or "(the one of this connection)"
                )
            )
    return found


def can_read(user: str, path: str, mounted: bool) -> bool:
    """Asks the kernel as that user, in a child; a user that is not there yet is taken for one
    without any rights.
    """
    if not user or os.geteuid() != 0:
        return os.access(path, os.R_OK)
    try:
        entry = pwd.getpwnam(user)
        number, group, groups = entry.pw_uid, entry.pw_gid, os.getgrouplist(user, entry.pw_gid)
    except KeyError:
        number, group, groups = NOBODY, NOBODY, []
    descriptor = os.open(path, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            os.setgroups([] if mounted else groups)
            os.setgid(group)
            os.setuid(number)
            os._exit(
                0
                if os.access("/proc/self/fd/{}".format(descriptor) if mounted else path, os.R_OK)
                else 1
            )
        os._exit(1)
    os.close(descriptor)
    return os.waitpid(child, 0)[1] == 0


def marked_state(repository: str, deployers: Sequence[str] = ()) -> str:
    """Where a repository's marker says that its state is; empty where there is no marker, or where
    root asks and somebody else wrote it.
    """
    return "" if stranger_of(marker_of(repository), deployers) else _named_state(repository)


def marker_of(repository: str) -> str:
    return os.path.join(repository, ".mlops-triton.json")


def _named_state(repository: str) -> str:
    try:
        marker = json.loads(read_or_none(marker_of(repository)) or "")
        return os.path.normpath(os.path.join(repository, marker["state_dir"]))
    except (ValueError, KeyError, TypeError):
        return ""


def marker_problem(repository: str, deployers: Sequence[str] = ()) -> Optional[str]:
    """One sentence where somebody who does not deliver would have root work on a folder of his
    choice.
    """
    stranger, named = stranger_of(marker_of(repository), deployers), _named_state(repository)
    if not stranger or not named or (named + "/").startswith(repository.rstrip("/") + "/"):
        return None
    return (
        "{0} belongs to the user {1}, and says that the state of the deployments is in {2}: where"
        " that is right, give it to root (chown root {0}); otherwise remove it.".format(
            marker_of(repository), stranger, named
        )
    )


def stranger_of(path: str, deployers: Sequence[str]) -> str:
    """The user whose file it is, where root asks and it is nobody's whom root trusts."""
    try:
        owner = os.lstat(path).st_uid
    except OSError:
        return ""
    return name_of(owner) if os.geteuid() == 0 and owner not in trusted_users(deployers) else ""


def listed_gpus() -> Optional[List[Tuple[str, str, str]]]:
    """[(index, UUID, name)] of the driver, parts of a divided GPU with an empty index; None where
    there is no driver.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    done = subprocess.run(
        ["nvidia-smi", "-L"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        return None
    rows = re.findall(
        r"^(?:GPU (\d+): )?\s*(.*?)\s*\(UUID: ([^)]+)\)",
        done.stdout.decode("utf-8", "replace"),
        re.MULTILINE,
    )
    return [(index, uuid, name) for index, name, uuid in rows]


def cards() -> List[Dict[str, str]]:
    """The GPUs with their driver and compute capability, which an old driver does not tell; nothing
    where there is no driver.
    """
    names = ["index", "uuid", "name", "driver_version", "compute_cap"]
    for wanted in (names, names[:-1]):
        if shutil.which("nvidia-smi") is None:
            break
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=" + ",".join(wanted), "--format=csv,noheader"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            continue
        rows = [line.split(", ") for line in done.stdout.decode("utf-8", "replace").splitlines()]
        keys = ["index", "uuid", "name", "driver", "compute_capability"]
        return [dict(zip(keys, [*row, ""][: len(keys)])) for row in rows if len(row) == len(wanted)]
    return []


def gpu_problems(wanted: Union[str, List[Union[str, int]]]) -> List[str]:
    """Why the wanted GPUs ("all" or a list of indices and UUIDs) are not to be had, one sentence
    each.
    """
    there = listed_gpus()
    if not there:
        return [
            (
                "triton_gpus: this host has no working NVIDIA driver (nvidia-smi -L lists no GPU):"
                " install it, or set triton_gpus to none."
            )
        ]
    names = {name for index, uuid, _name in there for name in (index, uuid) if name}
    have = ", ".join(
        "{} ({}, {})".format(index, name, uuid) if index else uuid for index, uuid, name in there
    )
    return [
        "triton_gpus names GPU {}, which this host does not have; it has {}.".format(gpu, have)
        for gpu in ([] if wanted == "all" else map(str, wanted))
        if gpu not in names
    ]


def read_or_none(path: str) -> Optional[str]:
    """The text of a small file; None where there is none, or where somebody else has put a link or
    something that is no file in its place.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _link_flag(path))
        with os.fdopen(descriptor, errors="replace") as stream:
            return stream.read(SMALL) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def _link_flag(path: str) -> int:
    """A link is followed where it is root's or the caller's own, in a folder of theirs."""
    own = {0, os.geteuid()}
    try:
        owners = {os.lstat(path).st_uid, os.stat(os.path.dirname(path) or ".").st_uid}
    except OSError:
        return os.O_NOFOLLOW
    return 0 if owners <= own else os.O_NOFOLLOW


# ---- what root is to run, or to write into ------------------------------------------------------


def trusted_users(named: Sequence[str] = ()) -> Set[int]:
    """Root, who becomes root by sudo to run this, and those whom a variable names; in a container
    that maps users, root of the host looks like the owner of /.
    """
    caller = os.environ.get("SUDO_UID", "")
    users = {0, os.stat("/").st_uid} | ({int(caller)} if caller.isdigit() else set())
    for name in map(str, named):
        number = int(name) if name.isdigit() else number_of(name)
        users |= set() if number is None else {number}
    return users


def trust_problems(question: Dict[str, Any]) -> List[str]:
    """Where somebody other than root could exchange what root is to run or write into, one sentence
    each. Nothing where root does not ask.

    Each place of "trusted" has an option and a path; of one with "above" only the folders above it
    are looked at, of one with "venv" all that a Python of it reads first.
    """
    found = {}  # type: Dict[str, str]
    users = trusted_users(question.get("trusted_users", []))
    for place in question.get("trusted", []) if os.geteuid() == 0 else ():
        for path in _paths_of(place):
            problem = trust_problem(path, bool(place.get("above")), users)
            if problem and problem[0] not in found:
                found[problem[0]] = "{} is {}, and {}.".format(
                    place["option"],
                    place["path"],
                    problem[1].replace(OPTION, question.get("trusted_option", "")),
                )
    return list(found.values())


def _paths_of(place: Dict[str, Any]) -> List[str]:
    path = place["path"]
    if not place.get("venv"):
        return [path]
    return [
        os.path.join(path, "bin", "python"),
        *sorted(glob.glob(os.path.join(glob.escape(path), "lib", "python3*", "site-packages"))),
    ]


def trust_problem(path: str, above: bool, users: Set[int]) -> Optional[Tuple[str, str]]:
    """The first component that is not the trusted users' alone, and a sentence's end about it."""
    place, names, links = "/", path.split("/")[::-1], 0
    while names:
        name = names.pop()
        if name in ("", ".", ".."):
            place = os.path.dirname(place) if name == ".." else place
            continue
        why = _open_to_others(place, users, sticky=True)
        if why:
            return place, why
        child = os.path.join(place, name)
        try:
            info = os.lstat(child)
        except OSError:
            # What is not there yet root will make.
            return None
        if not stat.S_ISLNK(info.st_mode):
            place = child
            continue
        links += 1
        if info.st_uid not in users or links > LINKS:
            return child, (
                "{0} is a link of the user {1}, who can lead it elsewhere: remove it (rm"
                " {0})".format(child, name_of(info.st_uid))
            )
        target = os.readlink(child)
        names += target.split("/")[::-1]
        place = "/" if target.startswith("/") else place
    why = None if above else _open_to_others(place, users, sticky=False)
    return (place, why) if why else None


def _open_to_others(place: str, users: Set[int], sticky: bool) -> Optional[str]:
    """Who but the trusted users may change what lies in a folder, and how to end that. In a folder
    that is sticky nobody touches what is somebody else's.
    """
    info = os.stat(place)
    if info.st_uid not in users:
        who, how = "it belongs to the user {}".format(name_of(info.st_uid)), "chown root"
        trust = ", or, where root may trust that user, add {} to {}".format(
            name_of(info.st_uid), OPTION
        )
    elif sticky and info.st_mode & stat.S_ISVTX:
        return None
    elif info.st_mode & stat.S_IWOTH:
        who, how, trust = "everybody may write to it", "chmod o-w", ""
    else:
        members = []  # type: List[str]
        if info.st_mode & stat.S_IWGRP:
            members = others_of_group(info.st_gid, users)
            # The bits of the group speak for everybody whom the list names.
            members += ["those of its access control list"] if _has_list(place) else []
        if not members:
            return None
        names = " and ".join(members)
        who, how = "by its group it is open to {}".format(names), "chmod g-w"
        trust = ", or, where root may trust them, add {} to {}".format(names, OPTION)
    return (
        "root would run or write what somebody else can exchange in {0} ({1}): close it"
        " ({2} {0}), choose another folder{3}".format(place, who, how, trust)
    )


def _has_list(place: str) -> bool:
    try:
        os.getxattr(place, "system.posix_acl_access")
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP)
    return True


def others_of_group(group: int, users: Set[int]) -> List[str]:
    """Members of a group that are not trusted; one without any, or root's, is nobody else's."""
    try:
        listed = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        listed = set()
    found = {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == group}
    return sorted(
        name for name in found | listed if number_of(name) not in users | {None} and group != 0
    )


def name_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def given_of(path: str, user: str) -> str:
    """Whether a folder ("folder") or something in it ("inside") belongs to the server's user, as
    older releases of the role left it.
    """
    number = number_of(user)
    if number in (None, 0) or os.geteuid() != 0:
        return ""
    try:
        if os.stat(path).st_uid == number:
            return "folder"
        inside = [
            entry.stat(follow_symlinks=False).st_uid
            for entry in os.scandir(path)
            if not entry.name.startswith(BELIEVED)
        ]
    except OSError:
        return ""
    return "inside" if number in inside else ""


def planted_logs(logs: Dict[str, Any]) -> List[str]:
    """What lies in the place of a log that root writes, rotated ones included, and is not a file of
    root's own.
    """
    pattern = re.compile("({})(\\.[0-9]+)?$".format("|".join(map(re.escape, logs["names"]))))
    found = []
    try:
        entries = sorted(os.scandir(logs["folder"]), key=lambda entry: entry.name)
    except OSError:
        return []
    for entry in entries if os.geteuid() == 0 else ():
        if pattern.match(entry.name):
            info = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1 or info.st_uid != 0:
                found.append(entry.path)
    return found


def digest_of(path: str) -> str:
    """Digest of a file's content, so that a renewed certificate is noticed; nothing for what cannot
    be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return ""


def problems_asked(question: Dict[str, Any]) -> List[Optional[str]]:
    """One sentence for each thing that this host lacks for what was asked; None for what it has."""
    problems = []  # type: List[Optional[str]]
    python = question.get("python")
    if python:
        problems += problems_of_this_host(
            python["low"], python["high"], python["advice"], python.get("native", False)
        )
    service, user = question.get("service", ""), question.get("user", "")
    for place in question.get("ports", []):
        problems.append(
            port_problem(place["address"], int(place["port"]), place["option"], service, user)
        )
    length = len(os.fsencode(question.get("socket", "")))
    if length > SOCKET_PATH_LIMIT:
        problems.append(
            "The path {} is too long for a socket ({} bytes, {} at most): set {} to a shorter"
            " one.".format(question["socket"], length, SOCKET_PATH_LIMIT, question["socket_option"])
        )
    for option, path in question.get("plain", {}).items():
        if not is_plain(path):
            problems.append(
                "{} is {!r}: Triton's Python backend cannot use a path with spaces, characters of"
                " the shell or letters beyond ASCII; choose another folder.".format(option, path)
            )
    problems += gpu_problems(question["gpus"]) if question.get("gpus") else []
    problems += [
        disk_problem(option, path, int(question.get("min_free", 0)))
        for option, path in sorted(question.get("disks", {}).items())
    ]
    problems += trust_problems(question)
    if question.get("repository"):
        problems.append(marker_problem(question["repository"], question.get("deployers", [])))
    problems += reading_problems(user, question.get("readable", {}), question.get("mounted", False))
    return problems


def answer(question: Dict[str, Any]) -> Dict[str, Any]:
    service, user = question.get("service", ""), question.get("user", "")
    return {
        "problems": [problem for problem in problems_asked(question) if problem],
        "cards": cards() if question.get("cards") else [],
        "state": marked_state(question["repository"], question.get("deployers", []))
        if question.get("repository")
        else "",
        "contents": {path: digest_of(path) for path in question.get("readable", {}).values()},
        "python": "{}.{}".format(*sys.version_info[:2]),
        "root": os.geteuid() == 0,
        "systemd": os.path.isdir("/run/systemd/system"),
        "running": running_digests(service, user) if service else [],
        "given": {path: given_of(path, user) for path in question.get("taken_back", [])},
        "planted": planted_logs(question["logs"]) if question.get("logs") else [],
        "missing": [path for path in question.get("exists", []) if not os.path.exists(path)],
        "stamps": {path: read_or_none(path) for path in question.get("stamps", [])},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Answers questions about this host as JSON.")
    parser.add_argument("question", help="JSON object")
    parser.add_argument(
        "--stop",
        type=float,
        metavar="SECONDS",
        help="end what is left of the service, killing it after SECONDS",
    )
    arguments = parser.parse_args()
    question = json.loads(arguments.question)
    if arguments.stop is not None:
        print(
            json.dumps(
                {
                    "stopped": stop_processes_of(
                        question["service"], arguments.stop, question.get("user", "")
                    )
                }
            )
        )
    else:
        print(json.dumps(answer(question)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
