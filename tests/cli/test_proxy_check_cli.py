"""`mvit-search proxy-check`: on a table alone, with real trainings, and with what nobody should give it."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mvit_search.records.table import read_table, write_table
from tests.ranking.synthetic import table

LONG = "32px-5000img-12ep"


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "table.csv"
    write_table(path, table(20, seeds=(0, 1), noise=0.01))
    return path


def test_a_table_is_judged_for_people(run, file, tmp_path):
    page = tmp_path / "page.html"
    code, out, err = run("proxy-check", "--analyse", str(file), "--html", str(page))
    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if line.strip().startswith(f"{LONG}, epoch 8 "))
    name, seconds, steps, tau, *_ = re.split(r"\s{2,}", row.strip())
    assert (name.rstrip(" ◄"), seconds, steps) == (f"{LONG}, epoch 8", "200", "40,000")
    assert re.fullmatch(r"0\.\d\d \[0\.\d\d, \d\.\d\d\]", tau)
    for words in ("Use 32px-5000img", "It beats params by", "signal to noise", f"Page: {page}", "seeds 0, 1;"):
        assert words in out
    assert "plotly" in page.read_text()


def test_json_is_one_document_and_the_same_twice(run, file):
    _, out, _ = run("proxy-check", "--analyse", str(file), "--json", "--threshold", "0.6")
    document = json.loads(out)
    assert document["recommendation"]["threshold"] == 0.6
    assert document["table"] == str(file)
    assert document["reference"]["candidates"] == 20
    assert "does not say whether predicted or measured" in next(
        proxy["source"] for proxy in document["proxies"] if proxy["name"] == "latency"
    )
    assert run("proxy-check", "--analyse", str(file), "--json", "--threshold", "0.6")[1] == out


def test_the_settings_beside_a_table_say_how_its_latency_is_known(run, file):
    (file.parent / "check.json").write_text('{"target": "iphone12"}')
    document = json.loads(run("proxy-check", "--analyse", str(file), "--json")[1])
    latency = next(proxy for proxy in document["proxies"] if proxy["name"] == "latency")
    assert latency["source"].endswith("latency predicted for iPhone 12")


def test_another_reference_can_be_asked_for(run, file):
    _, out, _ = run("proxy-check", "--analyse", str(file), "--json", "--reference", "32px-5000img-2ep")
    assert json.loads(out)["reference"]["fidelity"] == "32px-5000img-2ep"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--analyse", "no.csv"), "table 'no.csv': cannot be read (No such file or directory)"),
        (("--analyse", "cut.csv"), "has no column top1"),
        (("--analyse", "few.csv"), "was finished for 4 candidates, fewer than 5; carry the check on"),
        (("--analyse", "begun.csv"), "no training of 32px-5000img-12ep reached its last epoch (12)"),
        (("--analyse", "good.csv", "--threshold", "1"), "--threshold 1.0: must be above 0 and below 1"),
        (("--threshold", "nan"), "--threshold nan: must be above 0 and below 1"),
        (("--analyse", "good.csv", "--reference", "64px"), "--reference '64px': unknown --reference (known: 16px"),
        (("--analyse", "good.csv", "--epochs", "3"), "--epochs 3: is for a check that trains"),
        (("--analyse", "good.csv", "--out", "x"), "--out 'x': is for a check that trains"),
        (("--analyse", "good.csv", "--html", "page.txt"), "--html 'page.txt': must end in .html"),
        (("--analyse", "good.csv", "--html", "no/page.html"), "is in a folder that does not exist"),
        (("--candidates", "4"), "--candidates 4: must be at least 5"),
        (("--space", "nope"), "space 'nope': unknown space"),
        (("--data", "nope"), "data 'nope': no such file or folder"),
        (("--budget", "lots"), "--budget 'lots': is not a number above zero"),
        (("--time", "soon"), "--time 'soon'"),
        (("--zero-cost", "naswat"), "did you mean 'naswot'?"),
        (("--out", "good.csv", "--candidates", "5"), "--out 'good.csv': is no folder"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    rows = table(8)
    write_table(tmp_path / "good.csv", rows)
    write_table(tmp_path / "few.csv", table(4))
    write_table(tmp_path / "begun.csv", [row for row in rows if row.fidelity == LONG and row.epoch < 12])
    (tmp_path / "cut.csv").write_text((tmp_path / "good.csv").read_text().replace(",top1,", ",accuracy,"))
    before = sorted(tmp_path.iterdir())
    code, out, err = run("proxy-check", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("mvit-search: ")
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_table_is_judged_without_torch(file, tmp_path):
    arguments = ["proxy-check", "--analyse", str(file), "--html", str(tmp_path / "x.html")]
    code = (
        f"import sys; sys.argv = ['mvit-search', *{arguments!r}]\nfrom mvit_search.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'coremltools', 'sklearn', 'optuna'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


SPACE = (
    "description: eight small networks\nimage_size: 64\nstem_channels: 16\nhead_expansion: 2\nactivation: silu\n"
    "stages:\n  - {kind: conv, out_channels: {choices: [16, 24, 32, 40]}, num_blocks: {low: 1, high: 2}, stride: 2,\n"
    "     expand_ratio: 2}\n"
)


@pytest.mark.slow
def test_a_check_trains_has_nothing_left_to_train_and_refuses_another(run, tmp_path):
    folder, space = tmp_path / "check", tmp_path / "tiny.yaml"
    space.write_text(SPACE)
    arguments = (
        "proxy-check", "--space", str(space), "--smallest", "1k", "--budget", "400k", "--candidates", "5",
        "--epochs", "2", "--images", "160", "--held-out", "100", "--seeds", "1", "--zero-cost", "none", "--workers",
        "1", "--out", str(folder),
    )  # fmt: skip
    code, out, err = run(*arguments, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["complete"]
    assert document["reference"]["candidates"] == 5
    assert document["trainings"]["done"] == document["trainings"]["total"]
    assert f"{document['trainings']['total']} of {document['trainings']['total']}: " in err
    rows = read_table(folder / "table.csv")
    assert len({(row.digest, row.seed, row.fidelity, row.epoch) for row in rows}) == len(rows)
    assert json.loads((folder / "proxy-check.json").read_text()) == document
    assert "plotly" in (folder / "proxy-check.html").read_text()
    code, out, err = run(*arguments)
    assert (code, err) == (0, f"{len(rows) - 5} of {len(rows) - 5}\n")  # rung 1 of the long schedule is a row too
    code, out, err = run(*arguments, "--images", "150")
    assert (code, out) == (2, "")
    assert "belongs to another check: images (160 there, 150 now)" in err
    assert read_table(folder / "table.csv") == rows


def test_a_chunk_that_ends_early_is_no_failure(run, tmp_path, monkeypatch):
    """The seam to training is `run_check`: here it leaves a table that holds too little to judge."""
    from mvit_search.ranking import check
    from mvit_search.ranking.runner import Progress

    def some(settings, folder, *, workers, seconds, watch):
        folder.mkdir()
        rows = [replace(row, name="mobilevit-xs") for row in table(4)]
        write_table(folder / "table.csv", rows)
        watch(Progress(3, 90, rows[0]))
        assert seconds == 540
        return folder / "table.csv"

    monkeypatch.setattr(check, "run_check", some)
    code, out, err = run("proxy-check", "--out", str(tmp_path / "a"), "--time", "9m")
    assert code == 0
    assert "Nothing to judge yet" in out
    assert "3 of 90 trainings and scores. The same command carries on." in out
    assert err.startswith("3 of 90: mobilevit-xs, seed 0, 32px-5000img-12ep, epoch 1: ")
    code, out, _ = run("proxy-check", "--out", str(tmp_path / "b"), "--time", "9m", "--json")
    assert json.loads(out)["trainings"] == {"done": 3, "total": 90}
    assert json.loads(out)["complete"] is False
