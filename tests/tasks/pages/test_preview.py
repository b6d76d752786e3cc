import io

import av
import pytest

from tasks.pages.preview import Piece, preview
from tasks.sandbox.pool import Sandbox

SHOT = Piece(start_pts=0, end_pts=24 * 512, start=0.0, end=1.0, frames=24, width=96, height=96)


@pytest.fixture(scope="module")
def sandbox(sandbox_settings):
    with Sandbox(sandbox_settings) as opened:
        yield opened


def test_a_shot_becomes_a_small_film_of_the_same_length(video_with_cut, sandbox):
    with av.open(io.BytesIO(preview(SHOT, video_with_cut, sandbox))) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.codec_context.name) == (480, 480, "h264")
        assert (sum(1 for _ in container.decode(video=0)), stream.average_rate) == (12, 12)


def test_a_shot_that_is_not_in_the_file_says_why(video_with_cut, sandbox):
    with pytest.raises(ValueError, match="too_few_frames"):
        preview(SHOT._replace(start_pts=100 * 512, end_pts=124 * 512), video_with_cut, sandbox)
