"""`results/reference/paper_tables.md` is what its script writes now, and says what the papers print."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "paper_tables.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_tables", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_up_to_date(script: ModuleType) -> None:
    assert script.FILE.read_text(encoding="utf-8") == script.document(), "run tools/paper_tables.py --write"


def test_table_8_agrees_in_every_row(script: ModuleType) -> None:
    rows = [line for line in script._memory().splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 5
    assert all(row.endswith("| yes |") for row in rows)


def test_parameters_agree_but_where_the_sources_themselves_differ(script: ModuleType) -> None:
    odd = [
        line.split(" | ")[0].strip("| ") for line in script.document().splitlines() if "not the printed digit" in line
    ]
    assert odd == ["mobilevitv2-2.0", "mobilevit-xxs"]
