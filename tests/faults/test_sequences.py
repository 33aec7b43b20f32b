# SPDX-License-Identifier: Apache-2.0
"""Operations one after another, and what somebody else does between them: the shortest sequences
after which something else was served than what was said. tests/chaos looks for more of them.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import RepositoryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.inspection import (  # noqa: E501
    Inspection,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from support.bench import NAME, QUESTION, VERIFY, Bench
from support.deliveries import deliver_models
from support.rows import Row

pytestmark = pytest.mark.takes(60)
DAY = 86400.0


def change_by_hand(bench: Bench, identity: int = 900) -> bytes:
    """Another number in the deployed model's program; returns what was there."""
    path = bench.repository / NAME / "1" / "model.py"
    before = path.read_bytes()
    lines = before.decode().splitlines(keepends=True)
    path.write_text("".join(
        f"IDENTITY = {identity}\n" if line.startswith("IDENTITY =") else line for line in lines
    ))  # fmt: skip
    return before


def edit_configuration(bench: Bench) -> None:
    path = bench.repository / NAME / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 7"))


@pytest.mark.parametrize("loss", ["changed", "removed"])
def test_unloaded_does_not_make_changed_files_the_deployment(
    loss: str, bench: Bench, row: Row
) -> None:
    """a file {loss} by hand, unloaded, deployed again."""
    source = bench.source(1)
    bench.good(model_uri=source)
    change_by_hand(bench)
    if loss == "removed":
        (bench.repository / NAME / "1" / "model.py").unlink()
    unloaded = bench.good(state="unloaded")
    assert "1/model.py changed on disk" in str(unloaded.warnings)
    assert "1/model.py changed on disk" in bench.drift()
    healed = bench.good(model_uri=source)
    assert healed.plan and "1/model.py changed on disk" in healed.plan.actions[0]
    bench.check_agreement(1)
    row.saw(healed.plan.actions[0])


def test_a_file_that_was_changed_and_put_back_is_not_served(bench: Bench, row: Row) -> None:
    """a file changed by hand, the server restarted, the file put back."""
    source = bench.source(1)
    bench.good(model_uri=source)
    before = change_by_hand(bench)
    bench.crash()
    assert bench.identity() == 900
    (bench.repository / NAME / "1" / "model.py").write_bytes(before)
    assert bench.drift() == ["1/model.py was touched"]
    healed = bench.good(model_uri=source)
    bench.check_agreement(1)
    assert not bench.good(model_uri=source).changed
    row.saw(healed.plan.actions[0] if healed.plan else "")


def test_a_file_of_the_future_that_was_put_back_is_not_served(bench: Bench, row: Row) -> None:
    """a file changed with a time of the future, loaded, and put back with its time."""
    source = bench.source(1)
    bench.good(model_uri=source)
    path = bench.repository / NAME / "1" / "model.py"
    times = path.stat()
    before = change_by_hand(bench)
    ahead = time.time() + 30 * DAY
    os.utime(path, (ahead, ahead))
    assert bench.triton.load(NAME)[0] == 200 and bench.identity() == 900
    path.write_bytes(before)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    healed = bench.good(model_uri=source)
    bench.check_agreement(1, retained=0)
    assert not bench.good(model_uri=source).changed
    row.saw(healed.plan.actions[0] if healed.plan else "")


@pytest.mark.parametrize("what", ["configuration", "side by side"])
def test_a_rollback_in_place_leaves_no_changed_file_behind(
    what: str, bench: Bench, row: Row
) -> None:
    """a file changed by hand, then a rollback of {what}, which brings no files."""
    if what == "configuration":
        bench.good(model_uri=bench.source(1))
        bench.good(model_uri=bench.source(1), config={"max_batch_size": 4})
    else:
        versions = {"1": bench.source(1), "2": bench.source(2)}
        for number in versions:
            done = bench.run(
                {"registry": versions}, model_uri=f"models:/{NAME}/{number}", serve_versions=2
            )["result"]
            assert not done["failed"], done["msg"]
    change_by_hand(bench)
    record = bench.record()
    refused = bench.deliver(state="rolled_back")
    assert "1/model.py changed on disk" in str(refused.error)
    assert bench.record() == record
    row.saw(str(refused.error))


def test_a_rollback_brings_the_files_of_a_version_folder_that_both_have(
    bench: Bench, row: Row
) -> None:
    """folders with a version 1 each, the first with serve_versions: 2, then a rollback."""
    bench.good(model_uri=bench.source(1), serve_versions=2)
    bench.good(model_uri=bench.source(2))
    bench.good(state="rolled_back")
    bench.check_agreement(1, retained=1)
    row.saw("version 1 has the bytes of the deployment that came back")


def test_rolled_back_puts_back_what_present_puts_back(bench: Bench, row: Row) -> None:
    """rolled back, then config.pbtxt edited by hand, or unloaded by hand, and rolled back again."""
    bench.good(model_uri=bench.source(1))
    bench.good(model_uri=bench.source(2))
    bench.good(state="rolled_back")
    edit_configuration(bench)
    bench.crash()
    assert bench.served_config()["max_batch_size"] == 7
    said = bench.good(state="rolled_back").plan
    bench.check_agreement(1, retained=1)
    assert bench.served_config()["max_batch_size"] == 8
    assert not bench.good(state="rolled_back").changed
    bench.triton.unload(NAME)
    bench.good(state="rolled_back")
    bench.check_agreement(1, retained=1)
    row.saw(f"{', '.join(said.actions if said else ())}")


@pytest.mark.parametrize("loss", ["folder", "file", "removed file"])
def test_rolled_back_says_what_it_cannot_put_back(loss: str, bench: Bench, row: Row) -> None:
    """rolled back, then a {loss} is lost, and rolled back again."""
    bench.good(model_uri=bench.source(1))
    bench.good(model_uri=bench.source(2))
    bench.good(state="rolled_back")
    if loss == "folder":
        shutil.rmtree(bench.repository / NAME)
    elif loss == "file":
        change_by_hand(bench)
    else:
        (bench.repository / NAME / "1" / "model.py").unlink()
    refused = bench.deliver(state="rolled_back")
    assert isinstance(refused.error, RepositoryError)
    source = str(bench.folder / "sources" / f"{NAME}-1" / NAME)
    assert f"deploy {source} instead (state: present" in str(refused.error)
    bench.good(model_uri=source)
    bench.check_agreement(1)
    row.saw(str(refused.error))


def test_rolled_back_on_what_was_unloaded_is_recorded(bench: Bench, row: Row) -> None:
    """unloaded, then rolled back to the same version, then a restart."""
    bench.good(model_uri=bench.source(1))
    bench.good(model_uri=bench.source(2))
    bench.good(state="rolled_back")
    bench.good(state="unloaded")
    back = bench.good(state="rolled_back")
    bench.check_agreement(1)
    bench.crash()
    bench.check_agreement(1)
    assert not bench.good(state="rolled_back").changed
    row.saw(", ".join(back.plan.actions if back.plan else ()))


@pytest.mark.parametrize("damage", ["a file changed", "the folder removed", "config.pbtxt edited"])
def test_what_is_put_right_takes_no_retained_copy_away(damage: str, bench: Bench, row: Row) -> None:
    """deployment put right after {damage}, then a rollback."""
    bench.good(model_uri=bench.source(1))
    second = bench.source(2)
    bench.good(model_uri=second)
    if damage == "a file changed":
        change_by_hand(bench)
    elif damage == "the folder removed":
        shutil.rmtree(bench.repository / NAME)
    else:
        edit_configuration(bench)
    bench.good(model_uri=second)
    bench.check_agreement(2, retained=1)
    bench.good(state="rolled_back")
    bench.check_agreement(1, retained=1)
    row.saw("it goes back to the deployment before, and not to the damaged one")


def test_a_model_that_writes_beside_its_files_is_deployed_once(bench: Bench, row: Row) -> None:
    """a model that writes a file into its folder while it loads."""
    sources = []
    for identity in (1, 2):
        sample = bench.sample(identity)
        program = sample.folder / "1" / "model.py"
        start = "    def initialize(self, args):\n"
        writes = '        open(__file__ + ".cache", "w").write("made at the start")\n'
        program.write_text(program.read_text().replace(start, start + writes))
        sources.append(str(sample.folder))
    bench.good(model_uri=sources[0])
    assert (bench.repository / NAME / "1" / "model.py.cache").exists()
    assert not bench.good(model_uri=sources[0]).changed
    bench.good(model_uri=sources[1])
    bench.good(state="rolled_back")
    assert bench.identity() == 1 and bench.drift() == []
    assert not bench.good(state="rolled_back").changed
    chosen = bench.good(model_uri=sources[0])
    assert chosen.plan and chosen.plan.notes == chosen.plan.actions
    assert not bench.good(model_uri=sources[0]).changed
    row.saw("the file is its own, and no change")


def test_a_removal_whose_server_dies_says_that_it_is_done(bench: Bench, row: Row) -> None:
    """server that ends for good between a removal and its last question."""
    bench.good(model_uri=bench.source(1))
    gate = bench.folder / "gate"
    gate.touch()
    how = {"pause": ["unlink", "after", str(gate)], "target": {"timeout": 2}}
    run = bench.begin(0, how, state="absent")
    bench.child(0).paused.get(timeout=20)
    bench.triton.kill()
    gate.unlink()
    said = run.result(60)["result"]["msg"]
    assert "cannot be reached" in said and "It is removed, and no server serves it" in said
    bench.triton.start()
    bench.check_agreement(None)
    row.saw(said)


def test_permissions_and_configuration_change_together(bench: Bench, row: Row) -> None:
    """a mode and a configuration that are asked for at once, and a mode changed by hand before."""
    source = bench.source(1)
    bench.good(model_uri=source)
    program = bench.repository / NAME / "1" / "model.py"
    program.chmod(0o777)
    for options in ({"config": {"max_batch_size": 4}}, {"mode": "0640"}):
        bench.good(model_uri=source, **options)
        wanted = 0o640 if "mode" in options else 0o644
        assert program.stat().st_mode & 0o777 == wanted
        assert not bench.good(model_uri=source, **options).changed
    row.saw("each file has the mode that was asked for, whatever else changes")


def test_a_rollback_from_a_damaged_deployment_leaves_copies_whole(bench: Bench, row: Row) -> None:
    """two configurations, another deployment, which is damaged, back, and on, and back again."""
    first = bench.source(1)
    for batch in (8, 4):
        bench.good(model_uri=first, config={"max_batch_size": batch}, keep=5)
    bench.good(model_uri=bench.source(2), keep=5)
    change_by_hand(bench)
    bench.good(state="rolled_back", keep=5)
    assert (bench.identity(), bench.served_config()["max_batch_size"]) == (1, 4)
    bench.good(model_uri=bench.source(3), keep=5)
    bench.good(state="rolled_back", keep=5)
    assert (bench.identity(), bench.served_config()["max_batch_size"]) == (1, 4)
    row.saw("the damaged files are in no copy")


def test_what_was_added_by_hand_does_not_come_back(bench: Bench, row: Row) -> None:
    """files and a version folder added by hand, then another deployment, then a rollback."""
    bench.good(model_uri=bench.source(1))
    live = bench.repository / NAME
    (live / "notes.txt").write_text("by hand")
    (live / "1" / ".model.py.swp").write_text("by hand")
    shutil.copytree(live / "1", live / "7")
    bench.good(model_uri=bench.source(2))
    bench.good(state="rolled_back")
    bench.check_agreement(1, retained=1)
    row.saw("the deployment comes back without them")


def test_a_rollback_keeps_owner_and_mode(bench: Bench, row: Row) -> None:
    """a deployment with a mode of its own, replaced, and brought back."""
    bench.good(model_uri=bench.source(1), mode="0640")
    bench.good(model_uri=bench.source(2), mode="0644")
    bench.good(state="rolled_back")
    files = [path for path in (bench.repository / NAME).rglob("*") if path.is_file()]
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in files}
    assert set(modes.values()) == {"0o640"}, modes
    row.saw("each file has the mode that it was deployed with")


@pytest.mark.parametrize("days", [30, 4000])
def test_failed_deployments_and_times_in_the_future(days: int, bench: Bench, row: Row) -> None:
    """files {days} days ahead, then deployments that fail again and again, then a good one."""
    source = bench.source(1)
    bench.good(model_uri=source)
    ahead = time.time() + days * DAY
    for path in (bench.repository / NAME).rglob("*"):
        os.utime(path, (ahead, ahead))
    bench.good(model_uri=source)
    wrong = bench.source(4, wrong=True)
    for identity in (2, 3, 5):
        for _time in range(identity):
            failed = bench.deliver(model_uri=wrong, verify=VERIFY)
            assert "output 'y'" in str(failed.error), str(failed.error)
        bench.good(model_uri=bench.source(identity))
        bench.check_agreement(identity)
    newest = max(path.stat().st_mtime for path in (bench.repository / NAME).rglob("*"))
    row.saw(f"each good one is served; times are {(newest - ahead) / DAY:.0f} days further on")


def test_a_damaged_record_stops_no_other_model(bench: Bench, row: Row) -> None:
    """damaged record of one model of a set: list with purge, inspection, and the way out."""
    sources = {name: bench.source(number, name) for number, name in ((1, "a"), (2, "b"), (3, "c"))}
    for name, source in sources.items():
        bench.good(name=name, model_uri=source, deployment_set="blue")
    path = Path(bench.store.record_path("b"))
    path.write_text("{}")
    wanted = {"name": "a", "model_uri": sources["a"], "deployment_set": "blue"}
    done = deliver_models(bench.target, [wanted], purge="blue")
    by_name = {one.name: one for one in done}
    assert by_name["a"].error is None and by_name["c"].error is None and by_name["c"].changed
    error = str(by_name["b"].error)
    assert str(path) in error and "model 'b'" in error and "adopt: true" in error
    with Inspection(Target.from_options(bench.target)) as there:
        states = {one["name"]: (one["state"], one["drift"]) for one in there.status()}
    assert states["a"] == ("present", [])
    assert states["b"][0] == "unknown" and str(path) in states["b"][1][0]
    path.unlink()
    bench.good(name="b", state="absent", adopt=True)
    assert not (bench.repository / "b").exists()
    assert bench.left_behind(models_there=("a",)) == []
    row.saw(error)


@pytest.mark.parametrize("damage", ["folder", "file", "stray"])
def test_a_deployment_that_fails_where_the_one_before_is_damaged(
    damage: str, bench: Bench, row: Row
) -> None:
    """{damage} lost or added by hand, then a deployment that fails its verification."""
    bench.good(model_uri=bench.source(1))
    if damage == "folder":
        shutil.rmtree(bench.repository / NAME)
    elif damage == "file":
        (bench.repository / NAME / "1" / "model.py").unlink()
    else:
        (bench.repository / NAME / "notes.txt").write_text("by hand")
    failed = str(bench.deliver(model_uri=bench.source(4, wrong=True), verify=VERIFY).error)
    assert "output 'y'" in failed
    if damage == "stray":
        assert bench.identity() == 1
        assert "is in place as before, notes.txt changed on disk" in failed
    else:
        # What failed does not answer on.
        assert bench.triton.infer(NAME, QUESTION)[0] != 200
        assert "could not load it again" in failed and "no server serves it" in failed
    bench.good(model_uri=str(bench.folder / "sources" / f"{NAME}-1" / NAME))
    bench.check_agreement(1)
    row.saw(failed)


@pytest.mark.parametrize("state", ["present", "unloaded", "absent"])
def test_a_server_that_starts_again_just_before_the_record(
    state: str, bench: Bench, row: Row
) -> None:
    """server started again between the last answer and the record of {state}."""
    gate = bench.folder / "gate"
    gate.touch()
    options = {"model_uri": bench.source(1)} if state == "present" else {"state": state}
    if state != "present":
        bench.good(model_uri=bench.source(1))
    kind = "load" if state == "present" else "unload"
    run = bench.begin(0, {"pause": [kind, "after", str(gate)]}, **options)
    bench.child(0).paused.get(timeout=20)
    bench.crash()
    gate.unlink()
    done = run.result(60)["result"]
    assert not done["failed"], done["msg"]
    if state == "unloaded":
        assert bench.identity() is None and bench.drift() == []
    else:
        bench.check_agreement(1 if state == "present" else None)
    row.saw(f"{', '.join(done['actions'])}: and it is so")


def test_taken_over_is_what_lies_there(bench: Bench, row: Row) -> None:
    """somebody else's files changed after they were loaded, then taken over."""
    sample, before = bench.sample(1), bench.triton.loads(NAME)
    shutil.copytree(sample.folder, bench.repository / NAME)
    bench.triton.load(NAME)
    assert bench.identity() == 1
    second = bench.sample(2)
    shutil.copyfile(second.folder / "1/model.py", bench.repository / NAME / "1/model.py")
    taken = bench.good(model_uri=str(second.folder), adopt=True)
    assert bench.identity() == 2
    assert not bench.good(model_uri=str(second.folder)).changed
    assert bench.triton.loads(NAME) - before == 2
    row.saw(", ".join(taken.plan.actions if taken.plan else ()))


def test_each_choice_can_be_gone_back_from(bench: Bench, row: Row) -> None:
    """present 1, present 2, rolled_back, rollback_to 2, present 2 (unchanged), rolled_back."""
    sources = {number: bench.source(number) for number in (1, 2)}
    bench.good(model_uri=sources[1])
    bench.good(model_uri=sources[2])
    bench.good(state="rolled_back")
    assert bench.identity() == 1
    bench.good(state="rolled_back", rollback_to=sources[2])
    assert bench.identity() == 2
    assert not bench.good(state="rolled_back", rollback_to=sources[2]).changed
    assert not bench.good(model_uri=sources[2]).changed
    back = bench.good(state="rolled_back")
    bench.check_agreement(1)
    assert not bench.good(state="rolled_back").changed
    row.saw(back.plan.actions[0] if back.plan else "")


def test_what_was_rolled_back_to_and_is_asked_for_again_is_a_choice(bench: Bench, row: Row) -> None:
    """present 1, present 2, rolled_back, present 1 (nothing to load), rolled_back."""
    sources = {number: bench.source(number) for number in (1, 2)}
    bench.good(model_uri=sources[1])
    bench.good(model_uri=sources[2])
    bench.good(state="rolled_back")
    chosen = bench.good(model_uri=sources[1])
    assert chosen.plan and chosen.plan.actions == [
        "note that it is asked for again after the rollback to it"
    ]
    assert not bench.good(model_uri=sources[1]).changed
    back = bench.good(state="rolled_back")
    bench.check_agreement(2)
    assert "which was rolled back on" in str(back.warnings)
    row.saw(str(back.warnings[0]))


def test_what_was_taken_back_is_not_taken_up_by_a_rollback(bench: Bench, row: Row) -> None:
    """present 1, present 2, rollback_to 1 with undo as after a failed run, rolled_back."""
    bench.good(model_uri=bench.source(1))
    before = bench.record()
    bench.good(model_uri=bench.source(2))
    assert before is not None
    bench.good(state="rolled_back", rollback_to=before.key, undo=True)
    assert not bench.good(state="rolled_back").changed
    bench.check_agreement(1)
    # Nor after it was asked for again, as the next run does.
    bench.good(model_uri=bench.source(1))
    nothing = bench.deliver(state="rolled_back")
    assert "retained: none" in str(nothing.error)
    bench.check_agreement(1, retained=0)
    row.saw("a rollback of the fleet leaves a host alone that went back already")


def test_what_proved_a_deployment_proves_it_again(bench: Bench, row: Row) -> None:
    """present 1 with a verify, present 2 without, rolled_back; the model has no example."""
    bench.good(model_uri=bench.source(1), verify=VERIFY)
    bench.good(model_uri=bench.source(2))
    assert (two := bench.record()) and two.verified is None
    back = bench.good(state="rolled_back")
    assert back.plan and "verify by an inference" in back.plan.actions
    assert (one := bench.record()) and one.verified and one.case == VERIFY
    bench.check_agreement(1)
    row.saw("the kept case is asked")


def test_a_kept_case_that_fails_keeps_what_is_there(bench: Bench, row: Row) -> None:
    """the same, where the model answers otherwise by now; then with verify: none."""
    bench.good(model_uri=bench.source(1), verify=VERIFY)
    bench.good(model_uri=bench.source(2))
    (kept,) = Path(bench.store.path).rglob("retained/**/record.json")
    text = kept.read_text()
    assert "-8.0" in text
    kept.write_text(text.replace("-8.0", "-9.0"))
    failed = bench.deliver(state="rolled_back")
    assert "asked what proved this deployment before" in str(failed.error)
    bench.check_agreement(2)
    bench.good(state="rolled_back", verify="none")
    bench.check_agreement(1)
    row.saw(str(failed.error))


def test_what_is_verified_with_is_noted_once(bench: Bench, row: Row) -> None:
    """present 1 without, then with a verify, with another one, and as auto."""
    source = bench.source(1)
    bench.good(model_uri=source)
    for verify in (VERIFY, {"inputs": VERIFY["inputs"]}):
        noted = bench.good(model_uri=source, verify=verify)
        assert noted.plan and noted.plan.actions == ["note that an inference proved it"]
        assert not bench.good(model_uri=source, verify=verify).changed
        assert (record := bench.record()) and record.case == verify
    assert not bench.good(model_uri=source, verify="auto").changed
    assert not bench.good(model_uri=source).changed
    row.saw("each is noted once")
