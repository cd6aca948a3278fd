"""What runs where: the workers of a run on Ray, and the cluster that manifests are rendered for."""

from pydantic import Field, ValidationError, model_validator

from .errors import UserError
from .section import Section


class Workers(Section):
    """The pool of workers of one run: how many, and what each one gets."""

    min_workers: int = Field(1, ge=1, description="Workers asked for at once; the run begins when one is ready.")
    max_workers: int = Field(1, ge=1, description="The pool grows up to so many as the cluster has room for them.")
    gpus_per_worker: float = Field(
        1, ge=0, description="GPUs of a worker: 1, or 0 for a CPU worker; a fraction lets workers share one."
    )
    cpus_per_worker: int = Field(
        4, ge=1, description="CPU cores of a worker: they read, decode and encode while the device computes."
    )
    start_timeout: float = Field(
        900, gt=0, description="Give up if no worker has got a place after so many seconds; autoscalers take minutes."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Workers":
        if self.min_workers > self.max_workers:
            raise ValueError(
                f"min_workers ({self.min_workers}) is above max_workers ({self.max_workers}): lower it or raise that"
            )
        if self.gpus_per_worker > 1:
            raise ValueError("gpus_per_worker is above 1, and a worker uses one: raise max_workers instead")
        return self

    def describe(self) -> str:
        """What a worker gets, in words."""
        gpus = f"{self.gpus_per_worker:g} GPU and " if self.gpus_per_worker else ""
        return f"{gpus}{self.cpus_per_worker} CPU cores"


def make_workers(gpus: float, cpus: int, min_workers: int, max_workers: int | None) -> Workers:
    """The pool that options ask for; UserError in one sentence if they contradict each other."""
    try:
        return Workers(
            gpus_per_worker=gpus,
            cpus_per_worker=cpus,
            min_workers=min_workers,
            max_workers=min_workers if max_workers is None else max_workers,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['ctx']['error'] if 'ctx' in first else first['msg']}.") from None
