"""Files that browsers play: what comes out is the same on every machine."""

import numpy as np

from stiv_model.encoders import video_file
from stiv_model.encoders.video_file import read_video, write_video
from tasks.demo import shapes
from tasks.demo.look import Look


def test_the_encoder_has_one_thread_whatever_the_machine_has(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    write_video(tmp_path / "x.mp4", frames, 8)
    content = (tmp_path / "x.mp4").read_bytes()
    assert b" threads=1 " in content and b"sliced_threads=0" in content, "as x264 writes into its stream"
    assert read_video(tmp_path / "x.mp4").shape == frames.shape


def test_the_encoder_computes_as_it_does_without_any_code_for_this_cpu(tmp_path, monkeypatch):
    """Code for AVX-512 reads memory that nobody wrote: the first video of a process had other bytes each time."""
    scene = shapes.scene(0, 1, False, Look(size=(0.4, 0.42), travel=(0.3, 0.32), backgrounds=("cloudy",)))
    noise = np.random.default_rng(0).integers(-6, 7, (31, 64, 64, 3))
    frames = np.clip(shapes.render(scene, 64, 31) + noise, 0, 255).astype(np.uint8)
    write_video(tmp_path / "made.mp4", frames, 8)
    monkeypatch.setattr(video_file, "CPU_INDEPENDENT", "1:no-asm=1")
    write_video(tmp_path / "plain.mp4", frames, 8)
    assert (tmp_path / "made.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()
