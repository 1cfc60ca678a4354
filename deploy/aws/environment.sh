# Every shell on a node of cluster.yaml reads this file: `ray start` and the processes it starts, `ray exec`, and
# `ray attach`.
export PATH="$HOME/venv/bin:$PATH"

# Clients without the token are refused. cluster.yaml puts the token into ~/.ray/auth_token.
export RAY_AUTH_MODE=token

# Ray Train waits this long for its workers' nodes. A GPU node takes about five minutes from request to first task.
export RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=900

# `ray job stop` gives a run this long to write its last checkpoint, then kills it.
export RAY_JOB_STOP_WAIT_TIME_S=120

# The workers of cluster.yaml, those of equal resources together: max_workers, and the resources of one node. Ray does
# not tell jobs about them.
export UNFUSED_RAY_AUTOSCALER='[{"nodes": 16, "CPU": 16}, {"nodes": 2, "CPU": 48, "GPU": 4}]'

# Bucket and region, which cluster.yaml writes anew at each setup.
if [ -f ~/unfused-ray-values.sh ]; then
    source ~/unfused-ray-values.sh
fi

# The user's own variables, such as MLFLOW_TRACKING_PASSWORD, if cluster.yaml copies the file: one NAME=value per line,
# without quotes. The file is read, not sourced, so a value may contain any character.
if [ -f ~/.unfused-ray.env ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '' | '#'*) ;;
            *=*) export "$line" ;;
        esac
    done < ~/.unfused-ray.env
fi
