"""`mvit-search run` without training: scores, a table, a fraction of the data, and what is wrong with them."""

import json

import pytest

from mvit_search.records.table import write_table
from tests.search.test_replay import table

COMMAND = ("run", "--budget", "6M", "--target", "iphone12", "--trials", "4", "--final-seeds", "1")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_on_a_score_says_so(run, tmp_path):
    code, out, err = run(*COMMAND, "--proxy", "zero-cost:params", "--data-fraction", "0.2")
    assert code == 0
    assert "Score (params)" in out
    assert "All candidates scored: 4 scored, 0 failed" in out
    assert "Top-1" not in out
    assert "%" not in out.replace("leave-one-out MAPE 6.0 %", "")
    assert "score 1,267," in err or "score " in err
    assert "top-1" not in err
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name == "6M-iphone12-zero-cost_params"
    described = json.loads((folder / "run.json").read_text())
    assert described["proxy"] == "zero-cost:params"
    assert described["settings"]["data_fraction"] == 0.2
    assert 0 < described["data"]["train_images"] < 400
    # Carried on with its own settings, it has nothing left to do.
    code, again, _ = run("run", "--resume", "--name", folder.name, "--json")
    assert code == 0
    assert json.loads(again)["scored"] == 4


def test_a_table_is_replayed(run, tmp_path):
    write_table(tmp_path / "trainings.csv", table())
    code, out, _ = run(*COMMAND[:-4], "--trials", "30", "--table", "trainings.csv#long")
    assert code == 0
    assert "Top-1 (table)" in out
    assert "Accuracies were read from the recorded table trainings.csv#long; nothing was trained." in out
    assert "Nothing new left in the space, as far as the table goes: 11 replayed, 1 failed" in out
    code, out, _ = run("report", "6M-iphone12-table_trainings.csv_long", "--out", "r.html")
    assert code == 0
    assert "--proxy table:trainings.csv#long" in (tmp_path / "r.html").read_text().replace("&#x27;", "").replace(
        "'", ""
    )


def test_damaged_pictures_are_named_on_stderr(run, tmp_path):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(40):
            Image.new("RGB", (20, 20), (5 * index, 0, 90)).save(tmp_path / "photos" / name / f"{name}{index}.png")
    (tmp_path / "photos" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot an image")
    code, _, err = run(*COMMAND, "--data", "photos", "--proxy", "zero-cost:macs", "--proxy-size", "16")
    assert code == 0
    assert "skipped: " in err
    assert "broken.png" in err


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("did you mean 'synflow'", ("--proxy", "zero-cost:sinflow")),
        ("--proxy 'magic': must be training, zero-cost:NAME or table:FILE", ("--proxy", "magic")),
        ("--prescreen 'zen:1': must keep the best of 2 to 1000", ("--prescreen", "zen:1")),
        ("--prescreen 'zen': must be NAME:K", ("--prescreen", "zen")),
        ("--table 't.csv': is a proxy of its own", ("--table", "t.csv", "--proxy", "training")),
        ("table 'none.csv': cannot be read", ("--table", "none.csv")),
        ("table 'empty.csv': has no column", ("--table", "empty.csv")),
        ("--epochs 3: means nothing with --proxy zero-cost:zen", ("--proxy", "zero-cost:zen", "--epochs", "3")),
        ("--data-fraction", ("--data-fraction", "1.5")),
        ("data_fraction 0.0", ("--data-fraction", "0")),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, message, arguments):
    (tmp_path / "empty.csv").touch()
    code, out, err = run(*COMMAND, *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert out == ""
    assert not (tmp_path / "results").exists()
