"""Whether a run is going: `front.json` cannot say so, for a killed process writes no last word."""

import fcntl
import os
from typing import Any

from mvit_search.analysis.front_document import CUT_SHORT
from mvit_search.records import RunFolder


def is_alive(folder: RunFolder) -> bool:
    """Whether a process works on the run: it holds `.lock` for as long as it lives, and no longer.

    A lock that this user may not look at is taken for held.
    """
    try:
        lock = os.open(folder.path / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def read_front_now(folder: RunFolder) -> dict[str, Any]:
    """The front document, with the state `CUT_SHORT` where it says `running` and nothing runs.

    Raises:
        InputError: there is none, or none that can be read.
    """
    document = folder.read_front()
    if document.get("state") != "running" or is_alive(folder):
        return document
    # It may have ended properly between the two looks.
    document = folder.read_front()
    return {**document, "state": CUT_SHORT} if document.get("state") == "running" else document
