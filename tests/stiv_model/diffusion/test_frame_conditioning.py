import pytest
import torch

from stiv_model.diffusion.frame_conditioning import clean_frame_mask, replace_frames


@pytest.mark.parametrize(
    ("pattern", "clean"),
    [("none", [0, 0, 0, 0]), ("first", [1, 0, 0, 0]), ("every_second", [1, 0, 1, 0])],
)
def test_patterns_say_which_frames_are_given(pattern, clean):
    assert clean_frame_mask(pattern, 4).int().tolist() == clean


def test_replacement_touches_the_clean_frames_only():
    x, clean = torch.zeros(2, 3, 1, 1, 1), torch.ones(2, 3, 1, 1, 1)
    is_clean = torch.tensor([[True, False, False], [False, False, True]])
    assert replace_frames(x, clean, is_clean).flatten(1).tolist() == [[1, 0, 0], [0, 0, 1]]
