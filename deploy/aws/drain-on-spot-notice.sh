#!/usr/bin/env bash
# Drain this node when AWS announces, two minutes ahead, that it will reclaim the spot instance.
#
# drain-on-spot-notice.sh GCS_ADDRESS
#
# Ray then places no further task, actor or worker here, and the autoscaler starts a replacement at once. Running work
# continues until the instance ends; a training then resumes from its newest checkpoint. On-demand instances get no such
# notice. The script polls the instance's metadata every five seconds, as AWS recommends.
set -euo pipefail

address=$1
metadata=http://169.254.169.254/latest
poll_seconds=${POLL_SECONDS:-5}

announced() {
    local token
    token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token") &&
        curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/spot/instance-action"
}

until announced; do
    sleep "$poll_seconds"
done

# Without --node-id, Ray drains the node that the command runs on. The deadline is two minutes less the polling delay.
RAY_ADDRESS=$address exec ray drain-node --address "$address" --reason DRAIN_NODE_REASON_PREEMPTION \
    --reason-message 'AWS takes this spot instance back' --deadline-remaining-seconds 110
