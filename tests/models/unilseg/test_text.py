import pytest
import torch

from oracles import read_oracle

pytest.importorskip("transformers")

from saliency_prompt.models.unilseg.text import TextEncoder, TextShape


def test_agrees_with_transformers_on_given_weights() -> None:
    io, weights = read_oracle("hf_clip_text")
    encoder = TextEncoder(TextShape(600, 64, 3, 4, 128, 24, 48)).eval()
    encoder.tower.load_state_dict(weights)
    with torch.inference_mode():
        text = encoder(io["input_ids"])
    torch.testing.assert_close(text.words, io["last_hidden_state"], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(text.sentence, io["text_embeds"], atol=2e-5, rtol=1e-4)
    ends = (io["input_ids"] == 599).int().argmax(1)
    assert torch.equal((~text.padding).sum(1) - 1, ends)


def test_words_after_the_end_change_nothing_before_it() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(TextShape(100, 32, 1, 2, 32, 8, 16)).eval()
    tokens = torch.tensor([[98, 5, 99, 0, 0], [98, 5, 99, 7, 7]])
    text = encoder(tokens)
    torch.testing.assert_close(text.sentence[0], text.sentence[1])
    torch.testing.assert_close(text.words[0, :3], text.words[1, :3])
