"""unfused-ray: distributed self-supervised audio training on Ray (DECAR-v2 and UnFuSeD)."""

import os

# Ray reads this once, when it is first imported: a cluster of this machine alone then binds every port to loopback
# (binding flags alone leave some on all interfaces). A process that joins a cluster takes the cluster's own choice.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
