"""Fixtures for several folders of tests."""

import pytest

from mvit_search.records import RunFolder
from tests.run_fixtures import make_run


@pytest.fixture
def demo_run(tmp_path) -> RunFolder:
    """A finished run with made-up numbers: `results/demo` under `tmp_path`."""
    return make_run(tmp_path / "results")
