import torch

from saliency_prompt.models.renaming import rename


def test_names_parts_and_what_is_left_over() -> None:
    rules = [(r"a\.(\d)\.w", r"b.\1.weight"), (r"a\.q", "b.qk#0"), (r"a\.k", "b.qk#1"), (r"count", None)]
    state = {
        "a.3.w": torch.zeros(1),
        "a.k": torch.ones(2),
        "a.q": torch.zeros(2),
        "count": torch.ones(()),
        "a.3.w.x": torch.ones(1),
    }
    found, unknown = rename(state, rules)
    assert set(found) == {"b.3.weight", "b.qk"}
    assert found["b.qk"].tolist() == [0, 0, 1, 1]
    assert unknown == ["a.3.w.x"]
