"""Families of Hugging Face's transformers, called with keywords, equal their supernets."""

from __future__ import annotations

import pytest
from conformance import check_conformance, check_counts
from hugging_face_models import FAMILIES, build

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]


def test_the_table_has_many_families() -> None:
    assert len({family.model for family in FAMILIES.values()}) >= 25


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_transformers_equals_its_supernet(name: str) -> None:
    pytest.importorskip("transformers")
    family = FAMILIES[name]
    check_counts(check_conformance(build(name, family), family.inputs(), family.refusal), family)
