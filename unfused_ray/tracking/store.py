"""The MLflow store of a run: which one it is, and what to do if it cannot be used.

It is named by the configuration, or else by MLflow's own environment variables, as for every other program.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
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
"""The same for a path with escapes: beside one that begins otherwise, MLflow makes an empty folder of that name."""
OFF = "off"
"""URI with which nothing is tracked."""
URI_VARIABLE = "MLFLOW_TRACKING_URI"
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
_EXPERIMENT = "unfused-ray"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_MAX_MESSAGE = 300
_OTHERWISE = f"or give another tracking.uri ({OFF} tracks nothing)"


@dataclass(frozen=True)
class StoreProblem:
    """Why a store cannot be used."""

    found: str
    fix: str
    lasting: bool = True
    """False if it may pass by itself, as where a server is away."""

    def __str__(self) -> str:
        return f"{self.found}: {self.fix}"


class StoreError(Exception):
    """A store cannot be used; ``problem`` says why and what to do."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(f"{found}: {fix}")
        self.problem = StoreProblem(found, fix)


def tracking_uri(config: TrackingConfig) -> str:
    """URI of the store: as configured, else ``MLFLOW_TRACKING_URI``, else the SQLite file in <home>; or ``OFF``.

    Raises:
        ValueError: an SQLite file is named relative to the working directory, or MLflow is not installed.
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
    """Name of the MLflow experiment: as configured, else ``MLFLOW_EXPERIMENT_NAME``, else unfused-ray."""
    return config.experiment or os.environ.get(EXPERIMENT_VARIABLE, "") or _EXPERIMENT


def taken_from_environment(config: TrackingConfig) -> str:
    """The variables that name this store, with their values; '' if the configuration or the defaults name it."""
    given = {URI_VARIABLE: config.uri, EXPERIMENT_VARIABLE: config.experiment}
    taken = {name: os.environ[name] for name, value in given.items() if not value and os.environ.get(name)}
    if config.uri == OFF:
        return ""
    return storage.masked(", ".join(f"{name}={value}" for name, value in taken.items()))


def announce(config: TrackingConfig, several_nodes: str = "") -> None:
    """Say which store is taken from the environment, if one is, and warn of one that ends with its node.

    Args:
        config: of the tracking.
        several_nodes: of the cluster, as ``cluster.several_nodes`` names them; '' if one machine is all there is.
    """
    if taken := taken_from_environment(config):
        logger.info("tracked as the environment says: %s", taken)
    if problem := ends_with_its_node(uri := tracking_uri(config), several_nodes):
        logger.warning("tracked in %s: %s", storage.masked(uri), problem)


def ends_with_its_node(uri: str, several_nodes: str) -> StoreProblem | None:
    """The fault of a store that is a file of one node, where the cluster has several; None of any other store.

    Such a cluster is deleted when its job has ended, and the file with it.
    """
    if not (several_nodes and is_sqlite(uri)):
        return None
    return StoreProblem(
        f"it is a file of this node, and ends with it; the cluster has {several_nodes}",
        "set tracking.uri to an MLflow server",
    )


def describe(config: TrackingConfig) -> str:
    """The store in words, and what is wrong with it and what to do; see :func:`examine_store`."""
    uri, experiment, taken = tracking_uri(config), experiment_name(config), taken_from_environment(config)
    if uri == OFF:
        return OFF
    named = f"{storage.masked(uri)}, experiment {experiment}" + (f" ({taken})" if taken else "")
    problem = examine_store(uri, experiment)
    return f"{named}\n{problem}" if problem else named


def is_sqlite(uri: str) -> bool:
    """True if the store is an SQLite file."""
    return uri.startswith((_SQLITE, _SQLITE_ESCAPED))


def sqlite_uri(path: str) -> str:
    """URI of an SQLite file, by its absolute path.

    Raises:
        ValueError: this SQLAlchemy cannot write the path as a URI.
    """
    if not re.search("[?%]", path):
        return _SQLITE + path
    from sqlalchemy import URL, make_url  # here: it takes a while, and is MLflow's

    uri = URL.create("sqlite+pysqlite", database=path).render_as_string()
    if make_url(uri).database != path:
        raise ValueError(f"{path} cannot be the URI of an SQLite file: give UNFUSED_RAY_HOME a path without ? and %")
    return uri


def sqlite_path(uri: str) -> Path:
    """File of the URI of an SQLite database."""
    from sqlalchemy import make_url

    return Path(make_url(uri).database or "")


def prepare_mlflow() -> None:
    """Set MLflow's environment, before it is imported: requests fail soon, and reach this machine directly.

    Its retries would hide for minutes that a server is gone. A proxy that the environment names cannot reach this
    machine's loopback. What it logs as an error is an exception as well, which is told here in a line.
    """
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    proxies = getproxies_environment()
    known = proxies.get("no", "")
    if set(proxies) - {"no"} and known != "*":
        direct = [host for host in _LOOPBACK if host not in known.split(",")]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*([known] if known else []), *direct])


def refuse_other_schema(uri: str) -> None:
    """Refuse a database of another MLflow version.

    MLflow refuses some of them, and migrates others as it opens them, without a copy.

    Raises:
        StoreError: its tables are of another version.
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
    """The experiment of this name; None if there is none yet.

    Raises:
        StoreError: it is deleted.
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
    """Open a store as a run would; return what is wrong with it, or None. A database that is missing is not made."""
    try:
        if is_sqlite(uri):
            path = sqlite_path(uri)
            folder = next(each for each in path.parents if each.exists())
            if not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
                raise StoreError(f"{path} cannot be written", "set tracking.uri or UNFUSED_RAY_HOME")
            if not path.exists() or not path.stat().st_size:
                return None
        prepare_mlflow()
        refuse_other_schema(uri)
        from mlflow import MlflowClient  # here: importing MLflow takes seconds

        find_experiment(MlflowClient(tracking_uri=uri), experiment)
    except Exception as error:  # noqa: BLE001 - whatever the tracking store raises
        return explain(error)
    return None


def explain(error: Exception) -> StoreProblem:
    """Say why a store cannot be used, in a line, and what to do."""
    if isinstance(error, StoreError):
        return error.problem
    found = storage.masked(str(error).strip().partition("\n")[0][:_MAX_MESSAGE]) or type(error).__name__
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
