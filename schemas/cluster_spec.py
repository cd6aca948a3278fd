"""The cluster that manifests are rendered for: one document for Kubernetes, Slurm and Ray's launcher."""

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from .cluster import Workers
from .config import Section
from .errors import UserError
from .yaml_text import describe_trouble, read_yaml

Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
Word = Annotated[str, Field(pattern=r"^[\w.,:/@+-]+$")]  # goes into scripts: no blanks, no quotes
Environment = dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str]


class JobSpec(Section):
    """What to run: the arguments of `generate`."""

    photos: str = Field(description="Folder, list, COCO json or bucket URL, as the nodes see it.")
    out: str = Field(description="The data set: a bucket URL, or a folder that all nodes share.")
    root: str | None = Field(None, description="Folder or URL that names in a COCO json are relative to.")
    weights: str | None = Field(None, description="Registered name, or a file at the same path on every node.")
    preset: str = Field("saliency-prompt", description="Named configuration.")
    overrides: tuple[str, ...] = Field((), description="As for --set, e.g. plan.shard_size=2048.")


class HeadSpec(Section):
    """The node that runs the driver: it computes nothing, and grows little with the job."""

    cpus: int = Field(4, ge=1, description="CPU cores: Ray's control plane and the driver.")
    memory_gib: int = Field(16, ge=2, description="Memory in GiB; the plan takes 15 bytes an image of it.")


class KubeRaySpec(Section):
    """Kubernetes with the KubeRay operator."""

    namespace: Name = Field("default", description="Namespace of all that is rendered.")
    service_account: Name | None = Field(None, description="Account of the pods, for access to a bucket by role.")
    gpu_label: str = Field("nvidia.com/gpu.product", description="Node label that holds the GPU type.")
    gpu_resource: str = Field("nvidia.com/gpu", description="Extended resource that a GPU is requested by.")
    spot_label: str = Field(
        "",
        pattern=r"^([\w./-]+=[\w.-]+)?$",
        description="KEY=VALUE of spot nodes: selected and tolerated if spot is on.",
    )
    volume_claims: dict[Name, str] = Field(
        {}, description="Persistent volume claims by the path they are mounted at, for folders that nodes share."
    )
    ttl_seconds: int = Field(3600, ge=0, description="Keep the finished job for so long, in s: its logs.")
    idle_seconds: int = Field(120, ge=1, description="Let a node go that was idle for so long, in s.")
    backoff_limit: int = Field(5, ge=0, description="New clusters to try when one is lost; each resumes.")


class SlurmSpec(Section):
    """A Slurm cluster, where nodes share a file system."""

    partition: Word | None = Field(None, description="Partition to run in.")
    account: Word | None = Field(None, description="Account to charge.")
    time_limit: Word = Field("24:00:00", description="Wall clock of one submission; it is requeued until done.")
    warning_seconds: int = Field(
        300, ge=30, le=65535, description="Drain so long before the limit, in s: more than two shards take."
    )
    gpus_per_node: int = Field(8, ge=1, description="GPUs to take of a node; a node runs as many workers.")
    workers_per_node: int = Field(1, ge=1, description="Workers of a node when workers take no GPU.")
    setup: tuple[str, ...] = Field((), description="Shell lines before all: modules, the virtual environment.")
    port: int = Field(6379, ge=1024, le=10001, description="Port of the head; above 10001 Ray's workers listen.")


class LauncherSpec(Section):
    """Virtual machines by Ray's own cluster launcher (`ray up`)."""

    provider: Literal["aws", "local"] = Field("aws", description="Whose machines; `local`: those in `hosts`.")
    region: str = Field("us-west-2", description="Region of the machines.")
    zone: str = Field("us-west-2a", description="Availability zone of the machines.")
    head_machine: str = Field("m5.xlarge", description="Machine type of the head.")
    worker_machine: str = Field("g5.2xlarge", description="Machine type of a worker node: one worker on each.")
    disk_gib: int = Field(200, ge=50, description="Disk of a node, in GiB: the image takes 15.")
    instance_profile: str | None = Field(None, description="Role of the machines for access to the bucket (aws ARN).")
    ssh_user: Word = Field("ubuntu", description="User to log in as.")
    hosts: tuple[Word, ...] = Field((), description="Head first, then workers (local).")


class ClusterSpec(Section):
    """Everything that manifests need. `env` and the secret reach every node and the driver."""

    name: Name = Field("saliency-prompt", description="Name of the job and the cluster.")
    image: str = Field(description="Container image with this program: see the rendered Dockerfile.")
    job: JobSpec
    workers: Workers = Workers()
    memory_gib: int = Field(16, ge=4, description="Memory of a worker in GiB: 4 and some megabytes an image in flight.")
    gpu_type: str | None = Field(None, description="GPU to ask for, as the cluster calls it; any if not given.")
    spot: bool = Field(False, description="Take nodes that may be taken away: nothing is lost but the shards on them.")
    credentials_secret: Name | None = Field(
        None, description="Secret whose keys become environment variables (AWS_ACCESS_KEY_ID and the like)."
    )
    env: Environment = Field({}, description="Plain environment variables (AWS_REGION and the like); no secrets.")
    head: HeadSpec = HeadSpec()
    kuberay: KubeRaySpec = KubeRaySpec()
    slurm: SlurmSpec = SlurmSpec()
    launcher: LauncherSpec = LauncherSpec()

    @model_validator(mode="after")
    def _no_secrets_in_plain(self) -> "ClusterSpec":
        for key in self.env:
            if any(word in key.upper() for word in ("SECRET", "TOKEN", "PASSWORD")):
                raise ValueError(f"env.{key} would stand in plain text: put it into credentials_secret")
        return self


def load_cluster_spec(path: str) -> ClusterSpec:
    """Read a YAML file. Raises UserError that names the field and the trouble."""
    try:
        values: Any = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}: write one as in docs/operate.md.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no readable YAML ({describe_trouble(error)}): repair it.") from None
    try:
        return ClusterSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the document"
        trouble = str(first["ctx"]["error"]) if "error" in first.get("ctx", {}) else first["msg"]
        raise UserError(f"{path}: {field}: {trouble}.") from None
