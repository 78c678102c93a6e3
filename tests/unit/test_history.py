"""Past runs, from journals alone: listed, told, written to one file, and their seals compared."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.__main__ import main
from tasks.engine.archive import archive, read_content
from tasks.engine.history import (
    Wanted,
    check_journals,
    find_run,
    find_settled,
    find_stories,
    newest_before,
)
from tasks.engine.journal import Journal, read_end
from tasks.model.errors import Refused
from tasks.model.record import Event

STEP = {"step": "restart etcd on m1", "host": "m1", "task_run": None}
PLAN = {"goal": "m1 is as it should be", "findings": [{"severity": "warning", "finding": "slow"}]}
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a PREFECT_HOME with three runs of two clusters: a change, a look, a refusal."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    directory = tmp_path / "etcd-runbooks" / "journal"
    write(directory / "main", 1, "replace_member", by="ada@desk", reason=EVIL, changed=True)
    write(directory / "main", 2, "check_health", by="worker@vm")
    write(directory / "other", 3, "replace_member", by="bob@desk", outcome="Refused: no quorum")
    return directory


def write(
    folder: Path,
    hour: int,
    runbook: str,
    *,
    by: str,
    reason: str | None = None,
    changed: bool = False,
    outcome: str = "done",
) -> Path:
    """Write the journal of a run that began at that hour."""
    run = f"{hour}f00{'0' * 28}"
    path = folder / f"20260301T0{hour}0000.000000Z-{run}.jsonl"
    with Journal(path) as journal:
        journal.append(
            Event.RUN_STARTED,
            runbook=runbook,
            cluster=folder.name,
            run=run,
            operator=by,
            reason=reason,
            parameters={"member": "m1", "dry_run": None},
            previous=newest_before(path),
            hosts=["m1"],
        )
        if changed:
            steps = [{"host": "m1", "sentence": "restart it"}]
            journal.append(Event.PLANNED, **PLAN, steps=steps)
            command = {"host": "m1", "command": "restart", "script": EVIL, "status": 0}
            journal.append(Event.COMMAND, **command, seconds=0.5, stderr="")
            journal.append(Event.STEP_FINISHED, **STEP, seconds=1.25, changed=True)
            journal.append(Event.PERFORMED, **steps[0])
        journal.append(Event.RUN_FINISHED, outcome=outcome)
    return path


def at(hour: int) -> datetime:
    """Give that hour of the day of all these runs."""
    return datetime(2026, 3, 1, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wanted", "hours"),
    [
        (Wanted(), "123"),
        (Wanted(cluster="main"), "12"),
        (Wanted(runbook="replace_member"), "13"),
        (Wanted(by="desk"), "13"),
        (Wanted(changes=True), "1"),
        (Wanted(since=at(2)), "23"),
        (Wanted(until=at(2)), "1"),
        (Wanted(cluster="none"), ""),
    ],
)
def test_runs_are_found_by_cluster_runbook_person_and_time(
    directory: Path, wanted: Wanted, hours: str
) -> None:
    """The oldest first; `limit` keeps the last ones."""
    found = find_stories(directory, wanted, 50)
    assert "".join(story.run[0] for story in found) == hours
    assert find_stories(directory, wanted, 1) == found[-1:]


@pytest.mark.parametrize(
    ("run", "said"),
    [("zzz", "the last ones are 1f000000, 2f000000, 3f000000"), ("", "there is no journal")],
)
def test_a_run_that_is_not_there_is_refused_with_those_that_are(
    directory: Path, run: str, said: str
) -> None:
    """And so is a beginning that several ids have."""
    with pytest.raises(Refused, match=said):
        find_run(directory, run)
    other = f"20260301T050000.000000Z-1f0{'1' * 29}.jsonl"
    write(directory / "third", 4, "check_health", by="x").rename(directory / "main" / other)
    with pytest.raises(Refused, match="2 runs are called 1f"):
        find_run(directory, "1f")


@pytest.mark.usefixtures("directory")
def test_the_commands_list_and_tell_past_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server, and without Prefect."""
    assert main(["history", "--cluster", "other"]) == 0
    listed = capsys.readouterr().out
    assert "Refused: no quorum" in listed
    assert "bob@desk" in listed
    assert main(["show", "1f"]) == 0
    told = capsys.readouterr().out
    assert "parameters: member: m1" in told
    assert "restart etcd on m1: changed (1.25 s)" in told
    assert "warning: slow" in told
    assert main(["show", "9"]) == 2
    assert "there is no journal of a run 9" in capsys.readouterr().err


@pytest.mark.usefixtures("directory")
def test_a_run_is_exported_to_one_file_that_nothing_in_it_can_make_run(tmp_path: Path) -> None:
    """HTML with all of it, no other file needed; JSON with every line."""
    page, data, wrong = (tmp_path / f"run.{kind}" for kind in ("html", "json", "pdf"))
    assert main(["export", "1f", "--output", str(page)]) == 0
    text = page.read_text()
    assert EVIL not in text
    assert text.count("&lt;script&gt;") == 2
    assert "m1 is as it should be" in text
    assert "src=" not in text
    assert "href=" not in text
    assert page.stat().st_mode & 0o777 == 0o600
    assert main(["export", "1f", "--output", str(data)]) == 0
    (run,) = json.loads(data.read_text())["runs"]
    assert run["reason"] == EVIL
    assert [row["event"] for row in run["records"]][-1] == "run-finished"
    assert run["last_seal"] in text
    assert main(["export", "1f", "--output", str(wrong)]) == 2
    assert not wrong.exists()


def test_the_work_of_a_run_is_done_by_it_or_by_a_later_one(directory: Path) -> None:
    """Of the same runbook; one that stopped in the middle needs what it has replaced."""
    assert find_settled(directory, "main") == {"1f000000", "2f000000"}
    broken = "Unverified: the cable was cut"
    write(directory / "main", 4, "replace_member", by="x", changed=True, outcome=broken)
    write(directory / "main", 5, "add_member", by="x", changed=True)
    assert find_settled(directory, "main") == {"1f000000", "2f000000", "5f000000"}
    write(directory / "main", 6, "replace_member", by="x")
    assert find_settled(directory, "main") >= {"4f000000", "6f000000"}


def test_what_is_archived_is_read_as_it_was(directory: Path) -> None:
    """Listed, told, exported and compared; one whose archiving was broken off is there once."""
    before = find_stories(directory, Wanted(), 50)
    first, second = sorted((directory / "main").iterdir())
    written = first.read_bytes()
    archived = archive(first)
    assert archived.stat().st_mode & 0o777 == 0o600
    assert not first.exists()
    assert read_content(first) == written
    assert find_stories(directory, Wanted(), 50) == before
    assert find_run(directory, "1f") == [archived]
    assert main(["verify"]) == 0
    assert main(["show", "1f"]) == 0
    assert newest_before(second) == {"journal": first.name, "seal": read_end(archived)[0]}
    first.write_bytes(written)
    assert find_stories(directory, Wanted(), 50) == before
    first.unlink()
    archived.write_bytes(gzip.compress(written.replace(b'"changed": true', b'"changed": false')))
    assert main(["verify"]) == 1


def test_a_replaced_journal_is_told_by_the_seal_that_a_report_has(directory: Path) -> None:
    """All of its own seals fit; the one that was kept elsewhere does not."""
    last = max((directory / "main").iterdir())
    reported = {last.name: {read_end(last)[0][:32]}, "another machine's.jsonl": {"0" * 32}}
    assert not any(found.faults for _, found in check_journals(directory, None, reported))
    last.unlink()
    write(directory / "main", 2, "check_health", by="somebody@else")
    assert not any(found.faults for _, found in check_journals(directory, None, {}))
    (told,) = [
        found.faults for _, found in check_journals(directory, None, reported) if found.faults
    ]
    assert told == ("it is not the one whose seal its run's report has: it was replaced",)


def test_seals_tell_what_was_changed_and_which_journal_is_gone(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the journal and its line; a journal that was cut short is told by the next one."""
    assert main(["verify"]) == 0
    assert "all as written" in capsys.readouterr().out
    first, second = sorted((directory / "main").iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole.replace(b'"changed": true', b'"changed": false'))
    assert main(["verify"]) == 1
    assert f"{first}: line 4 is not what was written after line 3" in capsys.readouterr().out
    first.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert main(["verify", "--cluster", "main"]) == 1
    assert f"{second}: {first.name} was cut short or changed" in capsys.readouterr().out
    first.unlink()
    assert main(["verify"]) == 1
    assert f"{first.name}, which was there when this run began, is gone" in capsys.readouterr().out
