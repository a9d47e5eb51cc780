"""A process that holds a study and writes to it until it is killed; after each write that returned, it says so.

Arguments: the run's folder, and the storage's URL or nothing.
"""

import sys
from pathlib import Path

from optuna.trial import TrialState

from mvit_search.search.storage import hold_folder, open_backing
from tests.search.storage_samples import DIRECTIONS, DISTRIBUTIONS, STUDY, trial


def main(folder: Path, url: str | None) -> None:
    with hold_folder(folder):
        backing = open_backing(folder, url, STUDY, DIRECTIONS, DISTRIBUTIONS)
        number = len(backing.load().trials)
        print("open", flush=True)
        while True:
            backing.create_trial(trial(number))
            print("created", number, flush=True)
            with backing.transaction():
                backing.set_user_attrs({f"candidate:{number}": {"number": number, "padding": "x" * 500}})
                backing.finish_trial(number, TrialState.COMPLETE, (number / 7, 1.0))
            print("finished", number, flush=True)
            number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
