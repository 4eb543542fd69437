"""Relays of other makes that several files of tests share: each runs once, from when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support.independent import MAKES, Independent, independent


@pytest.fixture(scope="session")
def relay_by(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Independent]]:
    """Return the running relay of a make. The test skips where it is not installed."""
    running: dict[str, Independent] = {}
    with ExitStack() as stack:

        def get(name: str) -> Independent:
            if missing := MAKES[name].missing:
                pytest.skip(f"{name}: {missing}")
            if name not in running:
                running[name] = stack.enter_context(independent(name, tmp_path_factory.mktemp(name)))
            return running[name]

        yield get
