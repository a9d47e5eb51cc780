"""What is known: records of candidates, the run folder, Pareto order, references."""

from mvit_search.records.front import Front
from mvit_search.records.objectives import DEFAULT_OBJECTIVES, OBJECTIVES, Objective, check_objectives
from mvit_search.records.pareto import best, best_within, hypervolume, knee, pareto_front
from mvit_search.records.record import Evaluated, LatencyFact, Record
from mvit_search.records.references import Reference, find_run, resolve, run_names
from mvit_search.records.run_folder import RunFolder
from mvit_search.records.seed_noise import SeedNoise, indistinguishable

__all__ = [
    "DEFAULT_OBJECTIVES", "OBJECTIVES", "Evaluated", "Front", "LatencyFact", "Objective", "Record", "Reference",
    "RunFolder", "SeedNoise", "best", "best_within", "check_objectives", "find_run", "hypervolume",
    "indistinguishable", "knee", "pareto_front", "resolve", "run_names",
]  # fmt: skip
