# SPDX-License-Identifier: Apache-2.0
"""The hook's program for HAProxy, where what it is asked for is not there. Molecule's scenarios
fleet and day2 use it with a real HAProxy.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "playbooks/files/haproxy.py"
# As HAProxy 2.6 answers "show servers state triton".
STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 triton 1 triton-1 172.18.0.2 2 0 1 1 42 15 3 4 6 0 0 0 triton-1 8000 - 0 0 - - 0
3 triton 2 triton-2 172.18.0.3 2 0 1 1 42 15 3 4 6 0 0 0 triton-2 8000 - 0 0 - - 0
"""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (STATE, "(HAProxy has triton/triton-1, triton/triton-2 there)"),
        ("Can't find backend.\n", "(HAProxy says: Can't find backend.)"),
    ],
)
def test_a_server_that_haproxy_lacks_is_told_with_those_it_has(
    tmp_path: Path, answer: str, said: str
) -> None:
    path = str(tmp_path / "admin.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            connection = listening.accept()[0]
            with connection:
                connection.recv(65536)
                connection.sendall(answer.encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        done = subprocess.run(
            [sys.executable, str(PROGRAM), path, "drain", "1", "triton/triton-4"],
            capture_output=True,
            text=True,
            check=False,
        )
        thread.join(10)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "HAProxy has no server triton/triton-4: name the host's servers in triton_haproxy_servers"
        f" {said}"
    )
