#!/bin/bash
# Submit one training run to Slurm, follow its log, end with its exit code. In params.yaml, from the top of the checkout:
#   launcher: bash infra/slurm/train.sh {python} {nodes} {ranks_per_node} {work}
# Partition, account, time limit: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT in the environment.
set -euo pipefail

python=$1 nodes=$2 ranks_per_node=$3 work=$4
name="stiv-train $(realpath "$work")"
log=$work/slurm.log

touch "$log"
tail --follow=name --lines=0 --pid=$$ "$log" &
follower=$!
trap 'sleep 2; kill "$follower"' EXIT # it shows the last lines first
trap 'scancel --name "$name"; exit 143' TERM INT

submit() {
    # singleton: the job of a start that was killed may still run, and two may not write to one folder
    sbatch --wait --job-name "$name" --dependency singleton --nodes "$nodes" --gpus-per-node "$ranks_per_node" \
        --output "$log" infra/slurm/train.sbatch "$python" "$nodes" "$ranks_per_node" "$work" &
    wait $!
}

code=75 # of a job that saved its work before the time limit: the next goes on
while [ "$code" -eq 75 ]; do
    code=0
    submit || code=$?
done
exit "$code"
