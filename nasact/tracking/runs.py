"""A study as MLflow runs: which run is whose, and what goes into it so that delivering an event twice changes nothing.

Is handed an MLflow client and its entities, and imports neither.
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
from nasact.tracking.sanitise import MAX_PARAM, clean_name, clean_names, cut, tag_values
from nasact.tracking.tracker import RunIds, StudyInfo
from nasact.trial_status import STATUSES

_RUN_STATUS = {"complete": "FINISHED", "failed": "FAILED"}
_STOPPED = "KILLED"  # pruned, interrupted or abandoned: the tag nasact.status holds which
_ENDED = frozenset(STATUSES) - {"running"}
_ENTITIES = 1000  # MLflow's limit of a batch, everything together
_PAIRS = 100  # and of its parameters and tags

# Tags of a study that MLflow's pages show under names of their own.
_MLFLOW_TAGS = {"git": "mlflow.source.git.commit", "command": "mlflow.source.name"}


@dataclass
class TrialRun:
    """A trial's run as the store has it."""

    run_id: str
    running: bool
    status: str = ""
    """The tag nasact.status."""
    params: set[str] = field(default_factory=set)
    untouched: bool = False
    """Made by this process, and no metric is in it yet: nothing has to be compared."""


class StudyRuns:
    """One study's runs. Everything it knows of the store it can `forget` and look up again."""

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
        """`artifacts`: where a new experiment keeps its files, None to leave it to the store."""
        self._client = client
        self._entities = entities
        self._info = info
        self._uri = uri
        self._experiment_name = experiment
        self._artifacts = artifacts
        self._directory = directory
        self._note = directory / "tracking" / "run.json"
        self._ids: RunIds = {"study": None, "trials": {}}
        self._experiment: str | None = None
        self._parent: str | None = None
        self._trials: dict[tuple[str, str], TrialRun] = {}
        self._doubles: list[TrialRun] = []  # a request that was repeated on its way makes a run twice

    def ids(self) -> RunIds:
        return {"study": self._ids["study"], "trials": dict(self._ids["trials"])}

    def forget(self) -> None:
        self._experiment = self._parent = None
        self._trials.clear()
        self._doubles.clear()

    # What happens

    def study_started(self, event: events.StudyStarted) -> None:
        run_id = self.study_run()
        self._retire_leftovers()
        own = {name if name.startswith("nasact.") else f"nasact.{name}": value for name, value in event.tags.items()}
        shown = {_MLFLOW_TAGS[name]: event.tags[name] for name in event.tags if name in _MLFLOW_TAGS}
        self.log(run_id, tags={**own, **shown, "nasact.status": "running"})
        self._client.update_run(run_id, status="RUNNING")
        self._client.log_text(run_id, event.yaml, "study.yaml")

    def trial_started(self, event: events.TrialStarted) -> None:
        run = self._trial_run(event.number, event.key, event.time, event.params)
        # An event that comes late must not open a trial that has ended since.
        if not run.running and run.status not in _ENDED:
            self.log(run.run_id, tags={"nasact.status": "running"})
            self._client.update_run(run.run_id, status="RUNNING")
            run.running, run.status = True, "running"

    def trial_finished(self, event: events.TrialFinished) -> None:
        run = self._trial_run(event.number, event.key, event.started, event.params)
        reason = {} if event.reason is None else {"nasact.reason": event.reason}
        self._log_files(run.run_id, event.files)
        fresh, run.untouched = run.untouched, False
        self._log_points(run.run_id, event.points, {**reason, "nasact.status": event.status}, fresh=fresh)
        self._end(run.run_id, event.status, event.time)
        run.running, run.status = False, event.status

    def comparison_finished(self, event: events.ComparisonFinished) -> None:
        run_id = self.study_run()
        self._log_files(run_id, event.files)
        self._log_points(run_id, event.points, {})

    def study_finished(self, event: events.StudyFinished) -> None:
        self._retire_leftovers()
        self.log(self.study_run(), tags={"nasact.status": event.status})
        self._end(self.study_run(), event.status, event.time)

    # The study's run

    def experiment_id(self) -> str:
        """The experiment's id; made, or taken out of the bin, where it has to be."""
        if self._experiment is None:
            find = self._client.get_experiment_by_name
            found = find(self._experiment_name)
            if found is None:
                folder = None if self._artifacts is None else self._artifacts / clean_name(self._experiment_name)
                try:
                    self._client.create_experiment(
                        self._experiment_name, artifact_location=None if folder is None else folder.as_uri()
                    )
                except Exception:
                    # Another process may have been faster.
                    if find(self._experiment_name) is None:
                        raise
                found = find(self._experiment_name)
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            self._experiment = str(found.experiment_id)
        return self._experiment

    def study_run(self) -> str:
        """The parent run: as noted in the study's directory, as tagged in the store, or a new one."""
        if self._parent is None:
            tags = self._study_tags()
            run = self._noted_run() or next(
                iter(self._search(f"tags.`nasact.identity` = '{tags['nasact.identity']}'")), None
            )
            if run is None:
                run = self._client.create_run(self.experiment_id(), run_name=self._info.name, tags=tags)
            parent = str(run.info.run_id)
            children = self._search(f"tags.`mlflow.parentRunId` = '{parent}'")
            for child in sorted(children, key=lambda child: (child.info.start_time, child.info.run_id)):
                self._remember(child)
            self._ids["study"] = self._parent = parent
            with contextlib.suppress(OSError):
                self._note.parent.mkdir(parents=True, exist_ok=True)
                self._note.write_text(json.dumps({"uri": self._uri, "run": parent}) + "\n")
        return self._parent

    def _study_tags(self) -> dict[str, str]:
        # The place belongs to the identity: two people who run the same study on one server are two studies.
        place = f"{socket.gethostname()}:{self._directory}"
        whole = f"{self._info.name}\n{self._info.fingerprint}\n{place}"
        return tag_values(
            {
                "nasact.kind": "study",
                "nasact.study": self._info.name,
                "nasact.fingerprint": self._info.fingerprint,
                "nasact.directory": place,
                "nasact.identity": hashlib.sha256(whole.encode()).hexdigest()[:32],
                "mlflow.source.type": "LOCAL",
            }
        )

    def _noted_run(self) -> Any:
        """The run noted in the study's directory, if the store still has it: a directory may be moved."""
        try:
            note = json.loads(self._note.read_text())
            run_id = note["run"] if note["uri"] == self._uri else None
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
        same = run.data.tags.get("nasact.fingerprint") == self._info.fingerprint
        return run if same and run.info.lifecycle_stage == "active" else None

    def _search(self, condition: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([self.experiment_id()], condition, max_results=1000, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _retire_leftovers(self) -> None:
        """End the runs of trials that a killed process left open; a trial that continues opens its own again."""
        self.study_run()
        for run in (*self._trials.values(), *self._doubles):
            if run.running:
                self.log(run.run_id, tags={"nasact.status": "abandoned"})
                self._end(run.run_id, "abandoned", events.now())
                run.running, run.status = False, "abandoned"

    # A trial's run

    def _remember(self, run: Any) -> None:
        number, key = run.data.tags.get("nasact.trial", ""), run.data.tags.get("nasact.key", "")
        if not number.isdecimal():
            return
        trial = TrialRun(
            run_id=str(run.info.run_id),
            running=run.info.status in ("RUNNING", "SCHEDULED"),
            status=run.data.tags.get("nasact.status", ""),
            params=set(run.data.params),
        )
        if self._trials.setdefault((number, key), trial) is not trial:
            self._doubles.append(trial)
        self._ids["trials"][int(number)] = self._trials[number, key].run_id

    def _trial_run(self, number: int, key: str, started: int, params: Mapping[str, str]) -> TrialRun:
        """The run of this trial with this configuration, with all its parameters; made where there is none."""
        parent = self.study_run()
        tags = tag_values({"nasact.trial": number, "nasact.key": key, "nasact.kind": "trial"})
        place = tags["nasact.trial"], tags["nasact.key"]
        made = place not in self._trials
        if made:
            run = self._client.create_run(
                self.experiment_id(),
                start_time=started,
                run_name=f"trial {number}",
                tags={"mlflow.parentRunId": parent, **tags},
            )
            self._remember(run)
        trial = self._trials[place]
        self._ids["trials"][number] = trial.run_id
        clean = {name: params[given] for given, name in clean_names(params).items()}
        # A parameter cannot be written twice, and what a killed process wrote may be incomplete.
        missing = {name: value for name, value in clean.items() if name not in trial.params}
        self.log(trial.run_id, params=missing)
        trial.params |= missing.keys()
        trial.untouched = trial.untouched or made
        return trial

    # What goes into a run

    def log(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """`log_batch` in as many calls as MLflow's limits ask for, and none where there is nothing."""
        param_list = [self._entities.Param(name, cut(value, MAX_PARAM)) for name, value in (params or {}).items()]
        tag_list = [self._entities.RunTag(name, value) for name, value in tag_values(tags or {}).items()]
        while metrics or param_list or tag_list:
            some_params, param_list = param_list[:_PAIRS], param_list[_PAIRS:]
            some_tags, tag_list = tag_list[:_PAIRS], tag_list[_PAIRS:]
            room = _ENTITIES - len(some_params) - len(some_tags)
            self._client.log_batch(run_id, metrics=metrics[:room], params=some_params, tags=some_tags)
            metrics = metrics[room:]

    def _log_points(
        self, run_id: str, points: Iterable[events.Point], tags: Mapping[str, str], *, fresh: bool = False
    ) -> None:
        """Metrics that the run does not have yet. What is not finite goes into a tag: MLflow makes inf 1.8e308."""
        points = tuple(points)
        names = clean_names(point.name for point in points)
        there = set() if fresh else self._logged(run_id, set(names.values()))
        metrics = [
            self._entities.Metric(names[point.name], point.value, point.time, point.step)
            for point in points
            if math.isfinite(point.value) and (names[point.name], point.step, point.value) not in there
        ]
        odd = [f"{point.name}@{point.step}={point.value}" for point in points if not math.isfinite(point.value)]
        self.log(run_id, metrics, tags={**tags, **({"nasact.not_finite": ", ".join(odd)} if odd else {})})

    def _logged(self, run_id: str, names: set[str]) -> set[tuple[str, int, float]]:
        known = self._client.get_run(run_id).data.metrics.keys() & names
        history = (entry for name in known for entry in self._client.get_metric_history(run_id, name))
        return {(entry.key, entry.step, entry.value) for entry in history}

    def _log_files(self, run_id: str, folder: str | None) -> None:
        if folder is not None and Path(folder).is_dir():
            self._client.log_artifacts(run_id, folder)

    def _end(self, run_id: str, status: str, time: int) -> None:
        self._client.set_terminated(run_id, _RUN_STATUS.get(status, _STOPPED), end_time=time)
