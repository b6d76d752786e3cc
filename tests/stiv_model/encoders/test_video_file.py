"""Files that browsers play: what comes out is the same on every machine."""

import numpy as np

from stiv_model.encoders.video_file import read_video, write_video


def test_the_encoder_has_one_thread_whatever_the_machine_has(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    write_video(tmp_path / "x.mp4", frames, 8)
    content = (tmp_path / "x.mp4").read_bytes()
    assert b" threads=1 " in content and b"sliced_threads=0" in content, "as x264 writes into its stream"
    assert read_video(tmp_path / "x.mp4").shape == frames.shape
