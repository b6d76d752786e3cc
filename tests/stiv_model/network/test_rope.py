import torch

from stiv_model.network.rope import angles, rotary_factors, rotate, spatial_angles, temporal_angles


def test_attention_scores_depend_on_distance_only():
    q, k = torch.randn(2, 16, dtype=torch.float64)
    factors = rotary_factors(angles(torch.arange(10), 16, 10000.0))
    scores = rotate(q.expand(10, -1), factors) @ rotate(k.expand(10, -1), factors).T
    for distance in range(-9, 10):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-12, rtol=0)


def test_rotation_keeps_lengths():
    x = torch.randn(7, 16)
    torch.testing.assert_close(
        rotate(x, rotary_factors(angles(torch.arange(7), 16, 100.0).float())).norm(dim=-1), x.norm(dim=-1)
    )


def test_half_of_a_head_turns_with_rows_and_half_with_columns():
    grid = spatial_angles(3, 4, 16, 10000.0, 1.0, torch.device("cpu")).view(3, 4, 8)
    assert torch.equal(grid[:, 0, :4], grid[:, 3, :4])
    assert torch.equal(grid[0, :, 4:], grid[2, :, 4:])
    assert not torch.equal(grid[0, 0], grid[1, 1])


def test_interpolated_positions_meet_the_old_angles_at_the_old_points():
    device = torch.device("cpu")
    old = spatial_angles(4, 6, 16, 10000.0, 1.0, device).view(4, 6, 8)
    new = spatial_angles(8, 12, 16, 10000.0, 0.5, device).view(8, 12, 8)
    assert torch.equal(new[::2, ::2], old)
    assert torch.equal(temporal_angles(10, 16, 100.0, 0.5, device)[::2], temporal_angles(5, 16, 100.0, 1.0, device))


def test_extrapolated_positions_go_on_where_the_old_ones_end():
    device = torch.device("cpu")
    assert torch.equal(temporal_angles(10, 16, 100.0, 1.0, device)[:5], temporal_angles(5, 16, 100.0, 1.0, device))
