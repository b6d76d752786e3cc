import torch

from stiv_model.rope import angles, rotate, spatial_angles


def test_attention_scores_depend_on_distance_only():
    q, k = torch.randn(2, 16, dtype=torch.float64)
    places = torch.arange(10)
    turn = angles(places, 16, 10000.0).double()
    scores = rotate(q.expand(10, -1), turn) @ rotate(k.expand(10, -1), turn).T
    for distance in range(-9, 10):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)


def test_rotation_keeps_lengths():
    x = torch.randn(7, 16)
    torch.testing.assert_close(rotate(x, angles(torch.arange(7), 16, 100.0)).norm(dim=-1), x.norm(dim=-1))


def test_half_of_a_head_turns_with_rows_and_half_with_columns():
    turn = spatial_angles(3, 4, 16, 10000.0, torch.device("cpu")).view(3, 4, 8)
    assert torch.equal(turn[:, 0, :4], turn[:, 3, :4])
    assert torch.equal(turn[0, :, 4:], turn[2, :, 4:])
    assert not torch.equal(turn[0, 0], turn[1, 1])
