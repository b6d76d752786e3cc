import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tasks import fence
from tasks.fence import Fence


@pytest.fixture(scope="module")
def opened(fence_settings):
    with Fence(fence_settings) as opened:
        yield opened


def test_a_video_is_probed_in_a_child(opened, video_with_cut):
    found = opened.call("probe", {"path": str(video_with_cut)})
    assert (found["status"], found["codec"], found["width"], found["frames"]) == ("ok", "h264", 96, 48)
    assert found["seconds"] == pytest.approx(2.0)


def test_arrays_come_back_as_arrays(opened, write_video, tmp_path, moving_frames):
    frames = moving_frames(30)
    path = write_video(tmp_path / "a.mp4", frames)
    asked = {"path": str(path), "start_pts": 0, "end_pts": 10**9, "frames": 8, "stride_frames": 3}
    found = opened.call("clip_frames", asked | {"height": 96, "width": 96})
    assert found["frames"].shape == (8, 96, 96, 3)
    assert found["frames"].dtype == np.uint8
    for index, picture in enumerate(found["frames"]):
        assert np.abs(picture.astype(int) - frames[3 * index]).mean() < 8


def test_clip_frames_start_in_the_middle_and_stay_inside(opened, write_video, tmp_path):
    levels = np.arange(0, 240, 4, dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (60, 64, 96, 3)).copy()
    path = str(write_video(tmp_path / "grey.mp4", frames))
    tick = 512  # of the time base 1/12288 that the mp4 writer takes for 24 frames per second
    asked = {"path": path, "start_pts": 25 * tick, "end_pts": 50 * tick, "frames": 5, "stride_frames": 5}
    found = opened.call("clip_frames", asked | {"height": 32, "width": 32})
    means = found["frames"].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, levels[25:50:5], atol=3)
    assert (found["crop_top"], found["crop_left"]) == (0, 8)
    found = opened.call("clip_frames", asked | {"height": 32, "width": 32, "frames": 6})
    assert (found["status"], found["reason"]) == ("failed", "too_few_frames")


def test_a_hanging_child_is_killed_at_its_wall_time(fence_settings):
    with Fence(fence_settings.model_copy(update={"seconds": 0.5, "workers": 1})) as quick:
        quick.call("prove_network", {})  # the worker has started
        started = time.monotonic()
        assert quick.call("prove_time", {}) == {"status": "failed", "reason": "timeout"}
        assert time.monotonic() - started < 3


def test_a_crashing_child_costs_its_own_file_only(opened, video_with_cut):
    good = ("probe", {"path": str(video_with_cut)})
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda call: opened.call(*call), [good, ("prove_crash", {}), good, good]))
    assert [result["status"] for result in found] == ["ok", "failed", "ok", "ok"]
    assert found[1]["reason"] == "crashed"


def test_a_child_that_wants_too_much_memory_fails_with_that_reason(opened):
    assert opened.call("prove_memory", {}) == {"status": "failed", "reason": "memory"}


def test_a_worker_that_dies_loses_one_file_and_is_started_again(fence_settings, video_with_cut):
    with Fence(fence_settings.model_copy(update={"workers": 1})) as single:
        asked = {"path": str(video_with_cut)}
        assert single.call("probe", asked)["status"] == "ok"
        single._idle.queue[0].process.kill()
        assert single.call("probe", asked) == {"status": "failed", "reason": "crashed"}
        assert single.call("probe", asked)["status"] == "ok"


def test_every_fence_of_this_machine_is_tried():
    found = fence.available()
    assert set(found) == {"time", "memory", "crash", "network"}
    assert found["time"] and found["memory"] and found["crash"]


def test_the_worker_ends_when_its_parent_is_killed(tmp_path: Path):
    """Also while a child hangs: nobody is left to kill it."""
    script = (
        "import sys, threading\n"
        "from tasks.fence import Fence\n"
        "from tasks.settings import FenceSettings\n"
        "limits = dict(seconds=600, memory_bytes=2**31, max_size_bytes=1, max_pixels=1, max_frames=1, workers=1)\n"
        "with Fence(FenceSettings(**limits)) as fence:\n"
        "    worker = fence._idle.queue[0]\n"
        "    fence.call('prove_network', {})\n"
        "    threading.Thread(target=fence.call, args=('prove_time', {})).start()\n"
        "    print(worker.process.pid, flush=True)\n"
        "    threading.Event().wait()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, text=True)
    worker = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and _state(worker) != "Z":
        assert time.monotonic() < deadline, "the worker outlived its parent by 10 s"
        time.sleep(0.05)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_the_worker_imports_neither_torch_nor_prefect():
    code = (
        "import sys, json, tasks.fence_worker; print(json.dumps([n for n in ('torch', 'prefect') if n in sys.modules]))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert json.loads(done.stdout) == []
