"""MLflow, the store behind the tracker: a parent run a study, a nested run a trial, the final network in the registry.

The only file that imports mlflow (inside functions: it takes seconds). It uses clients, no global state of MLflow.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from nasact.errors import StoreError, error_line
from nasact.tracking import events
from nasact.tracking.database import Address, check_revision, locked, parse_address, revision
from nasact.tracking.outbox import OutboxTracker
from nasact.tracking.runs import StudyRuns
from nasact.tracking.sanitise import clean_model_name
from nasact.tracking.tracker import RunIds, StudyInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # A pooled connection goes on writing to a database file that was moved or deleted, and nobody notices.
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    # A store that is away must not hold up a training: MLflow's own seven retries take minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

P = ParamSpec("P")
R = TypeVar("R")


def _import() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    return mlflow


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """MLflow's own warnings and log lines are none of the user's business; failures reach us as exceptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _import()
        loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def quietly(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with quiet():
            return function(*args, **kwargs)

    return wrapped


def prepare_database(address: Address) -> None:
    """Make the SQLite database if there is none, and make sure it has MLflow's schema; StoreError where it has not.

    The schema is made in a file of its own that then takes the name: no process ever sees half a schema.
    """
    if address.path is None or address.artifacts is None:
        return
    mlflow = _import()
    with locked(address.path):
        found = revision(address.path)
        if found is not None:
            check_revision(address.path, found, *_schema(), version=mlflow.__version__)
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        fresh = address.path.with_name(f"{address.path.name}.new-{os.getpid()}")
        try:
            SqlAlchemyStore(f"sqlite:///{fresh}", address.artifacts.as_uri())
            fresh.replace(address.path)
        except Exception as error:
            fresh.unlink(missing_ok=True)
            raise StoreError(f"{address.path}: the database cannot be created ({error_line(error, 200)})") from error


def _schema() -> tuple[str, set[str]]:
    """The newest revision of MLflow's schema and all that this MLflow knows."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    scripts = ScriptDirectory(str(Path(utils.__file__).parent.parent / "db_migrations"))
    return str(scripts.get_current_head()), {script.revision for script in scripts.walk_revisions()}


class MLflowBackend:
    """One study in an MLflow store: reaches the store, and hands each event to the study's runs."""

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
        return {"study": None, "trials": {}} if self._runs is None else self._runs.ids()

    @functools.cached_property
    def client(self) -> Any:
        return _import().MlflowClient(tracking_uri=self.address.uri, registry_uri=self.address.uri)

    @quietly
    def bind(self, info: StudyInfo) -> None:
        self._runs = StudyRuns(
            self.client,
            _import().entities,
            info,
            uri=self.address.uri,
            experiment=self._experiment,
            artifacts=self.address.artifacts,
            directory=self._directory,
        )

    @property
    def runs(self) -> StudyRuns:
        if self._runs is None:
            raise RuntimeError("study_started comes first")
        return self._runs

    def forget(self) -> None:
        if self._runs is not None:
            self._runs.forget()

    @quietly
    def alive(self) -> bool:
        # A database that went away is waited for: a new one in its place would be lost when the old one comes back.
        if self.address.path is not None and not self.address.path.is_file():
            return False
        try:
            self.client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    @quietly
    def deliver(self, event: events.Event) -> str | None:
        if self.address.path is not None and not self.address.path.is_file():
            raise StoreError(f"{self.address.path}: the database is gone")
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
                return self._model(event)
            case events.StudyFinished():
                self.runs.study_finished(event)
        return None

    @quietly
    def save_model(self, module: nn.Module, example: Tensor, folder: Path) -> None:
        save_model(module, example, folder)

    @quietly
    def find_model(self, name: str, alias: str, digest: str) -> str | None:
        client, name = self.client, clean_model_name(name)
        model = self._same_model(digest, self.runs.study_run(), name)
        if model is None or str(model.status) != "READY":
            return None
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.source == self._source(model) and alias in version.aliases:
                return f"models:/{name}/{version.version}"
        return None

    def _source(self, model: Any) -> str:
        # Without a server, MLflow would look `models:/ID` up in its global store, which need not be ours.
        return f"models:/{model.model_id}" if self.address.is_server else str(model.artifact_location)

    def _same_model(self, digest: str, parent: str, name: str) -> Any:
        same = self.client.search_logged_models(
            [self.runs.experiment_id()], filter_string=f"tags.`nasact.digest` = '{digest}'"
        )
        return next((found for found in same if found.source_run_id == parent and found.name == name), None)

    def _model(self, event: events.ModelReady) -> str:
        """Log and register a saved network, once; its address in the registry."""
        client, parent, name = self.client, self.runs.study_run(), clean_model_name(event.name)
        model = self._logged_model(event, parent, name)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        source = self._source(model)
        versions = client.search_model_versions(f"name = '{name}'")
        same = (found for found in versions if found.source == source or found.model_id == model.model_id)
        version = next(same, None)
        if version is None:
            version = client.create_model_version(
                name, source, run_id=parent, model_id=model.model_id, await_creation_for=0
            )
        client.set_registered_model_alias(name, event.alias, version.version)
        uri = f"models:/{name}/{version.version}"
        self.runs.log(parent, tags={"nasact.model": uri})
        return uri

    def _logged_model(self, event: events.ModelReady, parent: str, name: str) -> Any:
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        client, experiment = self.client, self.runs.experiment_id()
        model = self._same_model(event.digest, parent, name)
        if model is None:
            model = client.create_logged_model(
                experiment, name=name, source_run_id=parent, tags={"nasact.digest": event.digest}
            )
        outputs = client.get_run(parent).outputs
        if model.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
            client.log_outputs(parent, models=[LoggedModelOutput(model.model_id, step=0)])
        if str(model.status) != "READY":
            saved = Model.load(event.files)
            saved.run_id, saved.model_id, saved.model_uuid = parent, model.model_id, model.model_id
            saved.artifact_path = model.artifact_location
            saved.save(str(Path(event.files) / "MLmodel"))
            client.log_model_artifacts(model.model_id, event.files)
            client.finalize_logged_model(model.model_id, "READY")
        return model


def save_model(module: nn.Module, example: Tensor, folder: Path) -> None:
    """Write a network as MLflow's torch flavour: a traced program, free of pickle, for any batch size, on the CPU.

    Shapes: `example` (N, ...) with any N >= 1. Whoever loads it needs torch, not the code of the network.
    """
    import copy

    import torch

    _import()
    import mlflow.models
    import mlflow.pytorch

    network = copy.deepcopy(module).cpu().eval()
    # An example of one item would bake the 1 in.
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
    """A study's tracker in an MLflow store. StoreError here, before anything is computed, or never."""

    def __init__(
        self, uri: str = "sqlite:///mlflow.db", *, directory: Path | str, experiment: str = "nasact", **options: Any
    ) -> None:
        """`directory` is the study's: what the store does not take is kept there, in `tracking`, and delivered later.

        A database file is made, or checked, now; a server that does not answer is only a warning.
        """
        address = parse_address(uri)
        backend = MLflowBackend(address, experiment, Path(directory).resolve())
        if address.path is not None:
            with quiet():
                prepare_database(address)
        super().__init__(backend, directory, **options)


def ui_command(uri: str, *, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves MLflow's pages of a database. Run it with `ui_environment`."""
    address = parse_address(uri)
    if address.is_server:
        raise StoreError(f"--tracking-uri: {address.uri} is a server that runs already: open it in a browser")
    if address.path is not None and revision(address.path) is None:
        raise StoreError(f"{address.path}: no tracking database yet; `nasact search` makes one")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address.uri]
    if address.artifacts is not None:
        command += ["--artifacts-destination", address.artifacts.as_uri()]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


def ui_environment() -> dict[str, str]:
    """The environment for `ui_command`: this process's, with MLflow's telemetry and job runner off."""
    return {**_ENVIRONMENT, **os.environ}
