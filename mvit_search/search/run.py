"""From settings to a finished run folder."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mvit_search.errors import ConflictError, InputError, WorkError
from mvit_search.records import RunFolder, find_run
from mvit_search.search.brake import Brake
from mvit_search.search.driver import SEARCH_SHARE, Search
from mvit_search.search.earlier import Earlier, load_earlier
from mvit_search.search.engines import Engine, EngineSettings, EvaluatorFactory, InProcess, open_engine
from mvit_search.search.factories import ScorerFactory, TrainerFactory
from mvit_search.search.following import Script
from mvit_search.search.known import KeyMaker, KnownEvaluations
from mvit_search.search.memory import Memory, NoMemory, Recall
from mvit_search.search.plan import Plan, prepare
from mvit_search.search.progress import Observer, Silent
from mvit_search.search.samplers import AUTO, Choice
from mvit_search.search.settings import RunSettings
from mvit_search.search.storage import without_password
from mvit_search.search.store import Store
from mvit_search.search.task import Evaluator
from mvit_search.search.waiting import Patience, PatientTarget, StandIn


def run_search(
    settings: RunSettings,
    folder: RunFolder,
    *,
    observer: Observer | None = None,
    evaluator: Evaluator | None = None,
    brake: Brake | None = None,
) -> dict[str, Any]:
    """Run, or carry on, the search in `folder`; returns the front document.

    Args:
        evaluator: values candidates in this process, in place of what the settings say.
        brake: ends the run early without loss, once it is pressed.

    Raises:
        InputError: for bad settings, or a folder that belongs to another run.
        WorkError: if not one candidate could be trained, or a file cannot be written.
        KeyboardInterrupt: after everything finished so far is written.
    """
    plan = prepare(settings)
    script = _script(settings, folder, plan)
    watcher, brake = observer or Silent(), brake or Brake()
    fresh = not folder.path.exists()
    try:
        _require_own_study(folder, settings)
        with Store.open(folder, plan.shape, settings.storage) as store:
            _require_own_study(folder, settings, store)
            plan = _as_begun(plan, store)
            store.compare(plan.pins())
            earlier = _earlier(plan, folder, store)
            engine = _engine(plan, folder, evaluator, watcher, brake)
            try:
                store.pin(plan.pins())  # only now: what is refused before leaves nothing in a database
                describe(folder, plan)
                fresh = False
                for words in _notices(plan):
                    watcher.notice(words)
                # What somebody else values is no training of this recipe, and must not be kept as one.
                memory = NoMemory() if evaluator is not None else _memory(plan, earlier, watcher.notice)
                screener = _scorer(plan, plan.prescreen.name)() if plan.prescreen else None
                patient = _patient(plan, watcher, brake)
                search = Search(
                    patient, store, folder, engine, watcher, brake=brake, screener=screener, memory=memory,
                    earlier=earlier.configs, script=script,
                )  # fmt: skip
                document = search.run()
                return document if script is None else {**document, "replay": _compared(script, settings, search)}
            finally:
                engine.close()
    except BaseException as error:
        # Refused before it began: a folder with a lock in it would look like a run. Not another's that was just begun.
        if fresh and not isinstance(error, ConflictError):
            shutil.rmtree(folder.path, ignore_errors=True)
        if isinstance(error, OSError):
            what = f"{error.filename or folder.path}: {error.strerror or error}"
            advice = "nothing finished is lost; once that is mended the same command carries on"
            raise WorkError(f"{what}; {advice}") from error
        raise


def _as_begun(plan: Plan, store: Store) -> Plan:
    """With the sampler that `auto` came to when the run began: more trials might make it another one."""
    known = store.remembered("pins")
    if plan.settings.sampler != AUTO or known is None or known.get("sampler") == plan.sampler.name:
        return plan
    return plan._replace(sampler=Choice(known["sampler"], "as the run was begun"))


def _script(settings: RunSettings, folder: RunFolder, plan: Plan) -> Script | None:
    """The events of the run that is replayed.

    Raises:
        InputError: there is none, or it was made with what cannot be had here; says what differs.
    """
    if settings.replay_run is None:
        return None
    older = find_run(settings.replay_run, folder.path.parent)
    if older.path.resolve() == folder.path.resolve():
        raise InputError("--replay", settings.replay_run, "is the run that would be written", "give another --name")
    pins, own = older.read_run().get("pins", {}), plan.pins()
    for key, value in own.items():
        if pins.get(key) != value:
            rule = f"was made with another {key} ({pins.get(key)}, not {value})"
            raise InputError("--replay", settings.replay_run, rule, "it cannot be repeated as it was")
    return Script.of(older)


def _require_own_study(folder: RunFolder, settings: RunSettings, store: Store | None = None) -> None:
    """A folder's results are those of one study: they must not be overwritten with those of one kept elsewhere.

    Without a `store` as far as that shows before a study is opened, or begun.

    Raises:
        ConflictError: the folder holds a run, and it is not that of the storage.
    """
    if not folder.exists() or (store is not None and store.remembered("pins") is not None):
        return
    was, now = folder.read_run().get("settings", {}).get("storage"), settings.storage
    if (was is None and now is None) or (store is None and now is not None):
        return  # of the folder's own file, which somebody may have removed to begin anew; or to be seen once it is open
    where = "a file in the folder" if was is None else was
    here = "" if now is None else f", and {without_password(now)} has none of it"
    rule = f"belongs to a run whose study is kept in {where}{here}"
    advice = "the --storage it was started with" if was else "leave --storage out"
    raise ConflictError("results folder", None, rule, f"give another --name, or {advice}")


def _compared(script: Script, settings: RunSettings, search: Search) -> dict[str, Any]:
    same, steps = script.compare(search.book.records)
    return {"of": settings.replay_run, "valuations": steps, "same": same}


def describe(folder: RunFolder, plan: Plan) -> None:
    """Write `run.json`: how the run was begun stays; what it may be carried on with, and on what, is added."""
    description = plan.describe(folder.name)
    if folder.exists():
        first = folder.read_run()
        changed = {key: max(first["settings"][key], description["settings"][key]) for key in ("trials", "time_s")}
        where = {key: description["settings"][key] for key in ("engine", "workers")}
        parts = ("versions", "machine", "git_revision")
        session = {"settings": {**changed, **where}, **{part: description[part] for part in parts}}
        description = {
            **first,
            "settings": {**first["settings"], **changed},
            "carried_on": [*first.get("carried_on", []), session],
        }
    folder.write_run(description)


def _notices(plan: Plan) -> list[str]:
    """What a user should know before the first candidate."""
    data = plan.data
    words = [f"skipped: {skipped}" for skipped in (data.skipped if data else ())]
    if data and data.not_cached:
        words.append(f"images are held in memory, not cached: {data.not_cached}")
    if plan.sampler.why:
        words.append(f"sampler {plan.sampler.name}: {plan.sampler.why}")
    if plan.engine != "in-process" and plan.target.name.startswith("cpu-"):
        words.append(f"{plan.target.name} is measured beside trainings on the same cores: latencies come out too long")
    return words


def _engine(plan: Plan, folder: RunFolder, evaluator: Evaluator | None, watcher: Observer, brake: Brake) -> Engine:
    """Where the work is done. What is looked up costs nothing, and is looked up here."""
    if evaluator is not None or plan.replay is not None:
        given = evaluator or plan.replay
        assert given is not None
        return InProcess(given)
    settings = plan.settings
    if plan.engine != "in-process":
        watcher.notice("starting workers")  # each loads torch and the images: seconds, a minute on a busy machine
    make = _factory(plan, folder.path, brake.pressed if plan.engine == "in-process" else None)
    return open_engine(
        plan.engine,
        EngineSettings(
            make, folder.path, settings.workers, settings.threads, settings.device, settings.ray_address, watcher.notice
        ),
    )


def _factory(plan: Plan, folder: Path, stop: Callable[[], bool] | None) -> EvaluatorFactory:
    """What values candidates as the plan's proxy says, to be made where it works."""
    if plan.proxy.scores:
        return _scorer(plan, plan.proxy.argument)
    assert plan.data is not None
    assert plan.recipe is not None
    return TrainerFactory(
        plan.source, plan.recipe, plan.ladder, plan.space.relative_size, folder, plan.settings.device,
        plan.settings.threads, (plan.data,), shipped=plan.engine == "ray", stop=stop,
    )  # fmt: skip


def _scorer(plan: Plan, name: str) -> ScorerFactory:
    assert plan.data is not None
    return ScorerFactory(
        name, plan.source, plan.data.image_size, plan.space.relative_size, plan.settings.device,
        plan.settings.threads, (plan.data,), shipped=plan.engine == "ray",
    )  # fmt: skip


def _patient(plan: Plan, observer: Observer, brake: Brake) -> Plan:
    """The plan with a target that is waited for as long as the search may last."""
    settings = plan.settings
    stand_in = None if plan.stand_in is None else StandIn(plan.stand_in)
    patience = Patience(time.monotonic() + SEARCH_SHARE * settings.time_s, stand_in, settings.patience_s)
    return plan._replace(target=PatientTarget(plan.target, patience, observer.notice, sleep=brake.sleep))


def _earlier(plan: Plan, folder: RunFolder, store: Store) -> Earlier:
    """What the run begins with; once begun, always the same candidates, whatever becomes of the other run."""
    settings = plan.settings
    name = settings.from_run or settings.configs_from
    if name is None:
        return Earlier()
    begun = store.remembered("earlier")
    option = "--from" if settings.from_run else "--configs-from"
    try:
        other = find_run(name, folder.path.parent)
        if other.path.resolve() == folder.path.resolve():
            raise InputError(option, name, "is the run that would be written", "give another --name")
        found = load_earlier(other, plan, with_values=settings.from_run is not None)
    except InputError:
        if begun is None:
            raise
        found = Earlier()
    if begun is None:
        store.remember("earlier", [plan.space.params(config) for config in found.configs])
        return found
    return found._replace(configs=tuple(plan.space.config(params) for params in begun))


def _memory(plan: Plan, earlier: Earlier, notice: Callable[[str], None]) -> Memory:
    if plan.replay is not None or plan.recipe is None or not plan.proxy.trains:
        return NoMemory()
    assert plan.data is not None
    settings = plan.settings
    keys = KeyMaker(
        plan.recipe, plan.ladder, plan.data.digest, plan.space.relative_size, settings.device, settings.threads
    )
    return Recall(earlier.get, KnownEvaluations.open(notice) if settings.cache else None, keys)
