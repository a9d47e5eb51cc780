"""Errors cross processes whole."""

import pickle

import pytest

from mvit_search.errors import ConflictError, InputError, OutOfMemory, TargetUnavailable, UnknownNameError


@pytest.mark.parametrize(
    "error",
    [
        InputError("data", "x", "is wrong", "mend it"),
        UnknownNameError("space", "mobilvit", ["mobilevit"]),
        ConflictError("folder", None, "belongs to another"),
        TargetUnavailable("no answer", 3.0),
        OutOfMemory("too large"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
