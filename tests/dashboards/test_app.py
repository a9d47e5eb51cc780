import importlib.util
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from mvit_search._files import bundled
from mvit_search.records import RunFolder
from tests.analysis.locks import held_lock
from tests.browser import needs_chromium, rendered
from tests.run_fixtures import THREE_OBJECTIVES, make_halving_document, make_halving_records, make_run

FOLDER = bundled("dashboards")


def load(name="mvit_search_dashboards"):
    """`dashboards/` under a name of its own, as the command loads it from a wheel."""
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.app")


@contextmanager
def serving(app):
    """`app` on a free port of 127.0.0.1."""
    server = make_server("127.0.0.1", 0, app.server, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def app(demo_run):
    return load().create_app(demo_run.path.parent)


def test_it_loads_under_any_name(demo_run):
    for name in ("mvit_search_dashboards", "another_name"):
        assert load(name).create_app(demo_run.path.parent)


def test_nothing_comes_from_another_host(app):
    page = app.server.test_client().get("/").get_data(as_text=True)
    assert "http://" not in page
    assert "https://" not in page
    assert "/assets/style.css" in page


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "[::1]:8050"])
def test_it_answers_to_this_machines_names(app, host):
    assert app.server.test_client().get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8050", "192.0.2.7", "127.0.0.1.evil.example"])
def test_it_answers_to_no_other_name(app, host):
    assert app.server.test_client().get("/", headers={"Host": host}).status_code == 403


def show(app, run, picked=None, shown=None):
    """What the page's main callback answers, by output."""
    key, spec = next((k, v) for k, v in app.callback_map.items() if "verdict.children" in k)
    outputs = [dict(zip(("id", "property"), part.rsplit(".", 1), strict=True)) for part in key.strip(".").split("...")]
    values = {"run": run, "picked": picked, "refresh": 0, "shown": shown}
    body = {
        "output": key, "outputs": outputs, "changedPropIds": ["run.value"],
        "inputs": [{**dependency, "value": values[dependency["id"]]} for dependency in spec["inputs"]],
        "state": [{**dependency, "value": values[dependency["id"]]} for dependency in spec["state"]],
    }  # fmt: skip
    response = app.server.test_client().post("/_dash-update-component", json=body)
    assert response.status_code == 200
    return response.get_json()["response"]


def test_a_finished_run_stops_the_timer_and_a_running_one_does_not(app, demo_run):
    going = make_run(demo_run.path.parent, "going", state="running")
    assert show(app, "demo")["refresh"]["disabled"] is True
    with held_lock(going):
        assert show(app, "going")["refresh"]["disabled"] is False


def test_a_run_whose_process_died_says_how_to_carry_on_and_stops_the_timer(app, demo_run):
    going = make_run(demo_run.path.parent, "going", state="running")
    with held_lock(going):
        before = show(app, "going")
    # Its files do not change when the process is killed.
    answer = show(app, "going", shown=before["shown"]["data"])
    assert answer["refresh"]["disabled"] is True
    said = json.dumps(answer)
    assert "was cut short; carry on with:" in said
    assert f"mvit-search run --resume --results-dir {demo_run.path.parent} --name going" in said
    assert "running" not in json.dumps(answer["state"])


def test_a_run_that_ended_by_an_error_says_so(app, demo_run):
    make_run(demo_run.path.parent, "broken", state="failed")
    answer = show(app, "broken")
    assert answer["refresh"]["disabled"] is True
    assert "ended by an error" in json.dumps(answer["state"])
    assert "--resume" in json.dumps(answer["verdict"])


def test_what_did_not_change_is_not_sent_again(app):
    shown = show(app, "demo")["shown"]["data"]
    assert show(app, "demo", shown=shown) == {}


def test_a_run_without_results_is_a_notice(app, demo_run):
    early = demo_run.path.parent / "early"
    early.mkdir()
    (early / "run.json").write_text("{}")
    with held_lock(RunFolder(early)):
        answer = show(app, "early")
    assert "no finished candidate yet" in json.dumps(answer)
    assert answer["refresh"]["disabled"] is False
    answer = show(app, "early")
    assert "--resume" in json.dumps(answer)
    assert answer["refresh"]["disabled"] is True


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("front.json", "{"),
        ("front.json", "[]"),
        ("front.json", '{"run": 5}'),
        ("front.json", '{"run": "demo", "front": [{"params": 1e400, "macs": 1}]}'),
        ("front.json", '{"run": "demo", "front": [{"params": -1, "macs": 1}]}'),
        ("front.json", '{"run": "demo", "hypervolume_reference": {"latency_ms": NaN}}'),
        ("front.json", "[" * 200_000),
        ("front.json", '{"run": "demo", "front": ' + "[" * 200_000),
        ("front.json", '{"run": "demo", "target": "\\ud800", "front": []}'),
        ("candidates.csv", "ref,name\ndemo/0,\n"),
        ("candidates.csv", "a;b;c\n1;2;3\n"),
        ("candidates.csv", "\x00\x01"),
        ("candidates.csv", '"' + "x" * 200_000),
        ("run.json", "[]"),
        ("run.json", "{"),
    ],
)
def test_a_broken_file_is_one_line_in_the_page(app, demo_run, file, text):
    (demo_run.path / file).write_text(text)
    check_notice(show(app, "demo"))


def test_half_a_candidates_file_is_one_line_in_the_page(app, demo_run):
    path = demo_run.path / "candidates.csv"
    whole = path.read_text()
    for share in (0.03, 0.3, 0.6, 0.999):
        path.write_text(whole[: int(share * len(whole))])
        check_notice(show(app, "demo"))


def check_notice(answer):
    """The page holds one line that is an error's message, and looks again."""
    (line,) = answer["verdict"]["children"]
    assert line["props"]["className"] == "notice"
    assert "\n" not in line["props"]["children"]
    assert answer["front-table"]["children"] == []
    assert answer["refresh"]["disabled"] is False


def test_a_run_json_of_foreign_values_is_no_error(app, demo_run):
    run = demo_run.read_run() | {"space": {"name": 5, "candidates": 10**400}, "data": [], "settings": None}
    demo_run.write_run(run)
    assert show(app, "demo")["front-table"]["children"]


def test_the_latency_of_a_pick_says_how_it_is_known(app, demo_run):
    ref = demo_run.read_front()["front"][0]["ref"]
    answer = show(app, "demo", picked=ref)
    assert "Latency (predicted)" in json.dumps(answer["candidate"])
    assert "Latency (predicted)" in json.dumps(answer["front-table"])


@pytest.fixture
def halving(demo_run):
    """A run of three objectives with successive halving, beside `demo`; its records."""
    records = make_halving_records(objectives=THREE_OBJECTIVES)
    document = make_halving_document("halving", records, THREE_OBJECTIVES)
    make_run(demo_run.path.parent, "halving", records=records, document=document)
    return records


def test_a_stopped_candidate_can_be_picked_and_says_which_rung_it_reached(app, halving):
    stopped = next(record for record in halving if record.outcome == "stopped")
    ref, highest = f"halving/{stopped.number}", stopped.evaluations[-1]
    answer = show(app, "halving", picked=ref)
    details, table = json.dumps(answer["candidate"]), json.dumps(answer["front-table"])
    rung = f"{highest.rung + 1} of 3 ({highest.epochs} epoch"
    for part in (details, table):
        assert "Top-1 where it stopped" in part
        assert f"{100 * highest.value:.1f} %" in part
        assert rung in part
    assert "Top-1 (proxy)" not in details
    # Folded up, unless what is picked is in there.
    folded = [part["props"]["open"] for part in answer["front-table"]["children"] if part["type"] == "Details"]
    assert folded == [True]
    assert show(app, "halving")["front-table"]["children"][-1]["props"]["open"] is False


def test_the_counts_name_what_was_stopped_and_why_others_failed(app, halving):
    counts = json.dumps(show(app, "halving")["state"])
    stopped = sum(record.outcome == "stopped" for record in halving)
    assert f"{stopped} stopped at a lower rung, 2 failed (2 diverged)" in counts


def test_a_third_objective_is_in_the_figure_and_the_sentences(app, halving):
    answer = show(app, "halving")
    names = [trace["name"] for trace in answer["front-figure"]["figure"]["data"]]
    assert "Pareto front, colour: Peak activations (MiB)" in names
    assert "peak activation memory" in json.dumps(answer["verdict"])
    assert "neighbours" in json.dumps(answer["front-table"])


@pytest.mark.parametrize("name", ["../results/demo", "/etc", "nothing", ""])
def test_only_listed_runs_are_read(app, name):
    assert "Choose a run" in json.dumps(show(app, name))


def test_a_pick_shows_stages_config_and_export_command(app, demo_run):
    ref = demo_run.read_front()["front"][0]["ref"]
    details = json.dumps(show(app, "demo", picked=ref)["candidate"])
    assert "stem_channels" in details
    assert f"mvit-search export {demo_run.path.parent / ref} --to corenet" in details


def test_the_dashboard_loads_no_torch(demo_run):
    code = (
        f"import sys; from pathlib import Path; sys.path.insert(0, {str(FOLDER.parent)!r})\n"
        "from dashboards.app import create_app\n"
        f"app = create_app(Path({str(demo_run.path.parent)!r}))\n"
        "assert app.server.test_client().get('/').status_code == 200\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@needs_chromium
def test_a_browser_shows_the_front_and_the_linked_candidate(app, demo_run, tmp_path):
    front = demo_run.read_front()["front"]
    number = front[-1]["ref"].rpartition("/")[2]
    with serving(app) as url:
        dom = rendered(f"{url}/?run=demo&candidate={number}", tmp_path / "profile")
    assert "js-plotly-plot" in dom
    for row in front:
        assert row["ref"] in dom
    assert "Config as JSON" in dom
    assert "mvit-search export" in dom


@needs_chromium
def test_a_click_on_a_row_picks_it(app, tmp_path):
    click = "<script>setTimeout(() => document.querySelector('button.pick').click(), 4000)</script></body>"
    app.index_string = app.index_string.replace("</body>", click)
    with serving(app) as url:
        dom = rendered(f"{url}/?run=demo", tmp_path / "profile", virtual_ms=10000)
    assert "Config as JSON" in dom


@needs_chromium
def test_a_click_on_a_mark_picks_it(app, demo_run, tmp_path):
    ref = demo_run.read_front()["front"][0]["ref"]
    point = f"{{curveNumber: 1, pointNumber: 0, pointIndex: 0, customdata: {ref!r}, data: figure.data[1], x: 1, y: 1}}"
    click = (
        "<script>setTimeout(() => { const figure = document.querySelector('.js-plotly-plot');"
        f" figure.emit('plotly_click', {{points: [{point}]}}); }}, 5000)</script></body>"
    )
    app.index_string = app.index_string.replace("</body>", click)
    with serving(app) as url:
        dom = rendered(f"{url}/?run=demo", tmp_path / "profile", virtual_ms=11000)
    assert "Config as JSON" in dom


@needs_chromium
def test_no_run_yet_says_how_to_start_one(tmp_path):
    empty = tmp_path / "results"
    empty.mkdir()
    with serving(load().create_app(empty)) as url:
        dom = rendered(url, tmp_path / "profile")
    assert "No run yet" in dom
    assert "mvit-search run" in dom


def test_the_front_page_is_found_without_registration():
    assert list(load().load_pages()) == ["/"]
    assert Path(FOLDER / "assets" / "style.css").is_file()
