from pathlib import Path

import pytest

from flows.running.training_page import page
from stiv_model.monitoring.metrics import Records, Speed
from stiv_model.training.run_files import INCIDENTS, LOSSES, NOISE_LEVEL_LOSSES, NOISE_LEVELS


@pytest.fixture
def told(tmp_path: Path) -> str:
    """The page of a run of 20 steps that went back once: step 11 was bad and is passed over, its loss not a number."""
    records = Records(tmp_path, 0, 20, 4, Speed(tokens=10, flops=1000, peak_flops_per_second=1e6))
    levels = [float("nan")] * (NOISE_LEVELS - 1)
    for step in range(1, 21):
        if step == 11:
            records.incident(step, why="loss is nan", bad=["clip-7"], clips=["clip-7", "clip-8"])
            records.incident(step, back_to=10, passed_over=[11])
            records.pass_over(step)
        else:
            records.step(step, 1.0 if step < 19 else step / 10, 0.5, 1e-3, [*levels, step / 10], 2_500_000_000)
    records.close()
    shown = tmp_path / "shown"
    (shown / "validation/step-00000010").mkdir(parents=True)
    assert (tmp_path / INCIDENTS).exists()
    return page(tmp_path, tmp_path / LOSSES, tmp_path / NOISE_LEVEL_LOSSES, shown)


def test_the_page_says_where_the_losses_came_to_overall_and_by_noise_level(told: str):
    assert "| loss, mean of the last 2 steps | 1.9500 |" in told
    assert "| t0.9 | 1.9500 |" in told
    assert "| t0.0 | nan |" in told


def test_the_page_names_what_was_skipped_and_why(told: str):
    assert "- step 11: skipped, loss is nan (clip-7)" in told
    assert "- step 11: went back to step 10" in told
    for row in ("steps skipped | 1", "steps passed over | 1", "returns to a checkpoint | 1"):
        assert f"| {row} |" in told


def test_the_page_says_what_it_took_and_leads_to_the_videos(told: str):
    assert "| peak memory of the first rank | 2.50 GB |" in told
    for name in ("samples/s", "tokens/s", "MFU", "time"):
        assert f"| {name} | " in told
    assert "step-00000010" in told
    assert "tensorboard --logdir" in told
