"""Tracking: records what happens in a study in MLflow. Must not stop a training; no room below knows this one."""

from nasact.tracking.mlflow import MLflowTracker, ui_command, ui_environment
from nasact.tracking.null import NullTracker
from nasact.tracking.tracker import RenderFigures, RunIds, StudyInfo, Tracker

__all__ = [
    "MLflowTracker",
    "NullTracker",
    "RenderFigures",
    "RunIds",
    "StudyInfo",
    "Tracker",
    "ui_command",
    "ui_environment",
]
