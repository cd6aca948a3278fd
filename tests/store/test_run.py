"""The folder of a run: cards of all versions, torn lines, evaluations that are owed."""

import json
from pathlib import Path

import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.run import RunCard, differences, trained_as, upgrade_card
from saliency_prompt.store.run import Run, Skipped

CARD = RunCard(recipe="supervised", model="knet", config={"data": {}}, arch="resnet18", images=4, data="abc")


def test_a_card_comes_back(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert run.find_card() is None
    run.write_card(CARD)
    assert run.read_card() == CARD
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"kind": "other"}', '{"recipe": 3}', "{"])
def test_what_is_no_card_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="holds no training run"):
        Run(tmp_path).read_card()


def test_cards_of_the_version_before() -> None:
    old = json.loads((Path(__file__).parents[1] / "gold" / "runs_0_1.json").read_text())
    for kind, recipe in (("densecl", "densecl"), ("pretrain", "saliency-prompt"), ("finetune", "supervised")):
        card = RunCard.model_validate(upgrade_card(old[kind]["card"]))
        assert (card.recipe, card.arch) == (recipe, "resnet18" if kind == "densecl" else "resnet50")
        assert card.images == (6 if kind == "densecl" else 12)
        assert upgrade_card(card.model_dump()) == card.model_dump()
        if kind != "densecl":  # K-Net's group norms were a quarter of the channels
            assert card.config["model"]["norm_groups"] == card.config["model"]["channels"] // 4 == 16


def test_backbones_stayed_as_they_were_up_to_format_2() -> None:
    config = {"data": {}, "model": {"freeze": "stem", "queries": 3}}
    card = CARD.model_copy(update={"config": config})
    assert trained_as(card) == config
    stayed = {"data": {}, "model": {"freeze": "all", "queries": 3}}
    assert trained_as(card.model_copy(update={"run": 2})) == stayed
    assert trained_as(CARD.model_copy(update={"run": 1})) == CARD.config  # models without such a setting


def test_what_an_old_card_does_not_say_is_not_compared() -> None:
    assert differences(CARD.model_copy(update={"data": ""}), CARD) == []
    assert differences(CARD, CARD.model_copy(update={"images": 5})) == ["the number of images"]


def test_torn_lines_are_passed_over_and_not_prolonged(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.append_skipped(0, [Skipped(3, "a.jpg", "unreadable", "gone")])
    run.append_skipped(2, [Skipped(5, "b.jpg", "decode_failed", "broken")])
    with (tmp_path / "skipped.jsonl").open("a") as file:
        file.write('{"index": 4, "file_na')
    assert sorted(run.read_skipped()) == [3, 5]
    run.append_skipped(0, [Skipped(6, "c.jpg", "unreadable", "gone")])
    assert sorted(run.read_skipped()) == [3, 5, 6]


def test_an_evaluation_is_paid_for_once_it_is_written(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.evaluations() == {}
    run.append_evaluation(4, {"AP": 1.5})
    run.append_evaluation(4, {"AP": 2.5})
    assert run.evaluations() == {4: {"AP": 2.5}}
