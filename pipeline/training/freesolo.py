"""Training on masks without classes, from a backbone: FreeSOLO, of any round."""

from ...models.solo.free import FreeSolo
from ...schemas.errors import UserError
from ...schemas.run import RunCard
from ...schemas.training.freesolo import FreeSoloTraining
from ...stages.recipes.freesolo import FreeSoloRecipe
from ...stages.training.fit import Place
from ...store.dataset import Dataset
from .beginning import begin, load_weights
from .evaluate import Judge
from .job import Prepared, TrainingJob
from .recipes import pseudo_labels

VECTORS = {"stored": "seed", "predicted": "query"}  # what a data set calls them


def prepare_freesolo(job: TrainingJob, place: Place) -> Prepared:
    """FreeSOLO on a data set of masks, whose own vectors, or those of the frozen backbone, teach the embedding."""
    config, inputs = job.config, job.inputs
    assert isinstance(config, FreeSoloTraining)
    if inputs.dataset is None:
        raise UserError("FreeSOLO trains on masks without classes: give DATASET, such as `generate` makes.")
    if inputs.start is not None:
        raise UserError("FreeSOLO starts from a backbone in every round: give --weights instead of --start.")
    beginning = begin(job, config, place.device)
    config = beginning.config
    assert isinstance(config, FreeSoloTraining)
    source = embedding_source(config, Dataset.open(inputs.dataset).card.producer)
    vectors = VECTORS.get(source)
    data = pseudo_labels(job, config, () if vectors is None else (vectors,))
    card = RunCard(
        recipe=job.recipe,
        num_classes=1,
        data=data.root_hash or "",
        images=len(data),
        source=inputs.dataset,
        **beginning.about(),
    )
    host, _ = beginning.build(1)
    assert isinstance(host, FreeSolo)
    teacher = load_weights(inputs.weights, config).module if source == "pool" else None
    judge = None
    if inputs.val_images is not None and inputs.val_gt is not None:
        judge = Judge(config, (1,), inputs.val_images, inputs.val_gt)
    return Prepared(FreeSoloRecipe(host, config, data, vectors=vectors, teacher=teacher), config, card, judge)


def embedding_source(config: FreeSoloTraining, producer: str) -> str:
    """What the embedding learns: "stored" seeds, "pool" or "predicted" vectors on labels of a model, or "off"."""
    if not config.model.embedding or not config.weak.embedding:
        return "off"
    return "stored" if producer == "saliency" else config.weak.round1_embedding
