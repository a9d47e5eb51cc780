"""Training along the ladder: the same bits whichever way it was cut; what fails is told by kind; a real spawn."""

import gc
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mvit_search import proxy
from mvit_search.architecture import ConvStage, MobileViTConfig
from mvit_search.data import ImageSet
from mvit_search.errors import InputError, OutOfMemory, TrainingDiverged
from mvit_search.proxy import train
from mvit_search.proxy.session import TrainingSession
from mvit_search.search.evaluator import LadderTrainer, ZeroCostEvaluator, rung_seed
from mvit_search.search.factories import ScorerFactory, TrainerFactory
from mvit_search.search.ladder import Ladder, Rung, parse_rungs
from mvit_search.search.rung_data import DataSource, RungData, require_climbable, share_of
from mvit_search.search.task import Evaluation, Failure, Task
from mvit_search.space import load_space
from tests.proxy.test_training import FAST, TINY

SOURCE = DataSource("digits", max_images=128)
LADDER = parse_rungs("1@16:0.5,2@16,4@20", 3)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return SOURCE.load(16)


def whole(_: MobileViTConfig) -> float:
    return 1.0


def trainer(folder: Path, ladder: Ladder = LADDER, **settings: Any) -> LadderTrainer:
    return LadderTrainer(RungData(SOURCE), FAST, ladder, folder, relative_size=whole, **settings)


def figures(evaluation: Evaluation) -> tuple[float | None, int]:
    return evaluation.value, evaluation.image_steps


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, bytes]:
    """The whole ladder in one task, and the weights it left."""
    folder = tmp_path_factory.mktemp("whole")
    done = trainer(folder).evaluate(Task(TINY, 3, 2, keep=folder / "weights" / "top"))
    assert done.value is not None
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["top"]
    return done, tensors_of(folder / "weights" / "top")


def tensors_of(path: Path) -> bytes:
    """A weights file without its header, which holds seconds too."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


# The same bits, however it was cut.


def test_the_lowest_rung_alone_is_a_plain_training(digits: ImageSet, tmp_path: Path) -> None:
    recipe = FAST.changed(epochs=2)
    plain = train(TINY, digits, recipe, seed=5, threads=1, keep_weights=tmp_path / "plain")
    ours = LadderTrainer(RungData(SOURCE), recipe, Ladder.full(recipe), tmp_path, relative_size=whole)
    done = ours.evaluate(Task(TINY, 5, keep=tmp_path / "ours"))
    assert figures(done) == (plain.top1, plain.rungs[-1].image_steps)
    assert tensors_of(tmp_path / "plain") == tensors_of(tmp_path / "ours")
    assert done.seconds > 0
    assert done == Evaluation(plain.top1, done.seconds, image_steps=plain.rungs[-1].image_steps)


def test_rung_by_rung_in_tasks_of_their_own(in_one_go: tuple[Evaluation, bytes], tmp_path: Path) -> None:
    steps, start = 0, None
    for rung in (0, 1, 2):
        keep = tmp_path / f"{rung}"
        task = Task(TINY, 3, rung, start_rung=rung - 1, start=start, keep=keep)
        done, start = trainer(tmp_path).evaluate(task), keep
        steps += done.image_steps
    assert (done.value, steps) == figures(in_one_go[0])
    assert tensors_of(keep) == in_one_go[1]


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "foreign", "empty"])
def test_weights_that_are_lost_are_trained_again(
    in_one_go: tuple[Evaluation, bytes], tmp_path: Path, damage: str
) -> None:
    start = tmp_path / "start"
    config = TINY if damage != "foreign" else TINY.model_copy(update={"stem_channels": 16})
    trainer(tmp_path).evaluate(Task(config, 3, 1, keep=start))
    content = bytearray(start.read_bytes())
    content[-5] ^= 1
    if damage in ("cut", "flipped", "empty"):
        start.write_bytes({"cut": content[:-9], "flipped": content, "empty": b""}[damage])
    elif damage == "gone":
        start.unlink()
    done = trainer(tmp_path).evaluate(Task(TINY, 3, 2, start_rung=1, start=start, keep=tmp_path / "top"))
    assert figures(done) == figures(in_one_go[0])
    assert tensors_of(tmp_path / "top") == in_one_go[1]


@pytest.mark.parametrize("asked", range(1, 9))
def test_stopped_anywhere_and_carried_on(in_one_go: tuple[Evaluation, bytes], tmp_path: Path, asked: int) -> None:
    """The ladder asks seven times: before each rung, and after each of four epochs."""
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls == asked

    task = Task(TINY, 3, 2, keep=tmp_path / "top")
    first = trainer(tmp_path, stop=stop).evaluate(task)
    if first.stopped:
        assert first.value is None
        assert not task.keep.exists()  # type: ignore[union-attr]
        first = trainer(tmp_path, stop=lambda: False).evaluate(task)
    assert figures(first) == figures(in_one_go[0])
    assert tensors_of(tmp_path / "top") == in_one_go[1]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["top"]


def test_a_long_training_is_saved_on_its_way(tmp_path: Path) -> None:
    """A worker that is killed in an epoch loses that epoch, not those before."""
    ladder = Ladder((Rung(3),))
    seen: list[int] = []

    class Killed(BaseException):
        pass

    def killed() -> bool:
        seen.append(1)
        if len(seen) == 3:
            raise Killed
        return False

    task = Task(TINY, 0)
    with pytest.raises(Killed):
        trainer(tmp_path, ladder, stop=killed, save_every_s=0.0).evaluate(task)
    (saved,) = (tmp_path / "checkpoints").iterdir()
    session = TrainingSession(TINY, RungData(SOURCE).at(16), FAST.changed(epochs=3), seed=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        session.load(saved)
    finally:
        torch.set_num_threads(threads)
    assert session.epoch == 1
    torn = saved.with_name(f".{saved.name}.abc")
    torn.write_bytes(b"half")
    other = saved.with_name("another-task-0.training")
    other.write_bytes(b"")
    done = trainer(tmp_path, ladder).evaluate(task)
    assert figures(done) == figures(trainer(tmp_path / "fresh", ladder).evaluate(task))
    assert list(saved.parent.iterdir()) == [other]


def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path: Path) -> None:
    stops = iter([False, True])
    task = Task(TINY, 0)
    ladder = Ladder((Rung(2),))
    assert trainer(tmp_path, ladder, stop=lambda: next(stops)).evaluate(task).stopped
    (saved,) = (tmp_path / "checkpoints").iterdir()
    saved.write_bytes(saved.read_bytes()[:-50])
    done = trainer(tmp_path, ladder).evaluate(task)
    assert figures(done) == figures(trainer(tmp_path / "fresh", ladder).evaluate(task))


def test_rungs_and_seeds_order_images_differently(tmp_path: Path) -> None:
    seeds = {rung_seed(seed, rung) for seed in range(20) for rung in range(6)}
    assert len(seeds) == 120
    assert all(0 <= seed < 2**31 for seed in seeds)
    one, other = (trainer(tmp_path).evaluate(Task(TINY, seed, 1)) for seed in (0, 1))
    assert one.value != other.value


# What each rung sees.


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_shares_are_nested_and_balanced(digits: ImageSet, one: float, other: float) -> None:
    small, large = (share_of(digits, share) for share in sorted((one, other)))
    pictures = [{image.tobytes() for image in data.train_images} for data in (small, large)]
    assert pictures[0] <= pictures[1]
    counts = np.bincount(small.train_labels, minlength=10)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1
    assert small.val_images is digits.val_images
    assert (small.digest == large.digest) == (len(small.train_labels) == len(large.train_labels))


def test_at_most_two_sides_are_kept_and_the_given_one_is_not_loaded(digits: ImageSet) -> None:
    loaded: list[int] = []

    class Counted(DataSource):
        def load(self, side: int) -> ImageSet:
            loaded.append(side)
            return super().load(side)

    images = RungData(Counted("digits", max_images=128), [digits])
    assert images.at(16) is digits
    assert len(images.at(16, 0.5).train_images) == 64
    assert loaded == []
    assert images.at(18).image_size == 18
    assert images.at(18) is images.at(18)
    assert loaded == [18]
    assert images.at(20) is not images.at(22)
    assert images.at(18) is not None
    assert loaded == [18, 20, 22, 18]
    assert len(images._kept) == 2


def test_a_candidate_of_lower_resolution_sees_smaller_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space("mobilevit-compound")
    shares: list[float] = []

    def spied(*_: Any, share: float, **__: Any) -> Any:
        shares.append(share)
        return proxy.ProxyResult((proxy.Rung(1, 0.5, 1.0, 10, 0.1, 0.1),), 1, 10.0, 10)

    monkeypatch.setattr(proxy, "train", spied)
    ours = LadderTrainer(RungData(SOURCE), FAST, Ladder.full(FAST), tmp_path, relative_size=space.relative_size)
    params = {name: values[0] for name, values in space.dimensions.items()}
    knob = next(name for name, values in space.dimensions.items() if {192, 256} <= set(values))
    for side in (192, 256):
        ours.evaluate(Task(space.config({**params, knob: side}), 0))
    assert shares == [192 / space.image_size_max[0], 256 / space.image_size_max[0]]


@pytest.mark.parametrize(("text", "words"), [("1:0.1,2", "13 training images"), ("1@2000,2", "image_size")])
def test_rungs_that_cannot_be_trained_are_refused_before_any_is(digits: ImageSet, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        require_climbable(digits, FAST, parse_rungs(text, 3))
    require_climbable(digits, FAST, LADDER)


# What fails.


def test_a_network_too_large_to_build_is_that_candidates_failure(tmp_path: Path) -> None:
    stage = ConvStage(out_channels=8192, num_blocks=64, expand_ratio=16.0)
    done = trainer(tmp_path).evaluate(Task(MobileViTConfig(stages=(stage,)), 0))
    assert (done.value, done.failure) == (None, Failure.OTHER)
    assert "not built" in str(done.error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(TrainingDiverged("loss is nan"), Failure.DIVERGED), (OutOfMemory("does not\nfit"), Failure.MEMORY),
     (MemoryError(), Failure.MEMORY), (RuntimeError("no such operator"), Failure.OTHER)],
)  # fmt: skip
def test_failures_are_told_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: Failure
) -> None:
    real = proxy.train

    def fails(*arguments: Any, on_epoch: Callable[[int, float], None], **settings: Any) -> Any:
        if settings["first_weights"] is None:
            return real(*arguments, on_epoch=on_epoch, **settings)
        on_epoch(1, 0.0)
        raise error

    monkeypatch.setattr(proxy, "train", fails)
    done = trainer(tmp_path).evaluate(Task(TINY, 0, 1))
    assert (done.value, done.failure) == (None, kind)
    assert done.error
    assert "\n" not in done.error
    assert done.image_steps == 64 + 128  # the rung that was finished, and an epoch of the one that was not
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_training_that_really_diverges(tmp_path: Path) -> None:
    wild = FAST.changed(learning_rate=1e12, grad_clip=1e12, warmup_epochs=0.0)
    done = LadderTrainer(RungData(SOURCE), wild, Ladder.full(wild), tmp_path, relative_size=whole).evaluate(
        Task(TINY, 0)
    )
    assert done.failure == Failure.DIVERGED


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: unspecified launch failure"), OSError(28, "No space left on device"),
              InputError("data", "digits", "has too few images")],
)  # fmt: skip
def test_what_every_candidate_would_meet_is_no_failure_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(proxy, "train", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        trainer(tmp_path).evaluate(Task(TINY, 0))


def test_the_batch_that_fitted_is_told_where_a_whole_one_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def advance(self: TrainingSession) -> float:
        if self.largest_batch > 8:
            raise RuntimeError("not enough memory: you tried to allocate")
        return real(self)

    real = TrainingSession.advance
    monkeypatch.setattr(TrainingSession, "advance", advance)
    assert trainer(tmp_path).evaluate(Task(TINY, 0, 1)).largest_batch == 8


# Factories.


def factory(folder: Path, **changes: Any) -> TrainerFactory:
    space = load_space("mobilevit")
    fixed = {"source": SOURCE, "recipe": FAST, "ladder": LADDER, "relative_size": space.relative_size, "folder": folder}
    return TrainerFactory(**{**fixed, **changes})


def work(makers: tuple[Callable[[], Any], ...], task: Task, results: Any) -> None:
    """What a spawned process does."""
    results.put([make().evaluate(task) for make in makers])


def test_a_spawned_worker_gives_the_same_bits(tmp_path: Path, digits: ImageSet) -> None:
    make = factory(tmp_path, data=(digits,), stop=threading.Event().is_set)  # an Event cannot be pickled
    score = ScorerFactory("synflow", SOURCE, 16, make.relative_size, data=(digits,))
    task = Task(TINY.with_image_size(256, 256), 1, 1)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    worker = context.Process(target=work, args=((make, score), task, results))
    worker.start()
    trained, scored = results.get(timeout=120)
    worker.join(60)
    assert worker.exitcode == 0
    assert figures(trained) == figures(make().evaluate(task))
    assert scored.value == score().evaluate(task).value


def test_images_are_not_pickled_unless_they_are_shipped(tmp_path: Path, digits: ImageSet) -> None:
    plain = factory(tmp_path, data=(digits,))
    assert pickle.loads(pickle.dumps(plain)).data == ()
    assert make_of(plain).data.at(16) is digits
    shipped = replace(plain, shipped=True, source=DataSource("digits", max_images=128))
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(shipped, protocol=5, buffer_callback=buffers.append)
    pixels = sum(len(side.train_images) + len(side.val_images) for side in (digits,)) * (16**2 + 20**2) * 3
    assert sum(buffer.raw().nbytes for buffer in buffers) >= pixels
    assert len(content) < 50_000  # no pixels in it: they can be shared as they are
    frozen = [buffer.raw().toreadonly() for buffer in buffers]  # as an object store hands them out
    there = pickle.loads(content, buffers=frozen)
    assert {data.image_size for data in there.data} == {16, 20}
    assert all(type(data.train_images) is np.ndarray for data in there.data)
    assert not there.data[0].train_images.flags.writeable
    (tmp_path / "away").mkdir()
    away = replace(there, source=DataSource("no such data"), folder=tmp_path / "away")
    task = Task(TINY.with_image_size(256, 256), 0, 2)
    assert figures(away().evaluate(task)) == figures(plain().evaluate(task))
    scorer = ScorerFactory("naswot", SOURCE, 16, plain.relative_size, shipped=True)
    back = replace(pickle.loads(pickle.dumps(scorer)), source=DataSource("no such data"))
    assert back().evaluate(task).value == scorer().evaluate(task).value


def make_of(factory: TrainerFactory) -> LadderTrainer:
    return factory()


def test_a_stop_file_stops_a_worker(tmp_path: Path) -> None:
    there = pickle.loads(pickle.dumps(factory(tmp_path, stop=lambda: False)))()
    (tmp_path / "stop").touch()
    assert there.evaluate(Task(TINY, 0)).stopped


def test_a_worker_elsewhere_uses_a_folder_of_its_own(tmp_path: Path) -> None:
    away = tmp_path / "not" / "here"
    made = factory(away)()
    folder = made.folder
    assert folder.is_dir()
    assert made.evaluate(Task(TINY, 0)).value is not None
    assert not away.exists()
    del made
    gc.collect()
    assert not folder.exists()


def test_data_that_are_gone_are_told_as_a_worker_begins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        factory(tmp_path, source=DataSource("gone/"))()


# Zero-cost scores.


def test_a_score_is_the_library_s(digits: ImageSet) -> None:
    from mvit_search.proxy.zero_cost import score

    ours = ZeroCostEvaluator("naswot", digits, relative_size=whole).evaluate(Task(TINY, 2))
    assert ours.value == score("naswot", TINY, digits, seed=2, threads=1).value
    assert ours.image_steps == 0


def test_a_network_that_cannot_be_scored_is_a_failure_and_too_few_images_are_not(digits: ImageSet) -> None:
    stage = ConvStage(out_channels=8192, num_blocks=64, expand_ratio=16.0)
    large = Task(MobileViTConfig(stages=(stage,)), 0)
    assert ZeroCostEvaluator("snip", digits, relative_size=whole).evaluate(large).failure == Failure.OTHER
    few = replace(digits, train_images=digits.train_images[:1], train_labels=digits.train_labels[:1])
    with pytest.raises(InputError):
        ZeroCostEvaluator("snip", few, relative_size=whole).evaluate(Task(TINY, 0))
