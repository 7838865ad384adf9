"""The runs of a study in MLflow: finds or creates the run of each trial, and writes to it.

Delivering an event twice changes nothing. Receives an MLflow client and MLflow's entities, and imports neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasact.tracking import events
from nasact.tracking.sanitise import MAX_PARAM, clean_name, clean_names, tag_values, truncate
from nasact.tracking.tracker import RunIds, StudyInfo
from nasact.trial_status import STATUSES

_RUN_STATUS = {"complete": "FINISHED", "failed": "FAILED"}
_STOPPED = "KILLED"  # pruned, interrupted or abandoned: the tag nasact.status holds which
_ENDED = frozenset(STATUSES) - {"running"}

# Limits of one call of MLflow's log_batch: metrics, parameters and tags together; parameters or tags alone.
_MAX_ENTITIES = 1000
_MAX_PAIRS = 100

# Tags of a study that MLflow's pages show under MLflow's names.
_MLFLOW_TAGS = {"git": "mlflow.source.git.commit", "command": "mlflow.source.name"}


@dataclass
class TrialRun:
    """The run of a trial, as last read from the store."""

    run_id: str
    running: bool
    status: str = ""
    """The tag nasact.status."""
    params: set[str] = field(default_factory=set)
    known_empty: bool = False
    """Created by this process and still without metrics, so that there is no history to compare with."""


class StudyRuns:
    """The runs of one study, as read from the store; `clear_cache` makes the next call read them again."""

    def __init__(
        self,
        client: Any,
        entities: Any,
        info: StudyInfo,
        *,
        uri: str,
        experiment: str,
        artifacts: Path | None,
        directory: Path,
    ) -> None:
        """`artifacts`: folder for the files of a new experiment; None: the store decides.

        `directory`: of the study; the id of the study's run is written to its `tracking/run.json`.
        """
        self._client = client
        self._entities = entities
        self._info = info
        self._uri = uri
        self._experiment_name = experiment
        self._artifacts = artifacts
        self._directory = directory
        self._run_id_file = directory / "tracking" / "run.json"
        self._ids: RunIds = {"study": None, "trials": {}}
        self._experiment: str | None = None
        self._study_run_id: str | None = None
        self._trial_runs: dict[tuple[str, str], TrialRun] = {}
        self._duplicate_runs: list[TrialRun] = []  # a request that the network repeats creates a run twice

    def run_ids(self) -> RunIds:
        return {"study": self._ids["study"], "trials": dict(self._ids["trials"])}

    def clear_cache(self) -> None:
        self._experiment = self._study_run_id = None
        self._trial_runs.clear()
        self._duplicate_runs.clear()

    # Events

    def study_started(self, event: events.StudyStarted) -> None:
        run_id = self.study_run()
        self._end_abandoned_runs()
        own = {name if name.startswith("nasact.") else f"nasact.{name}": value for name, value in event.tags.items()}
        shown = {_MLFLOW_TAGS[name]: event.tags[name] for name in event.tags if name in _MLFLOW_TAGS}
        self.log(run_id, tags={**own, **shown, "nasact.status": "running"})
        self._client.update_run(run_id, status="RUNNING")
        self._client.log_text(run_id, event.yaml, "study.yaml")

    def trial_started(self, event: events.TrialStarted) -> None:
        run = self._trial_run(event.number, event.key, event.time, event.params)
        # A delayed event must not reopen a trial that has ended since.
        if not run.running and run.status not in _ENDED:
            self.log(run.run_id, tags={"nasact.status": "running"})
            self._client.update_run(run.run_id, status="RUNNING")
            run.running, run.status = True, "running"

    def trial_finished(self, event: events.TrialFinished) -> None:
        run = self._trial_run(event.number, event.key, event.started, event.params)
        reason = {} if event.reason is None else {"nasact.reason": event.reason}
        self._log_files(run.run_id, event.files)
        known_empty, run.known_empty = run.known_empty, False
        tags = {**reason, "nasact.status": event.status}
        self._log_points(run.run_id, event.points, tags, known_empty=known_empty)
        self._end_run(run.run_id, event.status, event.time)
        run.running, run.status = False, event.status

    def comparison_finished(self, event: events.ComparisonFinished) -> None:
        run_id = self.study_run()
        self._log_files(run_id, event.files)
        self._log_points(run_id, event.points, {})

    def study_finished(self, event: events.StudyFinished) -> None:
        self._end_abandoned_runs()
        self.log(self.study_run(), tags={"nasact.status": event.status})
        self._end_run(self.study_run(), event.status, event.time)

    # The run of the study

    def experiment_id(self) -> str:
        """Id of the experiment, which is created, or restored if it was deleted."""
        if self._experiment is None:
            find = self._client.get_experiment_by_name
            experiment = find(self._experiment_name)
            if experiment is None:
                folder = None if self._artifacts is None else self._artifacts / clean_name(self._experiment_name)
                try:
                    self._client.create_experiment(
                        self._experiment_name, artifact_location=None if folder is None else folder.as_uri()
                    )
                except Exception:
                    # Another process may have created it in the meantime.
                    if find(self._experiment_name) is None:
                        raise
                experiment = find(self._experiment_name)
            if experiment.lifecycle_stage == "deleted":
                self._client.restore_experiment(experiment.experiment_id)
            self._experiment = str(experiment.experiment_id)
        return self._experiment

    def study_run(self) -> str:
        """Id of the parent run: read from the study's directory, found in the store by its tag, or created."""
        if self._study_run_id is None:
            tags = self._study_tags()
            run = self._run_of_directory() or next(
                iter(self._search(f"tags.`nasact.identity` = '{tags['nasact.identity']}'")), None
            )
            if run is None:
                run = self._client.create_run(self.experiment_id(), run_name=self._info.name, tags=tags)
            run_id = str(run.info.run_id)
            children = self._search(f"tags.`mlflow.parentRunId` = '{run_id}'")
            for child in sorted(children, key=lambda child: (child.info.start_time, child.info.run_id)):
                self._cache_trial_run(child)
            self._ids["study"] = self._study_run_id = run_id
            with contextlib.suppress(OSError):
                self._run_id_file.parent.mkdir(parents=True, exist_ok=True)
                self._run_id_file.write_text(json.dumps({"uri": self._uri, "run": run_id}) + "\n")
        return self._study_run_id

    def _study_tags(self) -> dict[str, str]:
        # The directory is part of the identity: two users who run the same study on one server are two studies.
        directory = f"{socket.gethostname()}:{self._directory}"
        identity = f"{self._info.name}\n{self._info.fingerprint}\n{directory}"
        return tag_values(
            {
                "nasact.kind": "study",
                "nasact.study": self._info.name,
                "nasact.fingerprint": self._info.fingerprint,
                "nasact.directory": directory,
                "nasact.identity": hashlib.sha256(identity.encode()).hexdigest()[:32],
                "mlflow.source.type": "LOCAL",
            }
        )

    def _run_of_directory(self) -> Any:
        """The run whose id is in the study's directory, which may have been moved; None if the store lacks it."""
        try:
            record = json.loads(self._run_id_file.read_text())
            run_id = record["run"] if record["uri"] == self._uri else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except Exception as error:
            if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        same_study = run.data.tags.get("nasact.fingerprint") == self._info.fingerprint
        return run if same_study and run.info.lifecycle_stage == "active" else None

    def _search(self, condition: str) -> list[Any]:
        runs: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([self.experiment_id()], condition, max_results=1000, page_token=token)
            runs.extend(page)
            token = page.token
            if not token:
                return runs

    def _end_abandoned_runs(self) -> None:
        """End the trial runs that a killed process left running; a trial that continues reopens its run."""
        self.study_run()
        for run in (*self._trial_runs.values(), *self._duplicate_runs):
            if run.running:
                self.log(run.run_id, tags={"nasact.status": "abandoned"})
                self._end_run(run.run_id, "abandoned", events.now_ms())
                run.running, run.status = False, "abandoned"

    # The run of a trial

    def _cache_trial_run(self, run: Any) -> None:
        number, key = run.data.tags.get("nasact.trial", ""), run.data.tags.get("nasact.key", "")
        if not number.isdecimal():
            return
        trial_run = TrialRun(
            run_id=str(run.info.run_id),
            running=run.info.status in ("RUNNING", "SCHEDULED"),
            status=run.data.tags.get("nasact.status", ""),
            params=set(run.data.params),
        )
        if self._trial_runs.setdefault((number, key), trial_run) is not trial_run:
            self._duplicate_runs.append(trial_run)
        self._ids["trials"][int(number)] = self._trial_runs[number, key].run_id

    def _trial_run(self, number: int, key: str, started: int, params: Mapping[str, str]) -> TrialRun:
        """The run of trial `number` with configuration `key`, with all its parameters; created if there is none."""
        study_run = self.study_run()
        tags = tag_values({"nasact.trial": number, "nasact.key": key, "nasact.kind": "trial"})
        place = tags["nasact.trial"], tags["nasact.key"]
        created = place not in self._trial_runs
        if created:
            run = self._client.create_run(
                self.experiment_id(),
                start_time=started,
                run_name=f"trial {number}",
                tags={"mlflow.parentRunId": study_run, **tags},
            )
            self._cache_trial_run(run)
        trial_run = self._trial_runs[place]
        self._ids["trials"][number] = trial_run.run_id
        values = {clean: params[name] for name, clean in clean_names(params).items()}
        # A parameter cannot be written twice, and a killed process may have written only some of them.
        missing = {name: value for name, value in values.items() if name not in trial_run.params}
        self.log(trial_run.run_id, params=missing)
        trial_run.params |= missing.keys()
        trial_run.known_empty = trial_run.known_empty or created
        return trial_run

    # Content of a run

    def log(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Call `log_batch` in batches within MLflow's limits; no call if there is nothing to log."""
        param_list = [self._entities.Param(name, truncate(value, MAX_PARAM)) for name, value in (params or {}).items()]
        tag_list = [self._entities.RunTag(name, value) for name, value in tag_values(tags or {}).items()]
        while metrics or param_list or tag_list:
            some_params, param_list = param_list[:_MAX_PAIRS], param_list[_MAX_PAIRS:]
            some_tags, tag_list = tag_list[:_MAX_PAIRS], tag_list[_MAX_PAIRS:]
            room = _MAX_ENTITIES - len(some_params) - len(some_tags)
            self._client.log_batch(run_id, metrics=metrics[:room], params=some_params, tags=some_tags)
            metrics = metrics[room:]

    def _log_points(
        self, run_id: str, points: Iterable[events.MetricPoint], tags: Mapping[str, str], *, known_empty: bool = False
    ) -> None:
        """Log the points that the run lacks. Values that are not finite go into a tag: MLflow stores inf as 1.8e308."""
        points = tuple(points)
        names = clean_names(point.name for point in points)
        logged = set() if known_empty else self._logged_points(run_id, set(names.values()))
        metrics = [
            self._entities.Metric(names[point.name], point.value, point.time, point.step)
            for point in points
            if math.isfinite(point.value) and (names[point.name], point.step, point.value) not in logged
        ]
        not_finite = [f"{point.name}@{point.step}={point.value}" for point in points if not math.isfinite(point.value)]
        self.log(run_id, metrics, tags={**tags, **({"nasact.not_finite": ", ".join(not_finite)} if not_finite else {})})

    def _logged_points(self, run_id: str, names: set[str]) -> set[tuple[str, int, float]]:
        """(name, step, value) of the metrics that the run has, for those of `names`."""
        known = self._client.get_run(run_id).data.metrics.keys() & names
        history = (entry for name in known for entry in self._client.get_metric_history(run_id, name))
        return {(entry.key, entry.step, entry.value) for entry in history}

    def _log_files(self, run_id: str, folder: str | None) -> None:
        if folder is not None and Path(folder).is_dir():
            self._client.log_artifacts(run_id, folder)

    def _end_run(self, run_id: str, status: str, time: int) -> None:
        self._client.set_terminated(run_id, _RUN_STATUS.get(status, _STOPPED), end_time=time)
