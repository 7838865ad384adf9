"""All classification models of torchvision and one of each family of timm equal their supernets."""

from __future__ import annotations

from typing import Any

import pytest
import torchvision
from conformance import check_conformance, check_counts
from image_models import TIMM, TORCHVISION, ImageModel, build

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]


def parameters(table: dict[str, ImageModel]) -> list[Any]:
    """The names of the models; those of one group run in one process, one after the other."""
    return [
        pytest.param(name, marks=[pytest.mark.xdist_group(model.group)] if model.group else [], id=name)
        for name, model in table.items()
    ]


def test_the_table_has_every_classification_model_of_torchvision() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) >= 80
    assert set(TORCHVISION) == set(names)


def test_the_table_has_most_families_of_timm() -> None:
    timm = pytest.importorskip("timm")
    assert len({timm.models.model_entrypoint(name).__module__ for name in TIMM}) >= 80


def check(library: str, name: str, model: ImageModel) -> None:
    check_counts(check_conformance(build(library, name, model), model.inputs(), model.refusal), model)


@pytest.mark.parametrize("name", parameters(TORCHVISION))
def test_a_model_of_torchvision_equals_its_supernet(name: str) -> None:
    check("torchvision", name, TORCHVISION[name])


@pytest.mark.parametrize("name", parameters(TIMM))
def test_a_model_of_timm_equals_its_supernet(name: str) -> None:
    pytest.importorskip("timm")
    check("timm", name, TIMM[name])
