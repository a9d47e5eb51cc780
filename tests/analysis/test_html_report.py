import json
import os
import re
import shlex
import subprocess
import sys
from html import unescape
from itertools import pairwise

import pytest

from mvit_search.analysis import candidate_points, report_html, write_report
from mvit_search.analysis.run_facts import reproduce_command
from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError
from mvit_search.records import RunFolder
from mvit_search.search.settings import RunSettings
from tests.analysis.locks import held_lock
from tests.browser import needs_chromium, rendered, tags
from tests.run_fixtures import (
    THREE_OBJECTIVES,
    make_document,
    make_halving_document,
    make_halving_records,
    make_record,
    make_run,
    run_description,
)

HOSTILE = "</script><img src=x onerror=alert(1)>"


def html_of(folder):
    path = write_report(folder, folder.report_file)
    return path.read_text(encoding="utf-8")


def test_the_report_is_self_contained(demo_run):
    found = tags(html_of(demo_run))
    assert not [t for t in found if {"src", "href", "data", "action"} & t[1].keys()]
    assert not [t for t in found if t[0] in ("link", "iframe", "object", "embed", "base")]
    policies = [a["content"] for t, a in found if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policies
    assert "default-src 'none'" in policies[0]
    assert ("html", {"lang": "en"}) in found


def test_plotly_is_inlined_once(demo_run):
    html = html_of(demo_run)
    assert html.count("plotly.js v") == 1
    assert len(html) < 8_000_000


def test_the_report_holds_front_presets_architectures_and_words(demo_run):
    html = html_of(demo_run)
    document = demo_run.read_front()
    for row in document["front"]:
        assert row["ref"] in html
    for words in (
        "MobileViT-XS", "at most 6.00M parameters", "leave-one-out MAPE", "predicted", "proxy",
        "Limits of the numbers",
        "mvit-search run --budget 6000000 --target iphone12 --space mobilevit --data digits", "--time 300s", "seeds)",
    ):  # fmt: skip
        assert words in html, words


def test_table_headers_have_a_scope(demo_run):
    assert all("scope" in attributes for tag, attributes in tags(html_of(demo_run)) if tag == "th")


@pytest.mark.parametrize("count", [0, 1])
def test_a_front_of_none_or_one_point(tmp_path, count):
    records = [make_record(0, PRESETS["mobilevit-xxs"])][:count]
    html = html_of(make_run(tmp_path, records=records))
    assert "front-figure" in html
    assert ("no front yet" in html) == (count == 0)


def test_everything_from_files_is_escaped():
    record = make_record(0, PRESETS["mobilevit-xs"], name=HOSTILE, source=f"predicted: {HOSTILE}", target=HOSTILE)
    run = run_description(HOSTILE) | {"git_revision": HOSTILE}
    run["data"]["name"] = run["settings"]["data"] = HOSTILE
    document = make_document(HOSTILE, [record], target=HOSTILE, state=HOSTILE)
    html = report_html(run, document, candidate_points([record], HOSTILE))
    assert not [t for t in tags(html) if t[0] == "img"]
    assert HOSTILE not in html


def test_a_run_json_of_few_words_is_enough(demo_run):
    html = report_html({}, demo_run.read_front(), ())
    assert "What was run" in html


def test_what_cannot_be_read_or_written_is_an_input_error(demo_run, tmp_path):
    with pytest.raises(InputError, match=r"front\.json"):
        write_report(RunFolder(tmp_path), tmp_path / "r.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(demo_run, tmp_path / "file" / "r.html")


def test_neither_analysis_nor_report_loads_torch(demo_run):
    code = (
        "import sys; from pathlib import Path; from mvit_search.analysis import write_report\n"
        "assert 'plotly' not in sys.modules; from mvit_search.records import RunFolder\n"
        f"write_report(RunFolder(Path({str(demo_run.path)!r})), Path({str(demo_run.report_file)!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@needs_chromium
def test_a_browser_draws_the_report(demo_run, tmp_path):
    html_of(demo_run)
    dom = rendered(demo_run.report_file.as_uri(), tmp_path / "profile")
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dom)) == 2
    assert "MobileViT-XS</b>" in dom or "MobileViT-XS" in "".join(re.findall(r"<text[^>]*>.*?</text>", dom))
    assert dom.count('class="errorbar"') > 0
    # No button that would upload the figure.
    assert "Share" not in "".join(re.findall(r'data-title="([^"]*)"', dom))


ALL_SETTINGS = {
    "target": "http://127.0.0.1:8765", "budget": 6_000_000, "images": 100, "data_fraction": 0.5, "epochs": 3,
    "proxy_size": 32, "recipe": "mine.yaml", "prescreen": "synflow:4", "proxy": "zero-cost:zen", "stand_in": "iphone12",
    "objectives": ("top1", "latency_ms", "macs"), "max_macs": 10**9, "max_memory_bytes": 10**7, "finals": 4,
    "max_weight_bytes": 10**7, "max_latency_ms": 7.5, "min_top1": 0.5, "fidelity": "halving", "rungs": "1,3",
    "engine": "ray", "workers": 2, "ray_address": "127.0.0.1:6379", "storage": "sqlite:///x", "cache": False,
    "from_run": "a", "configs_from": "b", "replay_run": "c",
}  # fmt: skip


def test_the_command_to_reproduce_leaves_no_setting_out_and_has_only_flags_that_exist():
    settings = RunSettings(**ALL_SETTINGS).model_dump(mode="json")
    assert None not in settings.values(), "name every setting above"
    command = shlex.split(reproduce_command({"settings": settings}, "again"))
    flags = [word for word in command if word.startswith("--")]
    # The name is no setting; objectives are given one by one.
    assert len(flags) - len({"--name"}) - (3 - 1) == len(settings)
    assert command[command.index("--recipe") + 1] == "mine.yaml"
    assert command[command.index("--max-latency") + 1] == "7.5ms"
    assert [command[i + 1] for i, word in enumerate(command) if word == "--objective"] == ["top1", "latency_ms", "macs"]
    done = subprocess.run(
        [sys.executable, "-c", "from mvit_search.cli import main; main()", "run", "--help"],
        capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1"},
    )  # fmt: skip
    assert {*flags} <= {*re.findall(r"--[a-z0-9-]+", done.stdout)}, done.stderr


def test_the_command_to_reproduce_leaves_out_what_changes_nothing():
    settings = RunSettings(target="iphone12", budget=6_000_000).model_dump(mode="json")
    flags = {*re.findall(r"--[a-z0-9-]+", reproduce_command({"settings": settings}, "again"))}
    assert not flags & {"--objective", "--fidelity", "--eta", "--proxy", "--patience", "--no-cache"}
    assert {"--budget", "--seed", "--sampler", "--trials"} <= flags


def test_a_list_in_a_recipe_reads_as_one(tmp_path):
    for scales, words in (([], "scales none"), ([24, 32, 40], "scales 24 / 32 / 40")):
        folder = make_run(tmp_path / str(len(scales)))
        folder.write_run({**run_description(folder.name), "recipe": {"scales": scales}})
        assert words in html_of(folder)


def test_json_of_the_config_can_be_copied_out(demo_run):
    html = html_of(demo_run)
    block = re.search(r"<pre>(\{.*?\n\})</pre>", html, re.DOTALL)
    assert block
    assert "stages" in json.loads(block[1].replace("&quot;", '"'))


def commands(html):
    """Every command line that the page prints, as arguments."""
    return [shlex.split(unescape(line)) for line in re.findall(r"<pre>(mvit-search .*?)</pre>", html)]


@pytest.mark.parametrize("folder", ["results/demo", "rr/demo", "my results/demo"])
def test_the_printed_commands_find_the_run_wherever_it_is(demo_run, folder):
    document = demo_run.read_front() | {"directory": folder}
    again, export = commands(report_html(demo_run.read_run(), document, ()))
    assert export[:3] == ["mvit-search", "export", f"{folder}/best"]
    parent = folder.partition("/")[0]
    assert again[-2:] == ["--name", "demo-again"]
    named = dict(pairwise(again)).get("--results-dir")
    assert named == (None if parent == "results" else parent)


@pytest.mark.parametrize(("measured", "word"), [(True, "measured"), (False, "predicted")])
def test_no_latency_stands_without_the_way_it_is_known(demo_run, measured, word):
    document = demo_run.read_front() | {"latency_measured": measured}
    html = report_html(demo_run.read_run(), document, ())
    text = re.sub(r"<(script|style)>.*?</\1>|<script.*?</script>", "", html, flags=re.DOTALL)
    assert f'<th scope="col">Latency ({word})</th>' in text
    # The cells under that title name it there; everywhere else the word stands before the figure.
    outside = re.sub(r"<td>.*?</td>", "", text)
    bare = re.findall(rf"(?<!{word} )(?<![\d.])\d+\.\d+ ms", outside)
    assert not bare
    assert f"{word} " in outside


def test_an_extrapolated_latency_is_among_the_limits():
    source = "predicted: iphone12 calibration 2026-11, leave-one-out MAPE 8.2 % at 256 px; extrapolated to 64x64 px"
    record = make_record(0, PRESETS["mobilevit-xs"], source=source)
    assert "a size that the predictor never saw" in report_html({}, make_document("demo", [record]), ())
    assert "never saw" not in report_html({}, make_document("demo", [make_record(0, PRESETS["mobilevit-xs"])]), ())


def test_a_run_whose_process_is_dead_is_not_called_going(tmp_path):
    folder = make_run(tmp_path, state="running")
    html = html_of(folder)
    assert "still going" not in html
    assert "still running" not in html
    assert "was cut short; carry on with:" in html
    carry_on = ["mvit-search", "run", "--resume", "--results-dir", "results", "--name", "demo"]
    assert carry_on in commands(html)
    with held_lock(folder):
        assert "The run was still going when this was written." in html_of(folder)


def test_a_run_that_ended_by_an_error_says_so(tmp_path):
    html = html_of(make_run(tmp_path, state="failed"))
    assert "The run ended with an error; nothing finished is lost." in html
    assert "ended by an error" in html
    assert any("--resume" in command for command in commands(html))


def test_text_that_is_no_unicode_is_an_input_error(demo_run):
    demo_run.write_run(demo_run.read_run() | {"git_revision": "\ud800"})
    with pytest.raises(InputError, match="no Unicode"):
        write_report(demo_run, demo_run.report_file)


@pytest.fixture(scope="module", params=[("top1", "latency_ms"), THREE_OBJECTIVES], ids=["two", "three"])
def halving_run(request, tmp_path_factory):
    """A run with successive halving, and its report."""
    records = make_halving_records(objectives=request.param)
    document = make_halving_document("demo", records, request.param)
    folder = make_run(tmp_path_factory.mktemp("results"), records=records, document=document)
    return folder, records, html_of(folder)


def test_a_report_shows_what_was_stopped_under_titles_that_say_so(halving_run):
    _, records, html = halving_run
    stopped = [record for record in records if record.outcome == "stopped"]
    table = html.partition("<h2>Stopped at a lower rung</h2>")[2].partition("</section>")[0]
    assert "Top-1 where it stopped" in table
    for record in stopped:
        highest = record.evaluations[-1]
        assert f'<th scope="row">demo/{record.number}</th>' in table
        assert f"{highest.rung + 1} of 3 ({highest.epochs} epoch" in table
    # Nowhere else: neither among the architectures nor in the table of the front.
    before = html.partition("<h2>Front and presets</h2>")[2].partition("<h2>Stopped")[0]
    assert not any(f">demo/{record.number}<" in before for record in stopped)
    text = unescape(html)
    assert f"{len(stopped)} candidates were stopped at a lower rung. Their top-1 comes from a shorter training" in text
    assert "failures: 2 diverged" in text
    assert "successive halving over rungs of 1, 3, 9 epochs; about one of 3 candidates goes on" in text
    assert "at most 12.0 ms latency, at most 2.50G MACs, at least 50.0 % top-1" in text


def test_a_report_of_old_documents_says_nothing_of_rungs(demo_run):
    html = html_of(demo_run)
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    for words in ("rung", "halving", "Objectives", "Other limits", "failures:", "neighbour"):
        assert words not in body, words


def test_the_sentences_name_every_cost_that_was_optimised(halving_run):
    folder, _, html = halving_run
    lead = unescape(html.partition('<p class="lead">')[2].partition("</p>")[0])
    three = len(folder.read_front()["objectives"]) == 3
    assert ("latency and peak activation memory" in lead or "as cheap" in lead) == three


@needs_chromium
def test_a_browser_draws_rungs_and_colours_and_wraps_titles_where_it_is_narrow(halving_run, tmp_path):
    folder, _, html = halving_run
    narrow = tmp_path / "narrow.html"
    narrow.write_text(html.replace("</head>", "<style>main { width: 400px !important }</style></head>"))
    dom = rendered(narrow.as_uri(), tmp_path / "profile")
    assert "Stopped at a lower rung, value there" in dom
    assert ("colour: Peak activations (MiB)" in dom) == (len(folder.read_front()["objectives"]) == 3)
    title = re.findall(r'<text class="gtitle"[^>]*>(.*?)</text>', dom)[0]
    assert title.count('class="line"') > 1


def test_a_document_of_unknown_objectives_is_one_line(demo_run):
    for keys in (["top1"], ["top1", "speed"], ["latency_ms", "params"], ["top1", "macs", "macs"]):
        with pytest.raises(InputError, match=r"front document: objectives: .*must hold top1 and others of") as told:
            report_html({}, demo_run.read_front() | {"objectives": keys}, ())
        assert "\n" not in str(told.value)
