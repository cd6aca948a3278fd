"""Ray's cluster launcher: the file for `ray up`."""

from typing import Any

import yaml

from ...schemas.cluster_spec import ClusterSpec
from ...schemas.errors import UserError
from .command import generate_command, shell

Json = dict[str, Any]

_BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # where the launcher puts the file on the head
_PORT = 6379


def render_launcher(spec: ClusterSpec) -> dict[str, str]:
    """`cluster.yaml`. Raises UserError for what the provider needs and the spec lacks."""
    launcher = spec.launcher
    if "://" not in spec.job.out:
        raise UserError(f"job.out is the folder {spec.job.out}, which every machine has of its own: use a bucket URL.")
    if launcher.provider == "local" and len(launcher.hosts) < 2:
        raise UserError("launcher.hosts needs the head and at least one worker: add them.")
    document = {
        "cluster_name": spec.name,
        "max_workers": spec.workers.max_workers,
        "idle_timeout_minutes": 5,
        "provider": _provider(spec),
        "auth": {"ssh_user": launcher.ssh_user},
        "docker": {
            "image": spec.image,
            "container_name": "saliency_prompt",
            "run_options": [*_run_options(spec)],
        },
        **({} if launcher.provider == "local" else _node_types(spec)),
        "head_start_ray_commands": [
            f"ray start --head --port={_PORT} --num-cpus=0 --disable-usage-stats --autoscaling-config={_BOOTSTRAP}"
        ],
        "worker_start_ray_commands": [f"ray start --address=$RAY_HEAD_IP:{_PORT} --disable-usage-stats"],
    }
    start = (
        f"# ray up cluster.yaml, then: ray submit or ray exec cluster.yaml {shell([shell(generate_command(spec))])}\n"
    )
    return {"cluster.yaml": start + yaml.safe_dump(document, sort_keys=False, width=120)}


def _provider(spec: ClusterSpec) -> Json:
    launcher = spec.launcher
    if launcher.provider == "local":
        return {"type": "local", "head_ip": launcher.hosts[0], "worker_ips": list(launcher.hosts[1:])}
    return {"type": launcher.provider, "region": launcher.region, "availability_zone": launcher.zone}


def _run_options(spec: ClusterSpec) -> list[str]:
    options = ["--ulimit nofile=65536:65536", "--shm-size=2g", "-e RAY_USAGE_STATS_ENABLED=0"]
    return [*options, *(f"-e {shell([f'{key}={value}'])}" for key, value in spec.env.items())]


def _node_types(spec: ClusterSpec) -> Json:
    worker: Json = {"CPU": spec.workers.cpus_per_worker}
    if spec.workers.gpus_per_worker:
        worker["GPU"] = 1
    return {
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": _machine(spec, spec.launcher.head_machine, worker=False)},
            "worker": {
                "resources": worker,
                "min_workers": 0,
                "max_workers": spec.workers.max_workers,
                "node_config": _machine(spec, spec.launcher.worker_machine, worker=True),
            },
        },
    }


def _machine(spec: ClusterSpec, kind: str, *, worker: bool) -> Json:
    launcher = spec.launcher
    volume = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": launcher.disk_gib, "VolumeType": "gp3"}}
    machine: Json = {"InstanceType": kind, "BlockDeviceMappings": [volume]}
    if launcher.instance_profile:
        machine["IamInstanceProfile"] = {"Arn": launcher.instance_profile}
    if spec.spot and worker:
        machine["InstanceMarketOptions"] = {"MarketType": "spot"}
    return machine
