"""`mvit-search dashboard`: look at runs in a browser."""

import importlib
import importlib.util
import socket
import sys
from types import ModuleType
from typing import Annotated

import typer

from mvit_search.cli.arguments import RESULTS_DIR, ResultsDirOption

_HOST = "127.0.0.1"


def dashboard(
    results_dir: ResultsDirOption = RESULTS_DIR,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8050,
) -> None:
    """Serve the dashboard on this machine (127.0.0.1 only) until Ctrl-C."""
    import logging

    from mvit_search.errors import InputError

    if not results_dir.is_dir():
        raise InputError("--results-dir", str(results_dir), "there is no such folder", "mvit-search run makes one")
    _check_free(port)
    app = _dashboards().app.create_app(results_dir)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    typer.echo(f"dashboard of {results_dir}/ on http://{_HOST}:{port} (Ctrl-C ends it)", err=True)
    app.run(host=_HOST, port=port, debug=False)


def _check_free(port: int) -> None:
    from mvit_search.errors import InputError

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise InputError("--port", port, f"cannot be used ({error.strerror})", "give another --port") from None


def _dashboards() -> ModuleType:
    """The `dashboards` package, from beside a checkout or from inside a wheel."""
    from mvit_search._files import bundled

    if "dashboards" not in sys.modules:
        folder = bundled("dashboards")
        spec = importlib.util.spec_from_file_location(
            "dashboards", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["dashboards"] = package
        spec.loader.exec_module(package)
    importlib.import_module("dashboards.app")
    return sys.modules["dashboards"]
