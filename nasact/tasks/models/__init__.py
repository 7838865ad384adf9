"""The models that a study can name. Each file registers its records in `MODELS`; a new file needs no other line."""

from __future__ import annotations

from nasact.registry import import_submodules
from nasact.tasks.models.base import MODELS, ModelRecord, register_model
from nasact.tasks.models.build import build_model

import_submodules(__name__, __path__)

__all__ = ["MODELS", "ModelRecord", "build_model", "register_model"]
