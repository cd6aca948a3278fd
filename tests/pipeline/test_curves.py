import json

import pytest

from saliency_prompt.pipeline.curves import draw_curves, read_curves
from saliency_prompt.schemas.errors import UserError


def write_run(folder, entries):
    folder.mkdir()
    (folder / "curves.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_the_later_line_of_a_step_counts(tmp_path):
    run = write_run(tmp_path / "a", [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}, {"step": 20, "loss": 1.5}])
    assert read_curves(run) == {"loss": {10: 3.0, 20: 1.5}}


def test_a_line_of_a_killed_process_costs_itself_alone(tmp_path):
    run = write_run(tmp_path / "a", [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}])
    path = run / "curves.jsonl"
    path.write_text(path.read_text()[:-5])
    assert read_curves(run) == {"loss": {10: 3.0}}


def test_groups_are_drawn_where_all_their_runs_have_values(tmp_path):
    first = read_curves(write_run(tmp_path / "a", [{"step": 1, "loss": 3.0, "val/AP": 1.0}, {"step": 2, "loss": 2.0}]))
    second = read_curves(write_run(tmp_path / "b", [{"step": 1, "loss": 1.0}]))
    out = tmp_path / "deep" / "curves.svg"
    assert draw_curves({"both": [first, second], "one": [first]}, out) == ["loss", "val/AP"]
    text = out.read_text()
    assert text.count("<!-- both -->") == 1  # the legend names a group once
    assert "<!-- AP -->" in text


def test_mistakes(tmp_path):
    curves = read_curves(write_run(tmp_path / "a", [{"step": 1, "loss": 3.0}]))
    with pytest.raises(UserError, match=r"No run has logged mAP: choose of loss\."):
        draw_curves({"a": [curves]}, tmp_path / "x.png", ["mAP"])
    with pytest.raises(UserError, match=r"choose a \.png"):
        draw_curves({"a": [curves]}, tmp_path / "x.nothing")
    with pytest.raises(UserError, match="logged nothing yet"):
        draw_curves({"a": [{}]}, tmp_path / "x.png")
    with pytest.raises(UserError, match=r"has no readable curves\.jsonl"):
        read_curves(tmp_path)
