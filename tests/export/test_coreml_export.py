"""The Core ML export: a package with the options asked for, by function and by command."""

import json
from pathlib import Path

import coremltools as ct
import pytest
from typer.testing import CliRunner

from mvit_search.architecture import MobileViTConfig, MobileViTStage
from mvit_search.cli.main import app
from mvit_search.errors import InputError, UnknownNameError, WorkError
from mvit_search.export import ExportOptions, export
from mvit_search.latency import coreml

CONFIG = MobileViTConfig(
    image_size=(32, 32), stages=(MobileViTStage(out_channels=8, transformer_dim=8, num_layers=1, expand_ratio=2),)
)


def test_the_command_passes_its_options_on(tmp_path: Path) -> None:
    source = tmp_path / "network.json"
    source.write_text(CONFIG.canonical_json())
    command = ["export", str(source), "--to", "coreml", "--out", str(tmp_path / "out"), "--num-classes", "3"]
    options = ["--layout", "ane", "--deployment-target", "iOS18", "--input", "image", "--json"]
    done = CliRunner().invoke(app, [*command, *options])

    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    (path,) = document["files"]
    checks = document["checks"]
    assert Path(path).name == f"mvit_search_network_{CONFIG.digest()[:6]}.mlpackage"
    assert {key: checks[key] for key in ("layout", "deployment_target", "input", "num_classes", "weights")} == {
        "layout": "ane", "deployment_target": "iOS18", "input": "image", "num_classes": 3, "weights": "random, seed 0",
    }  # fmt: skip
    assert checks["layout_operators"] < checks["operators"]
    assert checks["max_difference"] < 1e-4
    spec = ct.utils.load_spec(path)
    assert spec.specificationVersion == 9
    assert spec.description.input[0].type.WhichOneof("Type") == "imageType"


def test_an_unknown_option_names_the_known_ones_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown layout \\(known: paper, ane\\)"):
        export(CONFIG, "network", "coreml", tmp_path / "out", options=ExportOptions(layout="rank5"))
    assert not (tmp_path / "out").exists()


def test_a_failed_conversion_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(coreml, "_TOLERANCE", -1.0)
    source = tmp_path / "network.json"
    source.write_text(CONFIG.canonical_json())
    done = CliRunner().invoke(app, ["export", str(source), "--to", "coreml", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, WorkError)
    assert not list((tmp_path / "out").iterdir())


def test_the_command_refuses_the_options_elsewhere(tmp_path: Path) -> None:
    command = ["export", "mobilevit-xxs", "--to", "corenet", "--out", str(tmp_path), "--deployment-target", "iOS18"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, InputError)
    assert not list(tmp_path.iterdir())
