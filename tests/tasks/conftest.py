"""Pictures that the tests of several scores share: real frames, and what happens to them on the way to a still."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tasks.decoding.measures import jpeg
from tasks.demo.corpus import packaged_file

Damage = Callable[[np.ndarray], np.ndarray]
STILL_PIXELS = 256


def as_still(picture: np.ndarray) -> np.ndarray:
    """Return a BGR picture as the stills of the table are: small, and once through JPEG."""
    scale = min(1.0, STILL_PIXELS / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    decoded = cv2.imdecode(np.frombuffer(jpeg(small), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def encoded(picture: np.ndarray, crf: int) -> np.ndarray:
    """Return a BGR picture (even sides) after H.264 at this constant rate factor, as the third of three frames."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)][2]


def doubled(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="session")
def still() -> Damage:
    return as_still


@pytest.fixture(scope="session")
def through_h264() -> Callable[[np.ndarray, int], np.ndarray]:
    return encoded


@pytest.fixture(scope="session")
def twice_the_size() -> Damage:
    return doubled


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CLIP image tower of one layer, random, for pictures of 16 pixels, with features of 12 numbers."""
    import torch  # seconds, for the few tests that ask for it
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=12,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_frames() -> list[np.ndarray]:
    """Four BGR frames of bikes.mp4, 272 x 640: the first of four shots."""
    wanted, found = {0, 40, 100, 150}, []
    with av.open(str(packaged_file("bikes")), "r") as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                found.append(frame.to_ndarray(format="bgr24"))
            if len(found) == len(wanted):
                return found
    raise AssertionError(f"bikes.mp4 has {len(found)} of the frames {sorted(wanted)}")
