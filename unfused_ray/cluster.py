"""Start or join a Ray cluster, with every port of a one-machine cluster on loopback."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Ray reads these when it is imported. Off Linux clusters it binds its ports to 127.0.0.1; asking for that behaviour
# keeps a private one-machine cluster off the network (binding flags alone leave the GCS and raylet on all interfaces).
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray

logger = logging.getLogger(__name__)


@contextmanager
def session(num_cpus: int | None = None) -> Iterator[None]:
    """Join the cluster named by ``RAY_ADDRESS`` (set inside ``ray job submit``), or start a private one here.

    A session that is already open in this process is used and left open.

    Args:
        num_cpus: CPUs of a private cluster; all of the machine's by default.
    """
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
    else:
        ray.init(num_cpus=num_cpus, include_dashboard=False, logging_level=logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()
