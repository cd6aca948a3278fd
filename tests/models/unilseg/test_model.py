import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("transformers")

from saliency_prompt.models.detector import alone
from saliency_prompt.models.unilseg.fusion import Fusion
from saliency_prompt.models.unilseg.language_path import CodeLanguagePath, PaperLanguagePath
from saliency_prompt.models.unilseg.losses import Weights, referring_losses, smooth_dice
from saliency_prompt.models.unilseg.model import Options, UniLSeg
from saliency_prompt.models.unilseg.names import rename_released
from saliency_prompt.models.unilseg.positions import sine_map, sine_words
from saliency_prompt.models.unilseg.text import Text, TextShape
from saliency_prompt.models.unilseg.tokenizer import Tokenizer
from saliency_prompt.models.unilseg.vision import Swin, SwinShape
from saliency_prompt.models.unilseg.vision_path import VisionLanguageBlock

KINDS = ("paper", "code", "none")
SWIN = SwinShape(width=16, depths=(1, 1, 2, 1), heads=(1, 1, 2, 2), window=4, drop_path=0.0)
TEXT = TextShape(514, 32, 1, 2, 32, 20, 24)


def tiny(pre: str = "code", vision: str = "code", language: str = "code") -> UniLSeg:
    torch.manual_seed(0)
    return UniLSeg(Options(pre, vision, language, 32, 16, 32, SWIN, TEXT))  # type: ignore[arg-type]


def attend(block: nn.MultiheadAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention written out, batch first."""
    width, heads = q.shape[2], block.num_heads
    parts = zip(block.in_proj_weight.chunk(3), block.in_proj_bias.chunk(3), (q, k, v), strict=True)
    q, k, v = ((x @ w.T + b).unflatten(2, (heads, -1)).transpose(1, 2) for w, b, x in parts)
    scores = q @ k.transpose(2, 3) / math.sqrt(width / heads)
    scores = scores.masked_fill(mask[:, None, None], -torch.inf)
    return block.out_proj((scores.softmax(3) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("pre", "vision", "language"), list(itertools.product(KINDS, KINDS, KINDS)))
def test_every_form_answers_and_trains(pre: str, vision: str, language: str) -> None:
    model = tiny(pre, vision, language)
    tokens = Tokenizer().batch(["a dog", "all cats"], 12)
    logits = model(torch.randn(2, 3, 64, 96), tokens)
    assert logits.shape == ({"code": 6}.get(language, 1), 2, 16, 24)
    losses = referring_losses(logits, torch.zeros(2, 64, 96), torch.ones(2), Weights(), alone)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    if "none" not in (pre, vision):
        assert not idle


def test_what_follows_the_end_of_a_text_does_not_matter() -> None:
    for kind in ("paper", "code"):
        model = tiny(kind, kind, kind).eval()
        tokens = Tokenizer().batch(["a dog"], 12)
        other = tokens.clone()
        other[0, tokens[0].tolist().index(513) + 1 :] = 7
        images = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(model(images, tokens), model(images, other), atol=1e-5, rtol=1e-4)


def test_many_questions_are_answered_as_if_alone() -> None:
    model = tiny().eval()
    images = torch.randn(2, 3, 64, 64)
    tokens = Tokenizer().batch(["a dog", "all cats", "x"], 12)
    asked = model.ask(images, tokens, chunk=2)
    assert asked.shape == (2, 3, 16, 16)
    for i, q in itertools.product(range(2), range(3)):
        alone_ = model(images[i : i + 1], tokens[q : q + 1])[-1, 0]
        torch.testing.assert_close(asked[i, q], alone_, atol=1e-5, rtol=1e-4)


def test_prefusion_is_equation_1() -> None:
    torch.manual_seed(0)
    text = Text(torch.randn(2, 5, 6), torch.zeros(2, 3), torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]).bool())
    one = torch.randn(2, 8, 3, 4)
    paper, code = Fusion("paper", 8, 6).eval(), Fusion("code", 8, 6).eval()
    cells = one.flatten(2).transpose(1, 2)
    words = paper.project(text.words)
    expected = attend(paper.attention, cells, words, words, text.padding)
    torch.testing.assert_close(paper(one, text).flatten(2).transpose(1, 2), expected)
    words = code.project(text.words)
    expected = cells + attend(code.attention, cells + sine_map(3, 4, 8, cells), words, words, text.padding)
    torch.testing.assert_close(code(one, text).flatten(2).transpose(1, 2), expected)


@pytest.mark.parametrize("kind", ["paper", "code"])
@pytest.mark.parametrize("reduction", [1, 2])
def test_a_block_is_equations_2_to_5(kind: str, reduction: int) -> None:
    torch.manual_seed(0)
    block = VisionLanguageBlock(kind, 16, 24, reduction).eval()  # type: ignore[arg-type]
    one, words = torch.randn(2, 16, 4, 6), torch.randn(2, 5, 16)
    mask = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()
    cells, places = one.flatten(2).transpose(1, 2), sine_map(4, 6, 16, one)
    small = (4 // reduction, 6 // reduction)

    def shrink(x: Tensor) -> Tensor:
        drawn = x.transpose(1, 2).unflatten(2, (4, 6))
        return F.avg_pool2d(drawn, reduction).flatten(2).transpose(1, 2)  # bilinear by 1/2 is the mean of four

    q = torch.cat([shrink(cells + places), words], 1)
    v = q if kind == "paper" else torch.cat([shrink(cells), words], 1)
    count = small[0] * small[1]
    whole = attend(block.over_all, q, q, v, torch.cat([torch.zeros(2, count).bool(), mask], 1))[:, :count]
    whole = F.interpolate(whole.transpose(1, 2).unflatten(2, small), (4, 6), mode="bilinear")
    whole = whole.flatten(2).transpose(1, 2)
    x = block.norms[0](whole) + cells if kind == "paper" else block.norms[0](cells + whole)
    heard = attend(block.over_words, x + places, words + sine_words(5, 16, words), words, mask)
    if kind == "paper":
        heard = attend(block.over_words, x, words, words, mask)
    x = block.norms[1](x + heard)
    x = block.norms[2](x + block.feed(x))
    torch.testing.assert_close(block(one, words, mask).flatten(2).transpose(1, 2), x, atol=1e-5, rtol=1e-4)


def test_language_paths_written_out() -> None:
    torch.manual_seed(0)
    one, sentence = torch.randn(2, 12, 2, 3), torch.randn(2, 10)
    none = torch.zeros(2, 6).bool()
    paper = PaperLanguagePath(12, 10, 16, 24).eval()
    memory = paper.visual(one).flatten(2).transpose(1, 2)
    places = sine_map(2, 3, 16, one)
    t0 = paper.sentence(sentence)[:, None]
    t1 = paper.norms[0](t0 + attend(paper.to_map, t0, memory + places, memory, none))
    both = torch.cat([t0, t1], 1)
    t = paper.norms[1](t1 + attend(paper.to_self, both, both, both, none[:, :2])[:, 1:])
    t = paper.norms[2](t + paper.feed(t))
    torch.testing.assert_close(paper(one, sentence)[0], t[:, 0], atol=1e-5, rtol=1e-4)
    code = CodeLanguagePath(12, 10, 16, 24).eval()
    memory = code.visual(one).flatten(2).transpose(1, 2)
    query, x = code.sentence(sentence)[:, None], torch.zeros(2, 1, 16)
    for layer, found in zip(code.layers, code(one, sentence), strict=True):
        x = layer.norms[0](x + attend(layer.to_self, x + query, x + query, x, none[:, :1]))
        x = layer.norms[1](x + attend(layer.to_map, x + query, memory + places, memory, none))
        x = layer.norms[2](x + layer.feed(x))
        torch.testing.assert_close(found, code.norm(x)[:, 0], atol=1e-5, rtol=1e-4)


def test_positions_by_hand() -> None:
    code = sine_map(2, 4, 8, torch.zeros(1))
    y, x = (0.5 / 2) * 2 * math.pi, (2.5 / 4) * 2 * math.pi
    by_hand = [f(v / 10000 ** (2 * k / 4)) for v in (y, x) for k in range(2) for f in (math.sin, math.cos)]
    torch.testing.assert_close(code[2], torch.tensor(by_hand))
    words = sine_words(4, 6, torch.zeros(1))
    assert words[1, 0].item() == pytest.approx(math.sin(math.pi), abs=1e-6)


def test_an_empty_mask_found_empty_costs_nothing() -> None:
    empty = torch.zeros(1, 1, 4, 4)
    assert smooth_dice(empty, empty).item() == 0
    assert smooth_dice(empty + 1, empty).item() == pytest.approx(1 - 1 / 17)


def test_a_pair_without_weight_has_no_part() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 4, 4), (torch.rand(3, 8, 8) > 0.5).float()
    some = referring_losses(logits, masks, torch.tensor([1.0, 1.0, 0.0]), Weights(), alone)
    two = referring_losses(logits[:, :2], masks[:2], torch.ones(2), Weights(), alone)
    for name, value in two.items():
        torch.testing.assert_close(some[name], value)


def test_swin_has_four_maps_of_any_size() -> None:
    maps = Swin(SWIN).eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(one.shape[1:]) for one in maps] == [(16, 16, 24), (32, 8, 12), (64, 4, 6), (128, 2, 3)]


def released_names(model: UniLSeg) -> dict[str, Tensor]:
    """A state dict as the released code would write it, made from ours by hand-written names."""
    theirs: dict[str, Tensor] = {}
    state = model.state_dict()

    def put(name: str, ours: str) -> None:
        theirs[f"module.{name}"] = state.pop(ours)

    for name in list(state):
        if name.startswith("text.tower.text_model.encoder.layers.") and ".q_proj." in name:
            whole = torch.cat([state.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"])
            layer, kind = name.split(".")[5], name.rsplit(".", 1)[1]
            theirs[f"module.backbone.transformer.resblocks.{layer}.attn.in_proj_{kind}"] = whole
    text = "text.tower.text_model."
    put("backbone.token_embedding.weight", text + "embeddings.token_embedding.weight")
    put("backbone.positional_embedding", text + "embeddings.position_embedding.weight")
    theirs["module.backbone.text_projection"] = state.pop("text.tower.text_projection.weight").T
    theirs["module.backbone.logit_scale"] = torch.ones(())
    for kind in ("weight", "bias"):
        put(f"backbone.ln_final.{kind}", text + f"final_layer_norm.{kind}")
        for ours, name in {
            "self_attn.out_proj": "attn.out_proj",
            "layer_norm1": "ln_1",
            "layer_norm2": "ln_2",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
        }.items():
            put(f"backbone.transformer.resblocks.0.{name}.{kind}", text + f"encoder.layers.0.{ours}.{kind}")
    swaps = [("visual.features.0.0", "backbone_visual.patch_embed.proj")]
    swaps += [("visual.features.0.2", "backbone_visual.patch_embed.norm")]
    for i in range(4):
        swaps += [(f"visual.features.{2 * i + 1}", f"backbone_visual.layers.{i}.blocks")]
        swaps += [(f"visual.features.{2 * i + 2}", f"backbone_visual.layers.{i}.downsample")]
        swaps += [(f"visual.norms.{i}", f"backbone_visual.norm{i}")]
        swaps += [(f"prefusion.levels.{i}.attention", f"all_fusion_module.{i}.multihead_attn")]
        swaps += [(f"prefusion.levels.{i}.project", f"all_fusion_proj.{i}")]
        swaps += [(f"vision_path.lateral.{i}", f"pixel_decoder.adapter_{i + 1}")]
        swaps += [(f"vision_path.output.{i}", f"pixel_decoder.layer_{i + 1}")]
        swaps += [(f"vision_path.blocks.{i}.0", f"pixel_decoder.cross_attn_{i + 1}")]
    swaps += [
        ("vision_path.last", "pixel_decoder.mask_features"),
        ("language_path.visual", "query_decoder.visual_proj"),
    ]
    swaps += [("language_path.sentence", "query_decoder.text_proj")]
    swaps += [("language_path.norm", "query_decoder.query_transformer.decoder.norm")]
    swaps += [("language_path.layers", "query_decoder.query_transformer.decoder.layers")]
    inner = [("over_all", "self_attn"), ("to_self", "self_attn"), ("over_words", "multihead_attn")]
    inner += [("to_map", "multihead_attn"), ("feed.0", "linear1"), ("feed.3", "linear2")]
    inner += [(f"norms.{i}", f"norm{i + 1}") for i in range(3)] + [("mlp.0", "mlp.fc1"), ("mlp.3", "mlp.fc2")]
    for name in list(state):
        start, other = next(pair for pair in swaps if name.startswith(pair[0] + "."))
        rest = name.removeprefix(start)
        for ours, peer in inner:
            rest = rest.replace(f".{ours}.", f".{peer}.")
        whole = (other + rest).replace("all_fusion_module.3", "fusion").replace("all_fusion_proj.3", "fusion_proj")
        value = state.pop(name)
        theirs["module." + whole] = value.reshape(16, 16) if name.endswith("position_index") else value
    assert not state
    return theirs


def test_released_weights_fit_and_answer_alike() -> None:
    model = tiny()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    found, unknown = rename_released({**released_names(model), "module.stranger": torch.ones(1)})
    assert unknown == ["stranger"]
    other = tiny()
    other.load_state_dict(found)
    tokens = Tokenizer().batch(["a dog"], 17)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(other.eval()(images, tokens), model.eval()(images, tokens))
