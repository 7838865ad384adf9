"""The MLflow store: one parent run per study, one nested run per trial, the final network in the model registry.

The only file that imports mlflow (inside functions, because the import takes seconds). It uses MLflow's clients and
none of its global state.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasact.errors import StoreError, error_line
from nasact.tracking import events
from nasact.tracking.address import Address, parse_address
from nasact.tracking.outbox import OutboxTracker
from nasact.tracking.sanitise import clean_model_name
from nasact.tracking.sqlite_schema import file_lock, read_revision, require_revision
from nasact.tracking.study_runs import StudyRuns
from nasact.tracking.tracker import RunIds, StudyInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # A pooled connection continues to write to a database file that was moved or deleted, without an error.
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    # A store that is away must not delay a training: MLflow's default of seven retries takes minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def _import_mlflow() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    return mlflow


@contextlib.contextmanager
def silence_mlflow() -> Iterator[None]:
    """Hide MLflow's warnings and log lines, which do not concern the user; failures still raise exceptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _import_mlflow()
        loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def prepare_database(address: Address) -> None:
    """Create the SQLite database if it is missing; StoreError if it exists and does not have MLflow's schema.

    The schema is written to a temporary file, which then takes the final name: no process sees an incomplete schema.
    """
    if address.path is None or address.artifacts is None:
        return
    mlflow = _import_mlflow()
    with file_lock(address.path):
        revision = read_revision(address.path)
        if revision is not None:
            newest, known = _schema_revisions()
            require_revision(address.path, revision, newest=newest, known=known, version=mlflow.__version__)
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        temporary = address.path.with_name(f"{address.path.name}.new-{os.getpid()}")
        try:
            SqlAlchemyStore(f"sqlite:///{temporary}", address.artifacts.as_uri())
            temporary.replace(address.path)
        except Exception as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(f"{address.path}: the database cannot be created ({error_line(error, 200)})") from error


def _schema_revisions() -> tuple[str, set[str]]:
    """The newest revision of MLflow's schema, and all revisions that this version of MLflow can upgrade from."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    scripts = ScriptDirectory(str(Path(utils.__file__).parent.parent / "db_migrations"))
    return str(scripts.get_current_head()), {script.revision for script in scripts.walk_revisions()}


class MLflowBackend:
    """One study in an MLflow store: passes each event to the study's runs, and the network to the model registry."""

    def __init__(self, address: Address, experiment: str, directory: Path) -> None:
        self.address = address
        self._experiment = experiment
        self._directory = directory
        self._runs: StudyRuns | None = None

    @property
    def uri(self) -> str:
        return self.address.uri

    @property
    def run_ids(self) -> RunIds:
        return {"study": None, "trials": {}} if self._runs is None else self._runs.run_ids()

    @functools.cached_property
    def client(self) -> Any:
        return _import_mlflow().MlflowClient(tracking_uri=self.address.uri, registry_uri=self.address.uri)

    @silence_mlflow()
    def set_study(self, info: StudyInfo) -> None:
        self._runs = StudyRuns(
            self.client,
            _import_mlflow().entities,
            info,
            uri=self.address.uri,
            experiment=self._experiment,
            artifacts=self.address.artifacts,
            directory=self._directory,
        )

    @property
    def runs(self) -> StudyRuns:
        if self._runs is None:
            raise RuntimeError("study_started must be called before any other event")
        return self._runs

    def clear_cache(self) -> None:
        if self._runs is not None:
            self._runs.clear_cache()

    @silence_mlflow()
    def is_reachable(self) -> bool:
        if self._database_is_missing():
            return False
        try:
            self.client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def _database_is_missing(self) -> bool:
        # MLflow would create a new database in its place, whose content is lost when the old file is moved back.
        return self.address.path is not None and not self.address.path.is_file()

    @silence_mlflow()
    def deliver(self, event: events.Event) -> str | None:
        if self._database_is_missing():
            raise StoreError(f"{self.address.path}: the database file is missing")
        match event:
            case events.StudyStarted():
                self.runs.study_started(event)
            case events.TrialStarted():
                self.runs.trial_started(event)
            case events.TrialFinished():
                self.runs.trial_finished(event)
            case events.ComparisonFinished():
                self.runs.comparison_finished(event)
            case events.ModelReady():
                return self._register_model(event)
            case events.StudyFinished():
                self.runs.study_finished(event)
        return None

    @silence_mlflow()
    def save_model(self, module: nn.Module, example: Tensor, folder: Path) -> None:
        save_model(module, example, folder)

    @silence_mlflow()
    def find_model(self, name: str, alias: str, digest: str) -> str | None:
        client, name = self.client, clean_model_name(name)
        model = self._find_logged_model(digest, self.runs.study_run(), name)
        if model is None or str(model.status) != "READY":
            return None
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.source == self._source(model) and alias in version.aliases:
                return f"models:/{name}/{version.version}"
        return None

    def _source(self, model: Any) -> str:
        # Without a server, MLflow looks `models:/ID` up in its global store, which may be another one.
        return f"models:/{model.model_id}" if self.address.is_server else str(model.artifact_location)

    def _find_logged_model(self, digest: str, study_run: str, name: str) -> Any:
        models = self.client.search_logged_models(
            [self.runs.experiment_id()], filter_string=f"tags.`nasact.digest` = '{digest}'"
        )
        return next((model for model in models if model.source_run_id == study_run and model.name == name), None)

    def _register_model(self, event: events.ModelReady) -> str:
        """Log and register a saved network, unless that is done already. Its address in the registry."""
        client, study_run, name = self.client, self.runs.study_run(), clean_model_name(event.name)
        model = self._log_model(event, study_run, name)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        source = self._source(model)
        versions = client.search_model_versions(f"name = '{name}'")
        same_model = (found for found in versions if found.source == source or found.model_id == model.model_id)
        version = next(same_model, None)
        if version is None:
            version = client.create_model_version(
                name, source, run_id=study_run, model_id=model.model_id, await_creation_for=0
            )
        client.set_registered_model_alias(name, event.alias, version.version)
        uri = f"models:/{name}/{version.version}"
        self.runs.log(study_run, tags={"nasact.model": uri})
        return uri

    def _log_model(self, event: events.ModelReady, study_run: str, name: str) -> Any:
        """The logged model of a saved network, as an output of the study's run; completed if it is incomplete."""
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        client, experiment = self.client, self.runs.experiment_id()
        model = self._find_logged_model(event.digest, study_run, name)
        if model is None:
            model = client.create_logged_model(
                experiment, name=name, source_run_id=study_run, tags={"nasact.digest": event.digest}
            )
        outputs = client.get_run(study_run).outputs
        if model.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
            client.log_outputs(study_run, models=[LoggedModelOutput(model.model_id, step=0)])
        if str(model.status) != "READY":
            saved = Model.load(event.files)
            saved.run_id, saved.model_id, saved.model_uuid = study_run, model.model_id, model.model_id
            saved.artifact_path = model.artifact_location
            saved.save(str(Path(event.files) / "MLmodel"))
            client.log_model_artifacts(model.model_id, event.files)
            client.finalize_logged_model(model.model_id, "READY")
        return model


def save_model(module: nn.Module, example: Tensor, folder: Path) -> None:
    """Write a network in MLflow's torch flavour: an exported program without pickle, for any batch size, on the CPU.

    Shapes: `example` (N, ...) with any N >= 1. Loading it needs torch, not the code of the network.
    """
    import copy

    import torch

    _import_mlflow()
    import mlflow.models
    import mlflow.pytorch

    network = copy.deepcopy(module).cpu().eval()
    # With an example of one item, torch.export would fix the batch size at 1.
    batch = example.detach().cpu()[:3]
    batch = batch if len(batch) == 3 else batch[:1].expand(3, *batch.shape[1:]).contiguous()
    with torch.no_grad():
        output = network(batch)
    mlflow.pytorch.save_model(
        network,
        str(folder),
        serialization_format="pt2",
        input_example=batch.numpy(),
        signature=mlflow.models.infer_signature(batch.numpy(), output.numpy()),
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"mlflow=={mlflow.__version__}", "numpy"],
    )


class MLflowTracker(OutboxTracker):
    """The tracker of a study in an MLflow store. Building it may raise StoreError; no method raises afterwards."""

    def __init__(
        self, uri: str = "sqlite:///mlflow.db", *, directory: Path | str, experiment: str = "nasact", **options: Any
    ) -> None:
        """`directory`: of the study; its `tracking` folder keeps what the store has not confirmed.

        A database file is created or checked here. A server that does not answer is a warning only, later.
        `options`: of `OutboxTracker`.
        """
        address = parse_address(uri)
        backend = MLflowBackend(address, experiment, Path(directory).resolve())
        if address.path is not None:
            with silence_mlflow():
                prepare_database(address)
        super().__init__(backend, directory, **options)


def ui_command(uri: str, *, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves MLflow's web pages for a database. Run it with `ui_environment`."""
    address = parse_address(uri)
    if address.is_server:
        raise StoreError(f"--tracking-uri: {address.uri} is a running server: open it in a browser")
    if address.path is not None and read_revision(address.path) is None:
        raise StoreError(f"{address.path}: there is no tracking database yet; `nasact search` creates it")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address.uri]
    if address.artifacts is not None:
        command += ["--artifacts-destination", address.artifacts.as_uri()]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


def ui_environment() -> dict[str, str]:
    """The environment for `ui_command`: that of this process, with MLflow's telemetry and job runner switched off."""
    return {**_ENVIRONMENT, **os.environ}
