"""The cluster that manifests are rendered for: one document for Kubernetes, Slurm and Ray's launcher."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from .cluster import Workers
from .errors import UserError
from .explain import explain
from .secrets import looks_secret
from .section import Section
from .yaml_text import describe_trouble, read_yaml_with_lines

Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,:/@+][A-Za-z0-9_.,:/@+-]*$")]  # into scripts: no blanks, no quotes
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?$", max_length=317)]
MountPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.-]+)+/?$")]
Argument = Annotated[str, Field(pattern=r"^[^-]")]  # of a command: it must not look like an option
Environment = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]

_ASSIGNED = re.compile(r"""(?:^|[\s;&])([A-Za-z_]\w*)=(?:"([^"$]+)"|'([^']+)'|([^\s"'$;&]+))""")


class Rendered(Section):
    """Base of all sections that enter a template: every string is one line of printable characters."""

    @field_validator("*")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        for text in _strings(value):
            if not text.isprintable():
                raise ValueError(f"{text[:40]!r} holds a line break or a character that does not print: leave it out")
        return value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from (text for part in pair for text in _strings(part))
    elif isinstance(value, tuple):
        yield from (text for part in value for text in _strings(part))


class JobSpec(Rendered):
    """What to run: the arguments of `generate`."""

    photos: Argument = Field(description="Folder, list, COCO json or bucket URL, as the nodes see it.")
    out: Argument = Field(description="The data set: a bucket URL, or a folder that all nodes share.")
    root: Argument | None = Field(None, description="Folder or URL that names in a COCO json are relative to.")
    weights: Argument | None = Field(None, description="Registered name, or a file at the same path on every node.")
    preset: Argument = Field("saliency-prompt", description="Named configuration.")
    overrides: tuple[Argument, ...] = Field((), description="As for --set, e.g. plan.shard_size=2048.")


class HeadSpec(Rendered):
    """The node that runs the driver: it computes nothing, and grows little with the job."""

    cpus: int = Field(4, ge=1, description="CPU cores: Ray's control plane and the driver.")
    memory_gib: int = Field(16, ge=2, description="Memory in GiB; the plan takes 15 bytes an image of it.")


class KubeRaySpec(Rendered):
    """Kubernetes with the KubeRay operator."""

    namespace: Name = Field("default", description="Namespace of all that is rendered.")
    service_account: Name | None = Field(None, description="Account of the pods, for access to a bucket by role.")
    gpu_label: Label = Field("nvidia.com/gpu.product", description="Node label that holds the GPU type.")
    gpu_resource: Label = Field("nvidia.com/gpu", description="Extended resource that a GPU is requested by.")
    spot_label: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_./-]+=[A-Za-z0-9_.-]+)?$",
        description="KEY=VALUE of spot nodes: selected and tolerated if spot is on.",
    )
    volume_claims: dict[Name, MountPath] = Field(
        {}, description="Persistent volume claims by the path they are mounted at, for folders that nodes share."
    )
    run_as_user: int = Field(
        1000, ge=1, lt=2**31, description="Numeric user and group of the pods, not root: those of the image."
    )
    read_only_root: bool = Field(
        True,
        description="Containers may write to /tmp, /dev/shm and mounted claims only; false for images that cannot.",
    )
    ttl_seconds: int = Field(3600, ge=0, description="Keep the finished job for so long, in s: its logs.")
    idle_seconds: int = Field(120, ge=1, description="Let a node go that was idle for so long, in s.")
    backoff_limit: int = Field(5, ge=0, description="New clusters to try when one is lost; each resumes.")

    @field_validator("volume_claims")
    @classmethod
    def _no_clash(cls, value: dict[str, str]) -> dict[str, str]:
        for name, path in value.items():
            if name in ("scratch", "shared-memory", "api-token") or path.split("/")[1] in ("tmp", "dev", "var"):
                raise ValueError(f"{name} at {path} is taken by Ray: choose another name and path")
        return value


class SlurmSpec(Rendered):
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


class LauncherSpec(Rendered):
    """Virtual machines by Ray's own cluster launcher (`ray up`)."""

    provider: Literal["aws", "local"] = Field("aws", description="Whose machines; `local`: those in `hosts`.")
    region: Word = Field("us-west-2", description="Region of the machines.")
    zone: Word = Field("us-west-2a", description="Availability zone of the machines.")
    head_machine: Word = Field("m5.xlarge", description="Machine type of the head.")
    worker_machine: Word = Field("g5.2xlarge", description="Machine type of a worker node: one worker on each.")
    disk_gib: int = Field(200, ge=50, description="Disk of a node, in GiB: the image takes 15.")
    instance_profile: Word | None = Field(None, description="Role of the machines for access to the bucket (aws ARN).")
    ssh_user: Word = Field("ubuntu", description="User to log in as.")
    hosts: tuple[Word, ...] = Field((), description="Head first, then workers (local).")


class ClusterSpec(Rendered):
    """Everything that manifests need. `env` and the secret reach every node and the driver."""

    name: Name = Field("saliency-prompt", description="Name of the job and the cluster.")
    image: Word = Field(description="Container image with this program: see the rendered Dockerfile.")
    job: JobSpec
    workers: Workers = Workers()
    memory_gib: int = Field(16, ge=4, description="Memory of a worker in GiB: 4 and some megabytes an image in flight.")
    gpu_type: Label | None = Field(None, description="GPU to ask for, as the cluster calls it; any if not given.")
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
        assigned = [match for line in self.slurm.setup for match in _ASSIGNED.finditer(line)]
        named = [(f"env.{name}", name, value) for name, value in self.env.items()]
        named += [(f"slurm.setup sets {m[1]}, which", m[1], m[2] or m[3] or m[4]) for m in assigned]
        for place, name, value in named:
            if looks_secret(name, value):
                raise ValueError(
                    f"{place} looks like a secret and would stand in plain text: put it into a secret of the cluster "
                    "and name that in credentials_secret"
                )
        return self


def load_cluster_spec(path: str) -> ClusterSpec:
    """Read a YAML file. Raises UserError that names the field and the trouble."""
    try:
        values, lines = read_yaml_with_lines(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}: write one as in docs/operate.md.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no readable YAML ({describe_trouble(error)}): repair it.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold fields and sections: write one as in docs/operate.md.")
    places = {key: f"{path}, line {line}" for key, line in lines.items()}
    try:
        return ClusterSpec.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, ClusterSpec, places, "saliency-prompt cluster schema")) from None
