"""Every storage keeps the same contract: the journal, SQLite and, where one is installed, a real PostgreSQL."""

import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import psycopg
import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mvit_search.analysis.liveness import is_alive
from mvit_search.errors import ConflictError, InputError, WorkError
from mvit_search.records import RunFolder
from mvit_search.search.storage import Backing, hold_folder, open_backing
from mvit_search.search.storage.rdb import RdbBacking
from tests.search import postgres
from tests.search.storage_samples import DIRECTIONS, DISTRIBUTIONS, STUDY, trial

KINDS = ("journal", "sqlite", "postgresql")
ROOT = Path(__file__).parents[2]


class Place(NamedTuple):
    """Where a study is kept."""

    folder: Path
    url: str | None

    def open(self, study: str = STUDY, directions: tuple[StudyDirection, ...] = DIRECTIONS) -> Backing:
        return open_backing(self.folder, self.url, study, directions, DISTRIBUTIONS)

    def optuna(self) -> BaseStorage:
        """The same through Optuna's own storage."""
        if self.url is None:
            return JournalStorage(JournalFileBackend(str(self.journal)))
        return RDBStorage(self.url, engine_kwargs={"poolclass": sqlalchemy.NullPool})

    @property
    def journal(self) -> Path:
        return RunFolder(self.folder).study_file


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as running:
        yield running


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return make_place(request.param, tmp_path, request)


def make_place(kind: str, folder: Path, request: pytest.FixtureRequest) -> Place:
    if kind == "journal":
        return Place(folder, None)
    if kind == "sqlite":
        return Place(folder, f"sqlite:///{folder}/study.db")
    server: postgres.Server = request.getfixturevalue("server")
    return Place(folder, server.new_schema())


def write_some(backing: Backing, count: int = 4) -> None:
    """Trials in all the states, and records."""
    for number in range(count):
        backing.create_trial(trial(number, conditional=number % 5 == 4))
        with backing.transaction():
            backing.set_user_attrs({f"candidate:{number}": {"number": number, "top1": number / 7}})
            if number % 4 != 3:
                state = TrialState.FAIL if number % 4 == 2 else TrialState.COMPLETE
                backing.finish_trial(number, state, None if state == TrialState.FAIL else (0.1 * number, 3.0))


# Round trips


def test_what_is_written_is_loaded_and_what_optuna_loads(place: Place) -> None:
    with closing(place.open()) as backing:
        assert [len(part) for part in backing.load()] == [0, 0, 0]
        write_some(backing, 9)
        backing.create_trial(trial(9, TrialState.COMPLETE))
        backing.set_system_attr("study:system", [1, None])
    with closing(place.open()) as backing:
        loaded = backing.load()
    assert [each.number for each in loaded.trials] == list(range(10))
    for each in loaded.trials:
        expected = trial(each.number, conditional=each.number % 5 == 4 and each.number != 9)
        assert (each.params, each.user_attrs, each.system_attrs) == (
            expected.params, expected.user_attrs, expected.system_attrs,
        )  # fmt: skip
        assert all(each.distributions[name] is DISTRIBUTIONS[name] for name in each.params)
        assert abs((each.datetime_start - expected.datetime_start).total_seconds()) < 60  # type: ignore[operator]
    assert [each.state.name[0] for each in loaded.trials] == list("CCFRCCFRCC")
    assert loaded.trials[1].values == [0.1, 3.0]
    assert loaded.trials[9].values == [3.0, -9.0]
    assert dict(loaded.user_attrs) == {f"candidate:{n}": {"number": n, "top1": n / 7} for n in range(9)}
    assert dict(loaded.system_attrs) == {"study:system": [1, None]}
    with pytest.raises(KeyError):
        loaded.user_attrs.text("owner")
    study = optuna.load_study(study_name=STUDY, storage=place.optuna())
    assert study.get_trials() == loaded.trials
    assert {key: value for key, value in study.user_attrs.items() if key != "owner"} == dict(loaded.user_attrs)
    assert study.directions == list(DIRECTIONS)


def test_trials_of_equal_parameters_share_their_distributions(place: Place) -> None:
    with closing(place.open()) as backing:
        backing.load()
        write_some(backing, 6)
    with closing(place.open()) as backing:
        trials = backing.load().trials
    assert trials[0].distributions is trials[3].distributions
    assert trials[4].distributions is not trials[0].distributions


def test_five_hundred_trials_reopen_equal(place: Place) -> None:
    with closing(place.open()) as backing:
        backing.load()
        with backing.transaction():
            for number in range(500):
                backing.create_trial(trial(number, TrialState.COMPLETE))
                backing.set_user_attrs({f"candidate:{number}": {"number": number}})
    with closing(place.open()) as backing:
        first = backing.load()
        backing.create_trial(trial(500))
    with closing(place.open()) as backing:
        second = backing.load()
    assert len(first.trials) == 500
    assert second.trials[:500] == first.trials
    assert dict(second.user_attrs) == dict(first.user_attrs)
    assert second.trials[500].params == trial(500).params


@pytest.mark.parametrize("value", ["ä\u2028\U0001f600\x00\\\"'%s:key", "y" * 100_000, [], None, {"a": [1.5, "}}\n"]}])
def test_attributes_are_kept_as_they_are(place: Place, value: object) -> None:
    name = 'candidate:"ü":\\ %'
    with closing(place.open()) as backing:
        backing.load()
        backing.set_user_attrs({name: "before", "other": 1})
        backing.set_user_attrs({name: value})
    with closing(place.open()) as backing:
        found = backing.load().user_attrs
    assert found[name] == value
    assert json.loads(found.text(name)) == value
    assert found["other"] == 1
    assert "owner" not in found


@st.composite
def studies(draw: st.DrawFn) -> list[tuple[dict[str, BaseDistribution], dict[str, object], dict[str, Any]]]:
    """Trials of any parameters, their attributes with them."""
    names = st.text(min_size=1, max_size=5)
    values = st.recursive(st.none() | st.integers() | st.text() | st.floats(allow_nan=False),
                          lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                          max_leaves=5)  # fmt: skip
    kinds = st.one_of(
        st.lists(st.text(max_size=4), min_size=1, max_size=4, unique=True).map(CategoricalDistribution),
        st.tuples(st.integers(-5, 5), st.integers(0, 9)).map(lambda each: IntDistribution(each[0], sum(each))),
        st.floats(0.1, 5).map(lambda low: FloatDistribution(low, 9, log=True)),
    )
    space: dict[str, BaseDistribution] = draw(st.dictionaries(names, kinds, min_size=1, max_size=4))
    trials = []
    for _ in range(draw(st.integers(0, 4))):
        own = {name: space[name] for name in draw(st.sets(st.sampled_from(sorted(space))))}
        params = {name: draw(_value(distribution)) for name, distribution in own.items()}
        trials.append((own, params, draw(st.dictionaries(st.text(max_size=9), values, max_size=2))))
    return trials


def _value(distribution: BaseDistribution) -> st.SearchStrategy[object]:
    if isinstance(distribution, CategoricalDistribution):
        return st.sampled_from(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return st.integers(distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)
    return st.floats(distribution.low, distribution.high)


@settings(max_examples=25, deadline=None)
@given(content=studies())
def test_the_journal_reads_as_optuna_reads_it(
    content: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = Place(tmp_path_factory.mktemp("any"), None)
    with closing(place.open()) as backing:
        backing.load()
        for number, (distributions, params, attributes) in enumerate(content):
            one = trial(number)
            one.distributions, one.params, one.user_attrs = distributions, params, attributes
            backing.create_trial(one)
            backing.set_user_attrs(attributes)
    with closing(place.open()) as backing:
        loaded = backing.load()
    study = optuna.load_study(study_name=STUDY, storage=place.optuna())
    assert study.get_trials() == loaded.trials
    assert study.user_attrs == dict(loaded.user_attrs)
    assert [(t.distributions, t.params, t.user_attrs) for t in loaded.trials] == content


def test_what_optuna_wrote_itself_can_be_opened(place: Place) -> None:
    """A run of an older version, parameter by parameter, enqueued trials and all."""
    with closing(place.open()):
        pass
    study = optuna.load_study(study_name=STUDY, storage=place.optuna(), sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(4):
        if number == 2:
            study.enqueue_trial({"width": 24})
        asked = study.ask({name: DISTRIBUTIONS[name] for name in ("width", "kind", "ratio")})
        asked.set_user_attr("outcome", "trained")
        if number != 3:
            study.tell(asked, (1.0, 2.0))
    study.set_user_attr("pins", {"a": 1})
    study.enqueue_trial({"width": 32})
    with closing(place.open()) as backing:
        loaded = backing.load()
        backing.create_trial(trial(5))
    assert loaded.trials == study.get_trials()[:5]
    assert [each.state.name for each in loaded.trials] == ["COMPLETE"] * 3 + ["RUNNING", "WAITING"]
    assert loaded.user_attrs["pins"] == {"a": 1}
    assert study.get_trials()[5].params == trial(5).params


# One writer


def test_a_trial_of_another_writer_is_noticed_before_the_next(place: Place) -> None:
    with closing(place.open()) as backing:
        backing.load()
        write_some(backing, 2)
        optuna.load_study(study_name=STUDY, storage=place.optuna()).ask()
        with pytest.raises(ConflictError, match="another process"):
            backing.create_trial(trial(2))
    assert len(optuna.load_study(study_name=STUDY, storage=place.optuna()).get_trials()) == 3


def test_a_note_of_a_dashboard_is_no_conflict(place: Place) -> None:
    with closing(place.open()) as backing:
        backing.load()
        write_some(backing, 1)
        optuna.load_study(study_name=STUDY, storage=place.optuna()).set_user_attr("note", "look here")
        backing.create_trial(trial(1))
    with closing(place.open()) as backing:
        loaded = backing.load()
    assert len(loaded.trials) == 2
    assert loaded.user_attrs["note"] == "look here"


@pytest.mark.parametrize("number", [0, 2, 9])
def test_numbers_are_those_expected_or_nothing_is_written(place: Place, number: int) -> None:
    with closing(place.open()) as backing:
        backing.load()
        backing.create_trial(trial(0))
        with pytest.raises(ConflictError):
            backing.create_trial(trial(number))
        backing.create_trial(trial(1))


def test_a_trial_ends_once(place: Place) -> None:
    with closing(place.open()) as backing:
        backing.load()
        backing.create_trial(trial(0))
        backing.finish_trial(0, TrialState.COMPLETE, (1.0, 2.0))
        for number in (0, 1):
            with pytest.raises(ConflictError, match=f"no unfinished trial {number}"):
                backing.finish_trial(number, TrialState.FAIL, None)
    with closing(place.open()) as backing:
        assert backing.load().trials[0].values == [1.0, 2.0]


def test_a_transaction_that_raises_leaves_nothing(place: Place) -> None:
    with closing(place.open()) as backing:
        backing.load()
        with pytest.raises(ZeroDivisionError):
            create_and_raise(backing)
        with pytest.raises(ConflictError):
            finish_what_is_not_there(backing)
        with backing.transaction():
            backing.create_trial(trial(0))
            backing.finish_trial(0, TrialState.FAIL, None)
    with closing(place.open()) as backing:
        loaded = backing.load()
    assert [each.state for each in loaded.trials] == [TrialState.FAIL]
    assert "lost" not in loaded.user_attrs


def create_and_raise(backing: Backing) -> None:
    with backing.transaction():
        backing.create_trial(trial(0))
        backing.set_user_attrs({"lost": 1})
        raise ZeroDivisionError


def finish_what_is_not_there(backing: Backing) -> None:
    with backing.transaction():
        backing.set_user_attrs({"lost": 1})
        backing.finish_trial(0, TrialState.FAIL, None)


def test_other_objectives_are_refused(place: Place) -> None:
    with closing(place.open()):
        pass
    with pytest.raises(ConflictError, match="other objectives \\(maximize, minimize; now maximize\\)"):
        place.open(directions=DIRECTIONS[:1])


# Processes that die


@contextmanager
def writer(place: Place) -> Iterator[tuple["subprocess.Popen[str]", list[tuple[str, int]]]]:
    """A process that writes until it is killed, and what it has said it wrote."""
    arguments = [
        sys.executable,
        "-m",
        "tests.search.storage_writer",
        str(place.folder),
        *([place.url] if place.url else []),
    ]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    said: list[tuple[str, int]] = []
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.endswith("\n"):
                    word, number = line.split()
                    said.append((word, int(number)))

        listener = threading.Thread(target=listen)
        listener.start()
        yield process, said
    finally:
        process.kill()
        process.wait()
        listener.join()
        process.stdout.close()  # type: ignore[union-attr]


def test_a_killed_writer_loses_nothing_and_lets_go(place: Place) -> None:
    known = 0
    for least in (5, 6, 17) if place.url is None else (5,):
        with writer(place) as (process, said):
            while len(said) < least:
                assert process.poll() is None
                time.sleep(0.001)
            expected = rf"in use by another run \(process {process.pid} on host {socket.gethostname()}, for \d+ s\)"
            with pytest.raises(ConflictError, match=expected):
                hold_folder(place.folder)
            if place.url is not None:
                with pytest.raises(ConflictError, match=expected):
                    place.open()
            assert is_alive(RunFolder(place.folder))
            process.send_signal(signal.SIGKILL)
        assert not is_alive(RunFolder(place.folder))
        with hold_folder(place.folder), closing(open_patiently(place)) as backing:
            loaded = backing.load()
            check_after_kill(loaded.trials, set(loaded.user_attrs), said)
            assert len(loaded.trials) > known
            for each in loaded.trials:
                if each.state == TrialState.RUNNING:
                    backing.finish_trial(each.number, TrialState.FAIL, None)
            known = len(loaded.trials)


def check_after_kill(trials: list[FrozenTrial], names: set[str], said: list[tuple[str, int]]) -> None:
    assert {number for word, number in said if word == "created"} <= {each.number for each in trials}
    finished = {each.number for each in trials if each.state == TrialState.COMPLETE}
    assert {number for word, number in said if word == "finished"} <= finished
    assert {f"candidate:{number}" for number in finished} <= names
    for each in trials:
        assert each.params == trial(each.number).params


def open_patiently(place: Place) -> Backing:
    """A server takes a moment to notice that a client is gone."""
    for _ in range(100):
        try:
            return place.open()
        except ConflictError:
            time.sleep(0.05)
    return place.open()


def test_a_journal_cut_within_its_last_line_is_mended(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    with closing(place.open()) as backing:
        backing.load()
        write_some(backing, 3)
        middle = place.journal.stat().st_size
        backing.create_trial(trial(3))
        last = place.journal.stat().st_size
        backing.finish_trial(3, TrialState.COMPLETE, (1.0, 2.0))
    content = place.journal.read_bytes()
    for whole, end in [(middle, end) for end in range(middle, last, 9)] + [
        (last, end) for end in range(last, len(content))
    ]:
        place.journal.write_bytes(content[:end])
        Path(f"{place.journal}.lock").touch()
        with closing(place.open()) as backing:
            trials = backing.load().trials
        assert place.journal.read_bytes() == content[:whole]
        assert len(trials) == (4 if whole == last else 3)
        assert trials[-1].state == TrialState.RUNNING or whole == middle
    place.journal.write_bytes(content[: last - 1])
    with closing(place.open()) as backing:
        backing.load()
        backing.create_trial(trial(3))
    assert len(optuna.load_study(study_name=STUDY, storage=place.optuna()).get_trials()) == 4


def test_a_power_cut_within_a_transaction_leaves_its_first_lines(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    with closing(place.open()) as backing:
        backing.load()
        backing.create_trial(trial(0))
        start = place.journal.stat().st_size
        with backing.transaction():
            backing.set_user_attrs({"candidate:0": {}})
            backing.finish_trial(0, TrialState.COMPLETE, (1.0, 2.0))
    content = place.journal.read_bytes()
    found = set()
    for end in range(start, len(content) + 1):
        place.journal.write_bytes(content[:end])
        with closing(place.open()) as backing:
            loaded = backing.load()
            found.add(("candidate:0" in loaded.user_attrs, loaded.trials[0].state.name))
    assert found == {(False, "RUNNING"), (True, "RUNNING"), (True, "COMPLETE")}


def test_a_journal_whose_first_line_was_cut_begins_anew(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    place.open().close()
    content = place.journal.read_bytes()
    for end in (0, 1, len(content) - 1):
        place.journal.write_bytes(content[:end])
        with closing(place.open()) as backing:
            assert not backing.load().trials
        assert place.journal.read_bytes() == content


# What is full, away, or not ours


@contextmanager
def full_disk(free: int, folder: Path) -> Iterator[None]:
    """No file may grow by more than `free` bytes beyond the largest of the folder."""
    largest = max(file.stat().st_size for file in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_full_disk_leaves_what_was_finished(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = make_place(kind, tmp_path, request)
    with closing(place.open()) as backing:
        backing.load()
        write_some(backing, 3)
        with full_disk(700, tmp_path), pytest.raises(WorkError, match="finished"):
            backing.set_user_attrs({"big": "x" * 300_000})
        backing.create_trial(trial(3))
    with closing(place.open()) as backing:
        loaded = backing.load()
    assert len(loaded.trials) == 4
    assert "big" not in loaded.user_attrs
    assert len(optuna.load_study(study_name=STUDY, storage=place.optuna()).get_trials()) == 4


def test_a_database_that_comes_back_is_written_on(server: postgres.Server, tmp_path: Path) -> None:
    place = Place(tmp_path, server.new_schema())
    with closing(place.open()) as backing:
        backing.load()
        backing.create_trial(trial(0))
        server.stop()
        again = threading.Timer(0.3, server.start)
        again.start()
        with backing.transaction():
            backing.set_user_attrs({"candidate:0": {"number": 0}})
            backing.finish_trial(0, TrialState.COMPLETE, (1.0, 2.0))
            backing.create_trial(trial(1))
        again.join()
        # The lock went with the connection, and was taken again.
        with pytest.raises(ConflictError, match=f"process {os.getpid()} "):
            place.open()
    with closing(place.open()) as backing:
        loaded = backing.load()
    assert [each.state.name for each in loaded.trials] == ["COMPLETE", "RUNNING"]
    assert dict(loaded.user_attrs) == {"candidate:0": {"number": 0}}


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, server.new_schema())
    with closing(place.open()) as backing:
        backing.load()
        backing.create_trial(trial(0))
        commit = psycopg.Connection.commit
        left = [1]

        def commit_and_die(self: "psycopg.Connection[object]") -> None:
            commit(self)
            if left and left.pop():
                with server.connect() as other:
                    other.execute("SELECT pg_terminate_backend(%s)", (self.info.backend_pid,))
                raise psycopg.OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(psycopg.Connection, "commit", commit_and_die)
        with backing.transaction():
            backing.set_user_attrs({"candidate:0": {}})
            backing.finish_trial(0, TrialState.COMPLETE, (1.0, 2.0))
            backing.create_trial(trial(1))
            backing.create_trial(trial(2))
        assert not left
        backing.create_trial(trial(3))
    with closing(place.open()) as backing:
        assert len(backing.load().trials) == 4


def test_a_database_that_stays_away_is_given_up(server: postgres.Server, tmp_path: Path) -> None:
    url = server.new_schema()
    with closing(RdbBacking.open(url, STUDY, DIRECTIONS, DISTRIBUTIONS, patience_s=0.5)) as backing:
        backing.load()
        backing.create_trial(trial(0))
        server.stop()
        try:
            with pytest.raises(WorkError, match=r"finished until \d\d:\d\d:\d\d is in it") as error:
                backing.create_trial(trial(1))
        finally:
            server.start()
        assert_one_clean_line(str(error.value))
        backing.create_trial(trial(1))
    with closing(Place(tmp_path, url).open()) as backing:
        assert len(backing.load().trials) == 2


def test_a_run_that_lost_its_study_to_another_does_not_write(server: postgres.Server, tmp_path: Path) -> None:
    place = Place(tmp_path, server.new_schema())
    with closing(place.open()) as backing:
        backing.load()
        backing.create_trial(trial(0))
        with server.connect() as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'search' AND pid <> pg_backend_pid()"
            )
        with writer(place) as (_, said):
            while not said:
                time.sleep(0.01)
            with pytest.raises(ConflictError, match="in use by another run"):
                backing.set_user_attrs({"mine": 1})
        for _ in range(100):
            with pytest.raises(ConflictError) as error:
                backing.set_user_attrs({"mine": 1})
            if "in use" not in str(error.value):
                break
            time.sleep(0.05)
        assert "taken over" in str(error.value)


def test_studies_of_one_database_do_not_mix(place: Place, request: pytest.FixtureRequest) -> None:
    if place.url is None:
        pytest.skip("a journal is one study's")
    with closing(place.open("one")) as one, closing(place.open("two")) as two:
        one.load()
        two.load()
        write_some(one, 3)
        write_some(two, 2)
        one.create_trial(trial(3))
        two.create_trial(trial(2))
    with closing(place.open("two")) as two:
        loaded = two.load()
    assert [each.number for each in loaded.trials] == [0, 1, 2]
    assert set(loaded.user_attrs) == {"candidate:0", "candidate:1"}


def assert_one_clean_line(message: str) -> None:
    assert "\n" not in message
    assert "secret" not in message
    assert "Traceback" not in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no database URL"),
        ("study.db", "no database URL"),
        ("user:secret@host/db", "no database URL"),
        ("postgresql//user:secret@host", "no database URL"),
        ("postgresql://user:secret@host:many/db", "no database URL"),
        ("redis://user:secret@host/1", "unknown kind"),
        ("postgresql+nothing://user:secret@host/db", "unknown kind"),
        ("postgresql+psycopg_async://user:secret@host/db", "asynchronous"),
        ("postgresql+pg8000://user:secret@host/db", "needs the package pg8000.*pip install pg8000"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?uri=true", "write sqlite:///PATH"),
        ("sqlite:////nowhere/at/all/study.db", "cannot be used"),
        ("sqlite:////tmp", "cannot be used"),
        ("postgresql://user:secret@127.0.0.1:1/db?password=secret", "cannot be used.*refused"),
        ("postgresql://user:secret@host.invalid/db", "cannot be used"),
    ],
)
def test_urls_that_cannot_be_used(url: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as error:
        Place(tmp_path, url).open()
    assert error.value.field == "--storage"
    assert_one_clean_line(str(error.value))


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"needs the package psycopg.*pip install 'mvit-search\[postgres\]'"):
        Place(tmp_path, "postgres://user:secret@host/db").open()


def test_a_server_that_refuses(server: postgres.Server, tmp_path: Path) -> None:
    with server.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'secret'")
    guest = f"postgresql://guest:secret@127.0.0.1:{server.port}/{{}}"
    for url, words in (
        (server.url(password="wrong-secret"), "password authentication failed"),
        (server.url("no_such_database"), "does not exist"),
        (guest.format("postgres"), "permission denied"),
    ):
        with pytest.raises(InputError, match=words) as error:
            Place(tmp_path, url).open()
        assert_one_clean_line(str(error.value))


def test_a_silent_server_is_not_waited_for_long(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user:secret@127.0.0.1:{silent.getsockname()[1]}/db?connect_timeout=2"
        with pytest.raises(InputError, match=r"cannot be used.*timeout"):
            Place(tmp_path, url).open()


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ("CREATE TABLE trials (id INTEGER)", "another program's table 'trials'"),
        ("CREATE TABLE studies (study_id INTEGER, study_name TEXT)", "another program's table 'studies'"),
        ("CREATE TABLE alembic_version (version_num TEXT)", "another program's table 'alembic_version'"),
    ],
)
def test_another_programs_database_is_left_alone(statements: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(statements)
        connection.commit()
    with pytest.raises(InputError, match=words):
        Place(tmp_path, f"sqlite:///{file}").open()
    with closing(sqlite3.connect(file)) as connection:
        assert len(connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()) == 1


@pytest.mark.parametrize(("revision", "words"), [("v2.6.0.a", "upgrade"), ("v99", "no longer compatible")])
def test_tables_of_another_version_of_optuna(place: Place, revision: str, words: str) -> None:
    if place.url is None:
        pytest.skip("a journal has no tables")
    with closing(place.open()):
        pass
    storage = place.optuna()
    assert isinstance(storage, RDBStorage)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    storage.engine.dispose()
    with pytest.raises(InputError, match="another version of Optuna") as error:
        place.open()
    assert words in str(error.value)
    assert_one_clean_line(str(error.value))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_bytes(b"no database, but text " * 100)
    with pytest.raises(InputError, match="not a database"):
        Place(tmp_path, f"sqlite:///{file}").open()


@pytest.mark.parametrize(
    "content",
    [
        b"not JSON\n",
        b'{"op_code":99,"worker_id":"x"}\n',
        b'{"op_code":6,"worker_id":"x"}\n',
        b"[1]\n",
        b"\x00\xff\n",
        b"\n",
    ],
)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_damaged_journal_is_named(content: bytes, where: str, tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    with closing(place.open()) as backing:
        backing.load()
        write_some(backing, 2)
    lines = place.journal.read_bytes().splitlines(keepends=True)
    lines.insert({"first": 0, "middle": 2, "last": len(lines)}[where], content)
    place.journal.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match="cannot be read") as error:
        place.open()
    assert_one_clean_line(str(error.value))


def test_a_journal_of_something_else(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    optuna.create_study(study_name="other", storage=place.optuna(), directions=["maximize", "minimize"])
    with pytest.raises(InputError, match="holds the study 'other'"):
        place.open()
    optuna.create_study(study_name=STUDY, storage=place.optuna())
    with pytest.raises(InputError, match="more than one study"):
        place.open()


def test_a_journal_that_was_cut_meanwhile(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    with closing(place.open()) as backing:
        backing.load()
        write_some(backing, 2)
        os.truncate(place.journal, 10)
        with pytest.raises(ConflictError, match="changed by another process"):
            backing.create_trial(trial(2))


# Locks


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"4711\n", "process 4711\\)"),
        (b"", "unknown process"),
        (b"nonsense", "unknown process"),
        (b"\xff\xfe", "unknown process"),
        (b'{"pid": 4711}', "unknown process"),
        (b"true", "unknown process"),
    ],
)
def test_a_lock_of_an_older_version_or_of_nobody(content: bytes, words: str, tmp_path: Path) -> None:
    with hold_folder(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(ConflictError, match=words):
            hold_folder(tmp_path)
    hold_folder(tmp_path).close()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (12 * 60, "12 min"), (5 * 3600, "5 h"), (72 * 3600, "3 days"), (-50, "0 s")],
)
def test_the_refusal_names_owner_and_age(seconds: float, words: str, tmp_path: Path) -> None:
    with hold_folder(tmp_path):
        owner = {"pid": 4711, "host": "attic", "started": time.time() - seconds}
        (tmp_path / ".lock").write_text(json.dumps(owner))
        with pytest.raises(ConflictError, match=rf"in use by another run \(process 4711 on host attic, for {words}\)"):
            hold_folder(tmp_path)


def test_a_folder_is_held_until_it_is_let_go(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    assert not is_alive(folder)
    lock = hold_folder(folder.path)
    assert is_alive(folder)
    lock.close()
    lock.close()
    assert not is_alive(folder)
    with hold_folder(folder.path):
        assert is_alive(folder)
    assert not is_alive(folder)


def test_a_folder_that_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        hold_folder(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        hold_folder(tmp_path / "file" / "below")
