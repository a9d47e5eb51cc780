"""Syne Tune's MO-ASHA as a peer of benchmarks/search_efficiency.py; run by it, in an environment of its own.

    python -m venv DIR && DIR/bin/pip install syne-tune
    python benchmarks/search_efficiency.py --syne-tune DIR/bin/python

Speaks lines of JSON: asks for a configuration to be trained an epoch further, and is told what came of it. Imports
nothing of this project.
"""

import json
import sys
from datetime import UTC, datetime

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA


def main() -> None:
    told = json.loads(sys.stdin.readline())
    np.random.seed(told["seed"])  # its domains draw from here
    scheduler = MOASHA(
        {name: choice(values) for name, values in told["space"].items()}, ["error", "latency_ms"], time_attr="epoch",
        max_t=told["epochs"], grace_period=1, reduction_factor=told["eta"], random_seed=told["seed"],
    )  # fmt: skip
    number = 0
    while True:
        config = scheduler.suggest().config
        if ask({"config": config}) is None:
            continue  # over the budget, or known
        trial = Trial(number, config, datetime.now(UTC))
        scheduler.on_trial_add(trial)
        number += 1
        for epoch in range(1, told["epochs"] + 1):
            result = ask({"epoch": epoch})
            if scheduler.on_trial_result(trial, {**result, "epoch": epoch}) == SchedulerDecision.STOP:
                break


def ask(question: dict) -> dict | None:
    print(json.dumps(question), flush=True)
    line = sys.stdin.readline()
    if not line:
        raise SystemExit
    return json.loads(line)


if __name__ == "__main__":
    main()
