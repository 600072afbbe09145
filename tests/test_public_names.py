"""Nothing that projects may name changes by accident."""

from __future__ import annotations

from .public_names import LIST, public_names


def test_the_public_names_and_their_parameters_are_these():
    """A change here breaks projects. Where it is meant: ``python -m tests.public_names``."""
    assert public_names() == LIST.read_text(encoding="utf-8").splitlines()
