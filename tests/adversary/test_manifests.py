"""Descriptions of clusters that try to say more than they may, and pods that could do more than they must."""

import copy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from saliency_prompt.cluster.manifests.render import RENDERERS
from saliency_prompt.schemas.cluster_spec import ClusterSpec, load_cluster_spec
from saliency_prompt.schemas.errors import UserError

FULL: dict[str, Any] = {
    "name": "labels",
    "image": "registry.example:5000/saliency-prompt@sha256:" + "ab" * 32,
    "job": {
        "photos": "s3://photos/it's here/",
        "out": "s3://labels/v1",
        "root": "s3://photos/",
        "weights": "densecl-r50-in1k-200ep",
        "preset": "saliency-prompt",
        "overrides": ["plan.shard_size=512"],
    },
    "gpu_type": "NVIDIA-H100-80GB-HBM3",
    "credentials_secret": "bucket",
    "env": {"AWS_REGION": "eu-west-1"},
    "kuberay": {
        "namespace": "vision",
        "service_account": "labels",
        "gpu_label": "nvidia.com/gpu.product",
        "gpu_resource": "nvidia.com/gpu",
        "spot_label": "cloud/spot=true",
        "volume_claims": {"photos": "/photos"},
    },
    "slurm": {"partition": "gpu", "account": "vision", "time_limit": "24:00:00", "setup": ["module load python/3.12"]},
    "launcher": {
        "region": "us-west-2",
        "zone": "us-west-2a",
        "head_machine": "m5.xlarge",
        "worker_machine": "g5.2xlarge",
        "instance_profile": "arn:aws:iam::1:instance-profile/x",
        "ssh_user": "ubuntu",
        "hosts": ["10.0.0.1", "10.0.0.2"],
    },
}


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the strings of a document are."""
    if isinstance(value, str):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from strings(part, (*path, key))


def changed(path: tuple[Any, ...], change: str) -> dict[str, Any]:
    document = copy.deepcopy(FULL)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] += change
    return document


def string_fields(schema: dict[str, Any]) -> int:
    """Fields of the JSON schema that take text of a person's."""
    found = 0
    for part in [schema, *schema.get("$defs", {}).values()]:
        for field in part.get("properties", {}).values():
            options = field.get("anyOf", [field])
            found += any(
                inner.get("type") == "string" and "enum" not in inner
                for option in options
                for inner in (option, option.get("items", {}), *option.get("patternProperties", {}).values())
                if isinstance(inner, dict)
            )
    return found


def test_the_document_has_every_text_field() -> None:
    tops = {tuple(key for key in path if isinstance(key, str))[:2] for path in strings(FULL)}
    assert len(tops) == string_fields(ClusterSpec.model_json_schema())


@pytest.mark.parametrize("path", list(strings(FULL)), ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("change", ["\nevil", "\r", "\x00", "\x1b[2J", "\u2028x", "\u202e", "\x85", "\ud800"])
def test_every_string_is_one_line_that_prints(path: tuple[Any, ...], change: str) -> None:
    with pytest.raises(ValidationError):
        ClusterSpec.model_validate(changed(path, change))


@pytest.mark.parametrize("key", ["A\nB", "A B", "A;B", "1A", "Ä"])
def test_names_of_variables_are_names(key: str) -> None:
    with pytest.raises(ValidationError):
        ClusterSpec.model_validate({**FULL, "env": {key: "x"}})


@pytest.mark.parametrize(
    "change",
    [
        {"gpu_type": "a100 #"},
        {"gpu_type": "a100'; rm x"},
        {"image": "x y"},
        {"image": "--privileged"},
        {"job": {"photos": "--help", "out": "s3://x/y"}},
        {"job": {"photos": "s3://x/", "out": "-x"}},
        {"launcher": {"region": "a b"}},
        {"kuberay": {"volume_claims": {"a": "relative"}}},
        {"kuberay": {"volume_claims": {"scratch": "/photos"}}},
        {"kuberay": {"volume_claims": {"a": "/var/run/secrets"}}},
        {"kuberay": {"gpu_label": "a: b"}},
        {"kuberay": {"run_as_user": 0}},
        {"slurm": {"partition": "--wrap"}},
    ],
)
def test_what_would_say_more_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClusterSpec.model_validate({**FULL, **change})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"env": {"HF_TOKEN": "x"}}, "env.HF_TOKEN"),
        ({"env": {"DB_PASS": "x"}}, "env.DB_PASS"),
        ({"env": {"SETTING": "9f86d081884c7d659a2feaa0c55ad015"}}, "env.SETTING"),
        ({"env": {"URL": "https://me:letmein@host/"}}, "env.URL"),
        ({"slurm": {"setup": ["export AWS_SECRET_ACCESS_KEY=abc"]}}, "AWS_SECRET_ACCESS_KEY"),
        ({"slurm": {"setup": ["module load x; API_KEY='abc' run"]}}, "API_KEY"),
    ],
)
def test_secrets_in_plain_are_refused_and_not_repeated(change: dict[str, Any], place: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({**FULL, **change}))
    with pytest.raises(UserError, match="credentials_secret") as caught:
        load_cluster_spec(str(path))
    said = str(caught.value)
    assert place in said
    assert not any(value in said for value in change.get("env", {}).values() if len(value) > 1)


@pytest.mark.parametrize("line", ["export TOKEN=$(cat token)", 'export HF_TOKEN="$TOKEN"', "source venv/bin/activate"])
def test_setup_may_fetch_secrets(line: str) -> None:
    assert ClusterSpec.model_validate({**FULL, "slurm": {"setup": [line]}})


def test_a_name_with_blanks_and_quotes_stays_one_argument() -> None:
    spec = ClusterSpec.model_validate(FULL)
    job = yaml.safe_load(RENDERERS["kuberay"](spec)["rayjob.yaml"])
    assert "s3://photos/it's here/" in shlex.split(job["spec"]["entrypoint"])


def pods(spec: ClusterSpec) -> dict[str, dict[str, Any]]:
    found = {}
    for name in ("rayjob.yaml", "raycluster.yaml"):
        text = RENDERERS["kuberay"](spec)[name]
        assert "&id" not in text
        document = yaml.safe_load(text)["spec"]
        cluster = document.get("rayClusterSpec", document)
        found[f"{name} head"] = cluster["headGroupSpec"]["template"]["spec"]
        found[f"{name} worker"] = cluster["workerGroupSpecs"][0]["template"]["spec"]
        if "submitterPodTemplate" in document:
            found[f"{name} submitter"] = document["submitterPodTemplate"]["spec"]
    return found


@pytest.mark.parametrize("read_only", [True, False])
def test_pods_can_do_what_they_must_and_no_more(read_only: bool) -> None:
    spec = ClusterSpec.model_validate({**FULL, "kuberay": {**FULL["kuberay"], "read_only_root": read_only}})
    found = pods(spec)
    assert len(found) == 5
    for pod in found.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": read_only,
            }
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}
            assert "scratch" in mounted
            assert "api-token" not in mounted


def test_only_the_autoscaler_holds_a_token() -> None:
    spec = ClusterSpec.model_validate(FULL)
    cluster = yaml.safe_load(RENDERERS["kuberay"](spec)["raycluster.yaml"])["spec"]
    mounts = {mount["name"]: mount for mount in cluster["autoscalerOptions"]["volumeMounts"]}
    assert mounts["api-token"]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert cluster["autoscalerOptions"]["securityContext"]["allowPrivilegeEscalation"] is False
    names = [[volume["name"] for volume in pod["volumes"]] for pod in pods(spec).values()]
    assert sum("api-token" in volumes for volumes in names) == 2  # the head of each document


def test_the_image_runs_as_the_same_number() -> None:
    spec = ClusterSpec.model_validate({**FULL, "kuberay": {**FULL["kuberay"], "run_as_user": 4711}})
    dockerfile = RENDERERS["kuberay"](spec)["Dockerfile"]
    assert "\nUSER 4711:4711\n" in dockerfile
    assert "--uid 4711" in dockerfile
    assert pods(spec)["rayjob.yaml worker"]["securityContext"]["runAsUser"] == 4711
