import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stiv_model.diffusion import rectified_flow
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Encoders, LearnedSettings
from stiv_model.weights import (
    files,
    metadata,
    position_interpolation,
    warm_start,
    warm_start_checks,
)
from stiv_model.weights.certificate import CERTIFICATE, Certificate
from stiv_model.weights.metadata import WEIGHTS, CheckpointMetadata, Trained
from tests.stiv_model.held import Held

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
FIRST = {"clean_frames": "first"}
LEARNED = LearnedSettings(kind="learned", rows=4, columns=4, num_temporal=2, std=0.5)
LEARNED_LARGE = LearnedSettings(kind="learned", rows=8, columns=6, num_temporal=5, std=0.5)


def rotary(settings, **scales):
    return {"positions": settings.positions.model_copy(update=scales)}


@pytest.fixture
def parent(lively, settings, tmp_path):
    """Write a checkpoint whose weights are all alive, and return its folder."""

    def build(name: str, trained: dict, **changes) -> Path:
        model = lively(trained.get("frames", 4) > 1, **changes)
        torch.manual_seed(len(name))  # two parents are not the same
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        says = TRAINED.model_copy(update=trained)
        files.save(tmp_path / name, model.state_dict().items(), model.settings, model.is_video, says)
        return tmp_path / name

    return build


@pytest.fixture
def start_from(settings, tmp_path):
    """Start a new model from weights, and return it with its certificate and their folder."""

    def run(target: dict, parents: dict, **changes) -> tuple[StivTransformer, Certificate, Path]:
        says = TRAINED.model_copy(update=target)
        child = CheckpointMetadata(model=settings.model_copy(update=changes), is_video=says.frames > 1, trained=says)
        made = warm_start.write_start(child, 5, parents, tmp_path / "made")
        start = files.read(tmp_path / "made" / WEIGHTS, child.model, child.is_video)
        return files.build(child.model, child.is_video, start), made, tmp_path / "made"

    return run


def executed(made: Certificate, child: StivTransformer, parents: dict, **broken):
    """Execute the checks of a certificate again, on starting weights some of which are broken."""
    here = CheckpointMetadata(model=child.settings, is_video=child.is_video, trained=made.target)
    found_metadata = metadata.check_parents(parents, child.settings, child.is_video)
    loaded = {role: warm_start.load_parent(folder, found_metadata[role]) for role, folder in parents.items()}
    changes = tuple(position_interpolation.axis_changes(found_metadata, child.settings, child.is_video, made.target))
    start = child.state_dict() | {name.replace("__", "."): value for name, value in broken.items()}
    return warm_start_checks.execute(start, here, made.rows, loaded, changes)


def transforms(made: Certificate) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in made.rows:
        found.setdefault(row.transform, []).append(row.parameter)
    return found


# image to video


def test_t2i_to_t2v_inflates_and_starts_silent(parent, start_from):
    t2i = parent("t2i", IMAGE)
    child, made, folder = start_from({}, {"weights": t2i})
    assert made.kind == "T2I -> T2V"
    assert {row.parameter for row in made.rows} == child.state_dict().keys()
    found = transforms(made)
    assert found["inflated in time"] == ["patch_in.weight"]
    assert found["repeated"] == ["patch_out.weight", "patch_out.bias"]
    assert all(".temporal_" in name for name in found["initialised"])
    assert "one repeated frame gives what the image model gives" in [check.name for check in made.checks]
    start, image = load_file(folder / WEIGHTS), load_file(t2i / WEIGHTS)
    torch.testing.assert_close(start["patch_in.weight"].view(32, 2, -1).sum(1), image["patch_in.weight"])
    text = (folder / CERTIFICATE).read_text()
    assert Certificate.model_validate_json(text) == made
    assert list(json.loads(text)) == [
        *("kind", "parents", "model", "is_video", "becomes"),  # as in the certificates of earlier trainings
        *("rows", "checks", "weights_sha256"),
    ]


def test_an_inflated_model_of_any_patch_shows_a_repeated_frame_as_the_image_model_does(parent, start_from, inputs):
    x, time, text, micro = inputs
    t2i = parent("t2i", IMAGE)
    video, _, _ = start_from({}, {"weights": t2i}, temporal_patch=4)
    still = x[:, :1].expand(-1, 4, -1, -1, -1)
    wanted = files.load(t2i)(x[:, :1], time, text, micro).expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(video(still, time, text, micro), wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("adaln", ["shared", "per_layer"])
def test_modulation_of_temporal_attention_is_added_with_zeros(parent, start_from, adaln):
    changes = {"adaln": adaln, "temporal_modulation": True}
    t2i = parent("t2i", IMAGE, **changes)
    child, made, _ = start_from({}, {"weights": t2i}, **changes)
    widened = transforms(made)["widened with zeros"]
    assert len(widened) == (2 if adaln == "shared" else 6)
    broken = child.state_dict()[widened[0]].clone()
    broken[-1] = 1e-3
    with pytest.raises(ValueError, match=f"weights parent .*{widened[0]}"):
        executed(made, child, {"weights": t2i}, **{widened[0]: broken})


def test_learned_positions_in_time_start_at_zero(parent, start_from):
    child, made, _ = start_from({}, {"weights": parent("t2i", IMAGE, positions=LEARNED)}, positions=LEARNED)
    assert not child.moments.any()
    assert "moments" in transforms(made)["initialised"]


NOT_SILENT = {"positions": LEARNED, "temporal_gain": 0.2}


def test_temporal_attention_that_starts_with_a_gain_is_said_so_and_all_else_is_the_image_model(
    parent, start_from, inputs
):
    parents = {"weights": parent("t2i", IMAGE, **NOT_SILENT)}
    child, made, _ = start_from({}, parents, **NOT_SILENT)
    assert made.kind == "T2I -> T2V, temporal gain 0.2"
    names = [check.name for check in made.checks]
    assert "with temporal attention silent, one repeated frame gives what the image model gives" in names
    assert sum("starts with a gain of 0.2, so that a video model does not yet answer" in name for name in names) == 1
    assert "one repeated frame gives what the image model gives" not in names
    gains = {name: value for name, value in child.named_parameters() if name.endswith("temporal_gain")}
    assert len(gains) == 3
    assert all((gain == 0.2).all() for gain in gains.values())
    assert 0.3 < child.moments.std() < 0.7

    x, time, text, micro = inputs
    still = x[:, :1].expand(-1, 4, -1, -1, -1)
    image = files.load(parents["weights"])(x[:, :1], time, text, micro).expand(-1, 4, -1, -1, -1)
    assert (child(still, time, text, micro) - image).abs().max() > 1e-2
    warm_start_checks.zero_temporal_output(child)
    torch.testing.assert_close(child(still, time, text, micro), image, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("main_blocks.1.temporal_gain", "starts with a gain of 0.2"),
        ("patch_out.bias", "with temporal attention silent"),
    ],
)
def test_a_start_that_is_not_silent_is_refused_where_gain_or_image_model_are_others(parent, start_from, name, said):
    parents = {"weights": parent("t2i", IMAGE, **NOT_SILENT)}
    child, made, _ = start_from({}, parents, **NOT_SILENT)
    broken = child.state_dict()[name].clone()
    broken[:3] += 0.1
    with pytest.raises(ValueError, match=said):
        executed(made, child, parents, **{name: broken})


APART = {"positions": LEARNED, "temporal_gain": 0.2, "temporal_contrast": 1.0}


def test_the_frames_of_a_patch_that_start_apart_show_a_repeated_frame_as_the_image_model_does(
    parent, start_from, inputs
):
    parents = {"weights": parent("t2i", IMAGE, **APART)}
    child, made, _ = start_from({}, parents, **APART)
    assert made.kind == "T2I -> T2V, temporal gain 0.2, temporal contrast 1"
    names = [check.name for check in made.checks]
    assert "the kernels of the frames of a patch start apart by 1 of the image kernel" in names
    assert "with temporal attention silent, one repeated frame gives what the image model gives" in names

    x, time, text, micro = inputs
    warm_start_checks.zero_temporal_output(child)
    still = x[:, :1].expand(-1, 4, -1, -1, -1)
    image = files.load(parents["weights"])(x[:, :1], time, text, micro).expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(child(still, time, text, micro), image, atol=1e-4, rtol=1e-5)
    swapped = x[:, [1, 0, 2, 3]]  # the answer tells the frames of a patch apart
    assert (child(x, time, text, micro) - child(swapped, time, text, micro)).abs().max() > 1e-2


@pytest.mark.parametrize(("frames", "contrast"), [(2, 0.5), (4, 1.0)])
def test_kernels_start_apart_by_the_contrast_and_their_mean_is_the_image_kernel(parent, start_from, frames, contrast):
    changes = {"temporal_patch": frames, "temporal_contrast": contrast}
    t2i = parent("t2i", IMAGE, **changes)
    child, _, _ = start_from({}, {"weights": t2i}, **changes)
    kernels = child.state_dict()["patch_in.weight"].view(32, frames, -1)
    image = load_file(t2i / WEIGHTS)["patch_in.weight"]
    torch.testing.assert_close(kernels.sum(1), image, atol=1e-6, rtol=1e-5)
    apart = frames * kernels - image[:, None]
    ratio = apart.square().mean() / image.square().mean()
    assert ratio.item() == pytest.approx(contrast**2, rel=1e-4)


@pytest.mark.parametrize(
    ("scale", "said"), [((1.0, 1.0), "one repeated frame"), ((1.1, -1.1), "apart by 1 of the image kernel")]
)
def test_kernels_whose_sum_or_distance_is_another_are_refused(parent, start_from, scale, said):
    parents = {"weights": parent("t2i", IMAGE, **APART)}
    child, made, _ = start_from({}, parents, **APART)
    kernels = child.state_dict()["patch_in.weight"].view(32, 2, -1)
    mean, half = kernels.mean(1, keepdim=True), (kernels[:, :1] - kernels[:, 1:]) / 2
    broken = torch.cat([mean + scale[0] * half, mean + scale[1] * half], dim=1).flatten(1)
    with pytest.raises(ValueError, match=said):
        executed(made, child, parents, patch_in__weight=broken)


def test_a_video_model_hands_its_own_kernels_on_whatever_the_contrast(parent, start_from):
    parents = {"weights": parent("t2v", {}, positions=LEARNED)}
    _, made, _ = start_from(FIRST, parents, **APART)
    assert made.kind == "T2V -> STIV"
    assert "the output is the parent's, bit for bit" in [check.name for check in made.checks]


def test_a_video_model_hands_its_own_gains_on_wherever_new_ones_would_start(parent, start_from):
    parents = {"weights": parent("t2v", {}, positions=LEARNED)}
    _, made, _ = start_from(FIRST, parents, **NOT_SILENT)
    assert made.kind == "T2V -> STIV"
    assert "the output is the parent's, bit for bit" in [check.name for check in made.checks]


@pytest.mark.parametrize(
    ("name", "index"), [("patch_in.weight", (slice(None), slice(16))), ("patch_out.bias", (slice(3),))]
)
def test_an_inflated_kernel_with_one_slice_scaled_is_refused(parent, start_from, name, index):
    parents = {"weights": parent("t2i", IMAGE)}
    child, made, _ = start_from({}, parents)
    broken = child.state_dict()[name].clone()
    broken[index] *= 1.01
    with pytest.raises(ValueError, match="one repeated frame"):
        executed(made, child, parents, **{name: broken})


def test_temporal_attention_that_is_not_silent_after_an_image_model_is_refused(parent, start_from):
    parents = {"weights": parent("t2i", IMAGE)}
    child, made, _ = start_from({}, parents)
    with pytest.raises(ValueError, match="one repeated frame"):
        executed(made, child, parents, main_blocks__0__temporal_gain=torch.full((32,), 0.01))


def train(model: StivTransformer, frames: int, steps: int, conditions) -> tuple[torch.Tensor, torch.Tensor]:
    """Train on three fixed samples with fixed noise and times; return loss and gradient norm of each step."""
    text, micro = conditions
    generator = torch.Generator().manual_seed(7)
    data, noise = torch.randn(2, 3, 4, 4, 8, 8, generator=generator)[:, :, :frames]
    time = torch.tensor([0.2, 0.5, 0.8])
    x = rectified_flow.interpolate(data, noise, time)
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, norms = [], []
    for _ in range(steps):
        loss = (model(x, time, text, micro) - rectified_flow.velocity_target(data, noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None))
        losses.append(loss.detach())
        optimizer.step()
    return torch.stack(losses), torch.stack(norms)


def test_the_first_hundred_steps_after_inflation_are_calm(settings, inputs, tmp_path):
    torch.manual_seed(6)
    image = StivTransformer(settings, is_video=False)
    train(image, 1, 30, inputs[2:])
    says = TRAINED.model_copy(update=IMAGE)
    files.save(tmp_path / "t2i", image.state_dict().items(), settings, is_video=False, trained=says)
    child = CheckpointMetadata(model=settings, is_video=True, trained=TRAINED)
    warm_start.write_start(child, 6, {"weights": tmp_path / "t2i"}, tmp_path / "made")
    inflated, silent_by_projection = (StivTransformer(settings, is_video=True) for _ in range(2))
    for model in (inflated, silent_by_projection):
        model.load_state_dict(load_file(tmp_path / "made" / WEIGHTS))
    with torch.no_grad():
        for block in (*silent_by_projection.main_blocks, *silent_by_projection.unmasked_blocks):
            block.temporal_gain.fill_(1)
            block.temporal_attention.out.weight.zero_()

    losses, norms = train(inflated, 4, 100, inputs[2:])
    _, other_norms = train(silent_by_projection, 4, 1, inputs[2:])
    assert norms.max() < 5 * norms.median()
    assert (losses[1:] < 1.1 * losses[:-1]).all()
    assert other_norms[0] > 100 * norms[0]  # a stateless norm has a gradient of 1/sqrt(epsilon) at zero


# memory


@pytest.mark.parametrize(
    ("before", "after"),
    [({"weights": IMAGE}, {}), ({"weights": {}}, FIRST), ({"weights": IMAGE, "temporal": {}}, {})],
    ids=["inflated", "taken", "from two parents"],
)
def test_handing_on_never_holds_a_model(parent, start_from, before, after):
    large = {"width": 96, "depth": 4, "adaln": "per_layer", "temporal_modulation": True}
    parents = {role: parent(role, trained, **large) for role, trained in before.items()}
    with Held() as held:
        child, _, _ = start_from(after, parents, **large)
    sizes = [weight.nbytes for weight in child.state_dict().values()]
    assert sum(sizes) > 9 * max(sizes)
    assert held.peak < 3 * max(sizes)


# the same model


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ({}, FIRST, "T2V -> STIV"),
        (FIRST, FIRST, "STIV -> STIV"),
        (FIRST, {"clean_frames": "every_second"}, "STIV -> TUP"),
        (FIRST, {"clean_frames": "first_four", "frames": 8}, "STIV -> V2V, extrapolated in time"),
        (FIRST, {"clean_frames": "views"}, "STIV -> multi-view"),
        (FIRST, {"clean_frames": (0, 3)}, "STIV -> video with frames 0, 3 given"),
        (IMAGE, IMAGE, "T2I -> T2I"),
    ],
)
def test_a_model_goes_on_bit_for_bit(parent, start_from, before, after, kind):
    child, made, folder = start_from(after, {"weights": parent("before", before)})
    assert made.kind == kind
    assert transforms(made).keys() == {"taken"}
    assert "the output is the parent's, bit for bit" in [check.name for check in made.checks]
    theirs = load_file(folder.parent / "before" / WEIGHTS)
    assert all(torch.equal(weight, theirs[name]) for name, weight in child.state_dict().items())


@pytest.mark.parametrize("name", ["mask_token", "main_blocks.1.ffn.0.weight"])
def test_a_weight_one_bit_off_is_refused_by_name(parent, start_from, name):
    parents = {"weights": parent("t2v", {})}
    child, made, _ = start_from(FIRST, parents)
    broken = child.state_dict()[name].clone()
    broken.view(-1)[3] = torch.nextafter(broken.view(-1)[3], torch.tensor(9.0))
    with pytest.raises(ValueError, match=f"weights parent .*{name}"):
        executed(made, child, parents, **{name: broken})


def test_image_tokens_are_added_to_a_model_that_answers_as_before(parent, start_from):
    _, made, _ = start_from(FIRST, {"weights": parent("t2v", {})}, image_condition="both")
    assert transforms(made)["initialised"] == ["given_in.weight", "given_in.bias"]
    assert "the output is the parent's, bit for bit" in [check.name for check in made.checks]


def test_a_parameter_with_another_name_is_refused(parent, start_from, tmp_path):
    t2v = parent("t2v", {})
    tensors = {name.replace("mask_token", "masked"): weight for name, weight in load_file(t2v / WEIGHTS).items()}
    save_file(tensors, tmp_path / "renamed", {"averaged": TRAINED.averaged})
    (tmp_path / "renamed").rename(t2v / WEIGHTS)
    with pytest.raises(ValueError, match="1 missing: mask_token; 1 unknown: masked"):
        start_from(FIRST, {"weights": t2v})
    assert not (tmp_path / "made").exists()


# the average


@pytest.mark.parametrize("says", [None, {"averaged": "ema 0.9 after 6 steps"}])
def test_weights_that_are_not_the_final_average_are_refused(parent, start_from, tmp_path, says):
    t2v = parent("t2v", {})
    save_file(load_file(t2v / WEIGHTS), tmp_path / "raw", says)
    (tmp_path / "raw").rename(t2v / WEIGHTS)
    with pytest.raises(ValueError, match=r"'ema 0\.9 after 7 steps'"):
        start_from(FIRST, {"weights": t2v})
    assert not (tmp_path / "made").exists()


def test_a_parent_that_changes_while_it_is_read_is_refused(parent):
    t2v = parent("t2v", {})
    loaded = warm_start.load_parent(t2v, metadata.read(t2v))
    content = bytearray((t2v / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (t2v / "new").write_bytes(content)
    (t2v / "new").rename(t2v / WEIGHTS)
    with pytest.raises(ValueError, match=rf"{WEIGHTS} .*sha256 {loaded.parent.sha256}"):
        warm_start_checks.check_average("weights", loaded)


# position interpolation


@pytest.mark.parametrize(
    ("before", "after", "scales", "grown"),
    [
        (IMAGE, IMAGE | LARGE, {"spatial_scale": 0.5}, "T2I -> T2I, interpolated in space"),
        ({}, {"frames": 8}, {"temporal_scale": 0.5}, "T2V -> T2V, interpolated in time"),
        ({}, {"frames": 8} | LARGE, {"spatial_scale": 0.5}, "T2V -> T2V, interpolated in space, extrapolated in time"),
        (IMAGE, LARGE, {"spatial_scale": 0.5}, "T2I -> T2V, interpolated in space"),
    ],
)
def test_positions_grow_at_the_old_angles(parent, start_from, settings, before, after, scales, grown):
    _, made, _ = start_from(after, {"weights": parent("before", before)}, **rotary(settings, **scales))
    assert made.kind == grown
    assert sum("old angles" in check.name for check in made.checks) == grown.count("polated")


def test_a_scale_that_does_not_suit_the_growth_leaves_no_certificate(parent, start_from, settings, tmp_path):
    with pytest.raises(ValueError, match=r"model\.positions\.spatial_scale is 0\.7 and was 1\.0"):
        start_from(LARGE, {"weights": parent("t2v", {})}, **rotary(settings, spatial_scale=0.7))
    assert not (tmp_path / "made").exists()


def test_positions_that_miss_the_old_angles_are_refused(parent, start_from, settings):
    parents = {"weights": parent("t2v", {})}
    child, made, _ = start_from(LARGE, parents, **rotary(settings, spatial_scale=0.5))
    found_metadata = {"weights": metadata.read(parents["weights"])}
    loaded = {"weights": warm_start.load_parent(parents["weights"], found_metadata["weights"])}
    changes = tuple(position_interpolation.axis_changes(found_metadata, child.settings, True, made.target))
    missing = child.settings.model_copy(update=rotary(settings, spatial_scale=0.5, base=9000.0))
    with pytest.raises(ValueError, match="positions interpolated in space"):
        here = CheckpointMetadata(model=missing, is_video=True, trained=made.target)
        warm_start_checks.execute(child.state_dict(), here, made.rows, loaded, changes)


def test_learned_positions_are_resized(parent, start_from):
    parents = {"weights": parent("t2v", {}, positions=LEARNED)}
    child, made, _ = start_from(FIRST, parents, positions=LEARNED_LARGE)
    assert made.kind == "T2V -> STIV, places resized, moments resized"
    assert child.places.shape == (8, 6, 32)
    for name in ("places", "moments"):
        with pytest.raises(ValueError, match=f"{name} "):
            executed(made, child, parents, **{name: child.state_dict()[name] * 1.01})


# temporal attention of a model of its own


@pytest.fixture
def two_parents(parent, settings):
    large = rotary(settings, spatial_scale=0.5)
    return {"weights": parent("t2i-512", IMAGE | LARGE, **large), "temporal": parent("t2v", {})}, large


def test_temporal_attention_comes_from_the_temporal_parent_and_all_else_from_the_image_model(two_parents, start_from):
    parents, large = two_parents
    child, made, _ = start_from(LARGE, parents, **large)
    assert made.kind == "T2I + T2V -> T2V"
    theirs = load_file(parents["temporal"] / WEIGHTS)
    for row in made.rows:
        is_temporal = "temporal" in row.parameter
        assert [source.parent for source in row.sources] == ["temporal" if is_temporal else "weights"]
        if is_temporal:
            assert torch.equal(child.state_dict()[row.parameter], theirs[row.parameter])
    names = " | ".join(check.name for check in made.checks)
    assert "with temporal attention silent, one repeated frame gives what the image model gives" in names
    assert "what is taken from the temporal parent is the parent's, bit for bit" in names


def test_temporal_weights_of_another_model_are_refused(two_parents, start_from, parent):
    parents, large = two_parents
    child, made, _ = start_from(LARGE, parents, **large)
    other = load_file(parent("another-t2v", {}) / WEIGHTS)
    name = "main_blocks.0.temporal_attention.qkv.weight"
    with pytest.raises(ValueError, match=f"temporal parent .*{name}"):
        executed(made, child, parents, **{name: other[name]})


@pytest.mark.parametrize("adaln", ["shared", "per_layer"])
def test_modulation_is_joined_from_both_parents(parent, start_from, adaln):
    changes = {"adaln": adaln, "temporal_modulation": True}
    parents = {"weights": parent("t2i", IMAGE, **changes), "temporal": parent("t2v", {}, **changes)}
    child, made, _ = start_from({}, parents, **changes)
    name = transforms(made)["joined"][0]
    weight, theirs = child.state_dict()[name], load_file(parents["temporal"] / WEIGHTS)[name]
    assert torch.equal(weight[192:], theirs[192:])
    for role, row in (("weights", 0), ("temporal", 200)):
        broken = weight.clone()
        broken[row] += 1
        with pytest.raises(ValueError, match=f"{role} parent .*{name}"):
            executed(made, child, parents, **{name: broken})


def test_learned_moments_come_from_the_temporal_parent(parent, start_from):
    parents = {"weights": parent("t2i", IMAGE, positions=LEARNED), "temporal": parent("t2v", {}, positions=LEARNED)}
    child, _, _ = start_from({}, parents, positions=LEARNED)
    assert torch.equal(child.moments, load_file(parents["temporal"] / WEIGHTS)["moments"])
