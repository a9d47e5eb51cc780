"""What is known: records of candidates, the run folder, Pareto order, references."""

from mvit_search.records.pareto import best, best_within, hypervolume, knee, pareto_front
from mvit_search.records.record import LatencyFact, Record
from mvit_search.records.references import Reference, find_run, resolve, run_names
from mvit_search.records.run_folder import RunFolder

__all__ = [
    "LatencyFact", "Record", "Reference", "RunFolder", "best", "best_within", "find_run", "hypervolume",
    "knee", "pareto_front", "resolve", "run_names",
]  # fmt: skip
