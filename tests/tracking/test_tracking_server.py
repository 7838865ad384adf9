"""A real MLflow server: it shows a study stored in a database, accepts one over HTTP, and may be killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn, ones

from nasact.errors import StoreError
from nasact.tracking import MLflowTracker, StudyInfo, ui_command, ui_environment

Play = Callable[..., Any]


# A separate opener: urllib keeps one per process, with the proxies that were set when a test first used it.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server:
    """The server of `nasact ui` on a free loopback port, in a separate process group."""

    def __init__(self, uri: str, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._command = ui_command(uri, port=self.port)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self._folder / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command,
                env=ui_environment(),
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline:
            try:
                assert self.get("/health") == b"OK"
                return
            except (urllib.error.URLError, ConnectionError):
                assert self._process.poll() is None, (self._folder / "server.log").read_text()
                time.sleep(0.2)
        raise TimeoutError((self._folder / "server.log").read_text())

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def get(self, path: str) -> bytes:
        with _DIRECT.open(self.address + path, timeout=20) as response:
            return bytes(response.read())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with _DIRECT.open(request, timeout=20) as response:
            return json.load(response)


@pytest.fixture
def server(database: Path, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(f"sqlite:///{database}", folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_a_server_shows_what_was_tracked_and_an_outage_of_it_loses_nothing(
    server: Server,
    make_tracker: Callable[..., MLflowTracker],
    play: Play,
    play_trial: Play,
    read_store: Callable[..., Any],
    tmp_path: Path,
) -> None:
    local = make_tracker()
    play(local)
    _shows_the_study(server, local)

    other = StudyInfo(name="remote", fingerprint="cafe", yaml="name: remote\n")
    tracker = MLflowTracker(server.address, experiment="remote", directory=tmp_path / "remote", retry_after=3600)
    tracker.study_started(other)
    play_trial(tracker, 0)
    assert tracker.pending_count == 0
    tracker.trial_started(1, "key-1", {"search.epochs": 3, "search.lr": 0.01})
    server.kill()
    start = time.monotonic()
    for number in (1, 2, 3):
        play_trial(tracker, number)
    assert tracker.register_model(nn.Linear(3, 2), ones(2, 3), "remote-net") is None
    assert time.monotonic() - start < 60
    assert tracker.pending_count == 6
    server.start()
    tracker.study_finished("complete")
    assert tracker.pending_count == 0

    client = read_store(server.address).client
    experiment = client.get_experiment_by_name("remote").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert sorted(runs) == ["remote", "trial 0", "trial 1", "trial 2", "trial 3"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for number in range(4):
        run_id = runs[f"trial {number}"].info.run_id
        assert [point.step for point in client.get_metric_history(run_id, "search/loss")] == [1, 2, 3]
        assert {file.path for file in client.list_artifacts(run_id)} == {"genotype.json", "weights.png", "shapes.png"}
    assert client.get_model_version_by_alias("remote-net", "champion").run_id == runs["remote"].info.run_id
    # The server stores artifacts next to its database, not in its current directory.
    assert [path.name for path in server._folder.iterdir()] == ["server.log"]


def _shows_the_study(server: Server, tracker: MLflowTracker) -> None:
    experiments = server.post("/api/2.0/mlflow/experiments/search", {"max_results": 10})["experiments"]
    (experiment,) = [entry for entry in experiments if entry["name"] == "nasact"]
    body = {"experiment_ids": [experiment["experiment_id"]], "filter": "tags.`nasact.kind` = 'trial'"}
    runs = server.post("/api/2.0/mlflow/runs/search", body)["runs"]
    assert {run["info"]["run_id"] for run in runs} == set(tracker.run_ids["trials"].values())
    study = tracker.run_ids["study"]
    assert server.get(f"/get-artifact?path=study.yaml&run_uuid={study}") == b"name: digits\n"


def test_the_pages_are_served_to_this_machine_only(database: Path) -> None:
    command = ui_command(f"sqlite:///{database}")
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{database}"
    assert ui_environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize(
    ("uri", "words"),
    [("http://127.0.0.1:5000", "open it in a browser"), ("sqlite:///{}/none.db", "no tracking database yet")],
)
def test_an_address_without_a_database_file_is_refused(uri: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=words):
        ui_command(uri.format(tmp_path))
