# Read by every shell on a node of cluster.yaml, so by `ray start`, by what it starts, and by `ray exec` and `ray
# attach`.
export PATH="$HOME/venv/bin:$PATH"

# Whoever has no token is refused. The token is in ~/.ray/auth_token, where cluster.yaml has put it.
export RAY_AUTH_MODE=token

# Ray Train waits so long for its workers' nodes: a GPU node takes about five minutes from request to first task.
export RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=900

# `ray job stop` gives a run so long to write its last checkpoint before it kills it.
export RAY_JOB_STOP_WAIT_TIME_S=120

# What cluster.yaml's workers come to at most (max_workers times resources, summed): Ray does not tell jobs.
export UNFUSED_RAY_AUTOSCALER='{"CPU": 352, "GPU": 8}'
