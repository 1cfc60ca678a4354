# Read by every shell on a node of cluster.yaml, so by `ray start`, by what it starts, and by `ray exec` and `ray
# attach`.
export PATH="$HOME/venv/bin:$PATH"

# Whoever has no token is refused. The token is in ~/.ray/auth_token, where cluster.yaml has put it.
export RAY_AUTH_MODE=token

# Ray Train waits so long for its workers' nodes: a GPU node takes about five minutes from request to first task.
export RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=900

# `ray job stop` gives a run so long to write its last checkpoint before it kills it.
export RAY_JOB_STOP_WAIT_TIME_S=120

# cluster.yaml's workers, those of equal resources together: max_workers, and the resources of one. Ray does not tell jobs.
export UNFUSED_RAY_AUTOSCALER='[{"nodes": 16, "CPU": 16}, {"nodes": 2, "CPU": 48, "GPU": 4}]'

# Bucket and region: cluster.yaml writes them anew at each setup.
if [ -f ~/unfused-ray-values.sh ]; then
    source ~/unfused-ray-values.sh
fi

# The user's own, such as MLFLOW_TRACKING_PASSWORD, where cluster.yaml copies it: a NAME=value a line, without quotes.
# Read and not sourced, so that a value may have any character.
if [ -f ~/.unfused-ray.env ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '' | '#'*) ;;
            *=*) export "$line" ;;
        esac
    done < ~/.unfused-ray.env
fi
