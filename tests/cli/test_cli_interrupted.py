"""Ctrl-C, kill -9 and a full disk: the same command continues, with the result of an uninterrupted run."""

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


def test_after_ctrl_c_in_a_trial_the_same_command_continues_as_the_message_says(
    finished, tiny: str, write, start, here, same, client_of, tmp_path: Path
) -> None:
    write("tiny.yaml", tiny)
    running = start(*SEARCH, cwd=tmp_path)
    running.wait_for(lambda: bool(checkpoints(tmp_path)))
    ran = running.signal(signal.SIGINT)
    assert ran.code == 130
    assert ran.out == ""
    assert ran.err.splitlines()[-1] == "nasact: interrupted; run the same command again to continue"
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


def test_full_disk_is_one_line_and_loses_nothing(
    finished, tiny: str, write, command, here, same, tmp_path: Path
) -> None:
    """Files above 130 kB cannot be written: the checkpoint does not fit, the study's database does."""
    write("tiny.yaml", tiny)
    arguments = ("search", "tiny.yaml", "--json", "--no-tracking", "--workers", "1")

    def limit() -> None:
        # Python ignores SIGXFSZ, so that the write fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (130_000, resource.RLIM_INFINITY))

    import sqlite3

    # A larger network, so that its checkpoint exceeds the limit.
    larger = write("big.yaml", tiny.replace("hidden: [8]", "hidden: [300]"))
    ran = command("search", larger.name, *arguments[2:], cwd=tmp_path, preexec_fn=limit)
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    last = ran.err.splitlines()[-1]
    assert "checkpoint.pt: could not be written: File too large; the old content is kept" in last
    with sqlite3.connect(tmp_path / "runs/tiny/study.db") as database:
        assert database.execute("SELECT state FROM trials").fetchall() == [("RUNNING",)]
    database.close()
    continued = here("search", larger.name, *arguments[2:])
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
