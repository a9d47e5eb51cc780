"""From settings to a finished run folder."""

import time
from typing import Any

from mvit_search.records import RunFolder
from mvit_search.search.driver import SEARCH_SHARE, Search
from mvit_search.search.evaluator import Evaluator, InProcessEvaluator, ZeroCostEvaluator
from mvit_search.search.plan import Plan, prepare
from mvit_search.search.progress import Observer, Silent
from mvit_search.search.settings import RunSettings
from mvit_search.search.store import Store
from mvit_search.search.waiting import Patience, PatientTarget, StandIn


def _describe(folder: RunFolder, plan: Plan) -> None:
    """Write `run.json`: how the run was begun stays; what it may be carried on with, and on what, is added."""
    description = plan.describe(folder.name)
    if folder.exists():
        first = folder.read_run()
        changed = {key: max(first["settings"][key], description["settings"][key]) for key in ("trials", "time_s")}
        parts = ("versions", "machine", "git_revision")
        session = {"settings": changed, **{part: description[part] for part in parts}}
        description = {
            **first,
            "settings": {**first["settings"], **changed},
            "carried_on": [*first.get("carried_on", []), session],
        }
    folder.write_run(description)


def run_search(
    settings: RunSettings,
    folder: RunFolder,
    *,
    observer: Observer | None = None,
    evaluator: Evaluator | None = None,
) -> dict[str, Any]:
    """Run, or carry on, the search in `folder`; returns the front document.

    Raises:
        InputError: for bad settings, or a folder that belongs to another run.
        WorkError: if not one candidate could be trained.
        KeyboardInterrupt: after everything finished so far is written.
    """
    plan = prepare(settings)
    with Store.open(folder) as store:
        store.pin(plan.pins())
        _describe(folder, plan)
        watcher = observer or Silent()
        for skipped in plan.data.skipped if plan.data else ():
            watcher.notice(f"skipped: {skipped}")
        if plan.data and plan.data.not_cached:
            watcher.notice(f"images are held in memory, not cached: {plan.data.not_cached}")
        screener = _scorer(plan, plan.prescreen.name) if plan.prescreen else None
        search = Search(
            _patient(plan, watcher), store, folder, evaluator or _evaluator(plan), watcher, screener=screener
        )
        return search.run()


def _evaluator(plan: Plan) -> Evaluator:
    """What values candidates as the plan's proxy says."""
    if plan.replay is not None:
        return plan.replay
    if plan.proxy.scores:
        return _scorer(plan, plan.proxy.argument)
    assert plan.data is not None
    assert plan.recipe is not None
    return InProcessEvaluator(
        plan.data, plan.recipe, relative_size=plan.space.relative_size, device=plan.settings.device,
        threads=plan.settings.threads,
    )  # fmt: skip


def _scorer(plan: Plan, name: str) -> ZeroCostEvaluator:
    assert plan.data is not None
    return ZeroCostEvaluator(
        name, plan.data, relative_size=plan.space.relative_size, device=plan.settings.device,
        threads=plan.settings.threads,
    )  # fmt: skip


def _patient(plan: Plan, observer: Observer) -> Plan:
    """The plan with a target that is waited for as long as the search may last."""
    settings = plan.settings
    stand_in = None if plan.stand_in is None else StandIn(plan.stand_in)
    patience = Patience(time.monotonic() + SEARCH_SHARE * settings.time_s, stand_in, settings.patience_s)
    return plan._replace(target=PatientTarget(plan.target, patience, observer.notice))
