"""Rendered files against the schemas of those who read them."""

import copy
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from saliency_prompt.cli.app import app
from saliency_prompt.cluster import metrics
from saliency_prompt.cluster.manifests.render import RENDERERS, render
from saliency_prompt.schemas.cluster_spec import ClusterSpec, load_cluster_spec
from saliency_prompt.schemas.errors import UserError

CRDS = Path(__file__).resolve().parents[3] / "shared/data/kuberay_crds"
GPU = {
    "image": "example/saliency-prompt:1",
    "job": {
        "photos": "s3://photos/it's here/",
        "out": "s3://labels/v1",
        "weights": "densecl-r50-in1k-200ep",
        "overrides": ["plan.shard_size=512", "nms.max_masks=50"],
    },
    "workers": {"min_workers": 2, "max_workers": 64, "gpus_per_worker": 1, "cpus_per_worker": 8},
    "gpu_type": "NVIDIA-H100-80GB-HBM3",
    "spot": True,
    "credentials_secret": "bucket",
    "env": {"AWS_REGION": "eu-west-1"},
    "kuberay": {
        "namespace": "vision",
        "service_account": "labels",
        "spot_label": "cloud/spot=true",
        "volume_claims": {"photos": "/photos"},
    },
    "slurm": {"partition": "gpu", "account": "vision", "setup": ["module load python"]},
}
CPU = {
    "image": "example/saliency-prompt:1",
    "job": {"photos": "/data/photos", "out": "s3://labels/v1"},
    "workers": {"gpus_per_worker": 0, "cpus_per_worker": 2},
}
SHARED_GPU = {**CPU, "workers": {"gpus_per_worker": 0.25, "max_workers": 9}}
SPECS = [pytest.param(spec, id=name) for name, spec in (("gpu", GPU), ("cpu", CPU), ("shared-gpu", SHARED_GPU))]


def rendered(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    return RENDERERS[kind](ClusterSpec.model_validate(spec))


def strict(schema: Any) -> Any:
    """A CRD's schema as the API server checks it: unknown fields refused, numbers or strings where both are taken."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: strict(value) for key, value in schema.items() if key != "format"}
    if "properties" in schema and "additionalProperties" not in schema:
        found["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return found


@pytest.fixture(scope="module")
def crds() -> dict[str, Any]:
    if not CRDS.is_dir():
        pytest.skip("needs the KubeRay CRDs in ../shared/data/kuberay_crds")
    found = {}
    for path in CRDS.glob("*.yaml"):
        for crd in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            for version in crd["spec"]["versions"]:
                if version["name"] == "v1":
                    schema = strict(version["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"type": "object"}  # checked by the API server's own schema
                    found[crd["spec"]["names"]["kind"]] = schema
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_kuberay_files_satisfy_the_crds(crds: dict[str, Any], spec: dict[str, Any]) -> None:
    files = rendered("kuberay", spec)
    for name, kind in (("rayjob.yaml", "RayJob"), ("raycluster.yaml", "RayCluster")):
        document = yaml.safe_load(files[name])
        assert document["kind"] == kind
        jsonschema.validate(document, crds[kind])


def test_the_crds_would_catch_a_slip(crds: dict[str, Any]) -> None:
    job = yaml.safe_load(rendered("kuberay", GPU)["rayjob.yaml"])
    for change in (
        lambda d: d["spec"].update(backofLimit=3),
        lambda d: d["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("groupName"),
        lambda d: d["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(image=3),
    ):
        broken = copy.deepcopy(job)
        change(broken)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, crds["RayJob"])


def test_kuberay_asks_for_what_the_spec_says() -> None:
    job = yaml.safe_load(rendered("kuberay", GPU)["rayjob.yaml"])
    assert shlex.split(job["spec"]["entrypoint"])[:3] == ["saliency-prompt", "generate", "s3://photos/it's here/"]
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    pod = group["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert (group["maxReplicas"], limits["nvidia.com/gpu"], limits["cpu"]) == (64, "1", "8")
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "cloud/spot": "true"}
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["envFrom"] == pod["containers"][0]["envFrom"]  # the driver writes, too
    shared = yaml.safe_load(rendered("kuberay", SHARED_GPU)["rayjob.yaml"])["spec"]["rayClusterSpec"]
    assert shared["workerGroupSpecs"][0]["maxReplicas"] == 3  # 9 workers, 4 on a GPU
    assert "nvidia.com/gpu" not in str(yaml.safe_load(rendered("kuberay", CPU)["rayjob.yaml"]))


def test_the_entrypoint_is_understood_by_the_command_line() -> None:
    words = shlex.split(yaml.safe_load(rendered("kuberay", GPU)["rayjob.yaml"])["spec"]["entrypoint"])
    result = CliRunner().invoke(app, [*words[1:], "--help"])
    assert result.exit_code == 0
    flags = set(re.findall(r"--[a-z-]+", result.output))
    assert {word for word in words if word.startswith("--")} <= flags


@pytest.mark.parametrize("spec", [GPU, {**CPU, "launcher": {"provider": "local", "hosts": ["10.0.0.1", "10.0.0.2"]}}])
def test_launcher_file_satisfies_rays_schema(spec: dict[str, Any]) -> None:
    pytest.importorskip("ray")
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    document = yaml.safe_load(rendered("launcher", spec)["cluster.yaml"])
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(document, schema)
    validate_config(prepare_config(document))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "max_worker": 3}, schema)


@pytest.mark.parametrize("spec", SPECS)
def test_slurm_script_is_clean_shell(spec: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "job.sbatch"
    script.write_text(rendered("slurm", spec)["job.sbatch"])
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)
    lines = script.read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert lines[1 : 1 + len(directives)] == directives, "Slurm stops reading them at the first command"


def test_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads(rendered("kuberay", GPU)["grafana-dashboard.json"])
    asked = set(re.findall(r"ray_(saliency_prompt_\w+)", json.dumps(dashboard)))
    kinds = {metric.name: metric.kind for metric in metrics.ALL}
    assert {name.removesuffix("_total") for name in asked} <= set(kinds)
    assert all(name.endswith("_total") == (kinds[name.removesuffix("_total")] == "Counter") for name in asked)
    assert {metric.name for metric in metrics.ALL} - {name.removesuffix("_total") for name in asked} == {
        metrics.SHARDS.name
    }


def test_dockerfile_fetches_registered_weights_only() -> None:
    assert "RUN saliency-prompt weights fetch densecl-r50-in1k-200ep" in rendered("kuberay", GPU)["Dockerfile"]
    assert "weights fetch" not in rendered("kuberay", CPU)["Dockerfile"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"imag": "x"}, "imag"),
        ({"workers": {"min_workers": 9, "max_workers": 2}}, "above max_workers"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "credentials_secret"),
        ({"name": "Not_A_Label"}, "name"),
        ({"slurm": {"partition": "a; rm"}}, "slurm.partition"),
    ],
)
def test_a_bad_spec_is_one_sentence(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({**CPU, **change}))
    with pytest.raises(UserError, match=said):
        load_cluster_spec(str(path))


def test_missing_and_broken_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        load_cluster_spec(str(tmp_path / "none.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match="no readable YAML"):
        load_cluster_spec(str(tmp_path / "broken.yaml"))
    local = ClusterSpec.model_validate({**CPU, "job": {"photos": "/a", "out": "/b"}})
    for kind in ("kuberay", "launcher"):
        with pytest.raises(UserError, match="bucket URL"):
            render(kind, local, str(tmp_path))


def test_the_documented_example_renders_for_all(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/operate.md").read_text()
    (tmp_path / "cluster.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    for kind in RENDERERS:
        assert render(kind, load_cluster_spec(str(tmp_path / "cluster.yaml")), str(tmp_path / kind))
