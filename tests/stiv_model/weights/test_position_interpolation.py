import pytest
import torch

from stiv_model.settings import Encoders
from stiv_model.weights import position_interpolation
from stiv_model.weights.metadata import CheckpointMetadata, Trained

TRAINED = Trained(
    recipe_name="any",
    steps=7,
    frames=4,
    stride_frames=3,
    latent_height=8,
    latent_width=8,
    clean_frames="none",
    text_dropout=0.1,
    image_dropout=0.0,
    ema_decay=0.9,
    encoders=Encoders(vae_sha256="v", text_sha256="t"),
)
IMAGE = {"frames": 1, "stride_frames": 0}
LARGE = {"latent_height": 16, "latent_width": 16}


@pytest.fixture
def say(settings):
    """Return the metadata of a model that was, or will be, trained so."""

    def build(trained: dict, **positions) -> CheckpointMetadata:
        says = TRAINED.model_copy(update=trained)
        at = settings.positions.model_copy(update=positions)
        return CheckpointMetadata(
            model=settings.model_copy(update={"positions": at}), is_video=says.frames > 1, trained=says
        )

    return build


def changes(parents: dict, child: CheckpointMetadata) -> dict[str, position_interpolation.AxisChange]:
    return {
        one.axis: one
        for one in position_interpolation.axis_changes(parents, child.model, child.is_video, child.trained)
    }


@pytest.mark.parametrize(
    ("before", "after", "scales", "axis", "how"),
    [
        (IMAGE, IMAGE | LARGE, {"spatial_scale": 0.5}, "space", "interpolated"),
        (IMAGE, IMAGE | LARGE, {}, "space", "extrapolated"),
        (IMAGE, {"latent_height": 24, "latent_width": 12}, {"spatial_scale": 1 / 3}, "space", "interpolated"),
        ({}, {"frames": 8}, {"temporal_scale": 0.5}, "time", "interpolated"),
        ({}, {"frames": 8}, {}, "time", "extrapolated"),
        ({"frames": 8}, {"frames": 12}, {"temporal_scale": 2 / 3}, "time", "interpolated"),
    ],
)
def test_positions_grow_at_the_old_angles(say, before, after, scales, axis, how):
    child = say(after, **scales)
    (one,) = changes({"weights": say(before)}, child).values()
    assert (one.axis, one.how) == (axis, how)
    assert position_interpolation.angle_difference(one, child) < 1e-9


def test_positions_that_miss_the_old_angles_are_seen(say):
    (one,) = changes({"weights": say({})}, say(LARGE, spatial_scale=0.5)).values()
    assert position_interpolation.angle_difference(one, say(LARGE, spatial_scale=0.5, base=9000.0)) > 1e-3
    assert position_interpolation.angle_difference(one, say(LARGE, spatial_scale=0.51)) > 1e-3


def test_what_does_not_grow_is_not_mentioned(say):
    assert changes({"weights": say({})}, say({"clean_frames": "first"})) == {}


def test_time_grows_from_the_temporal_parent(say):
    child = say({"frames": 8} | LARGE, spatial_scale=0.5, temporal_scale=0.5)
    found = changes({"weights": say(IMAGE | LARGE, spatial_scale=0.5), "temporal": say({})}, child)
    assert {axis: one.how for axis, one in found.items()} == {"time": "interpolated"}


@pytest.mark.parametrize(
    ("after", "scales", "says"),
    [
        (
            LARGE,
            {"spatial_scale": 0.7},
            r"spatial_scale is 0\.7 and was 1\.0 .* 4 to 8 .*: set it to 0\.5 .* or to 1\.0",
        ),
        ({"frames": 8}, {"temporal_scale": 0.25}, r"temporal_scale is 0\.25 .* 2 to 4 \(tokens\): set it to 0\.5"),
        ({}, {"spatial_scale": 0.5}, r"spatial_scale is 0\.5 .* 4 to 4"),
    ],
)
def test_a_scale_that_does_not_suit_the_growth_is_refused(say, after, scales, says):
    with pytest.raises(ValueError, match=says):
        changes({"weights": say({})}, say(after, **scales))


def test_resized_positions_keep_a_straight_line_straight():
    line = torch.arange(6.0)[:, None, None] + 10 * torch.arange(4.0)[None, :, None]
    resized = position_interpolation.resize(line, torch.Size([12, 8, 1]))[1:-1, 1:-1]
    for axis, step in ((0, 0.5), (1, 5.0)):
        torch.testing.assert_close(resized.diff(dim=axis), torch.full_like(resized.diff(dim=axis), step))
