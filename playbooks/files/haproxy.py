# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes servers of HAProxy out of service and back, through its admin socket. Runs on the host of
HAProxy, from standard input.

    python3 - SOCKET drain|ready SECONDS BACKEND/SERVER …      prints "changed" where a state was
    changed

"drain" gives a server no new requests and waits until those in flight are answered. "ready" gives
it requests again and waits until HAProxy's own check, where there is one, finds it up. A server in
maintenance is left alone: somebody else put it there.
"""

from __future__ import annotations

import csv
import socket
import sys
import time

# Bits of srv_admin_state: maintenance in some form, and drained on request.
_MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20
_DRAINED = 0x08


def ask(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer.decode().strip()


def admin_state(path: str, backend: str, server: str) -> int:
    answer = ask(path, f"show servers state {backend}")
    rows = [line.split() for line in answer.splitlines() if not line.startswith("#")]
    for row in rows:
        if len(row) > 6 and (row[1], row[3]) == (backend, server):
            return int(row[6])
    # The first line is the format's version.
    there = ", ".join(f"{row[1]}/{row[3]}" for row in rows if len(row) > 6)
    known = f"HAProxy has {there} there" if there else f"HAProxy says: {answer[:200]}"
    raise SystemExit(
        f"HAProxy has no server {backend}/{server}: name the host's servers in"
        f" triton_haproxy_servers ({known})"
    )


def statistics(path: str, backend: str, server: str) -> dict[str, str]:
    table = csv.DictReader(ask(path, "show stat").removeprefix("# ").splitlines())
    return next(row for row in table if (row["pxname"], row["svname"]) == (backend, server))


def is_settled(path: str, backend: str, server: str, wanted: str) -> bool:
    row = statistics(path, backend, server)
    if wanted == "drain":
        return int(row["scur"] or 0) == 0 and int(row["qcur"] or 0) == 0
    return row["status"].startswith(("UP", "no check"))


def bring(path: str, name: str, wanted: str, until: float) -> bool:
    """Make the state of one server what is wanted; True where it was not."""
    backend, _slash, server = name.partition("/")
    state = admin_state(path, backend, server)
    if state & _MAINTENANCE:
        return False
    change = bool(state & _DRAINED) != (wanted == "drain")
    if change:
        refused = ask(path, f"set server {backend}/{server} state {wanted}")
        if refused:
            raise SystemExit(f"HAProxy refused to set {name} to {wanted}: {refused}")
    while not is_settled(path, backend, server, wanted):
        if time.monotonic() > until:
            row = statistics(path, backend, server)
            still = (
                f"{row['scur']} requests are in flight"
                if wanted == "drain"
                else f"HAProxy says {row['status']} {row['check_status']}"
            )
            raise SystemExit(f"{name} is not {wanted} in time: {still}")
        time.sleep(0.1)
    return change


def main() -> None:
    path, wanted, seconds, *names = sys.argv[1:]
    until = time.monotonic() + float(seconds)
    try:
        done = [bring(path, name, wanted, until) for name in names]
        if any(done):
            print("changed")
    except OSError as error:
        raise SystemExit(f"HAProxy's socket {path} does not answer ({error})") from error


if __name__ == "__main__":
    main()
