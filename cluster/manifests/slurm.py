"""Slurm: a batch script that starts Ray on its nodes, runs the driver, and has itself queued again until done."""

import math
import shlex

from ...schemas.cluster_spec import ClusterSpec
from .command import generate_command, shell


def render_slurm(spec: ClusterSpec) -> dict[str, str]:
    """`job.sbatch`: the head and the driver share the first node with workers."""
    return {"job.sbatch": "\n".join([*_directives(spec), "", *_body(spec)]) + "\n"}


def workers_per_node(spec: ClusterSpec) -> int:
    """Workers that one node runs."""
    share = spec.workers.gpus_per_worker
    return math.floor(spec.slurm.gpus_per_node / share) if share else spec.slurm.workers_per_node


def _directives(spec: ClusterSpec) -> list[str]:
    slurm, workers = spec.slurm, spec.workers
    per_node = workers_per_node(spec)
    options = {
        "job-name": spec.name,
        "partition": slurm.partition,
        "account": slurm.account,
        "nodes": f"{-(-workers.min_workers // per_node)}-{-(-workers.max_workers // per_node)}",
        "ntasks-per-node": 1,
        "cpus-per-task": workers.cpus_per_worker * per_node,
        "mem": f"{spec.memory_gib * per_node}G",
        "time": slurm.time_limit,
        "signal": f"B:TERM@{slurm.warning_seconds}",
        "open-mode": "append",
        "output": "%x-%j.log",
    }
    if workers.gpus_per_worker:
        kind = f"{spec.gpu_type}:" if spec.gpu_type else ""
        options["gpus-per-node"] = f"{kind}{slurm.gpus_per_node}"
    lines = [f"#SBATCH --{key}={value}" for key, value in options.items() if value is not None]
    return ["#!/usr/bin/env bash", *lines, "#SBATCH --requeue"]


def _body(spec: ClusterSpec) -> list[str]:
    workers, port = spec.workers, spec.slurm.port
    per_node = workers_per_node(spec)
    cpus = workers.cpus_per_worker * per_node
    gpus = spec.slurm.gpus_per_node if workers.gpus_per_worker else 0
    srun = f"srun --overlap --cpus-per-task={cpus} --open-mode=append --output=%x-%j-ray-%s-%t.log"
    node = f"--num-cpus={cpus} --num-gpus={gpus} --object-store-memory=1000000000 --disable-usage-stats --block"
    secret = [
        f"# Credentials come from the environment that sbatch passes on ({spec.credentials_secret}).",
    ]
    return [
        "set -euo pipefail",
        *(f"export {key}={shlex.quote(value)}" for key, value in spec.env.items()),
        *(secret if spec.credentials_secret else []),
        *spec.slurm.setup,
        "export RAY_USAGE_STATS_ENABLED=0",
        "RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')",
        "export RAY_AUTH_TOKEN RAY_AUTH_MODE=token",
        "",
        'mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        'head="${nodes[0]}"',
        "address=$(srun --nodes=1 --ntasks=1 --nodelist=\"$head\" hostname --ip-address | awk '{print $1}')",
        f'ray_address="$address:{port}"',
        "",
        "# Ray's processes end with the steps that started them; `ray stop` would end those of other jobs too.",
        f'{srun} --nodes=1 --ntasks=1 --nodelist="$head" \\',
        f'  ray start --head --node-ip-address="$address" --port={port} --include-dashboard=false {node} &',
        "head_step=$!",
        "for _ in $(seq 60); do",
        '  ray health-check --address "$ray_address" > /dev/null 2>&1 && break',
        '  kill -0 "$head_step" 2> /dev/null || { echo "the head of Ray did not start: see above" >&2; exit 1; }',
        "  sleep 1",
        "done",
        'if [ "${#nodes[@]}" -gt 1 ]; then',
        "  count=$(( ${#nodes[@]} - 1 ))",
        '  others=$(IFS=,; echo "${nodes[*]:1}")',
        f'  {srun} --nodes="$count" --ntasks="$count" --nodelist="$others" \\',
        f'    ray start --address="$ray_address" {node} &',
        "fi",
        "",
        shell(generate_command(spec, "ADDRESS")).replace("--ray ADDRESS", '--ray "$ray_address"') + " &",
        "driver=$!",
        "stopping=no",
        "trap 'stopping=yes; kill -TERM \"$driver\" 2> /dev/null || true' TERM",
        "code=0",
        'wait "$driver" || code=$?',
        'while kill -0 "$driver" 2> /dev/null; do  # a signal ends `wait` before the driver has drained',
        "  code=0",
        '  wait "$driver" || code=$?',
        "done",
        "",
        "# 130: stopped with shards left. Queued again, the job goes on where it stopped.",
        'if [ "$stopping" = yes ] && [ "$code" -eq 130 ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "  exit 0",
        "fi",
        'exit "$code"',
    ]
