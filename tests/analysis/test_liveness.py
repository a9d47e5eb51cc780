import pytest
from optuna.study import StudyDirection

from mvit_search.analysis import is_alive, read_front_now
from mvit_search.search.store import Store, StudyShape
from mvit_search.space import load_space
from tests.analysis.locks import held_lock
from tests.run_fixtures import make_document, make_run


def test_a_run_is_alive_for_as_long_as_its_lock_is_held(demo_run):
    assert not is_alive(demo_run)
    with held_lock(demo_run):
        assert is_alive(demo_run)
        assert is_alive(demo_run), "looking must not take the lock"
    assert (demo_run.path / ".lock").is_file()
    assert not is_alive(demo_run)


def test_the_lock_is_the_one_that_a_search_holds(demo_run):
    shape = StudyShape((StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE), load_space("mobilevit-mini").distributions())
    with Store.open(demo_run, shape):
        assert is_alive(demo_run)
    assert not is_alive(demo_run)
    with Store.open(demo_run, shape):
        pass


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_that_said_how_it_ended_is_believed(tmp_path, state):
    assert read_front_now(make_run(tmp_path, state=state))["state"] == state


def test_running_is_believed_only_of_a_live_process(tmp_path):
    folder = make_run(tmp_path, state="running")
    assert read_front_now(folder)["state"] == "cut short"
    with held_lock(folder):
        assert read_front_now(folder)["state"] == "running"


def test_a_run_that_ends_between_two_looks_is_finished(tmp_path, monkeypatch):
    folder = make_run(tmp_path, state="running")

    def ends_now(_):
        folder.write_results(make_document("demo", []), [])
        return False

    monkeypatch.setattr("mvit_search.analysis.liveness.is_alive", ends_now)
    assert read_front_now(folder)["state"] == "finished"
