"""Where a run's study is kept: an Optuna journal file in the run's folder, or any database that Optuna can use."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection

from mvit_search.records import RunFolder
from mvit_search.search.storage._base import Attributes, Backing, Loaded
from mvit_search.search.storage.journal import JournalBacking
from mvit_search.search.storage.locks import FileLock, hold_folder


def open_backing(
    folder: Path, url: str | None, study_name: str, directions: Sequence[StudyDirection],
    distributions: Mapping[str, BaseDistribution],
) -> Backing:  # fmt: skip
    """Open the study of the run in `folder`, or begin it. The folder must be held.

    Args:
        url: of a database; None for the journal in the folder.
        distributions: the run's own, which trials that are loaded then share.

    Raises:
        InputError: it cannot be reached, read or written, or is none of ours.
        ConflictError: the study is in use by another run, or has other objectives.
    """
    if url is None:
        return JournalBacking.open(RunFolder(folder).study_file, study_name, directions, distributions)
    from mvit_search.search.storage.rdb import RdbBacking

    return RdbBacking.open(url, study_name, directions, distributions)


def without_password(url: str) -> str:
    """The URL as it may be written down; `***` stands where a password was."""
    shown = re.sub(r"(://[^:@/]*):[^@]*@", r"\1:***@", url, count=1)
    return re.sub(r"(?i)([?&]pass\w*=)[^&]*", r"\1***", shown)


__all__ = ["Attributes", "Backing", "FileLock", "Loaded", "hold_folder", "open_backing", "without_password"]
