import io

from rich.console import Console

from mvit_search.cli.watching import Lines, Panel
from mvit_search.search import Progress
from tests.run_fixtures import make_records

RECORDS = make_records(4)
SEARCHING = Progress(
    phase="search", trained=3, trials=24, failed=1, rejected=17, duplicates=2, finals=(0, 0), best=RECORDS[2],
    hypervolume=0.4321, elapsed_s=65.0, remaining_s=None,
)  # fmt: skip
FINALS = SEARCHING._replace(phase="finals", finals=(2, 9), remaining_s=95.0)


class FakeLive:
    """Mirrors `rich.live.Live.update`: keeps what would be drawn, as text."""

    def __init__(self):
        self.text = ""

    def update(self, renderable):
        console = Console(file=io.StringIO(), width=140)
        console.print(renderable)
        self.text = console.file.getvalue()


def test_lines_tell_each_candidate_once(capsys):
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
    assert "about 1m35s left" in second


def test_a_failed_candidate_says_why(capsys):
    failed = RECORDS[3].model_copy(update={"outcome": "failed", "top1_by_seed": {}, "error": "loss is nan in epoch 1"})
    Lines().update(SEARCHING, failed)
    assert "#3: " in (line := capsys.readouterr().err)
    assert "failed: loss is nan in epoch 1" in line


def test_the_panel_shows_counters_and_the_latest_candidates():
    live = FakeLive()
    panel = Panel(live)
    for _ in range(12):
        panel.update(SEARCHING, RECORDS[0])
    panel.update(FINALS, None)
    for text in ("3 of 24 (1 failed)", "17", "2 of 9", "0.4321", "1m05s", "about 1m35s", "% at"):
        assert text in live.text
    assert live.text.count("mobilevit-xxs") == 8


def test_the_panel_before_anything_is_trained():
    live = FakeLive()
    Panel(live).update(SEARCHING._replace(best=None, trained=0, failed=0), None)
    assert "0 of 24" in live.text
