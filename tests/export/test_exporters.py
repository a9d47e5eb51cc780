"""What every exporter keeps to."""

import json
import shutil
from pathlib import Path

import pytest

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage, operators
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.export import EXPORTERS, ExportOptions, ExportResult, export, exporter_names
from mvit_search.export._base import export_name

# Something that every destination can say.
CONFIG = MobileViTConfig(
    image_size=(64, 64),
    stages=(
        *(ConvStage(out_channels=16, stride=stride, expand_ratio=2) for stride in (1, 2, 2, 2)),
        MobileViTStage(out_channels=16, transformer_dim=16, num_layers=1, expand_ratio=2),
    ),
)
DIGEST = CONFIG.digest()[:6]


@pytest.mark.parametrize("to", EXPORTERS)
def test_files_are_named_checked_and_ready_for_json(to: str, tmp_path: Path) -> None:
    out = tmp_path / "not" / "yet"
    result = export(CONFIG, "xxs", to, out, num_classes=10)

    assert isinstance(result, ExportResult)
    assert result.files
    assert all(path.exists() and path.parent == out for path in result.files)
    assert set(out.iterdir()) == set(result.files)
    assert result.checks["params"] == sum(op.params for op in operators(CONFIG, 10))
    assert result.checks["config_round_trip"] is True
    assert json.loads(json.dumps(result.checks)) == result.checks


@pytest.mark.parametrize("to", EXPORTERS)
def test_second_export_replaces_the_first(to: str, tmp_path: Path) -> None:
    first = export(CONFIG, "same", to, tmp_path)
    contents = [_names(path) for path in first.files]
    for path in first.files:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_text("stale")

    assert export(CONFIG, "same", to, tmp_path) == first
    assert [_names(path) for path in first.files] == contents


def _names(path: Path) -> list[tuple[str, int]]:
    """Name and size of a file, or of every file of a folder; a Core ML package has new identifiers each time."""
    return sorted((file.name, file.stat().st_size) for file in (path, *path.rglob("*")) if file.is_file())


@pytest.mark.parametrize("to", [to for to in EXPORTERS if to != "coreml"])
@pytest.mark.parametrize("field", ["layout", "deployment_target", "input"])
def test_options_of_another_destination_are_refused(field: str, to: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{field} 'ane': {to} has no such option; leave it out, or export to coreml"):
        export(CONFIG, "xxs", to, tmp_path, options=ExportOptions(**{field: "ane"}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", EXPORTERS)
def test_folder_that_cannot_be_made_is_bad_input(to: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(InputError, match=r"out .*cannot be written"):
        export(CONFIG, "xxs", to, tmp_path / "file" / "below")


def test_unknown_destination_names_the_nearest(tmp_path: Path) -> None:
    assert "corenet" in exporter_names()
    with pytest.raises(UnknownNameError, match="did you mean 'corenet'"):
        export(CONFIG, "xxs", "cornet", tmp_path)


def test_class_count_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="num_classes 0"):
        export(CONFIG, "xxs", "corenet", tmp_path, num_classes=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("first-run/12", f"mvit_search_first_run_12_{DIGEST}"),
        ("first_run/12", f"mvit_search_first_run_12_{DIGEST}"),
        ("../../etc/passwd", f"mvit_search_etc_passwd_{DIGEST}"),
        # CoreNet takes files that end in _test.py for tests; the digest keeps a name from ending so.
        ("My Test", f"mvit_search_my_test_{DIGEST}"),
        ("поиск", f"mvit_search_{DIGEST}"),
    ],
)
def test_names_become_identifiers(name: str, expected: str) -> None:
    assert export_name(name, CONFIG) == expected
    assert expected.isidentifier()
