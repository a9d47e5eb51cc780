"""The loop: Optuna proposes, the op table checks, the target times, the proxy trains, the store remembers."""

from mvit_search.search.brake import Brake
from mvit_search.search.driver import Search
from mvit_search.search.plan import Plan, prepare
from mvit_search.search.progress import Observer, Progress, Silent
from mvit_search.search.run import run_search
from mvit_search.search.settings import RunSettings, parse_settings
from mvit_search.search.store import Store
from mvit_search.search.task import Evaluation, Evaluator, Failure, Task

__all__ = [
    "Brake", "Evaluation", "Evaluator", "Failure", "Observer", "Plan", "Progress", "RunSettings", "Search", "Silent",
    "Store", "Task", "parse_settings", "prepare", "run_search",
]  # fmt: skip
