"""The MLflow store of a run: which one it is, and how to mend one that cannot be used.

The configuration names it; otherwise MLflow's own environment variables do, as for every other program.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import getproxies_environment

from unfused_ray import storage
from unfused_ray.config import TrackingConfig
from unfused_ray.home import local_home

logger = logging.getLogger(__name__)

_SQLITE = "sqlite:///"
"""Beginning of the URI of an SQLite file; its absolute path follows."""
_SQLITE_ESCAPED = "sqlite+pysqlite:///"
"""The same for a path with escapes: with another beginning, MLflow also makes an empty folder of that name."""
OFF = "off"
"""URI that turns tracking off."""
URI_VARIABLE = "MLFLOW_TRACKING_URI"
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
_EXPERIMENT = "unfused-ray"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_MAX_MESSAGE = 300
_OTHERWISE = f"or give another tracking.uri ({OFF} tracks nothing)"


@dataclass(frozen=True)
class StoreProblem:
    """The reason that a store cannot be used, and how to mend it."""

    found: str
    fix: str
    lasting: bool = True
    """False if it may pass by itself, such as a server that does not answer."""

    def __str__(self) -> str:
        return f"{self.found}: {self.fix}"


class StoreError(Exception):
    """A store cannot be used; ``problem`` holds the reason and the remedy."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(f"{found}: {fix}")
        self.problem = StoreProblem(found, fix)


def tracking_uri(config: TrackingConfig) -> str:
    """Return the store's URI: as configured, else ``MLFLOW_TRACKING_URI``, else the SQLite file in <home>; or ``OFF``.

    Raises:
        ValueError: the URI is that of an SQLite file relative to the working directory, or MLflow is not installed.
    """
    given = config.uri or os.environ.get(URI_VARIABLE, "")
    name = "tracking.uri" if config.uri else URI_VARIABLE
    if given == OFF or (not given and find_spec("mlflow") is None):
        return OFF
    if find_spec("mlflow") is None:
        shown = storage.masked(given)
        raise ValueError(f"{name}={shown} needs MLflow: pip install mlflow, or give tracking.uri={OFF}")
    if is_sqlite(given) and "////" not in given:
        raise ValueError(
            f"{name}={given} is relative, and would name another file in every working directory: "
            f"give {_SQLITE}/absolute/path/mlflow.db, or tracking.uri={OFF}"
        )
    return given or sqlite_uri(storage.join(local_home(), "mlflow.db"))


def experiment_name(config: TrackingConfig) -> str:
    """Return the MLflow experiment's name: as configured, else ``MLFLOW_EXPERIMENT_NAME``, else unfused-ray."""
    return config.experiment or os.environ.get(EXPERIMENT_VARIABLE, "") or _EXPERIMENT


def taken_from_environment(config: TrackingConfig) -> str:
    """Return the variables that name this store, with their values; '' if the configuration or the defaults name it."""
    given = {URI_VARIABLE: config.uri, EXPERIMENT_VARIABLE: config.experiment}
    taken = {name: os.environ[name] for name, value in given.items() if not value and os.environ.get(name)}
    if config.uri == OFF:
        return ""
    return storage.masked(", ".join(f"{name}={value}" for name, value in taken.items()))


def announce(config: TrackingConfig, several_nodes: str = "") -> None:
    """Log which store is taken from the environment, if one is, and warn of a store that ends with its node.

    Args:
        config: settings of the tracking.
        several_nodes: nodes of the cluster, from ``cluster.several_nodes``; '' for a single machine.
    """
    if taken := taken_from_environment(config):
        logger.info("tracked as the environment says: %s", taken)
    if problem := ends_with_its_node(uri := tracking_uri(config), several_nodes):
        logger.warning("tracked in %s: %s", storage.masked(uri), problem)


def ends_with_its_node(uri: str, several_nodes: str) -> StoreProblem | None:
    """Return the fault of a store that is a file of one node among several; None for any other store.

    Such a cluster is deleted when its job has ended, and the file with it.
    """
    if not (several_nodes and is_sqlite(uri)):
        return None
    return StoreProblem(
        f"it is a file of this node, and ends with it; the cluster has {several_nodes}",
        "set tracking.uri to an MLflow server",
    )


def describe(config: TrackingConfig) -> str:
    """Describe the store, with its fault and remedy if :func:`examine_store` finds one."""
    uri, experiment, taken = tracking_uri(config), experiment_name(config), taken_from_environment(config)
    if uri == OFF:
        return OFF
    named = f"{storage.masked(uri)}, experiment {experiment}" + (f" ({taken})" if taken else "")
    problem = examine_store(uri, experiment)
    return f"{named}\n{problem}" if problem else named


def is_sqlite(uri: str) -> bool:
    """Return True if the store is an SQLite file."""
    return uri.startswith((_SQLITE, _SQLITE_ESCAPED))


def sqlite_uri(path: str) -> str:
    """Return the URI of an SQLite file, from its absolute path.

    Raises:
        ValueError: this SQLAlchemy cannot write the path as a URI.
    """
    if not re.search("[?%]", path):
        return _SQLITE + path
    from sqlalchemy import URL, make_url  # here, because it is slow to import and comes with MLflow

    uri = URL.create("sqlite+pysqlite", database=path).render_as_string()
    if make_url(uri).database != path:
        raise ValueError(f"{path} cannot be the URI of an SQLite file: give UNFUSED_RAY_HOME a path without ? and %")
    return uri


def sqlite_path(uri: str) -> Path:
    """Return the file of an SQLite database's URI."""
    from sqlalchemy import make_url

    return Path(make_url(uri).database or "")


def prepare_mlflow() -> None:
    """Set MLflow's environment before it is imported: requests fail soon, and reach this machine without a proxy.

    MLflow's retries would hide for minutes that a server is gone. A proxy that the environment names cannot reach this
    machine's loopback. MLflow's error logs are silenced, because each comes with an exception, which is shown here in a
    line.
    """
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    proxies = getproxies_environment()
    known = proxies.get("no", "")
    if set(proxies) - {"no"} and known != "*":
        direct = [host for host in _LOOPBACK if host not in known.split(",")]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*([known] if known else []), *direct])


@contextmanager
def opened_by_one(uri: str) -> Iterator[None]:
    """Keep out the other processes that open the store, if it is an SQLite file.

    MLflow makes the tables of a new file version by version, for seconds. A process that opens the file meanwhile would
    take it for an older one, or would make the same tables.
    """
    with ExitStack() as stack:
        if is_sqlite(uri) and sqlite_path(uri).parent.is_dir():
            folder = os.open(sqlite_path(uri).parent, os.O_RDONLY)
            stack.callback(os.close, folder)  # which also releases the lock
            with suppress(OSError):  # file systems such as NFS lock no folders
                fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def refuse_other_schema(uri: str) -> None:
    """Refuse a database of another MLflow version.

    MLflow refuses some of them itself, and migrates others when it opens them, without a copy.

    Raises:
        StoreError: the database's tables are of another version.
    """
    if not uri.startswith(_DATABASES) or (is_sqlite(uri) and not sqlite_path(uri).exists()):
        return
    import mlflow
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    with create_engine(uri, poolclass=NullPool).connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    known = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if found and found != known.get_current_head():
        older = found in {revision.revision for revision in known.walk_revisions()}
        command = f"mlflow db upgrade {shlex.quote(storage.masked(uri))}"
        raise StoreError(
            f"the database is of {'an older' if older else 'a newer'} MLflow than {mlflow.__version__}",
            f"copy it and run `{command}`, {_OTHERWISE}" if older else f"pip install --upgrade mlflow, {_OTHERWISE}",
        )


def find_experiment(client: Any, name: str) -> Any | None:
    """Return the experiment of this name; None if there is none yet.

    Raises:
        StoreError: the experiment is deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        restore = f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        raise StoreError(
            f"the experiment {name!r} is deleted",
            f"{restore} with {URI_VARIABLE} set brings it back, or give another tracking.experiment",
        )
    return found


def examine_store(uri: str, experiment: str) -> StoreProblem | None:
    """Open a store as a run would; return its fault, or None. A database that is missing is not made."""
    try:
        if is_sqlite(uri):
            path = sqlite_path(uri)
            folder = next(each for each in path.parents if each.exists())
            if not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
                raise StoreError(f"{path} cannot be written", "set tracking.uri or UNFUSED_RAY_HOME")
            if not path.exists() or not path.stat().st_size:
                return None
        prepare_mlflow()
        from mlflow import MlflowClient  # here, because importing MLflow takes seconds

        with opened_by_one(uri):
            refuse_other_schema(uri)
            client = MlflowClient(tracking_uri=uri)
        find_experiment(client, experiment)
    except Exception as error:  # noqa: BLE001 - whatever the tracking store raises
        return explain(error)
    return None


def explain(error: Exception) -> StoreProblem:
    """Describe in a line why a store cannot be used, and how to mend it."""
    if isinstance(error, StoreError):
        return error.problem
    # Masked before it is cut, because a URI that is cut before its @ shows a part of the password.
    found = storage.masked(str(error).strip().partition("\n")[0])[:_MAX_MESSAGE] or type(error).__name__
    if "MLFLOW_ALLOW_FILE_STORE" in str(error):
        return StoreProblem(
            "MLflow no longer writes to folders of files",
            f"give tracking.uri {_SQLITE}/absolute/path/mlflow.db (`mlflow migrate-filestore` moves what is there), or "
            "set MLFLOW_ALLOW_FILE_STORE=true",
        )
    if re.search(r"error code (401|403)|[Uu]nauthorized|[Pp]ermission", found):
        return StoreProblem(
            found, f"set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token, {_OTHERWISE}"
        )
    return StoreProblem(found, f"see that it can be reached and written, {_OTHERWISE}", lasting=False)
