"""Fixtures for several folders of tests."""

import pytest
from hypothesis import settings

from mvit_search.records import RunFolder
from tests.run_fixtures import make_run
from tests.timm_import import make_torchvision_importable

make_torchvision_importable()

# A test that fails on a busy machine says nothing about the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def cache_of_pictures(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the home folder."""
    monkeypatch.setenv("MVIT_SEARCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def demo_run(tmp_path) -> RunFolder:
    """A finished run with made-up numbers: `results/demo` under `tmp_path`."""
    return make_run(tmp_path / "results")
