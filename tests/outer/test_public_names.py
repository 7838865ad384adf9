"""The names of `nasact` itself: each is where `nasact/__init__.py` says, and renamed ones still work."""

from __future__ import annotations

import pytest

import nasact


def test_every_public_name_is_imported_on_first_use() -> None:
    assert len(nasact.__all__) >= 15
    assert dir(nasact) == nasact.__all__
    for name in nasact.__all__:
        assert getattr(nasact, name) is not None, name
    assert not hasattr(nasact, "nothing")


@pytest.mark.parametrize(("old", "new"), [("load_state", "load_study_view"), ("StudyState", "StudyView")])
def test_an_old_name_is_the_new_one_with_a_warning(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"nasact.{old} is now nasact.{new}"):
        assert getattr(nasact, old) is getattr(nasact, new)
