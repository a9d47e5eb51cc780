"""A run whose measurement server dies: it waits and says so, ends in time, or goes on with marked predictions."""

import json
import re
from dataclasses import dataclass, field

import pytest

from mvit_search.analysis import candidate_points, front_table, read_document, report_html, verdict
from mvit_search.analysis.figure_data import front_figure_data
from mvit_search.analysis.run_facts import reproduce_command
from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError, TargetUnavailable, WorkError
from mvit_search.latency import Latency, load_target
from mvit_search.latency.remote.client import ServerClient
from mvit_search.latency.remote.target import RemoteTarget
from mvit_search.records import RunFolder
from mvit_search.search import Brake, RunSettings, Search, Silent, Store
from mvit_search.search.engines import InProcess
from mvit_search.search.plan import _stand_in
from mvit_search.search.run import _patient
from mvit_search.search.waiting import Patience, PatientTarget, StandIn
from tests.latency.measurement_server import TOKEN, serving
from tests.search.fakes import FormulaEvaluator, make_plan

XXS, XS, S = (PRESETS[f"mobilevit-{size}"] for size in ("xxs", "xs", "s"))
GONE = TargetUnavailable("http://phone:1: connection refused")


class Clock:
    """Time passes only where somebody sleeps."""

    def __init__(self):
        self.now, self.pauses = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@dataclass
class Flaky:
    """A target that answers each call as the list says: an error to raise, or milliseconds."""

    answers: list
    name: str = "http://phone:1"
    measured: bool = True
    calibration: str = "one"

    def latency(self, config, num_classes=1000):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return Latency(answer, answer, answer, "measured: a phone", self.name, "by hand")


@dataclass
class Watching(Silent):
    """Keeps what it is told, and does something about it."""

    act: object = lambda said: None
    said: list[str] = field(default_factory=list)

    def notice(self, words):
        self.said.append(words)
        self.act(self.said)


def patient(answers, **patience):
    clock, watching = Clock(), Watching()
    wanted = Patience(**{"deadline": 1000.0, **patience})
    return PatientTarget(Flaky(answers), wanted, watching.notice, clock, clock.sleep), clock, watching.said


def test_it_waits_longer_each_time_and_says_so():
    target, clock, said = patient([GONE] * 8 + [5.0])
    assert target.latency(XXS).ms == 5.0
    assert clock.pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert said[0] == "waiting for the measurement server http://phone:1 (1 try, last error: connection refused)"
    assert said[7].startswith("waiting for the measurement server http://phone:1 (8 tries, ")
    assert said[8] == "the measurement server http://phone:1 is back after 2m01s"
    assert (target.name, target.measured, target.calibration) == ("http://phone:1", True, "one")


def test_it_waits_as_long_as_the_server_asks():
    target, clock, _ = patient([TargetUnavailable("busy", retry_after_s=45), 5.0])
    target.latency(XXS)
    assert clock.pauses == [45]


def test_it_waits_no_longer_than_there_is_time():
    target, clock, _ = patient([GONE], deadline=100)
    with pytest.raises(TargetUnavailable, match=r"time is up while waiting .* connection refused"):
        target.latency(XXS)
    assert clock.now == 100


def test_other_failures_are_not_waited_for():
    for error in (WorkError("out of memory"), InputError("token", None, "is wrong")):
        target, clock, _ = patient([error])
        with pytest.raises(type(error)):
            target.latency(XXS)
        assert clock.pauses == []


def test_after_its_patience_a_prediction_stands_in_until_the_server_is_back():
    predictor = load_target("iphone12")
    target, clock, said = patient([50.0, 80.0] + [GONE] * 8 + [60.0], stand_in=StandIn(predictor), seconds=60.0)
    measured = [target.latency(config) for config in (XXS, XS)]
    ratios = [latency.ms / predictor.latency(config).ms for latency, config in zip(measured, (XXS, XS), strict=True)]
    third = target.latency(S)
    assert clock.now == 61
    assert said[-1].endswith("does not answer (connection refused): predicted instead")
    assert third.ms == pytest.approx(predictor.latency(S).ms * sum(ratios) / 2)
    assert third.low_ms == pytest.approx(predictor.latency(S).low_ms * min(ratios))
    assert third.high_ms == pytest.approx(predictor.latency(S).high_ms * max(ratios))
    assert re.match(
        r"predicted: stands in for http://phone:1, which did not answer, iphone12's .* over 2 ", third.source
    )
    # From now on one try is enough.
    assert target.latency(S).source.startswith("predicted:")
    assert clock.now == 61
    assert target.latency(S).source == "measured: a phone"
    assert said[-1] == "the measurement server http://phone:1 is back"


def test_without_any_measurement_there_is_no_scale_to_predict_on():
    target, clock, _ = patient([GONE], deadline=500, stand_in=StandIn(load_target("iphone12")), seconds=60.0)
    with pytest.raises(TargetUnavailable):
        target.latency(XXS)
    assert clock.now == 500


# Whole runs against a real server.


class Stopping(FormulaEvaluator):
    """Stops the server when it has trained so many candidates."""

    def __init__(self, server, after):
        super().__init__()
        self.server, self.after = server, after

    def evaluate(self, task):
        evaluation = super().evaluate(task)
        if len(self.done) == self.after:
            self.server.stop()
        return evaluation


def search(
    path, server, evaluator=None, watching=None, stand_in=None, time_s=1e9, seconds=60.0, space="mobilevit-mini"
):
    """A run whose target is the server; pauses pass at once, on a clock that counts them."""
    clock = Clock()
    plan = make_plan(space=space, trials=8, final_seeds=2, budget=3_000_000, time_s=time_s, seed=3)
    client = ServerClient(server.url, TOKEN, sleep=lambda seconds: None)
    remote = RemoteTarget.connect(client, lambda name: server.runtime)
    patience = Patience(2 / 3 * time_s, None if stand_in is None else StandIn(load_target(stand_in)), seconds)
    watching = watching or Watching()
    plan = plan._replace(target=PatientTarget(remote, patience, watching.notice, clock, clock.sleep))
    folder = RunFolder(path)
    with Store.open(folder, plan.shape, pins=plan.pins()) as store:
        folder.write_run(plan.describe(folder.name))
        engine = InProcess(evaluator or FormulaEvaluator())
        return Search(plan, store, folder, engine, watching, brake=Brake(clock)).run()


def facts(document):
    return [(row["digest"], row["latency_ms"], row["top1_by_seed"]) for row in document["front"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The front of a run whose server was there all the time."""
    with serving() as server:
        return facts(search(tmp_path_factory.mktemp("results") / "whole", server))


def test_a_server_that_dies_and_comes_back_changes_nothing(tmp_path, whole):
    with serving() as server:
        watching = Watching(lambda said: server.start() if len(said) == 3 else None)
        document = search(tmp_path / "run", server, Stopping(server, 5), watching)
    assert (document["state"], document["ended_by"], document["latency_measured"]) == ("finished", "trials", True)
    assert facts(document) == whole
    assert document["failed"] == 0
    assert len([words for words in watching.said if words.startswith("waiting")]) == 3
    assert watching.said[-1].startswith(f"the measurement server {server.url} is back")


def test_a_server_that_stays_away_ends_the_run_in_time_and_it_can_be_carried_on(tmp_path, whole):
    with serving() as server:
        document = search(tmp_path / "run", server, Stopping(server, 5), time_s=600)
        assert (document["state"], document["ended_by"]) == ("finished", "target unavailable")
        assert document["trained"] == 5
        # The finals need no latency and have had their third of the time.
        assert all(len(row["top1_by_seed"]) == 2 for row in document["front"])
        server.start()
        again = search(tmp_path / "run", server)
        assert (again["ended_by"], again["trained"]) == ("trials", 8)
        assert facts(again) == whole


def test_a_server_that_dies_before_anything_is_trained_fails_the_run(tmp_path):
    with serving() as server:
        watching = Watching()
        client = ServerClient(server.url, TOKEN, sleep=lambda seconds: None)
        remote = RemoteTarget.connect(client, lambda name: server.runtime)
        server.stop()
        target = PatientTarget(remote, Patience(50.0), watching.notice, (clock := Clock()), clock.sleep)
        plan = make_plan()._replace(target=target)
        folder, engine = RunFolder(tmp_path / "run"), InProcess(FormulaEvaluator())
        with Store.open(folder, plan.shape) as store, pytest.raises(WorkError, match="time is up"):
            Search(plan, store, folder, engine, watching, brake=Brake(clock)).run()


def test_ctrl_c_stops_the_waiting(tmp_path):
    def interrupt(said):
        raise KeyboardInterrupt

    with serving() as server:
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "run", server, Stopping(server, 4), Watching(interrupt))
        assert RunFolder(tmp_path / "run").read_front()["state"] == "stopped"
        assert RunFolder(tmp_path / "run").read_front()["trained"] == 4


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A run that went on with predictions from its fourth candidate on."""
    path = tmp_path_factory.mktemp("results") / "mixed"
    with serving() as server:
        document = search(path, server, Stopping(server, 3), stand_in="iphone12", space="mobilevit")
    return RunFolder(path), document


def test_predictions_that_stand_in_are_marked_wherever_they_are_shown(mixed):
    folder, document = mixed
    assert json.loads((folder.path / "front.json").read_text()) == document
    records = folder.records()
    assert [record.latency.how for record in records] == ["measured"] * 3 + ["predicted"] * 5
    assert all("stands in for http://127.0.0.1:" in record.latency.source for record in records[3:])
    assert (document["trained"], document["ended_by"], document["latency_measured"]) == (8, "trials", None)
    table = front_table(document)
    assert table.columns[4] == "Latency (predicted and measured)"
    for row, cells in zip(document["front"], table.rows, strict=True):
        assert cells[4].endswith(f", {row['latency_source'].partition(':')[0]}")
    predicted = [row["ref"] for row in document["front"] if row["latency_source"].startswith("predicted")]
    assert predicted
    said = verdict(document)
    assert f"{len(predicted)} of {len(document['front'])} front points ha" in said
    assert all(ref in said for ref in predicted)
    figure = front_figure_data(read_document(document), candidate_points(records, "mixed"))
    assert figure.cost_axis.endswith(", predicted and measured (ms)")
    html = report_html(folder.read_run(), document, ())
    assert "Some latencies were measured and some predicted; each row says which" in html


def test_a_mixed_runs_sentences_name_each_latency_rightly(mixed):
    _, document = mixed
    hows = {row["ref"]: row["latency_source"].partition(":")[0] for row in (*document["front"], *document["baselines"])}
    said = verdict(document)
    for ref, how in re.findall(r"\((mixed/\d+), (\w+) [\d.]+ ms\)", said):
        assert hows[ref] == how
    assert "predicted and measured latency" not in said


def test_the_settings_name_a_predictor_to_stand_in_for_what_is_measured():
    def chosen(target, stand_in):
        return _stand_in(RunSettings(target="x", budget=1, stand_in=stand_in), target)

    phone = Flaky([1.0])
    assert chosen(phone, None) is None
    assert chosen(phone, "iphone12").name == "iphone12"
    with pytest.raises(InputError, match="predicted anyway"):
        chosen(load_target("iphone12"), "iphone12")
    with pytest.raises(InputError, match="is not predicted"):
        chosen(phone, "cpu-torch")


def test_every_run_is_patient_within_its_time():
    plan = make_plan(time_s=300, patience_s=20.0)._replace(stand_in=load_target("iphone12"))
    target = _patient(plan, Silent(), Brake()).target
    assert target.name == "iphone12"
    assert target.latency(XXS) == load_target("iphone12").latency(XXS)
    assert target._patience.seconds == 20.0


def test_the_command_to_reproduce_names_the_stand_in():
    settings = {"target": "http://phone:1", "stand_in": None, "patience_s": 300.0}
    assert "--patience" not in reproduce_command({"settings": settings}, "again")
    command = reproduce_command({"settings": {**settings, "stand_in": "iphone12"}}, "again")
    assert "--stand-in iphone12 --patience 300s" in command
