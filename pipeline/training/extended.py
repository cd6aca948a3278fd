"""SOLOv2's extensions from a job: panoptic annotations, and mattes."""

from ...schemas.errors import UserError
from ...schemas.run import RunCard
from ...schemas.training.solo import MattingSoloTraining, PanopticSoloTraining
from ...stages.instances.matte_samples import MatteImages
from ...stages.instances.panoptic_samples import PanopticImages
from ...stages.training.fit import Place
from ..sources import open_source
from .beginning import begin
from .job import Prepared, TrainingJob
from .panoptic import PanopticJudge

PLAIN = "solov2"


def prepare_panoptic(job: TrainingJob, place: Place) -> Prepared:
    """Things and stuff of a panoptic json; from a backbone, a run of SOLOv2, or one of its own."""
    from ...stages.recipes.extended import Panoptic

    config, inputs = job.config, job.inputs
    assert isinstance(config, PanopticSoloTraining)
    if inputs.images is None or inputs.panoptic_gt is None:
        raise UserError("solov2-panoptic learns things and stuff: give --images with --panoptic-gt, a panoptic json.")
    settings = config.data
    data = PanopticImages(
        inputs.images,
        inputs.panoptic_gt,
        size=(settings.short_side, settings.long_side),
        indices=inputs.indices,
        percent=inputs.percent,
        max_pixels=settings.max_pixels,
    )
    beginning = begin(job, config, place.device, parent=PLAIN, fresh=frozenset({"panoptic"}))
    config = beginning.config
    assert isinstance(config, PanopticSoloTraining)
    panoptic = config.model.panoptic.model_copy(update={"stuff": len(data.stuff)})
    config = config.model_copy(update={"model": config.model.model_copy(update={"panoptic": panoptic})})
    beginning = beginning.with_config(config)
    host, documents = beginning.build(len(data.things))
    if data.chosen is not None:
        documents = [*documents, ("subset.json", {f"{inputs.percent}": {"1": data.chosen}})]
    card = RunCard(
        recipe=job.recipe,
        num_classes=len(data.things),
        categories=tuple(one.number for one in data.things),
        class_names=tuple(one.name for one in data.things),
        stuff=tuple(one.number for one in data.stuff),
        stuff_names=tuple(one.name for one in data.stuff),
        data=data.sha256,
        images=len(data),
        percent=inputs.percent,
        source=inputs.panoptic_gt,
        **beginning.about(),
    )
    card, judge = beginning.after(card, inputs.start), None
    if inputs.val_images is not None and inputs.val_gt is not None:
        judge = PanopticJudge(config, card, inputs.val_images, inputs.val_gt)
    return Prepared(Panoptic(host, config, data), config, card, judge, tuple(documents))


def prepare_matting(job: TrainingJob, place: Place) -> Prepared:
    """Mattes of photographs, from a run of SOLOv2, whose classes stay, or from one of its own."""
    from ...stages.recipes.extended import Matting

    config, inputs = job.config, job.inputs
    assert isinstance(config, MattingSoloTraining)
    if inputs.images is None or inputs.mattes is None:
        raise UserError("solov2-matting learns alphas: give --images with --mattes, a folder of them.")
    if inputs.val_gt is not None:
        raise UserError("Mattes are judged after training alone: leave --val-images and --val-gt out, and `evaluate`.")
    if inputs.start is None:
        raise UserError("solov2-matting refines the masks of a trained SOLOv2: give --start, a run of solov2.")
    settings = config.data
    refs = list(open_source(inputs.images).refs())
    size = (settings.short_side, settings.long_side)
    data = MatteImages(refs, inputs.mattes, size=size, max_pixels=settings.max_pixels)
    beginning = begin(job, config, place.device, parent=PLAIN, fresh=frozenset({"matting"}))
    config = beginning.config
    before = beginning.before
    assert before is not None
    host, documents = beginning.build(max(1, before.num_classes), keep_classes=True)
    card = RunCard(
        recipe=job.recipe,
        num_classes=before.num_classes,
        categories=before.categories,
        class_names=before.class_names,
        data=data.digest(),
        images=len(data),
        source=inputs.mattes,
        **beginning.about(),
    )
    return Prepared(Matting(host, config, data), config, beginning.after(card, inputs.start), None, tuple(documents))
