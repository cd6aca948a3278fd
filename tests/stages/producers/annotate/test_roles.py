"""Every role on the real architectures of transformers, at tiny random sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.producers.annotate.caption import HubCaptioner
from saliency_prompt.stages.producers.annotate.filter import HubMatcher, region_of, tidy
from saliency_prompt.stages.producers.annotate.ground import ClipTagger, GroundingDetector, read_vocabulary
from saliency_prompt.stages.producers.annotate.hub import load_model
from saliency_prompt.stages.producers.annotate.refine import HubSegmenter
from tiny_models import tiny

rng = np.random.default_rng(0)
IMAGES = [rng.integers(0, 255, shape, dtype=np.uint8) for shape in ((50, 70, 3), (80, 40, 3), (9, 9, 3))]


@pytest.fixture(autouse=True)
def inference():  # type: ignore[no-untyped-def]
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_matcher_gives_cosines_of_each_pair_alone(kind: str, dtype: torch.dtype) -> None:
    matcher = HubMatcher(tiny(kind)).to(torch.device("cpu"), dtype)
    texts = ["a dog", "b" * 500, "猫が好き"]
    found = matcher.match(IMAGES, texts)
    assert found.shape == (3,)
    assert (np.abs(found) <= 1).all()
    each = [matcher.match([image], [text])[0] for image, text in zip(IMAGES, texts, strict=True)]
    np.testing.assert_allclose(found, each, atol=1e-5 if dtype == torch.float32 else 0.02)
    assert not len(matcher.match([], []))


def test_captions_are_the_same_in_any_company() -> None:
    captioner = HubCaptioner(tiny("blip"), 5)
    together = captioner.captions(IMAGES)
    assert together == [captioner.captions([image])[0] for image in IMAGES]
    assert captioner.captions([]) == []


def test_a_segmenter_gives_soft_masks_of_the_photograph() -> None:
    segmenter = HubSegmenter(tiny("sam"))
    boxes = np.array([[1, 1, 20, 30], [5, 5, 40, 40]], np.float32)
    masks, ious = segmenter.masks(IMAGES[0], boxes)
    assert masks.shape == (2, 50, 70)
    assert ((masks >= 0) & (masks <= 1)).all()
    assert ((ious >= 0) & (ious <= 1)).all()
    alone, _ = segmenter.masks(IMAGES[0], boxes[1:])
    np.testing.assert_allclose(alone[0], masks[1], atol=1e-5)
    assert segmenter.masks(IMAGES[0], boxes[:0])[0].shape == (0, 50, 70)


def test_a_detector_gives_boxes_of_each_word_inside_the_photograph() -> None:
    detector = GroundingDetector(tiny("grounding-dino"), min_score=0.0, overlap=0.5, batch=2)
    found = detector.boxes(IMAGES[0], ["cat", "dog sky", "cat"])
    assert len(found) == 3
    for one in found:
        assert one.xyxy.shape == (len(one.scores), 4)
        assert (one.xyxy >= 0).all()
        assert (one.xyxy <= [70, 50, 70, 50]).all()
        assert (np.diff(one.scores) <= 0).all()
    np.testing.assert_allclose(found[0].xyxy, found[2].xyxy, atol=1e-3)
    none = GroundingDetector(tiny("grounding-dino"), min_score=1.0, overlap=0.5).boxes(IMAGES[0], ["cat"])
    assert none[0].xyxy.shape == (0, 4)
    assert detector.boxes(IMAGES[0], []) == []


def test_a_tagger_picks_words_of_its_vocabulary() -> None:
    tagger = ClipTagger(tiny("clip"), ["cat", "dog", "sky"], "a photo of a {}", most=2, min_score=0.0)
    found = tagger.tags(IMAGES)
    assert [len(set(one)) for one in found] == [2, 2, 2]
    assert ClipTagger(tiny("clip"), ["cat", "dog"], "{}", most=2, min_score=0.9).tags(IMAGES[:1]) == [[]]


def test_a_model_that_is_not_there_gives_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"captioner nobody/nothing .* roles.captioner=FOLDER"):
        load_model("caption", "nobody/nothing", "captioner")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"roles.matcher=FOLDER"):
        load_model("match", str(tmp_path), "matcher")
    with pytest.raises(UserError, match=r"needs a mask_segmenter"):
        load_model("segment", "", "mask_segmenter")
    with pytest.raises(UserError, match=r"mask_segmenter .* cannot be loaded"):
        load_model("segment", tiny("blip"), "mask_segmenter")


def test_a_matcher_whose_tokenizer_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from saliency_prompt.stages.producers.annotate import filter as module

    model, processor, digest = load_model("match", tiny("clip"), "matcher")
    processor.tokenizer.add_tokens(["<new>"])
    monkeypatch.setattr(module, "load_model", lambda *_: (model, processor, digest))
    with pytest.raises(UserError, match=r"tokenizer .* 515 words and its model 514"):
        HubMatcher("odd")


def test_digests_tell_weights_apart() -> None:
    model, _, digest = load_model("match", tiny("clip"), "matcher")
    assert load_model("match", tiny("clip"), "matcher")[2] == digest
    from saliency_prompt.stages.producers.annotate.hub import digest_of

    model.logit_scale.add_(1)
    assert digest_of(model) != digest


def test_texts_are_made_clean() -> None:
    assert tidy("  a\n dog\t\x00\u200b ", 60) == "a dog"
    assert tidy("", 60) == tidy(" \n", 60) == ""
    assert len(tidy("word " * 1000, 60).split()) == 60
    assert tidy("собака на траве", 60) == "собака на траве"


def test_the_region_is_the_mask_on_the_mean() -> None:
    mask = np.zeros((50, 70), bool)
    mask[10:20, 30:50] = True
    mask[12, 40] = False
    region = region_of(IMAGES[0], mask)
    assert region.shape == (10, 20, 3)
    assert region[2, 10].tolist() == [123, 117, 104]
    assert np.array_equal(region[0], IMAGES[0][10, 30:50])


def test_vocabularies(tmp_path: Path) -> None:
    path = tmp_path / "tags.txt"
    path.write_text("cat\n\n dog \ncat\n犬\n", encoding="utf-8")
    assert read_vocabulary(str(path)) == ["cat", "dog", "犬"]
    path.write_text("\n \n")
    for file, words in ((str(path), "no word"), ("", "tags.vocabulary=FILE"), (str(tmp_path), "cannot be read")):
        with pytest.raises(UserError, match=words):
            read_vocabulary(file)
