import hashlib

import pytest
import torch
from safetensors.torch import save_file

from stiv_model.conditions import MICRO_CONDITIONS, Text
from stiv_model.latent_data import NULL_TEXT
from stiv_model.settings import ModelSettings, RotarySettings
from stiv_model.transformer import StivTransformer
from tasks import manifest

TEXT_WIDTH, TOKENS = 12, 5


@pytest.fixture
def settings() -> ModelSettings:
    return ModelSettings(
        width=32,
        depth=2,
        unmasked_depth=1,
        heads=2,
        ffn_ratio=2.0,
        spatial_patch=2,
        temporal_patch=2,
        latent_channels=4,
        text_width=TEXT_WIDTH,
        norm_epsilon=1e-6,
        qk_norm=True,
        sandwich_norm=True,
        cross_attention_norm=False,
        condition_norm=True,
        micro_conditions=True,
        adaln="shared",
        temporal_modulation=False,
        causal_time=False,
        image_condition="replacement",
        positions=RotarySettings(kind="rotary", base=10000.0, spatial_scale=1.0, temporal_scale=1.0),
    )


def random_text(batch: int) -> Text:
    mask = torch.arange(TOKENS).expand(batch, -1) < torch.randint(1, TOKENS + 1, (batch, 1))
    return Text(torch.randn(batch, TOKENS, TEXT_WIDTH), mask, torch.randn(batch, TEXT_WIDTH))


@pytest.fixture
def inputs():
    """Noisy latents of 3 samples, 4 frames, 8 x 8, with their conditions."""
    torch.manual_seed(0)
    micro = torch.rand(3, len(MICRO_CONDITIONS)) * 100
    return torch.randn(3, 4, 4, 8, 8), torch.rand(3), random_text(3), micro


@pytest.fixture
def lively(settings):
    """Build a model none of whose weights is zero: as initialised, whole branches are silent."""

    def build(is_video: bool, **changes) -> StivTransformer:
        torch.manual_seed(1)
        model = StivTransformer(settings.model_copy(update=changes), is_video)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return build


@pytest.fixture
def latents(tmp_path):
    """A latents folder with 10 clips of 4 frames in two shards."""
    folder = tmp_path / "latents"
    folder.mkdir()
    torch.manual_seed(2)
    made_by = {"vae_sha256": "v", "text_sha256": "t"}
    rows = []
    for number, count in enumerate((6, 4)):
        text = random_text(count)
        tensors = {"latents": torch.randn(count, 4, 4, 8, 8).half(), "tokens": text.tokens_BLE.half()}
        tensors |= {"mask": text.mask_BL, "pooled": text.pooled_BE.half()}
        save_file(tensors, folder / f"shard-{number}.safetensors", metadata=made_by)
        rows += [
            dict.fromkeys(manifest.LATENTS.names)
            | {
                "clip": f"clip-{number}-{row}",
                "status": "ok",
                "aesthetic": float(row),
                "width": 64,
                "height": 48,
                "crop_top": 0,
                "crop_left": 8,
                "stride_frames": 3,
                "frames": 4,
                "sha256": hashlib.sha256(tensors["latents"][row].numpy().tobytes()).hexdigest(),
                "shard": f"shard-{number}.safetensors",
                "row": row,
            }
            for row in range(count)
        ]
    null = random_text(1)
    save_file(
        {"tokens": null.tokens_BLE.half(), "mask": null.mask_BL, "pooled": null.pooled_BE.half()},
        folder / NULL_TEXT,
        metadata=made_by,
    )
    manifest.write_rows(folder / "latents.parquet", rows, manifest.LATENTS)
    return folder
