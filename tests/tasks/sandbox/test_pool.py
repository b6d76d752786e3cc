import json
import os
import pickle
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from benchmarks import traps
from flows.params import load_params
from tasks.decoding import decode, probe
from tasks.decoding.limits import DecodeBudget, Limits
from tasks.sandbox import pool as sandbox
from tasks.sandbox.pool import Sandbox
from tasks.videos import shot_rules


@pytest.fixture(scope="module")
def opened(sandbox_settings):
    with Sandbox(sandbox_settings) as opened:
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


def test_a_hanging_child_is_killed_at_its_wall_time(sandbox_settings):
    with Sandbox(sandbox_settings.model_copy(update={"seconds": 0.5, "workers": 1})) as quick:
        worker = psutil.Process(quick._idle.queue[0].process.pid)
        assert quick.call("prove_time", {}) == {"status": "failed", "reason": "timeout"}  # by itself it never ends
        assert worker.children() == []


def test_a_crashing_child_costs_its_own_file_only(opened, video_with_cut):
    good = ("probe", {"path": str(video_with_cut)})
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda call: opened.call(*call), [good, ("prove_crash", {}), good, good]))
    assert [result["status"] for result in found] == ["ok", "failed", "ok", "ok"]
    assert found[1]["reason"] == "crashed"


def test_a_child_that_wants_too_much_memory_fails_with_that_reason(opened):
    assert opened.call("prove_memory", {}) == {"status": "failed", "reason": "memory"}


def test_a_worker_that_dies_loses_one_file_and_is_started_again(sandbox_settings, video_with_cut):
    with Sandbox(sandbox_settings.model_copy(update={"workers": 1})) as single:
        asked = {"path": str(video_with_cut)}
        assert single.call("probe", asked)["status"] == "ok"
        single._idle.queue[0].process.kill()
        assert single.call("probe", asked) == {"status": "failed", "reason": "crashed"}
        assert single.call("probe", asked)["status"] == "ok"


def test_every_fence_is_run_into_and_holds_unless_the_kernel_has_it_not(sandbox_settings):
    holds, missing = sandbox.available(sandbox_settings)
    assert list(holds) == ["network", "read", "write", "exec", "processes", "memory", "time", "output", "crash"]
    assert holds["memory"] and holds["time"] and holds["output"] and holds["crash"]
    assert all(holds.values()) or missing
    absent = ("not implemented", "not supported", "not permitted", "no filter for")
    assert all(any(words in why for words in absent) for why in missing.values())


OLD_KERNEL = """
import ctypes, logging, struct, sys
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings

logging.basicConfig(level=logging.WARNING)
NO_LANDLOCK = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in NO_LANDLOCK))
program = struct.pack("=HxxxxxxQ", len(NO_LANDLOCK), ctypes.addressof(code))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
with Sandbox(SandboxSettings.model_validate_json(sys.argv[1])) as sandbox:
    print(sandbox.call("probe", {"path": sys.argv[2]})["status"])
"""


def on_an_old_kernel(settings, video: Path) -> subprocess.CompletedProcess:
    """Open a video where the kernel says that it has no Landlock."""
    asked = [sys.executable, "-c", OLD_KERNEL, settings.model_dump_json(), str(video)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.run(asked, capture_output=True, text=True, env=environment)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the filter's numbers are theirs")
def test_a_fence_that_is_missing_is_named_and_strict_refuses(sandbox_settings, video_with_cut):
    settings = sandbox_settings.model_copy(update={"workers": 1})
    lenient = on_an_old_kernel(settings, video_with_cut)
    assert lenient.stdout.strip() == "ok" and "read (" in lenient.stderr and "Landlock" in lenient.stderr
    strict = on_an_old_kernel(settings.model_copy(update={"strict": True}), video_with_cut)
    last = strict.stderr.strip().split("\n")[-1]
    assert strict.returncode == 1 and "sandbox.strict is true" in last and "read (" in last


def test_time_grows_with_the_frames_that_were_counted_up_to_a_cap(sandbox_settings):
    limits = {"seconds": 30.0, "seconds_per_frame": 0.05, "max_seconds": 120.0}
    sandbox = Sandbox(sandbox_settings.model_copy(update=limits))
    assert sandbox.seconds({}) == 30
    assert sandbox.seconds({"claimed_frames": 200}) == 40
    assert sandbox.seconds({"frames": 20, "stride_frames": 3}) == 33
    assert sandbox.seconds({"claimed_frames": 10**9}) == 120


def test_what_is_no_regular_file_gets_a_verdict_not_a_crash(opened, tmp_path, video_with_cut):
    (tmp_path / "link.mp4").symlink_to(video_with_cut)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("link.mp4", "pipe.mp4", "folder.mp4"):
        assert opened.call("probe", {"path": str(tmp_path / name)}) == {"status": "rejected", "reason": "not_a_file"}
    assert opened.call("probe", {"path": str(tmp_path / "none.mp4")})["reason"] == "not_found"
    assert opened.call("probe", {"path": str(tmp_path / ("x" * 300))})["reason"] == "not_permitted"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_expansion": 1000}, "expands_too_much"),
        ({"max_decoded_bytes": 10**7}, "too_many_decoded_bytes"),
        ({"max_frames": 100}, "too_many_frames"),
        ({"max_side": 255}, "too_many_pixels"),
        ({"max_fps": 23.9}, "fps_out_of_range"),
        ({"max_streams": 1}, "too_many_streams"),
        ({"codecs": ["h264"]}, "codec_not_allowed"),
        ({"formats": ["avi"]}, "format_not_allowed"),
    ],
)
def test_each_limit_on_a_video_is_a_reason(sandbox_settings, still_for_long, change, reason):
    limits = Limits(**sandbox_settings.model_copy(update=change).model_dump(exclude={"workers"}))
    found = probe.probe(str(still_for_long), limits)
    if found["status"] == "ok":
        with decode.open_video(str(still_for_long), limits) as video, pytest.raises(decode.Refused) as refused:
            list(decode.decoded(video))
        found = refused.value.result()
    assert found == {"status": "rejected", "reason": reason}


@pytest.fixture(scope="module")
def still_for_long(tmp_path_factory) -> Path:
    """600 frames, 256 x 256, that decode to 59 MB and take up 30 kB; the first is a second stream too."""
    folder = tmp_path_factory.mktemp("still")
    traps.many_frames(folder / "one.mp4", 600, pixels=256)
    with av.open(str(folder / "one.mp4")) as one, av.open(str(folder / "two.mp4"), "w") as two:
        streams = [two.add_stream_from_template(one.streams.video[0]) for _ in range(2)]
        for packet in one.demux(video=0):
            if packet.pts == 0:
                first = av.Packet(bytes(packet))
                first.pts, first.dts, first.time_base, first.stream = 0, 0, packet.time_base, streams[1]
                two.mux(first)
            if packet.size:
                packet.stream = streams[0]
                two.mux(packet)
    return folder / "two.mp4"


def test_errors_are_forgiven_up_to_a_share_and_up_to_a_row_of_them(sandbox_settings):
    limits = Limits(**sandbox_settings.model_dump(exclude={"workers"}))._replace(max_broken=0.1, max_broken_run=3)
    spread, row = DecodeBudget(limits, 1), DecodeBudget(limits, 1)
    assert not any(spread.packet(is_broken=index % 11 == 10) for index in range(1000))
    assert not any(row.packet(is_broken=False) for _ in range(1000))
    assert [row.packet(is_broken=True) for _ in range(4)] == [None, None, None, "decode_error"]


def test_the_worker_ends_when_its_parent_is_killed(tmp_path, sandbox_settings):
    """Also while a child hangs: nobody is left to kill it."""
    script = (
        "import sys, threading\n"
        "from tasks.sandbox.pool import Sandbox\n"
        "from tasks.sandbox.settings import SandboxSettings\n"
        "with Sandbox(SandboxSettings.model_validate_json(sys.argv[1])) as sandbox:\n"
        "    worker = sandbox._idle.queue[0]\n"
        "    sandbox.call('prove_network', {})\n"
        "    threading.Thread(target=sandbox.call, args=('prove_time', {})).start()\n"
        "    print(worker.process.pid, flush=True)\n"
        "    threading.Event().wait()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": str(tmp_path)}
    settings = sandbox_settings.model_copy(update={"seconds": 600.0, "workers": 1}).model_dump_json()
    parent = subprocess.Popen(
        [sys.executable, "-c", script, settings], stdout=subprocess.PIPE, env=environment, text=True
    )
    worker = int(parent.stdout.readline())
    deadline = time.monotonic() + 30
    while not [child for child in psutil.Process(worker).children() if child.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, "no child hangs after 30 s"
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and _state(worker) != "Z":
        assert time.monotonic() < deadline, "the worker outlived its parent by 10 s"
        time.sleep(0.05)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_the_worker_imports_neither_torch_nor_prefect():
    code = "import sys, json, tasks.sandbox.worker as _; print(json.dumps([*{'torch', 'prefect'} & {*sys.modules}]))"
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert json.loads(done.stdout) == []


def test_a_child_finds_everything_imported(sandbox_settings, video_with_cut):
    limits = sandbox_settings.model_dump(exclude={"workers"})
    rules = shot_rules.rules_of(load_params(Path(__file__).parents[2] / "params.yaml").shots)
    split = rules | {"claimed_frames": 48, "fps": 24.0, "repairs": []}
    clip = {"start_pts": 0, "end_pts": 10**9, "frames": 8, "stride_frames": 3, "height": 64, "width": 64}
    calls = {"probe": {}, "split": split, "clip_frames": clip}
    code = """if True:
        import json, sys
        from tasks.sandbox import worker
        path, limits, calls = json.load(sys.stdin)
        before = {*sys.modules}
        for name, arguments in calls.items():
            answer = worker.FUNCTIONS[name](path=path, limits=worker.Limits(**limits), **arguments)
            assert answer["status"] == "ok", answer
        print(json.dumps([*{*sys.modules} - before]))"""
    given = json.dumps([str(video_with_cut), limits, calls])
    command, root = [sys.executable, "-c", code], str(Path(__file__).parents[3])
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=root, check=True)
    assert json.loads(done.stdout) == []


def test_a_fence_that_is_sent_to_another_process_is_that_processs_own(sandbox_settings, video_with_cut):
    ask = "import pickle, sys; pool = pickle.load(sys.stdin.buffer); print(pool.call('probe', {'path': sys.argv[1]}))"
    with Sandbox(sandbox_settings) as sandbox:
        sent = pickle.dumps(sandbox)
    command = [sys.executable, "-c", ask, str(video_with_cut)]
    answer = subprocess.run(command, input=sent, capture_output=True, check=True, cwd=Path(__file__).parents[3])
    assert b"'status': 'ok'" in answer.stdout
