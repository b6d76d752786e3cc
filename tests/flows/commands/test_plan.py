"""`stiv plan`: what it says with and without data, and what a person sees who asks for the impossible."""

import json
import sys
from pathlib import Path

import pytest
import torch

from flows.__main__ import main
from flows.params import load_params
from stiv_model.latents.shard_files import write
from stiv_model.settings import Encoders, Run
from tasks.storage import tables as manifest
from tasks.training import launch

ROOT = Path(__file__).parents[3]
PARAMS = "tests/params.yaml"
CLIPS = 9
TEXT = {"text_sha256": "t", "vae_sha256": "v"}


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def latents(tmp_path) -> Path:
    """Latents as tests/params.yaml makes them: a shard of usable clips, and a clip that failed."""
    folder = tmp_path / "latents"
    folder.mkdir()
    params = load_params(ROOT / PARAMS)
    side, width = params.latents.height // 8, params.model.text_width
    shape = (CLIPS, params.latents.frames, params.model.latent_channels, side, side)
    tensors = {
        "latents": torch.zeros(shape, dtype=torch.half),
        "tokens": torch.zeros(CLIPS, params.text.tokens, width, dtype=torch.half),
        "mask": torch.ones(CLIPS, params.text.tokens, dtype=torch.bool),
        "pooled": torch.zeros(CLIPS, width, dtype=torch.half),
    }
    write(folder / "shard-00000.safetensors", tensors, TEXT)
    empty = dict.fromkeys(manifest.LATENTS.names)
    placed = {"status": "ok", "shard": "shard-00000.safetensors"}
    rows = [empty | placed | {"clip": f"{row}", "row": row, "aesthetic": float(row)} for row in range(CLIPS)]
    rows.append(empty | {"clip": "broken", "status": "failed", "reason": "timeout"})
    manifest.write_rows(folder / "latents.parquet", rows, manifest.LATENTS)
    return folder


def figures(capsys, *words: str) -> dict:
    main(["plan", "--params", PARAMS, *words, "--json"])
    return json.loads(capsys.readouterr().out)


def test_without_latents_the_data_is_unknown_and_the_costs_are_not(capsys):
    found = figures(capsys)
    assert found["encoding"]["price"] is None
    assert list(found["recipes"]) == list(load_params(ROOT / PARAMS).train)
    for recipe in found["recipes"].values():
        assert (recipe["data"], recipe["refused"], recipe["gpu_hours"], recipe["price"]) == (None, None, None, None)
        assert recipe["flops"] == recipe["steps"] * recipe["step_flops"] > 0
        assert recipe["memory"]["sum"] == sum(v for key, v in recipe["memory"].items() if key != "sum")


def test_a_picture_costs_less_than_a_video_and_masking_less_than_none(capsys):
    recipes = figures(capsys)["recipes"]
    assert recipes["t2i"]["step_flops"] < recipes["sft"]["step_flops"] < recipes["unmask_sft"]["step_flops"]


def test_with_latents_every_clip_is_accounted_for(capsys, latents):
    found = figures(capsys, "--latents", str(latents), "--recipe", "train.sft")["recipes"]
    (sft,) = found.values()
    assert (sft["data"]["clips"], sft["data"]["samples"]) == (10, 8)
    assert sft["data"]["dropped"] == {"failed: timeout": 1, "outside_best_fraction": 1}
    assert sft["data"]["epochs"] == sft["samples_drawn"] / 8


def test_what_a_clip_is_estimated_to_take_is_what_it_takes(capsys, latents):
    found = figures(capsys, "--recipe", "train.t2v")
    shard = latents / "shard-00000.safetensors"
    header = 8 + int.from_bytes(shard.read_bytes()[:8], "little")
    assert found["clip_bytes_estimated"] == (shard.stat().st_size - header) / CLIPS


def test_hours_and_price_are_those_of_the_rate_given(capsys):
    t2v = figures(capsys, "--recipe", "train.t2v", "--tflops", "2", "--gpu-rate", "3")["recipes"]["t2v"]
    assert t2v["gpu_hours"] == pytest.approx(t2v["flops"] / 2e12 / 3600)
    assert t2v["price"] == pytest.approx(3 * t2v["gpu_hours"])


def test_encoding_and_sampling_are_counted_with_hours_and_price_on_the_device_that_is_named(
    capsys, tmp_path, monkeypatch
):
    words = ("--tflops", "2", "--gpu-rate", "3")
    on_cpu = figures(capsys, *words)
    assert [on_cpu[name]["device_hours"] for name in ("encoding", "sampling")] == [None, None], "2 is of a GPU"
    gpus = (
        (ROOT / PARAMS)
        .read_text()
        .replace("encoders: cpu ", "encoders: cuda")
        .replace("sampling: cpu ", "sampling: cuda")
    )
    (tmp_path / "gpus.yaml").write_text(gpus)
    monkeypatch.setattr(sys.modules[__name__], "PARAMS", str(tmp_path / "gpus.yaml"))
    found = figures(capsys, *words)
    encoding, sampling = found["encoding"], found["sampling"]
    assert (encoding["device"], encoding["clips"]) == ("cuda", 1_000_000)
    assert encoding["flops"] == 1_000_000 * sum(encoding["clip_flops"].values()) > 0
    own = load_params(ROOT / PARAMS).samples
    assert sampling["videos"] == (
        own.text_prompts + own.seen_text_prompts + own.image_prompts + own.interpolated + own.seen_image_prompts
    )
    for one in (encoding, sampling):
        assert one["device_hours"] == pytest.approx(one["flops"] / 2e12 / 3600)
        assert one["price"] == pytest.approx(3 * one["device_hours"])
    slower = figures(capsys, *words, "--inference-tflops", "0.5")
    assert slower["encoding"]["device_hours"] == pytest.approx(4 * encoding["device_hours"])
    assert slower["recipes"] == found["recipes"]


def test_the_clips_that_are_there_are_those_that_are_encoded(capsys, latents):
    assert figures(capsys, "--latents", str(latents))["encoding"]["clips"] == CLIPS + 1


def test_the_table_says_what_json_says(capsys, latents):
    words = ["--latents", str(latents), "--recipe", "train.sft", "--tflops", "0.000001"]
    sft = figures(capsys, *words)["recipes"]["sft"]
    main(["plan", "--params", PARAMS, *words])
    said = capsys.readouterr().out
    cells = {line[:36].strip(): line[36:].strip() for line in said.splitlines()}
    assert "10 = 9 ok + 0 rejected + 1 failed" in said
    assert cells["samples: clips used"] == "8"
    assert cells["dropped, failed: timeout"] == "1"
    assert float(cells["GB on one rank, sum"]) == pytest.approx(sft["memory"]["sum"] / 1e9, rel=0.01)
    assert float(cells["GPU-hours at 1e-06 TFLOP/s"]) == pytest.approx(sft["gpu_hours"], rel=0.01)


def test_what_training_would_refuse_is_an_error_after_the_figures(capsys, latents):
    tables = latents / "latents.parquet"
    rows = manifest.read_rows(tables, manifest.LATENTS)
    manifest.write_rows(tables, [row | {"reason": None} for row in rows], manifest.LATENTS)
    with pytest.raises(SystemExit, match=r"^stiv plan: .*\b1 clips, .*\bbroken\b"):
        main(["plan", "--params", PARAMS, "--latents", str(latents), "--recipe", "train.t2v"])
    assert "refused" in capsys.readouterr().out


def test_m_512_is_counted_in_full(capsys):
    main(["plan", "--params", "infra/params/m-512.yaml", "--recipe", "train.t2v", "--json"])
    t2v = json.loads(capsys.readouterr().out)["recipes"]["t2v"]
    assert (t2v["tokens"], t2v["micro_batch"]) == (10_240, 4)
    assert t2v["step_flops"] == pytest.approx(1024 * 357.5e12, rel=0.01)  # `stiv model M --pixels 512 --frames 20`
    assert t2v["memory"]["parameters"] == pytest.approx(2 * 9.17e9 / 8, rel=0.01)
    assert t2v["memory"]["activations"] == pytest.approx(4 * 4.298e9, rel=0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu-rate", "2"], "--gpu-rate is 2, but how many GPU-hours is unknown: give --tflops too"),
        (["--tflops", "0"], "--tflops is 0: .* above 0"),
        (["--inference-tflops", "0"], "--inference-tflops is 0: .* above 0"),
        (["--tflops", "1", "--gpu-rate", "-1"], "--gpu-rate is -1: .* 0 or more"),
        (["--downsampling", "7"], r"--downsampling is 7, .*latents\.height 32"),
        (["--recipe", "train.t2x"], r"no section train\.t2x"),
        (["--recipe", "model"], r"--recipe is model, which is no recipe: take one of train\.t2i"),
        (
            ["--recipe", "train.t2v", "--latents", "no/such"],
            "no/such/latents.parquet does not exist: run stage latents",
        ),
    ],
)
def test_a_wrong_request_ends_in_one_line_with_the_value(words, said):
    with pytest.raises(SystemExit, match=rf"stiv plan: .*{said}"):
        main(["plan", "--params", PARAMS, *words])


def test_training_refuses_to_start_without_a_plan_and_leaves_nothing_behind(tmp_path, latents):
    params = load_params(ROOT / PARAMS)
    nothing = dict.fromkeys(("parent", "parent_sha256", "temporal_parent", "temporal_parent_sha256"))
    run = Run(
        recipe_name="t2v",
        latents=str(latents),
        latents_sha256="",
        encoders=Encoders(vae_sha256="v", text_sha256="t"),
        **nothing,
        model=params.model,
        recipe=params.train["t2v"].model_copy(update={"batch": 16}),
        training=params.training,
    )
    with pytest.raises(ValueError, match=r"train\.t2v\.batch is 16, .*\b9 samples"):
        launch.train(run, *(tmp_path / name for name in ("checkpoints/t2v", "t2v.tsv", "levels.tsv", "shown")))
    assert not (tmp_path / "checkpoints").exists()
