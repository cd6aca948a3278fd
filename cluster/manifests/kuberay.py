"""KubeRay: a RayJob that makes its own cluster, and a RayCluster for several jobs.

Every container runs as a numbered user that is not root and can gain nothing. Ray runs code that it is sent, so no
container that does holds a token of the Kubernetes API: the autoscaler beside the head gets one of its own.
"""

import math
from importlib.metadata import version
from typing import Any

import yaml

from ...schemas.cluster_spec import ClusterSpec
from ...schemas.errors import UserError
from .command import generate_command, shell

Json = dict[str, Any]

# Two shards in flight end within this, in s; then Kubernetes kills the pod, and they are done again elsewhere.
GRACE_SECONDS = 120
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where clients of the API look for theirs
_SCRATCH = {"name": "scratch", "mountPath": "/tmp"}  # noqa: S108 - logs and sockets of Ray


def render_kuberay(spec: ClusterSpec) -> dict[str, str]:
    """`rayjob.yaml` and `raycluster.yaml`. Raises UserError if `out` is on a disk of a single pod."""
    if "://" not in spec.job.out and not spec.kuberay.volume_claims:
        raise UserError(
            f"job.out is the folder {spec.job.out}, which every pod would have of its own: use a bucket URL or mount a "
            "shared claim by kuberay.volume_claims."
        )
    return {"rayjob.yaml": _dump(_ray_job(spec)), "raycluster.yaml": _dump(_ray_cluster(spec))}


def _ray_job(spec: ClusterSpec) -> Json:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(spec),
        "spec": {
            "entrypoint": shell(generate_command(spec)),
            "submissionMode": "K8sJobMode",
            "submitterPodTemplate": {"spec": _submitter(spec)},
            "backoffLimit": spec.kuberay.backoff_limit,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": spec.kuberay.ttl_seconds,
            "rayClusterSpec": _cluster(spec),
        },
    }


def _ray_cluster(spec: ClusterSpec) -> Json:
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": _metadata(spec), "spec": _cluster(spec)}


def _metadata(spec: ClusterSpec) -> Json:
    labels = {"app.kubernetes.io/name": "saliency-prompt", "app.kubernetes.io/instance": spec.name}
    return {"name": spec.name, "namespace": spec.kuberay.namespace, "labels": labels}


def _cluster(spec: ClusterSpec) -> Json:
    per_pod = workers_per_pod(spec)
    return {
        "rayVersion": version("ray"),
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": spec.kuberay.idle_seconds,
            "securityContext": _container_security(spec),
            "volumeMounts": [_SCRATCH, {"name": "api-token", "mountPath": _TOKEN_PATH, "readOnly": True}],
        },
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104 - within its pod
            "template": _head_pod(spec),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": -(-spec.workers.min_workers // per_pod),
                "minReplicas": 0,
                "maxReplicas": -(-spec.workers.max_workers // per_pod),
                "rayStartParams": {},
                "template": _worker_pod(spec, per_pod),
            }
        ],
    }


def workers_per_pod(spec: ClusterSpec) -> int:
    """Workers that share the GPU of a pod; one where each takes a whole one, or none."""
    share = spec.workers.gpus_per_worker
    return math.floor(1 / share) if 0 < share < 1 else 1


def _head_pod(spec: ClusterSpec) -> Json:
    pod = _pod(spec, "ray-head", {"cpu": str(spec.head.cpus), "memory": f"{spec.head.memory_gib}Gi"})
    pod["spec"]["volumes"].append({"name": "api-token", "projected": {"sources": _token_sources()}})
    return pod


def _token_sources() -> list[Json]:
    """What Kubernetes would mount into every container by itself."""
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]


def _submitter(spec: ClusterSpec) -> Json:
    """The pod that hands the job in; KubeRay fills in the command."""
    container = {
        "name": "ray-job-submitter",
        "image": spec.image,
        "resources": {
            "requests": {"cpu": "500m", "memory": "200Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        "securityContext": _container_security(spec),
        "volumeMounts": [_SCRATCH],
    }
    scratch = {"name": "scratch", "emptyDir": {}}
    return {"restartPolicy": "Never", "containers": [container], "volumes": [scratch], **_pod_security(spec)}


def _pod_security(spec: ClusterSpec) -> Json:
    user = spec.kuberay.run_as_user
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _container_security(spec: ClusterSpec) -> Json:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": spec.kuberay.read_only_root,
    }


def _worker_pod(spec: ClusterSpec, per_pod: int) -> Json:
    resources = {"cpu": str(spec.workers.cpus_per_worker * per_pod), "memory": f"{spec.memory_gib * per_pod}Gi"}
    if spec.workers.gpus_per_worker:
        resources[spec.kuberay.gpu_resource] = "1"
    pod = _pod(spec, "ray-worker", resources)
    selector: dict[str, str] = {}
    tolerations: list[Json] = []
    if spec.workers.gpus_per_worker:
        tolerations.append({"key": spec.kuberay.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
        if spec.gpu_type:
            selector[spec.kuberay.gpu_label] = spec.gpu_type
    if spec.spot and spec.kuberay.spot_label:
        key, _, value = spec.kuberay.spot_label.partition("=")
        selector[key] = value
        tolerations.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    pod["spec"] |= {"nodeSelector": selector} if selector else {}
    pod["spec"] |= {"tolerations": tolerations} if tolerations else {}
    pod["spec"]["terminationGracePeriodSeconds"] = GRACE_SECONDS
    return pod


def _pod(spec: ClusterSpec, container: str, resources: dict[str, str]) -> Json:
    claims = spec.kuberay.volume_claims
    main: Json = {
        "name": container,
        "image": spec.image,
        "resources": {"requests": resources, "limits": resources},
        "env": [{"name": key, "value": value} for key, value in _environment(spec).items()],
        "securityContext": _container_security(spec),
        "volumeMounts": [
            _SCRATCH,
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - where Ray keeps its objects
            *({"name": claim, "mountPath": path} for claim, path in claims.items()),
        ],
    }
    if spec.credentials_secret:
        main["envFrom"] = [{"secretRef": {"name": spec.credentials_secret}}]
    pod: Json = {
        **_pod_security(spec),
        "containers": [main],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
            *({"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims),
        ],
    }
    if spec.kuberay.service_account:
        pod["serviceAccountName"] = spec.kuberay.service_account
    return {"metadata": {"labels": _metadata(spec)["labels"]}, "spec": pod}


def _environment(spec: ClusterSpec) -> dict[str, str]:
    return {"RAY_USAGE_STATS_ENABLED": "0", **spec.env}


def _dump(document: Json) -> str:
    return yaml.dump(document, Dumper=_NoAliases, sort_keys=False, width=120)


class _NoAliases(yaml.SafeDumper):
    """Writes parts that occur twice twice: a person reads this."""

    def ignore_aliases(self, data: Any) -> bool:
        """True for all."""
        del data
        return True
