# SPDX-License-Identifier: Apache-2.0
"""Root delivers where another user may write: that user never becomes root by it, nor makes root
write, remove, rename, give away or show what that user may not touch.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import disk, rights
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    DeliveryError,
    RepositoryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository import (
    recovery,
    state_store,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    FolderRepository,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (
    StateStore,
)

pytest.importorskip("ansible", reason="these take a minute, and once is enough")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who acts for others here")
USER = 64123
NAME = "fraud"
CONFIG = 'backend: "python"\nmax_batch_size: 0\n'


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of root's that others can go through, as /srv is one."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def private(host: Path) -> Path:
    """What only root may change or read."""
    folder = host / "private"
    (folder / "3").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("the secret of root")
    (folder / "3/model.py").write_text("root's")
    folder.chmod(0o700)
    return folder


def look(folder: Path) -> list[Any]:
    """All that an attack could have changed below a folder."""
    places = sorted([folder, *folder.rglob("*")])
    return [
        (
            str(one),
            one.lstat().st_mode,
            one.lstat().st_uid,
            one.lstat().st_mtime_ns,
            one.read_bytes() if one.is_file() else b"",
        )
        for one in places
    ]


def give(*places: Path, user: int = USER) -> None:
    for place in places:
        for one in [place, *place.rglob("*")]:
            os.chown(one, user, user, follow_symlinks=False)


def as_user(command: str) -> None:
    subprocess.run(
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "sh", "-c", command],
        check=True,
    )


def repository_of(host: Path, user: int) -> Path:
    folder = host / "models"
    folder.mkdir(exist_ok=True)
    os.chown(folder, user, user)
    return folder


def source(host: Path, text: str = "new") -> str:
    folder = host / f"source-{text}"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "1/model.py").write_text(f"# {text}\n")
    return str(folder)


def deliver(repository: Path, place: str | None = None, **options: Any) -> Any:
    """To a repository that no server reads. Raises what went wrong."""
    with Delivery(Target(str(repository), servers=())) as delivery:
        wanted = {"name": NAME, "model_uri": place, **options}
        (result,) = delivery.deliver([DesiredModel.from_options(wanted)])
    if result.error:
        raise result.error
    return result


def owners(*places: Path) -> set[int]:
    return {one.lstat().st_uid for place in places for one in [place, *place.rglob("*")]}


def attempt(work: Callable[[], Any]) -> None:
    """It may fail; its sentence shows nothing that only root may read."""
    said = ""
    try:
        work()
    except DeliveryError as error:
        said = str(error)
    assert "the secret" not in said


# -- what goes on to work --------------------------------------------------------------------------


@pytest.mark.parametrize("user", [0, USER])
def test_root_s_state_beside_the_repository_of_another_user_goes_on_to_work(
    host: Path, user: int
) -> None:
    repository, state = repository_of(host, user), host / "models.mlops-triton"
    deliver(repository, source(host, "old"))
    deliver(repository, source(host, "new"))
    assert (repository / NAME / "1/model.py").read_text() == "# new\n"
    assert owners(repository / NAME) == {user} and owners(state / "records") == {0}
    deliver(repository, state="rolled_back")
    assert (repository / NAME / "1/model.py").read_text() == "# old\n"
    as_user(f"cat {repository}/{NAME}/1/model.py {state}/records/{NAME}.json > /dev/null")
    deliver(repository, state="absent")
    assert not (repository / NAME).exists() and not (state / "records/fraud.json").exists()


def test_root_acts_as_the_user_who_owns_repository_and_state(host: Path) -> None:
    home = repository_of(host, USER)
    as_user(f"mkdir {home}/models")
    repository, state = home / "models", home / "models.mlops-triton"
    deliver(repository, source(host, "old"))
    assert owners(home) == {USER}
    deliver(repository, source(host, "new"), mode="0640")
    assert stat.S_IMODE((repository / NAME / "1/model.py").stat().st_mode) == 0o640
    deliver(repository, state="rolled_back")
    assert (repository / NAME / "1/model.py").read_text() == "# old\n"
    assert owners(home) == {USER} and list((state / "staging").iterdir()) == []
    deliver(repository, state="absent")
    assert not (repository / NAME).exists() and owners(home) == {USER}
    assert rights.is_root() and list((host / "tmp").iterdir()) == []


@pytest.mark.parametrize("acts_as_owner", [True, False])
def test_what_is_proven_under_another_name_is_of_whom_the_rest_is(
    host: Path, acts_as_owner: bool
) -> None:
    """Whether root acts as the owner or as itself, files come and go by the candidate's name."""
    home = repository_of(host, USER if acts_as_owner else 0)
    if acts_as_owner:
        as_user(f"mkdir {home}/models")
    repository = home / "models"
    repository.mkdir(exist_ok=True)
    deliver(repository, source(host, "old"))
    opened, config = FolderRepository(str(repository)), b'backend: "python"\n'
    opened.store.ensure()
    staged = Path(opened.workspace(NAME, "d2")) / "model"
    disk.make_folder(str(staged / "1"))
    disk.write_file(str(staged / "1/model.py"), b"# new\n")
    wanted = DesiredModel(NAME, owner=None if acts_as_owner else str(USER))
    candidate, live = repository / f"{NAME}.mlops-candidate", repository / NAME
    for place in (str(staged), str(live)):
        opened.begin_trial(wanted, "d2", place, config)
        made = (candidate, candidate / "config.pbtxt")
        assert {one.lstat().st_uid for one in made} == {USER}
        assert owners(live) == {USER if acts_as_owner else 0}
        assert (candidate / "1/model.py").read_text() in ("# new\n", "# old\n")
        opened.end_trial(NAME)
        assert not candidate.exists() and opened.store.journal(NAME) is None
        assert (live / "1/model.py").read_text() == "# old\n"
        assert (staged / "1/model.py").read_text() == "# new\n"
    disk.write_file(str(staged / "config.pbtxt"), config)
    opened.store.clear_staging(NAME)


def test_root_gives_no_file_to_others_where_it_acts_as_the_owner(host: Path) -> None:
    home = repository_of(host, USER)
    as_user(f"mkdir {home}/models")
    with pytest.raises(DeliveryError, match="leave out owner and group, or run chown") as caught:
        deliver(home / "models", source(host), owner="root")
    assert owners(home) == {USER}
    subprocess.run(
        str(caught.value).split("run ")[1].split(".  ")[0].split(". ")[0], shell=True, check=True
    )
    os.chown(home, 0, 0)  # as the folder above is one of root's in most places
    deliver(home / "models", source(host, "again"), owner="root")
    assert owners(home / "models" / NAME) == {0}


def of_staff(host: Path) -> Path:
    """As /usr/local of Debian."""
    (host / "local/models").mkdir(parents=True)
    os.chown(host / "local", 0, 50)
    (host / "local").chmod(0o2775)
    return host / "local/models"


def of_root_s_group(host: Path) -> Path:
    (host / "opt/models").mkdir(parents=True)
    (host / "opt").chmod(0o775)
    return host / "opt/models"


def behind_a_link_of_root(host: Path) -> Path:
    (host / "data/models").mkdir(parents=True)
    (host / "srv").symlink_to(host / "data")
    return host / "srv/models"


def in_a_folder_like_tmp(host: Path) -> Path:
    (host / "tmp").chmod(0o1777)
    as_user(f"mkdir {host}/tmp/models")
    return host / "tmp/models"


def with_backups_of_hard_links(host: Path) -> Path:
    (host / "models").mkdir()
    deliver(host / "models", source(host, "first"))
    subprocess.run(f"cp -al {host}/models* {host}/tmp", shell=True, check=True)
    return host / "models"


@pytest.mark.parametrize(
    "make",
    [
        of_staff,
        of_root_s_group,
        behind_a_link_of_root,
        in_a_folder_like_tmp,
        with_backups_of_hard_links,
    ],
)
def test_places_of_ordinary_hosts_go_on_to_work(host: Path, make: Callable[[Path], Path]) -> None:
    repository = make(host)
    deliver(repository, source(host, "old"))
    deliver(repository, source(host, "new"))
    deliver(repository, state="rolled_back")
    assert (repository / NAME / "1/model.py").read_text() == "# old\n"


def test_the_home_of_who_became_root_by_sudo_goes_on_to_work(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = repository_of(host, 0)
    os.chown(host, USER, USER)
    monkeypatch.setenv("SUDO_UID", str(USER))
    deliver(repository, source(host, "old"))
    assert owners(host / "models.mlops-triton/records") == {0}


@pytest.mark.parametrize("by", ["a link", "an access control list"])
def test_root_s_group_opens_no_folder_to_others(host: Path, by: str) -> None:
    """The bits of the group speak for everybody whom an access control list names."""
    above = host / "opt"
    (above / "models").mkdir(parents=True)
    above.chmod(0o775)
    if by == "a link":
        os.symlink(host / "models", above / "here")
        os.chown(above / "here", USER, USER, follow_symlinks=False)
        repository = above / "here"
        (host / "models").mkdir()
    else:
        nobody = 0xFFFFFFFF
        entries = [(1, 7, nobody), (2, 7, USER), (4, 5, nobody), (16, 7, nobody), (32, 5, nobody)]
        listed = b"".join(struct.pack("<HHI", *entry) for entry in entries)
        os.setxattr(above, "system.posix_acl_access", struct.pack("<I", 2) + listed)
        repository = above / "models"
    with pytest.raises(DeliveryError, match=r"cannot be reached by root|which is of user 0"):
        deliver(repository, source(host, "new"))
    assert not (repository / NAME).exists()


def test_root_has_the_groups_of_the_user_for_whom_it_acts(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's repository in the folder of the team, where he may write by his group."""
    team = 64200
    repository = repository_of(host, USER)
    os.chown(host, 0, team)
    host.chmod(0o2775)
    entry = pwd.struct_passwd(("dev", "x", USER, USER, "", str(host), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _user: entry)
    monkeypatch.setattr(os, "getgrouplist", lambda *_arguments: [USER, team, 0])
    deliver(repository, source(host, "new"))
    assert owners(host / "models.mlops-triton") == {USER}


# -- what the other user puts there ----------------------------------------------------------------

PLANTS = {
    "the model is a link": "mv {live} {live}.gone; ln -s {private} {live}",
    "the version is a link": "mv {live}/1 {live}/gone; ln -s {private}/3 {live}/1",
    "a newer version is a link": "ln -s {private}/3 {live}/3",
    "the configuration is a link": (
        "rm {live}/config.pbtxt; ln -s {private}/config.pbtxt {live}/config.pbtxt"
    ),
    "a file is a link": "rm {live}/1/model.py; ln -s {private}/3/model.py {live}/1/model.py",
    "a file is a pipe": "rm {live}/1/model.py; mkfifo {live}/1/model.py",
    "a retained file is a link": (
        "cd {live}-kept && rm 1/model.py && ln -s {private}/3/model.py 1/model.py"
    ),
    "a retained version is a link": "cd {live}-kept && mv 1 gone; ln -s {private}/3 1",
}
AFTERWARDS: dict[str, Callable[[Path, str], Any]] = {
    "update": deliver,
    "side by side": lambda repository, place: deliver(repository, place, serve_versions=2),
    "permissions": lambda repository, place: deliver(repository, mode="0600", state="unloaded"),
    "rollback": lambda repository, place: deliver(repository, state="rolled_back"),
    "removal": lambda repository, place: deliver(repository, state="absent"),
    "repair": lambda repository, place: deliver(repository, place, check_files=True),
}


@pytest.mark.parametrize("afterwards", AFTERWARDS)
@pytest.mark.parametrize("plant", PLANTS)
def test_what_another_user_puts_into_a_deployed_model_leads_root_nowhere(
    host: Path, private: Path, plant: str, afterwards: str
) -> None:
    repository, state = repository_of(host, USER), host / "models.mlops-triton"
    for text in ("older", "old"):
        deliver(repository, source(host, text))
    (kept,) = (state / "retained" / NAME).iterdir()
    command = PLANTS[plant].replace("{live}-kept", str(kept / "model"))
    as_user(command.format(live=repository / NAME, private=private))
    before, place = look(private), source(host, "new")
    for _again in range(2):
        attempt(lambda: AFTERWARDS[afterwards](repository, place))
    assert look(private) == before
    assert owners(state / "records") == {0}


def test_a_tree_without_end_fails_its_model_and_the_advice_helps(host: Path) -> None:
    repository = repository_of(host, USER)
    deliver(repository, source(host, "old"))
    deep = "/".join(["d"] * 500)
    as_user(f"cd {repository}/{NAME}/1 && mkdir -p {deep} && cd {deep} && mkdir -p {deep}")
    for options in ({"place": source(host, "new")}, {"state": "absent"}):
        with pytest.raises(DeliveryError, match="more than 100 deep") as caught:
            deliver(repository, **options)
    command = str(caught.value).rpartition("run ")[2].partition(". ")[0].rstrip(".)")
    subprocess.run(command, shell=True, check=True)
    deliver(repository, str(host / "source-new"))
    assert (repository / NAME / "1/model.py").read_text() == "# new\n"


@pytest.mark.parametrize("moment", ["exchange", "permissions", "rename", "touch", "rmtree"])
@pytest.mark.parametrize("what", ["model", "version", "file"])
def test_what_another_user_exchanges_meanwhile_leads_root_nowhere(
    host: Path, private: Path, moment: str, what: str
) -> None:
    repository, state = repository_of(host, USER), host / "models.mlops-triton"
    deliver(repository, source(host, "older"))
    deliver(repository, source(host, "old"))
    before, place, live = look(private), source(host, "new"), repository / NAME
    swapped = []

    def swap(when: str, kind: str, subject: str) -> None:
        for model in [live, *state.glob(f"*/{NAME}/*/model")]:
            victim = {"model": model, "version": model / "1", "file": model / "1/model.py"}[what]
            if (when, kind) != ("before", moment) or not victim.exists() or victim.is_symlink():
                continue
            if victim.parent.stat().st_uid == USER:
                to = private / "3/model.py" if what == "file" else private
                as_user(f"mv {victim} {victim}.gone && ln -s {to} {victim}")
                swapped.append(subject)

    with observe(swap):
        for work in (
            lambda: deliver(repository, place),
            lambda: deliver(repository, mode="0600", state="unloaded"),
            lambda: deliver(repository, state="rolled_back"),
            lambda: deliver(repository, state="absent"),
        ):
            attempt(work)
    assert look(private) == before


def test_a_hard_link_to_a_file_of_root_is_not_given_away(host: Path) -> None:
    repository = repository_of(host, USER)
    deliver(repository, source(host))
    secret, model = host / "secret", repository / NAME / "1/model.py"
    secret.write_text("# new\n")
    secret.chmod(0o600)
    model.unlink()
    os.link(secret, model)
    with pytest.raises((DeliveryError, OSError), match="hard link to a file of another user"):
        disk.set_permissions(str(repository / NAME), USER, USER, 0o644)
    assert (secret.stat().st_uid, stat.S_IMODE(secret.stat().st_mode)) == (0, 0o600)


# -- where everything is of the other user ---------------------------------------------------------

OWN_PLANTS = {
    "records": "rm -r {state}/records; ln -s {private} {state}/records",
    "a record": (
        "rm {state}/records/fraud.json; ln -s {private}/config.pbtxt {state}/records/fraud.json"
    ),
    "a record's draft": "ln -s {private}/config.pbtxt {state}/records/fraud.json.new",
    "staging": "rm -r {state}/staging; ln -s {private} {state}/staging",
    "staging of the model": "ln -s {private} {state}/staging/fraud",
    "a lock": "ln -s {private}/config.pbtxt {state}/locks/fraud.lock",
    "retained copies": "rm -r {state}/retained; ln -s {private} {state}/retained",
    "the model": "mv {live} {live}.gone; ln -s {private} {live}",
    "the marker": (
        "rm {live}/../.mlops-triton.json; ln -s {private}/config.pbtxt {live}/../.mlops-triton.json"
    ),
    "a marker that names another folder": (
        """echo '{{"schema": 1, "state_dir": "{private}"}}' > {live}/../.mlops-triton.json"""
    ),
}


@pytest.mark.parametrize("plant", OWN_PLANTS)
def test_what_the_owner_of_everything_plants_has_the_rights_of_that_user(
    host: Path, private: Path, plant: str
) -> None:
    home = repository_of(host, USER)
    as_user(f"mkdir {home}/models")
    repository, state = home / "models", home / "models.mlops-triton"
    for text in ("older", "old"):
        deliver(repository, source(host, text))
    as_user(OWN_PLANTS[plant].format(state=state, live=repository / NAME, private=private))
    before, place = look(private), source(host, "new")
    for work in (
        lambda: deliver(repository, place),
        lambda: deliver(repository, state="rolled_back"),
        lambda: deliver(repository, state="absent"),
    ):
        attempt(work)
    assert look(private) == before and owners(home) == {USER} and rights.is_root()


def journal(*moves: tuple[str, str, int | None, int | None]) -> str:
    names = ("live", "staged", "live_inode", "staged_inode")
    return json.dumps(
        {
            "schema": 1,
            "op": "swap",
            "deploy_id": "d",
            "old_record": None,
            "keep": 1,
            "moves": [dict(zip(names, move)) for move in moves],
        }
    )


def test_a_journal_of_the_owner_renames_nothing_into_folders_of_root(
    host: Path, private: Path
) -> None:
    home = repository_of(host, USER)
    as_user(f"mkdir {home}/models")
    repository, state = home / "models", home / "models.mlops-triton"
    deliver(repository, source(host))
    written = journal((f"{NAME}/4", f"staging/{NAME}/d/4", None, None))
    written = written.replace('"live_inode": null', '"live_inode": 1')
    as_user(
        f"mkdir -p {state}/staging/{NAME}/d/4 && mv {repository}/{NAME} {repository}/gone"
        f" && ln -s {private} {repository}/{NAME}"
        f" && echo '{written}' > {state}/journals/{NAME}.json"
    )
    before = look(private)
    with pytest.raises((DeliveryError, OSError)):
        FolderRepository(str(repository)).recover(NAME)
    assert look(private) == before
    # Whoever deploys without being root follows no link of a journal either.
    give(state, user=0)
    (repository / ".mlops-triton.json").unlink()
    os.chown(home, 0, 0)
    with pytest.raises(RepositoryError, match="out of the repository: remove that symbolic link"):
        recovery.recover(StateStore(str(repository)), NAME)
    assert look(private) == before


def test_a_journal_whose_link_was_removed_as_advised_names_the_way_on(
    host: Path, private: Path
) -> None:
    home = repository_of(host, USER)
    as_user(f"mkdir {home}/models")
    repository, state = home / "models", home / "models.mlops-triton"
    deliver(repository, source(host, "old"))
    written = journal((f"{NAME}/way/new", f"staging/{NAME}/d", None, None))
    written = written.replace('"live_inode": null', '"live_inode": 1')
    as_user(
        f"mkdir -p {state}/staging/{NAME}/d && ln -s {private} {repository}/{NAME}/way"
        f" && echo '{written}' > {state}/journals/{NAME}.json"
    )
    new = source(host, "new")
    with pytest.raises(RepositoryError, match="remove that symbolic link"):
        deliver(repository, new)
    (repository / NAME / "way").unlink()
    with pytest.raises(RepositoryError, match="then remove the journal"):
        deliver(repository, new)
    (state / f"journals/{NAME}.json").unlink()
    deliver(repository, new)
    assert (repository / NAME / "1/model.py").read_text() == "# new\n"


# -- what is refused, and what helps ---------------------------------------------------------------


def everybody_s_state(host: Path, repository: Path) -> None:
    state = host / "models.mlops-triton"
    for folder in (state, *state.iterdir()):
        folder.chmod(0o777)


def folders_of_another(host: Path, repository: Path) -> None:
    for name in ("journals", "locks", "records"):
        os.chown(host / "models.mlops-triton" / name, USER, USER)


def marker_by_a_hard_link(host: Path, repository: Path) -> None:
    os.chown(repository, USER, USER)
    os.link(repository / ".mlops-triton.json", host / "backup.json")


def state_of_another(host: Path, repository: Path) -> None:
    give(host / "models.mlops-triton")


def folder_of_another(host: Path, repository: Path) -> None:
    give(host / "models.mlops-triton/journals")


def marker_of_another(host: Path, repository: Path) -> None:
    os.chown(repository, USER, USER)
    (host / "open").mkdir()
    (host / "open").chmod(0o777)
    as_user(
        f"rm -f {repository}/.mlops-triton.json;"
        f""" echo '{{"schema": 1, "state_dir": "../open"}}' > {repository}/.mlops-triton.json"""
    )


def marker_that_leads_nowhere(host: Path, repository: Path) -> None:
    marker = repository / ".mlops-triton.json"
    marker.write_text('{"schema": 1, "state_dir": "/nowhere/state"}')
    give(marker)


def marker_of_a_member_of_the_team(host: Path, repository: Path) -> None:
    os.chown(repository, 0, USER)
    repository.chmod(0o2775)
    as_user(f"rm -f {repository}/.mlops-triton.json")
    as_user(
        f"""echo '{{"schema": 1, "state_dir": "../models.mlops-triton"}}'"""
        f" > {repository}/.mlops-triton.json"
    )


def open_folder_above(host: Path, repository: Path) -> None:
    host.chmod(0o777)


def folder_of_another_above(host: Path, repository: Path) -> None:
    os.chown(host, USER, USER)


def record_of_another(host: Path, repository: Path) -> None:
    give(host / f"models.mlops-triton/records/{NAME}.json")


REFUSED = [
    everybody_s_state,
    state_of_another,
    folder_of_another,
    folders_of_another,
    marker_by_a_hard_link,
    marker_of_another,
    marker_that_leads_nowhere,
    marker_of_a_member_of_the_team,
    open_folder_above,
    folder_of_another_above,
    record_of_another,
]


@pytest.mark.parametrize("make", REFUSED)
def test_what_root_must_not_believe_is_refused_and_the_advice_helps(
    host: Path, make: Callable[[Path, Path], None]
) -> None:
    repository = repository_of(host, 0)
    deliver(repository, source(host, "old"))
    make(host, repository)
    before = look(repository)
    with pytest.raises(DeliveryError) as caught:
        deliver(repository, source(host, "new"))
    assert look(repository) == before
    sentence = str(caught.value)
    command = sentence.rpartition("run ")[2] if "run " in sentence else sentence.rpartition(": ")[2]
    command = command.removesuffix(" Nothing was changed.").removesuffix(".")
    assert command.split()[0] in ("chown", "chmod", "rm"), sentence
    subprocess.run(command, shell=True, check=True)
    adopts = {"adopt": True} if make is record_of_another else {}
    deliver(repository, source(host, "newer"), **adopts)
    assert (repository / NAME / "1/model.py").read_text() == "# newer\n"


def test_a_command_of_the_advice_is_one_whatever_the_folder_is_called(host: Path) -> None:
    """The name may be that of a user's folder, and root is told to run it."""
    home = repository_of(host, USER)
    as_user(f"mkdir -p '{home}/a; touch {host}/gone/models/.mlops-triton/records'")
    (host / "gone").mkdir()
    repository = next(home.rglob("models"))
    os.chown(repository, 0, 0)
    with pytest.raises(DeliveryError) as caught:
        deliver(repository, source(host, "new"))
    command = str(caught.value).rpartition("run ")[2].removesuffix(". Nothing was changed.")
    subprocess.run(command, shell=True, check=True)
    assert owners(repository) == {0} and not (host / "gone/models").exists()


def test_a_team_delivers_into_its_repository_as_before(host: Path) -> None:
    """Those who may write to a group's repository need no root."""
    repository = repository_of(host, 0)
    os.chown(repository, 0, USER)
    repository.chmod(0o2775)
    as_user(f"mkdir {repository}/.mlops-triton")
    os.chmod(repository, 0o2775)
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER + 1)
            StateStore(str(repository)).path  # noqa: B018
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# -- modes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_modes_of_the_state_are_set_whatever_the_umask(host: Path, umask: int) -> None:
    repository, state = repository_of(host, 0), host / "models.mlops-triton"
    before = os.umask(umask)
    try:
        for text in ("old", "new"):
            deliver(repository, source(host, text))
    finally:
        os.umask(before)
    found = {str(one): stat.S_IMODE(one.stat().st_mode) for one in [state, *state.rglob("*")]}
    wrong = {
        path: oct(mode)
        for path, mode in found.items()
        if mode != (0o755 if Path(path).is_dir() else 0o644)
    }
    assert not wrong
    marker = repository / ".mlops-triton.json"
    assert stat.S_IMODE(marker.stat().st_mode) == 0o644


def test_a_state_that_was_closed_to_the_server_is_opened_by_the_next_run_which_says_so(
    host: Path,
) -> None:
    repository, state = repository_of(host, 0), host / "models.mlops-triton"
    deliver(repository, source(host, "old"))
    for folder in (state, state / "records"):
        folder.chmod(0o700)
    result = deliver(repository, source(host, "new"))
    assert f"the folder {state} had the mode 0700, and has 0755 now" in " ".join(result.warnings)
    as_user(f"cat {state}/records/{NAME}.json > /dev/null")


def test_a_state_folder_that_somebody_holds_is_not_waited_for_without_end(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may read a folder may hold it, and the owner of a repository may remove its
    marker.
    """
    repository, state = repository_of(host, USER), host / "models.mlops-triton"
    deliver(repository, source(host, "old"))
    as_user(f"rm {repository}/.mlops-triton.json")
    monkeypatch.setattr(state_store, "_SECONDS", 0.1)
    with subprocess.Popen(
        [
            *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
            *("flock", str(state), "sh", "-c", "echo held; read line"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(DeliveryError, match="another run has held"):
            deliver(repository, source(host, "new"))
        holder.communicate()
    deliver(repository, source(host, "newer"))
