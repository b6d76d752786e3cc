#!/bin/bash
# Submit one training run to Slurm, follow its log, end with its exit code. In params.yaml, from the top of the checkout:
#   launcher: bash infra/slurm/train.sh {python} {nodes} {ranks_per_node} {work}
# Partition, account, time limit: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT in the environment.
set -euo pipefail

python=$1 nodes=$2 ranks_per_node=$3 work=$4
name="stiv-train $(realpath "$work")"
log=$work/slurm.log

touch "$log"
seen=$(stat --format=%s "$log") # what follows is shown from here on, however late the follower starts
# shellcheck source=infra/follow.sh
source infra/follow.sh
follow --bytes=+$((seen + 1)) "$log"

asked=no
stop() {
    asked=yes
    scancel --state=PENDING --name "$name"
    scancel --state=RUNNING --signal=TERM --name "$name" # to the ranks, which save their work; the job ends with 75
}
trap stop TERM INT

code=75 # of a job that saved its work before the time limit: the next goes on
while [ "$code" -eq 75 ] && [ "$asked" = no ]; do
    # singleton: the job of a start that was killed may still run, and two may not write to one folder
    # in a session of its own, as the follower
    setsid sbatch --wait --job-name "$name" --dependency singleton --nodes "$nodes" \
        --gpus-per-node "$ranks_per_node" --output "$log" \
        infra/slurm/train.sbatch "$python" "$nodes" "$ranks_per_node" "$work" &
    job=$! code=0
    wait "$job" || code=$?
    if [ "$asked" = yes ]; then # what ended was the waiting
        code=0
        wait "$job" || code=$?
    fi
done
exit "$code"
