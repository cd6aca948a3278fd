"""The real architectures of transformers at tiny random sizes, saved as folders that `from_pretrained` takes."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from saliency_prompt.models.unilseg.tokenizer import Tokenizer, byte_letters

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "photo", "of", "cat", "dog", "sky"]
WORDS += [chr(c) for c in range(97, 123)] + ["##" + chr(c) for c in range(97, 123)]


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of CLIP, BLIP, SAM and Grounding DINO: width and layers of their encoders, side of SAM's square."""

    width: int = 16
    layers: int = 1
    side: int = 64

    @property
    def small(self) -> int:
        """Side of the square of the others."""
        return self.side // 2

    @property
    def patch(self) -> int:
        """Of the others."""
        return 8 if self.side < 128 else 16

    def encoder(self) -> dict[str, int]:
        """Of texts or images."""
        whole = {"hidden_size": self.width, "intermediate_size": self.width * (1 if self.layers == 1 else 4)}
        return whole | {"num_hidden_layers": self.layers, "num_attention_heads": max(2, self.width // 64)}

    def images(self) -> dict[str, int]:
        """Of images."""
        return self.encoder() | {"image_size": self.small, "patch_size": self.patch}


TINY = Scale()


@cache
def tiny(kind: str, scale: Scale = TINY) -> str:
    """A folder with a model and its processor; `scale` is heeded by those that it names."""
    torch.manual_seed(0)
    folder = Path(mkdtemp()) / kind
    folder.mkdir()
    makers = {
        "clip": _clip,
        "siglip": _siglip,
        "sam": _sam,
        "sam2": _sam2,
        "sam3": _sam3,
        "grounding-dino": _grounding,
        "blip": _blip,
        "florence2": _florence2,
    }
    makers[kind](folder, scale)
    return str(folder)


def tiny_roles() -> list[str]:
    """Overrides of the engine's configuration: all roles, small photographs, every mask a pair."""
    return [
        f"roles.tagger={tiny('clip')!r}",
        f"roles.box_detector={tiny('grounding-dino')!r}",
        f"roles.mask_segmenter={tiny('sam')!r}",
        f"roles.captioner={tiny('blip')!r}",
        f"roles.matcher={tiny('clip')!r}",
        "decode.short_side=64",
        "decode.long_side=64",
        "annotate.precision=fp32",
        "annotate.batch_size=2",
        "annotate.caption_tokens=4",
        "annotate.largest=1.0",
        "plan.shard_size=3",
        "tags.box=0.0",
        "tags.most=2",
        "tags.min_score=0.0",
        "boxes.min_side=8",
    ]


def _clip_tokenizer(folder: Path):  # type: ignore[no-untyped-def]
    from transformers import CLIPTokenizer

    letters = byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def _clip(folder: Path, scale: Scale) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    size = {"height": scale.small, "width": scale.small}
    images = CLIPImageProcessor(size={"shortest_edge": scale.small}, crop_size=size)
    processor = CLIPProcessor(images, _clip_tokenizer(folder))
    text = scale.encoder() | {"vocab_size": Tokenizer().size}
    text |= {"max_position_embeddings": 16, "eos_token_id": 513, "bos_token_id": 512}
    config = CLIPConfig(text_config=text, vision_config=scale.images(), projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def _siglip(folder: Path, _: Scale) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    text = {"vocab_size": Tokenizer().size, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 16, "projection_size": 16}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(text_config=text, vision_config=vision | {"image_size": 32, "patch_size": 8})
    SiglipModel(config).save_pretrained(folder)
    images = SiglipImageProcessor(size={"height": 32, "width": 32})
    SiglipProcessor(images, _clip_tokenizer(folder)).save_pretrained(folder)


def _sam(folder: Path, scale: Scale) -> None:
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    encoder = scale.encoder()
    vision = {**encoder, "output_channels": 16, "mlp_dim": encoder["intermediate_size"]}
    vision |= {"image_size": scale.side, "patch_size": 16, "window_size": 2, "global_attn_indexes": [0]}
    prompt = {
        "hidden_size": 16,
        "image_size": scale.side,
        "patch_size": 16,
        "image_embedding_size": scale.side // 16,
        "mask_input_channels": 4,
    }
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder |= {"iou_head_hidden_dim": 16}
    config = SamConfig(
        vision_config=vision | {"num_pos_feats": 8},
        prompt_encoder_config=prompt,
        mask_decoder_config=decoder,
    )
    SamModel(config).save_pretrained(folder)
    images = SamImageProcessor(size={"longest_edge": scale.side}, pad_size={"height": scale.side, "width": scale.side})
    SamProcessor(images).save_pretrained(folder)


def _bert_tokenizer(folder: Path):  # type: ignore[no-untyped-def]
    from transformers import BertTokenizer

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizer(str(folder / "vocab.txt"), model_max_length=32)


def _grounding(folder: Path, scale: Scale) -> None:
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    backbone = SwinConfig(
        image_size=scale.side,
        embed_dim=scale.width // 2,
        depths=[scale.layers] * 4,
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = {"model_type": "bert", "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=10,
        num_feature_levels=4,
        max_text_len=32,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": scale.side, "longest_edge": scale.side * 3 // 2})
    GroundingDinoProcessor(images, _bert_tokenizer(folder)).save_pretrained(folder)


def _blip(folder: Path, scale: Scale) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    text = scale.encoder() | {"vocab_size": len(WORDS), "encoder_hidden_size": scale.width}
    text |= {"max_position_embeddings": 32}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(text_config=text, vision_config=scale.images(), projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": scale.small, "width": scale.small})
    BlipProcessor(images, _bert_tokenizer(folder)).save_pretrained(folder)


def _sam2(folder: Path, _: Scale) -> None:
    """As published: the folder says that it holds a model and a processor of videos."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2ImageProcessor, Sam2Model, Sam2Processor

    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 2],
        window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[3],
    )
    vision = {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 16}
    vision |= {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
    config = Sam2Config(vision_config=vision, **_prompts_and_decoder(16))
    Sam2Model(config).save_pretrained(folder)
    images = Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
    Sam2Processor(images).save_pretrained(folder)
    _as_of_videos(folder, "sam2_video", "Sam2VideoProcessor")


def _sam3(folder: Path, _: Scale) -> None:
    from transformers import Sam3ImageProcessor, Sam3TrackerConfig, Sam3TrackerModel, Sam3TrackerProcessor

    backbone = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    backbone |= {"model_type": "sam3_vit_model", "image_size": 56, "patch_size": 14, "pretrain_image_size": 28}
    backbone |= {"window_size": 2, "global_attn_indexes": [0]}
    vision = {"model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": 16}
    vision |= {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
    parts = _prompts_and_decoder(14)
    parts["prompt_encoder_config"]["image_size"] = 56
    Sam3TrackerModel(Sam3TrackerConfig(vision_config=vision, **parts)).save_pretrained(folder)
    images = Sam3ImageProcessor(size={"height": 56, "width": 56}, mask_size={"height": 16, "width": 16})
    Sam3TrackerProcessor(images).save_pretrained(folder)


def _prompts_and_decoder(patch: int) -> dict[str, dict[str, int]]:
    """Of SAM 2 and SAM 3, for an image embedding of 4 x 4 cells."""
    prompts = {"hidden_size": 16, "image_size": 64, "patch_size": patch, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {"prompt_encoder_config": prompts, "mask_decoder_config": decoder | {"iou_head_hidden_dim": 16}}


def _as_of_videos(folder: Path, model: str, processor: str) -> None:
    for file in folder.glob("*.json"):
        content = json.loads(file.read_text())
        if "processor_class" in content:
            content["processor_class"] = processor
        if content.get("model_type"):
            content["model_type"] = model
        file.write_text(json.dumps(content))


def _florence2(folder: Path, _: Scale) -> None:
    from transformers import (
        BartTokenizer,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [*special, *byte_letters(), "<image>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = BartTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=128,
        extra_special_tokens={"image_token": "<image>"},
    )
    vision = {"embed_dim": [8, 8, 8, 16], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 2], "num_groups": [1, 1, 1, 2]}
    vision |= {"projection_dim": 16, "window_size": 2}
    text = {"model_type": "bart", "vocab_size": len(words), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    text |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    text |= {"max_position_embeddings": 160, "forced_eos_token_id": None}
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=len(words) - 1)
    model = Florence2ForConditionalGeneration(config)
    with torch.no_grad():  # as drawn, it repeats its first token, which ends the sentence
        for name, parameter in model.named_parameters():
            if "decoder.layers" in name and parameter.dim() > 1:
                parameter.mul_(40)
    model.save_pretrained(folder)
    size = {"height": 64, "width": 64}
    images = CLIPImageProcessor(size=size, do_center_crop=False)
    images.image_seq_length = 5
    Florence2Processor(images, tokenizer).save_pretrained(folder)
