"""What NSGA-II and NSGA-III share: which generation a trial belongs to, and who its parents may be.

Optuna's own answers look through all trials, several times a proposal; and in a run of several workers they lose the
trials that end after the next generation has begun.
"""

from collections.abc import Sequence

from optuna.samplers._ga import BaseGASampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class SteadyGenerations(BaseGASampler):
    """Generations that are found from the end of the study, and parents that always stand in one order.

    Parents are drawn by their place. Optuna hands them over in the order of selection when it has just chosen them, and
    by number once they are on file: a run that is killed in the first proposal of a generation would go on with another
    one.

    A trial that the sampler did not propose (a preset, a first draw, an older run's) has no generation on file. It
    counts to that of the trial before it, the first ones to generation 0.

    A proposal's generation is the latest that has finished trials, or the one after it if a population of that have
    finished. So generations never fall from one trial to the next, and the latest stand at the end.
    """

    def select_elite(self, study: Study, generation: int, pool: list[FrozenTrial]) -> list[FrozenTrial]:
        """Those of `pool`, which is in the order of numbers, that become the parents of `generation`."""
        raise NotImplementedError

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        key = self._get_generation_key()
        noted: int | None = trial.system_attrs.get(key)
        if noted is not None:
            return noted
        latest, finished = self._latest(_trials(study))
        assert self.population_size is not None
        generation = latest + (finished >= self.population_size)
        study._storage.set_trial_system_attr(trial._trial_id, key, generation)
        return generation

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        current, found = 0, []
        for trial in _trials(study):
            current = trial.system_attrs.get(self._get_generation_key(), current)
            if current == generation and trial.state == TrialState.COMPLETE:
                found.append(trial)
        return found

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        if generation == 0:
            return []
        prefix, on_file = self._get_parent_cache_key_prefix(), study._storage.get_study_system_attrs(study._study_id)
        # Parents descend from parents: where several generations are not on file, the oldest comes first.
        first = generation + 1
        while first > 1 and f"{prefix}{first - 1}" not in on_file:
            first -= 1
        for missing in range(first, generation + 1):
            chosen = sorted(trial._trial_id for trial in self.select_parent(study, missing))
            study._storage.set_study_system_attr(study._study_id, f"{prefix}{missing}", chosen)
        parents = study._storage.get_study_system_attrs(study._study_id)[f"{prefix}{generation}"]
        return [study._storage.get_trial(number) for number in parents]

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The elite of the generation before, its parents, and who of older ones was still in flight back then."""
        attrs, late_key = study._storage.get_study_system_attrs(study._study_id), f"{type(self).__name__}:late:"
        late = [study._storage.get_trial(number) for number in attrs.get(f"{late_key}{generation - 1}", ())]
        arrived = [trial for trial in late if trial.state == TrialState.COMPLETE]
        found = self.get_population(study, generation - 1) + self.get_parent_population(study, generation - 1) + arrived
        key = self._get_generation_key()
        in_flight = [
            trial._trial_id
            for trial in _trials(study)
            if trial.state == TrialState.RUNNING and trial.system_attrs.get(key, 0) < generation
        ]
        study._storage.set_study_system_attr(study._study_id, f"{late_key}{generation}", in_flight)
        pool = {trial.number: trial for trial in found}
        return self.select_elite(study, generation, [pool[number] for number in sorted(pool)])

    def _latest(self, trials: Sequence[FrozenTrial]) -> tuple[int, int]:
        """The latest generation with a finished trial, and how many it has (not counted beyond a population)."""
        key, enough = self._get_generation_key(), self.population_size or 0
        latest, finished, unnoted = -1, 0, 0
        for trial in reversed(trials):
            unnoted += trial.state == TrialState.COMPLETE
            generation = trial.system_attrs.get(key)
            if generation is None:
                continue
            if generation < latest or finished >= enough:
                return latest, finished
            if unnoted:
                latest, finished, unnoted = generation, finished + unnoted, 0
        return (0, finished + unnoted) if latest <= 0 else (latest, finished)


def _trials(study: Study) -> list[FrozenTrial]:
    return study._storage.get_all_trials(study._study_id, deepcopy=False)
