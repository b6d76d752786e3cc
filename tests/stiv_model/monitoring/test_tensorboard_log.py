import io

import numpy as np
from PIL import Image, ImageSequence
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stiv_model.monitoring.tensorboard_log import TensorBoardLog, gif
from tests.stiv_model.runs import describe


def test_tensorboard_shows_no_step_twice_after_a_return_to_a_checkpoint(tmp_path):
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    for done, steps in ((0, range(1, 6)), (3, range(4, 8))):
        tracker = TensorBoardLog()
        tracker.start(describe(), tmp_path, done)
        for step in steps:
            tracker.log(step, {"loss": 10 * done + step, "nothing": float("nan")})
            tracker.video(step, "video", frames, 8)
        tracker.end()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        *((step, step) for step in range(1, 4)),
        *((step, 30 + step) for step in range(4, 8)),
    ]
    assert "nothing" not in found.Tags()["scalars"]
    assert [event.step for event in found.Images("video")][-1] == 7


def test_a_video_is_a_picture_that_moves():
    frames = np.stack([np.full((4, 6, 3), value, np.uint8) for value in (0, 128, 255)])
    with Image.open(io.BytesIO(gif(frames, fps=8))) as moving:
        found = [np.asarray(frame.convert("RGB"))[0, 0, 0] for frame in ImageSequence.Iterator(moving)]
        assert moving.format == "GIF"
        assert moving.info["loop"] == 0
    assert found == [0, 128, 255]
