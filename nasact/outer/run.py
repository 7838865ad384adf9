"""A whole study: data, outer loop, best trial, comparison, final network, result. Every stage continues where it was.

Joins the rooms below; computes nothing itself. Prints nothing: progress goes to the caller's callbacks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nasact.compare import Comparison, compare, site_options
from nasact.errors import StoreError, StudyError
from nasact.files import json_ready, write_json
from nasact.outer.callbacks import Callbacks, NullCallbacks
from nasact.outer.data import load_study_data
from nasact.outer.dispatcher import Dispatcher
from nasact.outer.engines import ENGINES
from nasact.outer.monitor_checks import require_monitors
from nasact.outer.provenance import collect_provenance, provenance_tags
from nasact.outer.records import TrialRecord, best_of
from nasact.outer.store import StudyDirectory
from nasact.outer.study_view import trial_documents
from nasact.outer.trained_network import load_network, save_network
from nasact.report.result import Provenance, result_document
from nasact.results import Report, TrialResult
from nasact.study import Study, TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import find_sites
from nasact.tasks import Data
from nasact.tracking import NullTracker, StudyInfo, Tracker
from nasact.tracking.tracker import RunIds
from nasact.trial import read_result, run_to_end, run_trial


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A finished study. `document` is the plain form that `result.json` holds.

    `model_file`, `model_uri`: None if the derived network diverged in the comparison; `model_uri` is also None if no
    tracker keeps the network.
    """

    study: Study
    spec: TrialSpec
    directory: Path
    records: list[TrialRecord]
    best: TrialRecord
    trial: TrialResult
    comparison: Comparison
    data: Data
    model_file: Path | None
    model_uri: str | None
    run_ids: RunIds
    document: dict[str, Any]


def run_study(
    study: Study,
    *,
    root: Path = Path(),
    data_dir: Path | None = None,
    download: bool = False,
    tracker: Tracker | None = None,
    callbacks: Callbacks | None = None,
    fresh: bool = False,
    workers: int = 1,
) -> StudyResult:
    """Run `study` in `root`/runs/<name>, or continue it there; only what has not been computed yet is computed.

    `workers`: processes that train the networks of the comparison. `fresh`: set an earlier run aside. After a
    KeyboardInterrupt the same call continues the study.
    """
    started = time.perf_counter()
    with StudyDirectory.open_for(study, root, fresh=fresh) as store:
        tracker = tracker or NullTracker()
        dispatcher = Dispatcher(study, callbacks or NullCallbacks(), tracker)
        provenance = collect_provenance(study.spec.seed)
        data = load_study_data(study.spec, data_dir=data_dir, download=download)
        dispatcher.tracking_started(
            StudyInfo(
                name=study.spec.name,
                fingerprint=study.fingerprint(),
                yaml=study.to_yaml(),
                tags=provenance_tags(provenance),
            )
        )
        status = "failed"
        try:
            original_functions = _original_functions(study.spec, data)
            dispatcher.set_original_functions(original_functions)
            require_monitors(study.spec, data, original_functions)
            result = _StudyRun(study, store, data, dispatcher, provenance, tracker.tracking_uri, workers).run(started)
            status = "complete"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            dispatcher.tracking_finished(status)
        return result


@dataclass(frozen=True)
class _StudyRun:
    """The stages of one study whose directory is locked and whose data are loaded."""

    study: Study
    store: StudyDirectory
    data: Data
    dispatcher: Dispatcher
    provenance: Provenance
    tracking_uri: str | None
    workers: int

    def run(self, started: float) -> StudyResult:
        engine = ENGINES.get(self.study.spec.outer.engine)
        records = engine.run(self.study, self.store, self._run_trial, self.dispatcher)
        best = best_of(records, self.study.spec.name)
        spec = self.study.fill(best.params)
        trial = self._result(spec)
        if trial.genotype is None:
            raise StudyError(f"trial {best.number}: complete, but without a genotype")
        comparison = compare(
            spec,
            self.data,
            trial.genotype,
            directory=self.store.compare,
            progress=self.dispatcher.compare_progress,
            workers=self.workers,
        )
        write_json(self.store.comparison_file, comparison.to_dict())
        self.dispatcher.comparison_finished(comparison, trial)
        model_file = self._save_network(spec, trial, comparison)
        model_uri = self._track_network(model_file)
        run_ids = self.dispatcher.run_ids()
        document = self._document(records, trial, comparison, run_ids, model_file, time.perf_counter() - started)
        self.store.write_result(document)
        return StudyResult(
            study=self.study,
            spec=spec,
            directory=self.store.path,
            records=records,
            best=best,
            trial=trial,
            comparison=comparison,
            data=self.data,
            model_file=model_file,
            model_uri=model_uri,
            run_ids=run_ids,
            document=document,
        )

    def _run_trial(self, spec: TrialSpec, directory: Path) -> Generator[Report, bool | None, TrialResult]:
        return run_trial(spec, self.data, directory=directory)

    def _result(self, spec: TrialSpec) -> TrialResult:
        """The result of a complete trial: read from its directory, or computed again if the file was removed."""
        directory = self.store.trial_directory(spec.key())
        return read_result(spec, self.data, directory) or run_to_end(spec, self.data, directory=directory)

    def _save_network(self, spec: TrialSpec, trial: TrialResult, comparison: Comparison) -> Path | None:
        if comparison.model_path is None or trial.genotype is None:
            self.dispatcher.message("the derived network diverged in the comparison: no model.pt is written")
            return None
        return save_network(self.store, spec, self.data, trial.genotype, Path(comparison.model_path))

    def _track_network(self, model_file: Path | None) -> str | None:
        if model_file is None:
            return None
        return self.dispatcher.register_model(load_network(self.store).module, self.data.train.x[:3])

    def _document(
        self,
        records: Sequence[TrialRecord],
        trial: TrialResult,
        comparison: Comparison,
        run_ids: RunIds,
        model_file: Path | None,
        seconds: float,
    ) -> dict[str, Any]:
        document = result_document(
            study={
                "name": self.study.spec.name,
                "fingerprint": self.study.fingerprint(),
                "directory": str(self.store.path),
                "tree": self.study.tree,
            },
            trials=trial_documents(self.store, records),
            provenance=replace(self.provenance, seconds=seconds),
            genotype=None if trial.genotype is None else trial.genotype.to_dict(),
            comparison=comparison.to_dict(),
            exports={} if model_file is None else {"torch": str(model_file)},
            mlflow={"tracking_uri": self.tracking_uri, **run_ids},
        )
        return self._equal_earlier_document(document) or document

    def _equal_earlier_document(self, document: dict[str, Any]) -> dict[str, Any] | None:
        """The document of an earlier run if it differs in its provenance only.

        It is kept, so that running a finished study again does not change who computed it, and when.
        """
        with contextlib.suppress(StoreError):
            earlier = self.store.read_result()
            if earlier is not None and earlier | {"provenance": None} == json_ready(document) | {"provenance": None}:
                return earlier
        return None


def _original_functions(spec: TrialSpec, data: Data) -> Mapping[str, str]:
    """Site -> the model's own function; SurgeryError for a model without any site."""
    report = find_sites(build_study_model(spec, data), **site_options(spec, data))
    return {site.name: site.function for site in report.sites}
