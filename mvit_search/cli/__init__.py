"""The command line: the only code that prints or ends the process."""

from mvit_search.cli.main import main

__all__ = ["main"]
