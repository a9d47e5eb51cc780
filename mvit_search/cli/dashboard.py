"""`mvit-search dashboard`: look at runs in a browser."""

from typing import Annotated

import typer

from mvit_search.cli.arguments import RESULTS_DIR, ResultsDirOption


def dashboard(
    results_dir: ResultsDirOption = RESULTS_DIR,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8050,
) -> None:
    """Serve the dashboard on this machine (127.0.0.1 only) until Ctrl-C."""
