# SPDX-License-Identifier: Apache-2.0
"""A log that a server names is read only where that can do no harm."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton import log
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.address import (
    Address,
)

NOBODY = Address("http", "127.0.0.1", 1)
NEIGHBOUR = 64123
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That anybody may enter."""
    for one in (tmp_path, *tmp_path.parents):
        if one.stat().st_uid == os.geteuid():
            one.chmod(one.stat().st_mode | 0o011)
    return tmp_path


def write(path: Path, text: str = "line\n", mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def own_server() -> Iterator[Address]:
    """Who runs the tests listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("http", "127.0.0.1", listener.getsockname()[1])


def refused(path: object, address: Address = NOBODY) -> str:
    with pytest.raises(log.NotRead) as caught:
        log.tail_of_named_log(path, address)
    return str(caught.value)


def test_a_log_that_everybody_may_read_is_read_from_its_end(folder: Path) -> None:
    path = write(folder / "triton.log", "begin" + "x" * log._TAIL + "end")
    assert log.tail_of_named_log(str(path), NOBODY).endswith("xend")
    assert len(log.tail_of_named_log(str(path), NOBODY)) == log._TAIL


def test_what_only_its_owner_may_read_is_not_read(folder: Path) -> None:
    path = write(folder / "shadow", mode=0o600)
    assert refused(str(path)) == f"not everybody may read {path}, and it is not the server's"
    assert "not everybody" in refused(str(path), Address("http", "triton.example.com", 8000))


def test_what_lies_where_only_its_owner_may_enter_is_not_read(folder: Path) -> None:
    (folder / "private").mkdir(mode=0o700)
    assert "not everybody" in refused(str(write(folder / "private/triton.log")))


def test_the_log_of_the_user_whose_server_it_is_is_read(folder: Path, own_server: Address) -> None:
    path = write(folder / "triton.log", mode=0o600)
    assert log.tail_of_named_log(str(path), own_server) == "line\n"


@as_root
def test_a_log_of_another_user_than_the_servers_is_not_read(
    folder: Path, own_server: Address
) -> None:
    path = write(folder / "triton.log", mode=0o600)
    os.chown(path, NEIGHBOUR, NEIGHBOUR)
    assert "it is not the server's" in refused(str(path), own_server)


def test_no_device_pipe_link_or_second_name_is_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe", 0o644)
    target = write(folder / "target")
    (folder / "link").symlink_to(target)
    (folder / "aside").symlink_to(folder)
    os.link(write(folder / "file"), folder / "second")
    for path in ("/dev/zero", str(folder / "pipe"), str(folder), "/proc/self"):
        assert "is no regular file" in refused(path) or "symbolic link" in refused(path)
    assert "symbolic link" in refused(str(folder / "link"))
    assert "symbolic link" in refused(str(folder / "aside/target"))
    assert "another name" in refused(str(folder / "second"))


@pytest.mark.parametrize(
    "path", [None, "", 3, [], "log", "/tmp/../etc/passwd", "/a\0b", "/no/such"]
)
def test_what_is_no_path_of_a_file_is_not_read(path: object) -> None:
    assert refused(path)


def test_the_users_own_log_is_read_through_a_link_of_their_own(folder: Path) -> None:
    path = write(folder / "triton-1.log", mode=0o600)
    (folder / "triton.log").symlink_to("triton-1.log")
    assert log.tail_of_users_log(str(folder / "triton.log")) == path.read_text()


@as_root
def test_the_users_own_log_is_read_through_no_link_of_somebody_else(folder: Path) -> None:
    write(folder / "secret", mode=0o600)
    link = folder / "triton.log"
    link.symlink_to(folder / "secret")
    os.lchown(link, NEIGHBOUR, NEIGHBOUR)
    with pytest.raises(log.NotRead, match="is a link that somebody else has made"):
        log.tail_of_users_log(str(link))
