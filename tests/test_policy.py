"""The former place of policies still gives its names, with a warning."""

from __future__ import annotations

import pytest

import edge_mrl.policy
from edge_mrl import sync


@pytest.mark.parametrize("name", ["Conditions", "Policy"])
def test_names_are_given_with_a_warning(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{name} has moved: import it from edge_mrl.sync"):
        assert getattr(edge_mrl.policy, name) is getattr(sync, name)
