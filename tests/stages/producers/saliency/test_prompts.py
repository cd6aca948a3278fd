import torch

from saliency_prompt.stages.producers.saliency.prompts import box_weights, pool_vectors, unit_length


def test_box_mean_averages_the_whole_tight_box() -> None:
    masks = torch.zeros(1, 2, 4, 5, dtype=torch.bool)
    masks[0, 0, 1, 1] = masks[0, 0, 2, 3] = True  # two cells span rows 1-2 and columns 1-3
    features = torch.arange(20.0).view(1, 20, 1)
    vectors = pool_vectors(features, box_weights(masks))
    expected = torch.arange(20.0).view(4, 5)[1:3, 1:4].mean()
    assert vectors[0, 0, 0] == expected
    assert vectors[0, 1, 0] == 0  # an empty mask has no box


def test_unit_length_leaves_a_zero_vector_alone() -> None:
    vectors = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    torch.testing.assert_close(unit_length(vectors), torch.tensor([[[0.6, 0.8], [0.0, 0.0]]]))
