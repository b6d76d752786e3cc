from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stiv_model.latent_data import LatentData, Order
from tasks import manifest


def test_a_batch_holds_what_the_shards_hold(latents):
    data = LatentData(latents, 1.0)
    batch = data.batch([7, 0, 9])
    for place, clip in enumerate(batch.clips):
        shard, row = clip.split("-")[1:]
        tensors = load_file(latents / f"shard-{shard}.safetensors")
        assert torch.equal(batch.latents_BFCHW[place], tensors["latents"][int(row)].float())
        assert torch.equal(batch.text.tokens_BLE[place], tensors["tokens"][int(row)].float())
        assert torch.equal(batch.text.mask_BL[place], tensors["mask"][int(row)])
    assert batch.micro_BM[0].tolist() == [48, 64, 0, 8, 3, 4]


def test_best_fraction_takes_the_best_by_aesthetic_score(latents):
    data = LatentData(latents, 0.3)
    assert sorted(sample.aesthetic for sample in data.samples) == [3.0, 4.0, 5.0]
    assert data.given == 10


def test_shards_of_different_encoders_are_refused(latents):
    shard = latents / "shard-1.safetensors"
    save_file(load_file(shard), shard, metadata={"vae_sha256": "another", "text_sha256": "t"})
    with pytest.raises(ValueError, match="different encoders"):
        LatentData(latents, 1.0)


def test_no_usable_clip_is_an_error_and_not_zero_batches(latents):
    rows = manifest.read_rows(latents / "latents.parquet", manifest.LATENTS)
    failed = [row | {"status": "failed", "reason": "timeout"} for row in rows]
    manifest.write_rows(latents / "latents.parquet", failed, manifest.LATENTS)
    with pytest.raises(ValueError, match="no usable clip"):
        LatentData(latents, 1.0)


@given(samples=st.integers(1, 50), epochs=st.integers(1, 4), seed=st.integers())
def test_every_epoch_draws_every_sample_once(samples, epochs, seed):
    order = Order(samples, seed)
    drawn = [order[position] for position in range(samples * epochs)]
    for epoch in range(epochs):
        assert Counter(drawn[epoch * samples : (epoch + 1) * samples]) == Counter(range(samples))


@given(position=st.integers(0, 1000), seed=st.integers())
def test_what_is_drawn_depends_on_the_position_alone(position, seed):
    visited = Order(17, seed)
    for before in range(0, position, 7):
        visited[before]
    assert visited[position] == Order(17, seed)[position]
