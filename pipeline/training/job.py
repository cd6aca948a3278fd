"""A training run as one value that any process can carry out."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ...schemas.errors import UserError
from ...schemas.load import parse_settings
from ...schemas.manifest import describe_difference
from ...schemas.run import RunCard, Session, differences, trained_as
from ...schemas.section import Section, identity
from ...stages.training.callbacks.curves import Progress
from ...stages.training.callbacks.evaluation import Evaluate
from ...stages.training.fit import Control, Outcome, Place, fit
from ...stages.training.recipe import AnyRecipe
from ...store.run import Run
from ...version import __version__

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK")  # all 0 in the first of several processes, which run the same command


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made of: paths, URLs, registered names; which of them depends on the recipe.

    photos and root: a source without labels. dataset: pseudo-labels, images: photographs of these or of `gt`.
    base: whose masks are learned from, others having boxes alone; pseudo: a data set of masks for these. panoptic_gt
    and mattes: what panoptic and matting models learn of `images`. val_images and val_gt: what is evaluated on.
    weights: a backbone, start: a run to begin from. percent or indices: which of the annotated images.
    mask_percent: how many of their masks are learned from, drawn over annotations, or with mask_per_image over images.
    """

    photos: str | None = None
    root: str | None = None
    dataset: str | None = None
    images: str | None = None
    gt: str | None = None
    base: str | None = None
    pseudo: str | None = None
    panoptic_gt: str | None = None
    mattes: str | None = None
    val_images: str | None = None
    val_gt: str | None = None
    weights: str | None = None
    start: str | None = None
    percent: float = 100.0
    indices: tuple[int, ...] | None = None
    mask_percent: float = 100.0
    mask_per_image: bool = False

    def absolute(self) -> "Inputs":
        """The same from any folder and process; URLs and names that are no paths stay."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        texts: dict[str, Any] = {name: _absolute(value) for name, value in values.items() if isinstance(value, str)}
        return replace(self, **texts)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a recipe makes of a job: the module to train, the card, how it is judged, and documents beside the card."""

    recipe: AnyRecipe
    config: Section  # resolved
    card: RunCard
    evaluate: Evaluate | None = None
    documents: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Train `recipe` as `config` says on `inputs`, into the folder `out`, or go on with this same run there."""

    recipe: str
    config: Section
    inputs: Inputs
    out: Path

    def absolute(self) -> "TrainingJob":
        """The same from any folder."""
        return replace(self, inputs=self.inputs.absolute(), out=self.out.expanduser().absolute())

    def run(self, place: Place, control: Control) -> Outcome:
        """Begin or go on. Raises UserError if `out` holds another run."""
        from .recipes import find_recipe

        run = Run(self.out)
        prepared = find_recipe(self.recipe)(self, place)
        before = run.find_card() if run.checkpoints() else None
        if before is not None:
            check_same(before, prepared.card, prepared.config)
        card = prepared.card.model_copy(update={"sessions": before.sessions if before is not None else ()})
        run.folder.mkdir(parents=True, exist_ok=True)
        if is_first_process():
            for name, content in prepared.documents:
                run.write_json(name, content)
        with _session(run, card, place, control) as told:
            return fit(prepared.recipe, run, place, told, prepared.evaluate)


@contextmanager
def _session(run: Run, card: RunCard, place: Place, control: Control) -> Iterator[Control]:
    """The card tells of this call: where it runs, and at each report how far it came."""
    begin = time.monotonic()
    device = place.device
    session = Session(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        processes=place.processes,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        version=__version__,
    )
    last = card.last

    def told(progress: Progress) -> None:
        nonlocal session, last
        seconds = round(time.monotonic() - begin, 1)
        session = session.model_copy(update={"step": progress.step, "seconds": seconds})
        last = progress.values
        control.report(progress)

    def write() -> None:
        if is_first_process():
            sessions = (*card.sessions, session)
            skipped = len(run.read_skipped())
            run.write_card(card.model_copy(update={"sessions": sessions, "last": last, "skipped": skipped}))

    write()
    try:
        yield replace(control, report=told)
    finally:
        write()


def check_same(before: RunCard, now: RunCard, config: Section) -> None:
    """Raise UserError if a run cannot go on as this one, which `config` configures.

    An old configuration is read as of today: fields it lacks have their defaults, sections that are gone don't count.
    """
    if differing := differences(before, now):
        raise UserError(
            f"The run began with another state of {', '.join(differing)}: give what it began with, or another --out."
        )
    kind = type(config)
    old = parse_settings(kind, {name: v for name, v in trained_as(before).items() if name in kind.model_fields})
    if changed := describe_difference(identity(old), identity(config)):
        raise UserError(f"The run cannot be resumed with another configuration ({changed}): undo the change.")


def is_first_process() -> bool:
    """Whether this process is the one of its group that writes files."""
    return not any(int(os.environ.get(name, "0")) for name in _RANKS)


def _absolute(path: str | None) -> str | None:
    if path is None or "://" in path:
        return path
    whole = Path(path).expanduser().absolute()
    # a glob or a list of photographs has no file of its own; a registered name has neither folder nor file
    known = whole.exists() or any(sign in path for sign in "*?[/")
    return str(whole) if known else path


def _cpu_name() -> str:
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"
