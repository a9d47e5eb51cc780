import io
import os
import re
import resource
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mvit_search.cli.run_log import RunLog
from mvit_search.cli.watching import Lines, Quiet, Watch, watching
from mvit_search.cli.watching_panel import Panel
from mvit_search.cli.watching_words import about, line, sparkline, valuation
from mvit_search.records import Evaluated
from mvit_search.search import Progress
from mvit_search.search.progress import RungProgress
from tests.run_fixtures import make_halving_records, make_records

RECORDS = make_records(4)
HALVED = make_halving_records(40)
SEARCHING = Progress(
    phase="search", begun=4, trained=3, trials=24, stopped=0, failed=1, failures={"diverged": 1}, rejected=17,
    duplicates=2, remembered=0, finals=(0, 0), rungs=(RungProgress("9", 3, 1),), workers=(1, 1), best=RECORDS[2],
    hypervolume=0.4321, history=(0.1, 0.2, 0.4321), elapsed_s=65.0, remaining_s=None,
)  # fmt: skip
FINALS = SEARCHING._replace(phase="finals", finals=(2, 9), remaining_s=95.0)
CLIMBING = SEARCHING._replace(
    begun=10_000, trials=10_000, trained=345, stopped=8990, failed=12, failures={"diverged": 9, "out of memory": 3},
    rungs=(RungProgress("1@16:0.5", 9335, 3), RungProgress("3@24", 1200, 1), RungProgress("9", 345, 0)),
    workers=(4, 4), remembered=57, remaining_s=3000.0, history=tuple(0.3 + 0.0025 * k for k in range(40)),
)  # fmt: skip


def stopped(rung: int):
    return next(r for r in HALVED if r.outcome == "stopped" and r.evaluations[-1].rung == rung)


# What is said of a valuation.


def test_lines_tell_each_valuation_once(capsys):
    lines = Lines()
    lines.update(SEARCHING, None)
    lines.update(SEARCHING, RECORDS[0])
    lines.update(FINALS, RECORDS[0])
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == ""
    assert first.startswith("[4/24] mobilevit-xxs: 1.27M params, ")
    assert "17 over budget, 2 repeated, best " in first
    assert second.startswith("[final 2/9] mobilevit-xxs")
    assert "about 2 min left" in second


def test_a_failed_candidate_says_why():
    failed = RECORDS[3].model_copy(
        update={"outcome": "failed", "top1_by_seed": {}, "error": "loss is nan in epoch 1", "failure": "diverged"}
    )
    assert ", failed (diverged): loss is nan in epoch 1 (" in line(SEARCHING, failed)


def test_a_candidate_at_a_lower_rung_says_how_far_it_came():
    record = stopped(0)
    top1, ms = record.evaluations[0].value, record.latency.ms
    words = valuation(CLIMBING, record)
    assert words.startswith(f"#{record.number}: ")
    assert words.endswith(f"M params, rung 1 of 3: top-1 {100 * top1:.1f} % after 1 epoch (predicted {ms:.2f} ms)")
    assert "rung 2 of 3: " in valuation(CLIMBING, stopped(1))
    assert " after 3 epochs (" in valuation(CLIMBING, stopped(1))
    assert all("failed" not in valuation(CLIMBING, r) for r in HALVED if r.outcome != "failed")
    assert all("None" not in valuation(CLIMBING, r) for r in HALVED)


def test_the_top_rung_tells_of_the_seed_that_was_trained_now():
    record = RECORDS[1]
    seeds = record.value_by_seed
    latest = Evaluated(seed=2, rung=2, epochs=9, value=seeds[2])
    trained = record.model_copy(update={"evaluations": (latest,)})
    said = valuation(CLIMBING._replace(phase="finals", finals=(1, 2)), trained)
    assert f"seed 2: top-1 {100 * seeds[2]:.1f} %, mean of 3 top-1 {100 * record.top1:.1f} % (predicted " in said
    assert "rung 3 of 3: top-1 " in valuation(CLIMBING, trained)


def test_what_was_remembered_or_broke_a_limit_says_so():
    latest = Evaluated(seed=0, value=RECORDS[0].value, remembered=True)
    assert valuation(SEARCHING, RECORDS[0].model_copy(update={"evaluations": (latest,)})).endswith(
        " ms, from an earlier run"
    )
    assert valuation(SEARCHING, RECORDS[0].model_copy(update={"within": False})).endswith(" ms, outside the limits")


@given(st.floats(0, 1e7))
def test_a_time_left_is_never_more_precise_than_an_estimate(seconds):
    words = about(seconds)
    if words == "a few seconds":
        assert seconds < 15
        return
    number, unit = re.fullmatch(r"about ([\d.]+) (s|min|h|days)", words).groups()
    said = float(number) * {"s": 1, "min": 60, "h": 3600, "days": 86400}[unit]
    assert abs(said - seconds) <= 0.5 * max(said, seconds)
    assert len(number.replace(".", "").rstrip("0")) <= 2 or unit == "days"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(8, 60))
def test_a_sparkline_goes_from_the_least_to_the_most(values, width):
    drawn = sparkline(values, width)
    assert len(drawn) == min(len(values), width)
    if len(values) <= width and len(set(values)) > 1:
        assert drawn[values.index(max(values))] == "█"
        assert drawn[values.index(min(values))] == "▁"


# The panel.


def shown(panel: Panel, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(panel, end="")
    return console.file.getvalue().removesuffix("\n").split("\n")


def climbing_panel(clock=lambda: 0.0) -> Panel:
    panel = Panel("6M-iphone12-halving", clock)
    for record in HALVED[:12]:
        panel.update(CLIMBING, record)
    return panel


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_panel_shows_all_of_it_in_a_usual_terminal(width):
    lines = shown(climbing_panel(), width, 24)
    text = "\n".join(lines)
    assert len(lines) <= 23
    assert all(cell_len(line) <= width for line in lines)
    for fact in (
        "searching (6M-iphone12-halving)", "1m05s, about 50 min left", "10000 of 10000 begun, 345 at full fidelity",
        "9 diverged, 3 out of memory", "1@16:0.5    9335          3", "9            345          0",
        "4 of 4 busy", "17 over a limit, 2 repeated, 57 trainings remembered", "▁▁", "██ (▁ 0.3000, █ 0.3975)",
        "rung 1 of 3: top-1 ",
    ):  # fmt: skip
        assert fact in text


@pytest.mark.parametrize("height", range(2, 24))
def test_a_low_terminal_keeps_what_matters_most(height):
    lines = shown(climbing_panel(), 80, height)
    assert len(lines) <= height - 1 or height == 2
    assert "searching" in lines[0]
    if height >= 6:
        assert "about 50 min left" in lines[1]
        assert "10000 of 10000" in lines[2]
        assert "params, " in lines[-1]


def test_the_panel_tells_of_finals_and_of_a_run_without_rungs():
    panel = Panel("demo", lambda: 0.0)
    panel.update(FINALS, RECORDS[0])
    text = "\n".join(shown(panel, 120, 24))
    assert "4 of 24 begun, 3 done, 1 failed" in text
    assert "2 of 9 trainings" in text
    assert "about 2 min left" in text
    assert "rungs" not in text


def test_the_panel_before_anything_is_trained():
    panel = Panel("demo", lambda: 0.0)
    assert shown(panel, 80, 24) == ["loading"]
    panel.update(SEARCHING._replace(best=None, trained=0, failed=0, failures={}, hypervolume=None, history=()), None)
    text = "\n".join(shown(panel, 80, 24))
    assert "4 of 24 begun\n" in text
    assert "time left: –" in text
    assert "best" not in text
    assert "hypervolume" not in text


def test_the_panels_clock_goes_on_while_a_training_says_nothing():
    now = [0.0]
    panel = Panel("demo", lambda: now[0])
    panel.update(FINALS, None)
    now[0] = 60.0
    assert "2m05s, about 40 s left" in "\n".join(shown(panel, 80, 24))


def test_a_notice_stays_above_until_there_is_progress_and_then_stands_among_the_latest():
    panel, above = Panel("demo", lambda: 0.0), []
    panel.above = above.append
    panel.notice("sampler random: few trials")
    panel.update(SEARCHING, None)
    panel.notice("a worker died (signal 9): its task is tried again")
    assert above == ["sampler random: few trials"]
    assert shown(panel, 80, 24)[-1] == "a worker died (signal 9): its task is tried again"
    panel.answer("stopping after the epochs that are under way")
    panel.update(SEARCHING, RECORDS[0])
    assert shown(panel, 80, 24)[0] == "stopping after the epochs that are under way"


def test_a_terminal_of_another_size_is_cleared_before_it_is_drawn_on():
    panel = climbing_panel()
    clear = "\x1b[2J\x1b[H"

    def drawn(width: int) -> str:
        console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
        console.print(panel)
        return console.file.getvalue()

    assert [clear in drawn(width) for width in (120, 120, 80, 80, 200)] == [False, False, True, False, True]


# The log.


def logged(path) -> list[str]:
    lines = (path / "run.log").read_text().splitlines()
    stamps, words = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", stamp) for stamp in stamps)
    return list(words)


@pytest.mark.parametrize("display", [Lines, Quiet, lambda: Panel("demo")])
def test_the_log_has_every_line_whatever_is_shown(tmp_path, capsys, display):
    folder = tmp_path / "run"
    watch = Watch(display(), folder, "begun: trials 24")
    watch.notice("loading")  # the folder is not there yet
    folder.mkdir()
    watch.update(SEARCHING, None)
    assert logged(folder) == ["begun: trials 24", "loading"]
    watch.update(SEARCHING, RECORDS[0])
    watch.notice("a worker died\n  twice")
    assert logged(folder)[2:] == [line(SEARCHING, RECORDS[0]), "a worker died twice"]
    watch.ended("ended")
    again = Watch(display(), folder, "carried on: trials 48")
    again.update(SEARCHING, None)
    again.ended("failed: no disk")
    assert logged(folder)[4:] == ["ended", "carried on: trials 48", "failed: no disk"]
    assert capsys.readouterr().out == ""


def test_quiet_shows_nothing_but_that_ctrl_c_was_heard(tmp_path, capsys):
    with watching(tmp_path, "begun", quiet=True) as watch:
        watch.update(SEARCHING, RECORDS[0])
        watch.notice("a worker died")
        assert capsys.readouterr() == ("", "")
        watch.answer("stopping")
    assert capsys.readouterr() == ("", "stopping\n")


def test_a_run_that_was_refused_leaves_no_line_in_the_log(tmp_path):
    (tmp_path / "run.log").write_text("")
    Watch(Quiet(), tmp_path, "begun").ended("failed: another run's folder")
    assert (tmp_path / "run.log").read_text() == ""


def test_half_a_line_that_a_kill_left_is_ended_first(tmp_path):
    (tmp_path / "run.log").write_text("2026-11-26T10:00:00+00:00 begun\n2026-11-26T10:00:0")
    log = RunLog(tmp_path, "carried on", print, lambda: "now")
    log.begin()
    log.close()
    assert (tmp_path / "run.log").read_text().endswith("\n2026-11-26T10:00:0\nnow carried on\n")


def test_a_log_that_cannot_be_opened_is_told_once_and_tried_again(tmp_path):
    (tmp_path / "run.log").mkdir()
    told = []
    log = RunLog(tmp_path, "begun", told.append, lambda: "now")
    log.write("one")
    log.write("two")
    assert len(told) == 1
    assert "run.log cannot be written (Is a directory): going on without it" in told[0]
    (tmp_path / "run.log").rmdir()
    log.write("three")
    log.close()
    assert (tmp_path / "run.log").read_text() == "now begun\nnow one\nnow two\nnow three\n"


def test_a_full_disk_tears_no_line(tmp_path):
    """The kernel's own limit on the size of a file stands in for a full disk: half a write, then none."""
    told = []
    log = RunLog(tmp_path, "begun", told.append, lambda: "now")
    log.begin()
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
        log.write("a line that is longer than that")
        log.write("another")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.write("space again")
    log.close()
    text = (tmp_path / "run.log").read_text()
    assert len(told) == 1
    for words in ("begun", "a line that is longer than that", "another", "space again"):
        assert f"\nnow {words}\n" in f"\n{text}"


def test_a_reader_of_stderr_that_has_gone_stops_nothing(tmp_path, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr("sys.stderr", stream)
    with watching(tmp_path, "begun", quiet=False) as watch:
        watch.update(SEARCHING, RECORDS[0])
        watch.answer("stopping")
    monkeypatch.undo()
    with pytest.raises(BrokenPipeError):
        stream.close()
    assert logged(tmp_path)[1:] == [line(SEARCHING, RECORDS[0]), "stopping"]


def test_a_real_terminal_gets_the_panel_and_is_left_clean(tmp_path, monkeypatch):
    ours, theirs = os.openpty()
    stream = os.fdopen(theirs, "w")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    seen: list[bytes] = []
    reader = threading.Thread(target=_read_until_closed, args=(ours, seen))
    reader.start()
    with watching(tmp_path / "demo", "begun", quiet=False) as watch:
        watch.notice("sampler random: few trials")
        watch.update(SEARCHING, RECORDS[0])
    monkeypatch.undo()
    stream.close()
    reader.join()
    os.close(ours)
    text = b"".join(seen).decode()
    assert "searching (demo)" in text
    assert "sampler random: few trials" in text
    assert "4 of 24 begun" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def _read_until_closed(descriptor: int, seen: list[bytes]) -> None:
    while True:
        try:
            seen.append(os.read(descriptor, 65536))
        except OSError:  # Linux says so when the last writer has gone
            return
