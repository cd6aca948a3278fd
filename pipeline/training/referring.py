"""UniLSeg as a job, and its runs: how one is prepared, read, judged and asked."""

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from ...models.unilseg.model import Options, UniLSeg
from ...models.unilseg.names import rename_parts
from ...models.unilseg.text import TextShape
from ...models.unilseg.tokenizer import Merge, Tokenizer, learn_merges
from ...models.unilseg.vision import SwinShape
from ...schemas.errors import UserError
from ...schemas.load import parse_settings
from ...schemas.run import RunCard
from ...schemas.section import identity
from ...schemas.training.unilseg import UniLSegSection, UniLSegTraining
from ...stages.device import resolve_precision
from ...stages.instances.samples import SampleError, load_pixels
from ...stages.overlay import draw_overlay
from ...stages.recipes.unilseg import UniLSegRecipe
from ...stages.referring.answer import answer
from ...stages.referring.metrics import overlap, referring_scores
from ...stages.referring.pairs import PairSource
from ...stages.referring.pseudo import PseudoPairs
from ...stages.referring.references import References
from ...stages.referring.samples import read_pair
from ...stages.referring.tasks import open_task
from ...stages.training.fit import Place
from ...store.weights import read_tensors, sha256_of
from ..sources import open_source
from .job import Prepared, TrainingJob
from .model import read_state

MERGES = "merges.json"  # beside the card: the tokenizer's
CLIP_MERGES = 49152 - 256 - 2  # of the published file, after its first line


@dataclass(frozen=True, slots=True, eq=False)
class LoadedUniLSeg:
    """A trained model in eval mode on the CPU; `sha256` is of all that decides what it answers."""

    module: UniLSeg
    tokenizer: Tokenizer
    config: UniLSegTraining
    name: str
    sha256: str

    @property
    def side(self) -> int:
        """Of the square that it takes, in pixels."""
        return self.config.data.side

    @property
    def length(self) -> int:
        """Tokens of a text."""
        return self.config.model.text.length

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is in a mask."""
        return self.config.trainer.threshold


def prepare_unilseg(job: TrainingJob, place: Place) -> Prepared:
    """UniLSeg on references, on pairs that models made, or on both."""
    config, inputs = job.config, job.inputs
    assert isinstance(config, UniLSegTraining)
    precision = resolve_precision(config.trainer.precision, place.device)
    config = config.model_copy(update={"trainer": config.trainer.model_copy(update={"precision": precision})})
    sources: list[PairSource] = []
    if inputs.dataset is not None:
        own = inputs.images if inputs.gt is None else None
        sources.append(PseudoPairs(inputs.dataset, own, config.data.drop_lowest))
    if inputs.gt is not None:
        if inputs.images is None:
            raise UserError("References name photographs: give their folder as --images.")
        sources.append(References(inputs.gt, inputs.images, config.data.split))
    sources += [open_task(one) for one in config.data.tasks]
    if not sources:
        raise UserError("UniLSeg trains on pairs: give PAIRS, or --refer with --images.")
    before = None if inputs.start is None else load_unilseg(Path(inputs.start))
    tokenizer = Tokenizer(_merges(config, sources) if before is None else before.tokenizer.merges)
    model = build_unilseg(config, tokenizer)
    documents: list[tuple[str, Any]] = [(MERGES, tokenizer.merges)]
    digest = ""
    if before is not None:
        documents.append(("transfer.json", _take(model, before.module.state_dict(), str(inputs.start))))
        digest = before.sha256
    elif inputs.weights is not None:
        file = Path(inputs.weights).expanduser()
        if not file.is_file():
            raise UserError(f"{inputs.weights} is no file: give weights of UniLSeg, Swin or CLIP, or leave it out.")
        tensors = {name: one for name, one in read_tensors(file).items() if isinstance(one, Tensor)}
        documents.append(("transfer.json", _take(model, rename_parts(tensors), inputs.weights)))
        digest = sha256_of(file)
    card = RunCard(
        recipe=job.recipe,
        model="unilseg",
        config=config.model_dump(mode="json"),
        arch="swin",
        weights=inputs.weights or inputs.start or "random",
        weights_sha256=digest,
        source=inputs.gt or inputs.dataset or "",
        images=sum(map(len, sources)),
        data=hashlib.sha256("".join(source.sha256 for source in sources).encode()).hexdigest(),
        pretrained=inputs.start,
    )
    judge = None
    if inputs.val_gt is not None and inputs.val_images is not None:
        judge = ReferringJudge(config, tokenizer, References(inputs.val_gt, inputs.val_images))
    return Prepared(UniLSegRecipe(model, config, sources, tokenizer), config, card, judge, tuple(documents))


def build_unilseg(config: UniLSegTraining, tokenizer: Tokenizer) -> UniLSeg:
    """The untrained model; its parameters come from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.trainer.seed % 2**63)
        return UniLSeg(options(config.model, tokenizer.size))


def options(model: UniLSegSection, vocabulary: int) -> Options:
    """The settings as the model knows them."""
    swin, text = model.swin, model.text
    depths, heads = swin.depths, swin.heads
    return Options(
        model.prefusion,
        model.vision_path,
        model.language_path,
        model.channels,
        model.embedding,
        model.hidden,
        SwinShape(
            swin.width,
            (depths[0], depths[1], depths[2], depths[3]),
            (heads[0], heads[1], heads[2], heads[3]),
            swin.window,
            swin.drop_path,
        ),
        TextShape(vocabulary, text.width, text.layers, text.heads, text.hidden, text.context, text.projection),
    )


def load_unilseg(folder: Path) -> LoadedUniLSeg:
    """The model of a run, ready to be asked. Raises UserError for a folder that holds none."""
    card, state = read_state(folder)
    if card.model != "unilseg":
        raise UserError(f"{folder} is a run of {card.model}, which knows no texts: give one of unilseg.")
    kept = {name: value for name, value in card.config.items() if name in UniLSegTraining.model_fields}
    config = parse_settings(UniLSegTraining, kept)
    try:
        merges = [(str(left), str(right)) for left, right in json.loads((folder / MERGES).read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        raise UserError(f"{folder / MERGES} is gone or damaged: restore it, texts are read with it.") from None
    tokenizer = Tokenizer(merges)
    module = build_unilseg(config, tokenizer)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"The checkpoint in {folder} does not fit its card ({words}): restore them.") from None
    digest = hashlib.sha256(json.dumps([identity(config.model), config.data.side, merges]).encode())
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return LoadedUniLSeg(module.eval().requires_grad_(False), tokenizer, config, folder.name, digest.hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """See `answer.Speaker`: a model in training."""

    module: UniLSeg
    tokenizer: Tokenizer
    side: int
    length: int


class ReferringJudge:
    """oIoU, mIoU and P@ on references; each expression is a question of its own."""

    def __init__(self, config: UniLSegTraining, tokenizer: Tokenizer, references: References) -> None:
        self._config, self._tokenizer, self._references = config, tokenizer, references

    def find(self, model: nn.Module, device: torch.device, rank: int = 0, world: int = 1) -> list[dict[str, Any]]:
        """Overlaps of every world-th reference. The model must be in eval mode."""
        assert isinstance(model, UniLSeg)
        speaker = _Trained(model, self._tokenizer, self._config.data.side, self._config.model.text.length)
        results: list[dict[str, Any]] = []
        for place in range(rank, len(self._references), world):
            pair = self._references.pair(place)
            try:
                pixels, (height, width) = read_pair(pair, self._config.data.max_pixels)
            except SampleError:
                continue
            truth = pair.mask(height, width).astype(bool)
            for one in answer(speaker, pixels, pair.texts, device):
                inside, either = overlap(one > self._config.trainer.threshold, truth)
                results.append({"inside": inside, "either": either})
        return results

    def score(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """In per cent."""
        scores = referring_scores([one["inside"] for one in found], [one["either"] for one in found])
        return {name: value * 100 for name, value in scores.items()}


def ask_photos(
    run: Path,
    photos: str,
    texts: Sequence[str],
    out: Path,
    device: torch.device,
    *,
    skip: Callable[[str], None] = lambda _: None,
) -> int:
    """Write `results.json` (COCO results with the text of each) and pictures into a folder; the number of masks."""
    if blank := [text for text in texts if not text.strip()]:
        raise UserError(f"--text {blank[0]!r} has no words: say what to segment, say --text 'all dogs'.")
    model = load_unilseg(run)
    model.module.to(device)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made ({error.strerror}): choose another --out.") from None
    results: list[dict[str, Any]] = []
    for ref in open_source(photos).refs():
        try:
            pixels, _ = load_pixels(ref, None, model.config.data.max_pixels)
        except SampleError as trouble:
            skip(str(trouble))
            continue
        masks, scores = [], []
        for text, shares in zip(texts, answer(model, pixels, texts, device), strict=True):
            mask = shares > model.threshold
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            score = float(shares[mask].mean()) if mask.any() else 0.0
            masks.append(rle)
            scores.append(score)
            results.append(
                {
                    "image_id": ref.image_id,
                    "file_name": ref.file_name,
                    "text": text,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "score": score,
                }
            )
        boxes = np.array([coco_mask.toBbox(mask) for mask in masks], np.float32).reshape(-1, 4)
        picture = draw_overlay(pixels, [m["counts"] for m in masks], boxes, np.array(scores, np.float32))
        name = Path(ref.file_name).with_suffix("").as_posix().replace("/", "_")
        cv2.imwrite(str(out / f"{name}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    (out / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return len(results)


def read_merges(file: str) -> list[Merge]:
    """Merges of a file as CLIP publishes it, one pair a line after a first line; gzip or not."""
    path = Path(file).expanduser()
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"The vocabulary {file} cannot be read ({error}): give CLIP's file of merges.") from None
    pairs = [tuple(line.split()) for line in text.split("\n")[1 : CLIP_MERGES + 1]]
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if not merges or len(merges) < len([pair for pair in pairs if pair]):
        raise UserError(f"{file} is no list of merges, two parts a line: give CLIP's file of merges.")
    if len(set(merges)) < len(merges):
        raise UserError(f"{file} has a merge twice: give CLIP's own file.")
    return merges


def _merges(config: UniLSegTraining, sources: Sequence[PairSource]) -> list[Merge]:
    text = config.model.text
    if text.vocabulary != "learned":
        return read_merges(text.vocabulary)
    return learn_merges((one for source in sources for one in source.texts()), text.merges)


def _take(model: UniLSeg, state: dict[str, Tensor], name: str) -> dict[str, list[str]]:
    """Tensors that fit, by name and shape; UserError if none does, or if the vocabulary is another."""
    mine = model.state_dict()
    key = "text.tower.text_model.embeddings.token_embedding.weight"
    if key in state and state[key].shape != mine[key].shape:
        raise UserError(
            f"{name} has a vocabulary of {len(state[key])} and the tokenizer one of {len(mine[key])}: give the file of "
            "merges that belongs to it as model.text.vocabulary."
        )
    fitting = {one: value for one, value in state.items() if one in mine and mine[one].shape == value.shape}
    if not fitting:
        raise UserError(f"{name} holds nothing of this model: give weights of UniLSeg, Swin or CLIP.")
    model.load_state_dict(fitting, strict=False)
    return {"transferred": sorted(fitting), "fresh": sorted(set(mine) - set(fitting))}
