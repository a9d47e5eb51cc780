"""What `results/reference` says of proxies is what its tables say now."""

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from mvit_search.records.table import read_table

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "proxy_reference.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("proxy_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cifar10_proxy", "digits_proxy"])
def test_the_files_are_up_to_date(script: ModuleType, name: str) -> None:
    texts = script.files(name)
    for file, text in texts.items():
        stored = (script.REFERENCE / name / file).read_text(encoding="utf-8")
        assert stored == text, f"{name}/{file}: run tools/proxy_reference.py --write"
    marks = ElementTree.fromstring(texts["tau.svg"]).iter("{http://www.w3.org/2000/svg}title")
    assert len(list(marks)) > 20


@pytest.mark.parametrize(("name", "candidates"), [("cifar10_proxy", 24), ("digits_proxy", 24)])
def test_the_tables_hold_what_they_promise(script: ModuleType, name: str, candidates: int) -> None:
    """Enough candidates at the end of the long schedule, presets among them, some with three seeds."""
    rows = read_table(script.REFERENCE / name / "table.csv")
    finished = [row for row in rows if row.fidelity == script.SUBJECTS[name].schedule and row.epoch == row.epochs]
    seeds: dict[str, set[int]] = {}
    for row in finished:
        seeds.setdefault(row.digest, set()).add(row.seed)
    assert len(seeds) >= candidates
    assert sum(len(found) >= 3 for found in seeds.values()) >= 5
    assert {"mobilevit-xxs", "mobilevit-xs", "mobilevit-s"} <= {row.name for row in finished}
    assert len({(row.digest, row.seed, row.fidelity, row.epoch) for row in rows}) == len(rows)
