"""Reaching a database: its URL, its driver, Optuna's tables in it, and one clear line for whatever is wrong."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from mvit_search.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

FIELD = "--storage"
_EXAMPLES = "for example postgresql://user@host/database or sqlite:///study.db"
_CONNECT_S = 5
_BUSY_S = 30  # how long SQLite waits for another process's write to end
_PACKAGES = {"psycopg": "'mvit-search[postgres]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


class Database:
    """A database by its URL, its driver chosen; nothing is connected yet."""

    def __init__(self, url: str) -> None:
        """Read a URL.

        Raises:
            InputError: it is none, of a kind that is not known, or its driver's package is not installed.
        """
        self.url = _parsed(url)
        self.shown = _shown(self.url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and not (self.url.database or "").removeprefix(":memory:"):
            raise InputError(FIELD, self.shown, "is a database in memory, lost with the process", _EXAMPLES)
        if self.is_sqlite and str(self.url.database).startswith("file:"):
            raise InputError(FIELD, self.shown, "names a file as `file:`", "write sqlite:///PATH")

    @property
    def file(self) -> Path:
        """Of a SQLite database."""
        return Path(str(self.url.database)).absolute()

    def prepare(self) -> None:
        """See that Optuna's tables are there, of the version that is installed; make them in an empty database.

        Raises:
            InputError: unreachable, not writable, or with tables that are none of Optuna's or another version's.
        """
        with self.explained():
            engine = self.engine()
            try:
                _check_tables(engine, self.shown)
            finally:
                engine.dispose()
            self._make_tables()

    def engine(self) -> "Engine":
        """A new pool of connections to it, each set up as this project needs it."""
        import sqlalchemy as sa

        engine = sa.create_engine(self.url, connect_args=self._connect_args())
        if self.is_sqlite:
            sa.event.listen(engine, "connect", _set_up_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
        elif engine.dialect.name == "postgresql":
            sa.event.listen(engine, "connect", _set_up_postgresql)
        elif engine.dialect.name in ("mysql", "mariadb"):
            sa.event.listen(engine, "connect", _set_up_mysql)
        return engine

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what a database answers at the start into an InputError."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, StorageInternalError, OSError) as error:
            rule = f"cannot be used ({self.reason(error)})"
            advice = "is the server running, and may this user read and write there?"
            raise InputError(
                FIELD, self.shown, rule, "is it a file that can be written?" if self.is_sqlite else advice
            ) from None

    def reason(self, error: BaseException) -> str:
        """What the database's driver said, in a line, without the password."""
        cause: Any = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = " ".join(str(cause.orig if hasattr(cause, "orig") else cause).split())
        password = self.url.password
        return (said.replace(password, "***") if password else said)[:300]

    def _connect_args(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {} if "timeout" in self.url.query else {"timeout": _BUSY_S}
        if (
            self.url.get_backend_name() in ("postgresql", "mysql", "mariadb")
            and "connect_timeout" not in self.url.query
        ):
            return {"connect_timeout": _CONNECT_S}
        return {}

    def _make_tables(self) -> None:
        import sqlalchemy as sa
        from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna fills a template of its own into the URL.
        url = self.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        settings = {"poolclass": sa.pool.NullPool, "connect_args": self._connect_args()}
        for attempt in range(3):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    optuna.storages.RDBStorage(url, engine_kwargs=settings).engine.dispose()
            except RuntimeError as error:
                said = str(error).split(". ")[0].strip(" .")
                advice = "use another database, or see `optuna storage upgrade`"
                raise InputError(
                    FIELD, self.shown, f"was set up by another version of Optuna: {said}", advice
                ) from None
            except (IntegrityError, ProgrammingError, OperationalError):
                # Two runs that begin at once in an empty database make the same tables.
                if attempt == 2:
                    raise
            else:
                return


def _parsed(url: str) -> "URL":
    import sqlalchemy as sa
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # What cannot be parsed may have a password anywhere before the last @.
        shown = "***@" + url.rpartition("@")[2] if "@" in url else url
        raise InputError(FIELD, shown, "is no database URL", _EXAMPLES) from None
    if parsed.drivername == "postgres":
        parsed = parsed.set(drivername="postgresql")
    first: ModuleNotFoundError | None = None
    for driver in _drivers(parsed.drivername):
        try:
            dialect = parsed.set(drivername=driver).get_dialect()
            dialect.import_dbapi()
        except NoSuchModuleError:
            raise InputError(FIELD, _shown(parsed), f"is of an unknown kind, {driver}", _EXAMPLES) from None
        except ImportError as error:
            first = first or error if isinstance(error, ModuleNotFoundError) else first
            continue
        if dialect.is_async:
            raise InputError(FIELD, _shown(parsed), f"names an asynchronous driver, {dialect.driver}", _EXAMPLES)
        return parsed.set(drivername=driver)
    package = (first.name if first is not None else None) or parsed.get_backend_name()
    advice = f"pip install {_PACKAGES.get(package, package)}"
    raise InputError(FIELD, _shown(parsed), f"needs the package {package}, which is not installed", advice)


def _drivers(name: str) -> tuple[str, ...]:
    """Drivers to try, the one to advise first."""
    return {
        "postgresql": ("postgresql+psycopg", "postgresql+psycopg2"),
        "mysql": ("mysql+pymysql", "mysql+mysqldb"),
        "mariadb": ("mariadb+pymysql", "mariadb+mysqldb"),
    }.get(name, (name,))


def _shown(url: "URL") -> str:
    # A query may hold a password, too.
    return url.set(query={}).render_as_string(hide_password=True)


def _check_tables(engine: "Engine", shown: str) -> None:
    """Refuse a database whose tables are another program's, before Optuna adds its own to them."""
    import sqlalchemy as sa
    from optuna.storages._rdb import models

    inspector = sa.inspect(engine)
    found = set(inspector.get_table_names())
    ours = {
        table.name: {column.name for column in table.columns} for table in models.BaseModel.metadata.tables.values()
    }
    known = found & ours.keys()
    wrong = sorted(
        name for name in known if not ours[name] <= {column["name"] for column in inspector.get_columns(name)}
    )
    if (known or "alembic_version" in found) and "version_info" not in found:
        wrong = wrong or sorted(known) or ["alembic_version"]
    elif wrong and "alembic_version" in found:
        return  # an older Optuna's, which Optuna itself tells
    if wrong:
        rule = f"holds another program's table {wrong[0]!r}"
        raise InputError(FIELD, shown, rule, "give a database of its own, or one that Optuna made")


def _set_up_sqlite(connection: Any, record: object) -> None:
    # Transactions are begun by `_begin_sqlite`, not by Python's module.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # Waits for the disk at every commit, as the journal does: a power cut takes nothing that was finished.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # For writing from the start: a transaction that reads first could be refused the right to write.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _set_up_postgresql(connection: Any, record: object) -> None:
    # The server should notice within two minutes where the machine of a run that holds a study goes dark.
    was, connection.autocommit = connection.autocommit, True
    cursor = connection.cursor()
    cursor.execute("SET tcp_keepalives_idle = 60")
    cursor.execute("SET tcp_keepalives_interval = 15")
    cursor.execute("SET tcp_keepalives_count = 4")
    cursor.close()
    connection.autocommit = was


def _set_up_mysql(connection: Any, record: object) -> None:
    # The lock is the connection's, which may say nothing for as long as a training lasts.
    cursor = connection.cursor()
    cursor.execute("SET SESSION wait_timeout = 2147483")
    cursor.close()
