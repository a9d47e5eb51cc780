"""`mvit-search run` without training: scores, a table, a fraction of the data, and what is wrong with them."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mvit_search.cli.run_settings import run_folder
from mvit_search.cli.run_words import begun, closing
from mvit_search.records.table import write_table
from mvit_search.search import parse_settings
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


SCORED = (*COMMAND, "--proxy", "zero-cost:params")


def test_quiet_prints_the_result_alone_and_logs_all_of_it(run, tmp_path):
    code, out, err = run(*SCORED, "--quiet", "--name", "quiet", "--sampler", "auto")
    assert code == 0
    assert err == ""
    assert "Pareto front" in out
    log = (tmp_path / "results/quiet/run.log").read_text().splitlines()
    words = [line.split(" ", 1)[1] for line in log]
    assert words[0].startswith("begun by mvit-search ")
    assert "trials 4" in words[0]
    assert "proxy zero-cost:params" in words[0]
    assert words[1].startswith("sampler assisted: ")
    assert [word.split("]")[0] for word in words[2:-1]] == ["[1/4", "[2/4", "[3/4", "[4/4"]
    assert words[-1].startswith("ended. All candidates scored: 4 scored, 0 failed, ")
    code, out, err = run("run", "--resume", "--name", "quiet", "--trials", "6", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["scored"] == 6
    again = (tmp_path / "results/quiet/run.log").read_text().splitlines()
    assert again[: len(log)] == log
    assert " carried on by mvit-search " in again[len(log)]
    assert "trials 6" in again[len(log)]


def test_json_is_one_document_and_progress_goes_to_stderr(run):
    code, out, err = run(*SCORED, "--json")
    assert code == 0
    assert json.loads(out)["scored"] == 4
    assert err.count("\n") == 4


def test_a_refused_run_leaves_the_log_as_it_was(run, tmp_path):
    run(*SCORED, "--name", "mine")
    log = (tmp_path / "results/mine/run.log").read_text()
    code, _, err = run(*SCORED, "--name", "mine", "--seed", "1")
    assert code == 2
    assert "belongs to a run with other " in err
    assert (tmp_path / "results/mine/run.log").read_text() == log


def test_a_log_that_cannot_be_written_ends_nothing(run, tmp_path):
    (tmp_path / "results/mine/run.log").mkdir(parents=True)
    code, out, err = run(*SCORED, "--name", "mine")
    assert code == 0
    assert err.count("run.log cannot be written (Is a directory): going on without it") == 1
    assert "Pareto front" in out


@pytest.mark.slow
def test_a_run_that_is_known_already_says_that_nothing_was_trained(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MVIT_SEARCH_CACHE", str(tmp_path / "cache"))
    small = ("--space", "mobilevit-mini", "--epochs", "2", "--images", "100", "--fidelity", "halving", "--eta", "2")
    code, out, err = run(*COMMAND[:-4], "--trials", "3", "--final-seeds", "1", *small, "--name", "first")
    assert code == 0
    assert "rung 1 of 2: top-1 " in err
    assert " after 1 epoch (predicted " in err
    assert "from an earlier run" not in err
    assert "failed" not in err
    counts = re.search(
        r"All candidates trained: (\d) trained at full fidelity, (\d) stopped at lower rungs, 0 fail", out
    )
    assert sum(map(int, counts.groups())) == 3
    trainings = int(re.search(r"(\d) trainings, none known from earlier runs\.", out)[1])
    code, out, err = run(*COMMAND[:-4], "--trials", "3", "--final-seeds", "1", *small, "--name", "second")
    assert code == 0
    assert err.count(", from an earlier run") == trainings
    assert f"Nothing was trained anew: all {trainings} trainings were known from earlier runs. " in out
    assert "the same command with --no-cache, under another --name." in out


def test_the_closing_says_what_was_done_and_what_was_known():
    document = {
        "proxy": "training", "fidelity": "halving", "ended_by": "time", "trained": 4, "stopped": 9, "failed": 3,
        "failures": {"diverged": 2, "out of memory": 1}, "rejected": 5, "duplicates": 0, "trainings": 1,
        "remembered": 20, "directory": "results/a b", "replay": {"of": "old", "valuations": 21, "same": 20},
    }  # fmt: skip
    first, trainings, replay, _, export = closing(document, Path("r.html"), {}).splitlines()
    assert first == (
        "Time limit reached (carry on with --resume and a longer --time): 4 trained at full fidelity, 9 stopped at "
        "lower rungs, 3 failed (2 diverged, 1 out of memory), 5 over budget, 0 repeated."
    )
    assert trainings == "1 training; 20 more known from earlier runs, not repeated."
    assert replay == "Replay of old: 20 of 21 valuations came to the same."
    assert "'results/a b/best'" in export
    known = closing({**document, "trainings": 0}, Path("r.html"), {"from_run": "old"})
    assert "Nothing was trained anew: all 20 trainings" in known
    assert "with --no-cache and without --from, under another --name." in known


def test_the_log_of_a_start_holds_no_password():
    settings = parse_settings(
        {"target": "iphone12", "budget": 1_000_000, "storage": "postgresql://me:secret@host/db?password=secret"}
    )
    words = begun(settings, carried_on=False)
    assert "secret" not in words
    assert "storage postgresql://***@host/db?..." in words


@pytest.mark.parametrize(
    ("older", "name"),
    [("a", "a-replay"), ("dir/my run/", "my_run-replay"), ("_a", "a-replay"), ("x" * 100, "x" * 93 + "-replay")],
)
def test_the_name_of_a_replay_is_one_that_it_can_be_carried_on_by(tmp_path, older, name):
    given = {"replay_run": older, "budget": 1, "target": "iphone12"}
    assert run_folder(given, tmp_path, None, resume=False).name == name
    assert run_folder(given, tmp_path, name, resume=False).name == name


LIMITS = ("--space", "mobilevit-mini", "--epochs", "1", "--images", "200", "--final-seeds", "1", "--trials", "4")


@pytest.mark.slow
@pytest.mark.parametrize(("presses", "engine"), [(2, ()), (1, ("--engine", "pool", "--workers", "2"))])
def test_ctrl_c_loses_nothing_and_the_printed_command_carries_on(run, tmp_path, presses, engine):
    with started(*COMMAND[:5], *LIMITS, *engine, "--no-cache", "--name", "mine") as process:
        first = next(line for line in process.stderr if line.startswith("["))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        if presses == 2:
            assert any("Ctrl-C again stops at once" in line for line in process.stderr)
            os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    command = shlex.split(last.removeprefix("stopped; nothing finished is lost. Carry on: "))
    assert command == ["mvit-search", "run", "--resume", "--results-dir", "results", "--name", "mine"]
    folder = tmp_path / "results/mine"
    assert json.loads((folder / "front.json").read_text())["state"] == "stopped"
    log = (folder / "run.log").read_text()
    assert log.splitlines()[-1].endswith(" ended by Ctrl-C")
    assert first.split(" (")[0] in log
    kept = json.loads((folder / "front.json").read_text())["trainings"]
    assert kept >= 1
    code, out, err = run(*command[1:], "--engine", "in-process", "--json")
    assert code == 0
    assert json.loads(out)["trained"] == 4
    assert json.loads(out)["trainings"] == 4
    assert err.count("top-1") >= 4 - kept


@pytest.mark.slow
def test_ctrl_c_while_the_run_loads_stops_it_at_once(run, tmp_path):
    with started(*SCORED, "--engine", "pool", "--workers", "1", "--name", "mine") as process:
        until = time.monotonic() + 60
        while not (tmp_path / "results/mine/run.json").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("stopped; nothing finished is lost. Carry on: mvit-search run --resume ")
    assert "Traceback" not in err
    code, out, _ = run("run", "--resume", "--name", "mine", "--engine", "in-process", "--json")
    assert code == 0
    assert json.loads(out)["scored"] == 4


def started(*arguments: str) -> subprocess.Popen:
    """The program in a process group of its own, as a shell starts it."""
    # A shell that runs the tests in the background makes them, and their children, ignore SIGINT.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = [sys.executable, "-c", f"{listen}\nfrom mvit_search.cli import main; main()", *arguments]
    return subprocess.Popen(
        program, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
