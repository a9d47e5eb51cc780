"""`results/reference/latency` is what its script writes now, and the plots are pictures."""

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "latency_reference.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("latency_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_up_to_date(script: ModuleType) -> None:
    for name, text in script.files().items():
        stored = (script.FOLDER / name).read_text(encoding="utf-8")
        assert stored == text, f"{name}: run tools/latency_reference.py --write"


@pytest.mark.parametrize("name", ["iphone12", "iphone13", "iphone14"])
def test_a_plot_has_a_mark_a_row(script: ModuleType, name: str) -> None:
    picture = ElementTree.fromstring(script.files()[f"{name}.svg"])
    marks = [mark for mark in picture.iter("{http://www.w3.org/2000/svg}circle") if len(mark)]
    assert len(marks) == len(script._predicted(name).file.rows)
    for mark in marks:
        assert 0 < float(mark.get("cx", "0")) < script._SIZE
        assert 0 < float(mark.get("cy", "0")) < script._SIZE
