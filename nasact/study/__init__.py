"""The study room: YAML or a plain tree <-> Study -> TrialSpec. Importing it does not import torch."""

from nasact.study.domains import Choice, FloatRange, IntRange, Parameter
from nasact.study.source import Source
from nasact.study.spec import TrialSpec
from nasact.study.study import Study

__all__ = ["Choice", "FloatRange", "IntRange", "Parameter", "Source", "Study", "TrialSpec"]
