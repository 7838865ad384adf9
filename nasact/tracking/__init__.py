"""Who is told how a study goes. Nothing here may stop a training, and nothing below this room knows of it."""

from nasact.tracking.mlflow import MLflowTracker, ui_command, ui_environment
from nasact.tracking.null import NullTracker
from nasact.tracking.tracker import Figures, RunIds, StudyInfo, Tracker

__all__ = [
    "Figures",
    "MLflowTracker",
    "NullTracker",
    "RunIds",
    "StudyInfo",
    "Tracker",
    "ui_command",
    "ui_environment",
]
