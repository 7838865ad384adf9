"""Ctrl-C, kill -9 and a full disk: the same command continues, and ends with what an undisturbed run ends with."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SEARCH = ("search", "tiny.yaml", "--json", "--workers", "1")


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("runs/tiny/trials/*/checkpoint.pt"))


def cells(folder: Path) -> list[Path]:
    return list(folder.glob("runs/tiny/compare/cells/*.json"))


def run_statuses(client: Any) -> set[str]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.status for run in client.search_runs(experiments)}


def test_ctrl_c_in_a_trial_says_how_to_continue_and_the_same_command_does(
    finished, tiny: str, write, start, here, same, client_of, tmp_path: Path
) -> None:
    write("tiny.yaml", tiny)
    running = start(*SEARCH, cwd=tmp_path)
    running.wait_for(lambda: bool(checkpoints(tmp_path)))
    ran = running.signal(signal.SIGINT)
    assert ran.code == 130
    assert ran.out == ""
    assert ran.err.splitlines()[-1] == "nasact: interrupted; the same command continues where it stopped"
    assert "Traceback" not in ran.err
    assert "RUNNING" not in run_statuses(client_of(tmp_path))

    shown = here("show", "tiny")
    assert shown.code == 0
    assert "running" in shown.out
    assert shown.out.endswith("  nasact search runs/tiny/study.yaml\n")

    continued = here("search", "runs/tiny/study.yaml", *SEARCH[2:])
    assert continued.code == 0, continued.err
    assert same(continued.document, finished.document)
    assert run_statuses(client_of(tmp_path)) == {"FINISHED"}


@pytest.mark.parametrize(
    ("workers", "reached"), [("1", checkpoints), ("2", cells)], ids=["in a trial", "in the comparison, with workers"]
)
def test_kill_9_loses_nothing(
    finished, tiny: str, write, start, here, same, tmp_path: Path, workers: str, reached: Callable[[Path], list[Path]]
) -> None:
    write("tiny.yaml", tiny)
    arguments = ("search", "tiny.yaml", "--json", "--no-tracking", "--workers")
    running = start(*arguments, workers, cwd=tmp_path)
    running.wait_for(lambda: bool(reached(tmp_path)))
    ran = running.signal(signal.SIGKILL)
    assert ran.code == -signal.SIGKILL
    assert ran.out == ""
    continued = here(*arguments, "1")
    assert continued.code == 0, continued.err
    assert same(continued.document, finished.document)


def test_full_disk_is_one_line_and_nothing_is_lost(
    finished, tiny: str, write, command, here, same, tmp_path: Path
) -> None:
    """The disk is full for files beyond 2 KB: a checkpoint does not fit, SQLite's first pages do not either."""
    write("tiny.yaml", tiny)
    arguments = ("search", "tiny.yaml", "--json", "--no-tracking", "--workers", "1")

    def limit() -> None:
        # SIGXFSZ is ignored by python: the write fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (130_000, resource.RLIM_INFINITY))

    import sqlite3

    # the study's database is there already, so that the first thing that does not fit is a checkpoint
    hidden = write("big.yaml", tiny.replace("hidden: [8]", "hidden: [300]"))
    ran = command("search", hidden.name, *arguments[2:], cwd=tmp_path, preexec_fn=limit)
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    last = ran.err.splitlines()[-1]
    assert "checkpoint.pt: could not be written: File too large; the old content is kept" in last
    with sqlite3.connect(tmp_path / "runs/tiny/study.db") as database:
        assert database.execute("SELECT state FROM trials").fetchall() == [("RUNNING",)]
    database.close()
    continued = here("search", hidden.name, *arguments[2:])
    assert continued.code == 0, continued.err
    assert [trial["status"] for trial in continued.document["trials"]["records"]] == ["complete", "complete"]


def test_second_process_on_a_running_study_is_refused(tiny: str, write, start, here, tmp_path: Path) -> None:
    write("tiny.yaml", tiny)
    running = start("search", "tiny.yaml", "--json", "--no-tracking", cwd=tmp_path)
    running.wait_for(lambda: (tmp_path / "runs/tiny/study.db").exists())
    ran = here("search", "tiny.yaml", "--json", "--no-tracking")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"nasact: study 'tiny' in runs/tiny is being run by process {running.process.pid}: wait for it\n"
    )
    running.signal(signal.SIGKILL)
