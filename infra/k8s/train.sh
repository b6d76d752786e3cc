#!/bin/bash
# Start one training run on Kubernetes, follow its logs, end with it. In params.yaml, from the top of a checkout on the
# volume that the pods mount:
#   launcher: bash infra/k8s/train.sh {nodes} {ranks_per_node} {work}
set -euo pipefail

nodes=$1 ranks_per_node=$2 work=$3
if [[ ! $work =~ ^[A-Za-z0-9._/-]+$ ]]; then
    echo "the folder of the run is '$work': train.yaml takes letters, digits and . _ / - only; choose another --out"
    exit 2
fi
name=stiv-train-$(printf %s "$work" | sha256sum | cut --characters=1-8)

logs=()
for ((node = 0; node < nodes; node++)); do
    logs+=("$work/kubernetes-$node.log")
done
touch "${logs[@]}"
# shellcheck source=infra/follow.sh
source infra/follow.sh
follow --quiet --lines=0 "${logs[@]}"
# the pods get SIGTERM, and the time to save their work: foreground waits for them
trap 'kubectl delete jobset "$name" --cascade=foreground; exit 143' TERM INT

# of a start that was killed the JobSet is still there: apply leaves it as it is, and this one follows it
sed -e "s|\${NAME}|$name|g" -e "s|\${NODES}|$nodes|g" -e "s|\${RANKS_PER_NODE}|$ranks_per_node|g" \
    -e "s|\${WORK}|$work|g" -e "s|\${STIV_UID}|$(id -u)|g" infra/k8s/train.yaml | kubectl apply --filename -

state=running
while [ "$state" = running ]; do
    sleep 5 &
    wait $!
    # a request that fails is made again: the run does not depend on it
    found=$(kubectl get jobset "$name" --ignore-not-found --output jsonpath='state {.status.terminalState}') || continue
    case $found in
        'state Completed') state=completed ;;
        'state Failed') state=failed ;;
        '')
            echo "JobSet $name is gone: somebody deleted it"
            exit 1
            ;;
    esac
done
kubectl delete jobset "$name" # so that another start is a new run of it
[ "$state" = completed ]
