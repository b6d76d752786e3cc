"""A request to stop. Run as a script, this file is two ranks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from stiv_model import signals, stopping
from stiv_model.lifetime import die_with_parent


def main(folder: Path) -> None:
    torch.multiprocessing.start_processes(run_rank, (folder,), nprocs=2, start_method="fork")


def run_rank(rank: int, folder: Path) -> None:
    """Take steps until any rank is asked to stop; note after which step."""
    die_with_parent()
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    request = signals.StopRequest()
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    answers, step = [False, False], 0
    while not answers[1]:
        step += 1
        time.sleep(0.01)
        answers = signals.on_any_rank([step == 3 and rank == 0, request.is_made], torch.device("cpu"))
        if answers[0]:
            (folder / f"first-{rank}").write_text(str(step))
    (folder / f"stopped-{rank}").write_text(str(step))
    dist.barrier()
    os._exit(0)  # as torch tears gloo down, a rank may abort although all went well


def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "GLOO_SOCKET_IFNAME": "lo"}
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path)], env=environment)
    try:
        while not (tmp_path / "first-1").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert (tmp_path / "stopped-0").read_text() == (tmp_path / "stopped-1").read_text()
    assert [(tmp_path / f"first-{rank}").read_text() for rank in (0, 1)] == ["3", "3"]


def test_that_a_run_was_stopped_is_known_until_it_goes_on(tmp_path):
    assert stopping.stopped_at(tmp_path) is None
    stopping.mark_stopped(tmp_path, 7)
    assert stopping.stopped_at(tmp_path) == 7
    stopping.mark_stopped(tmp_path, None)
    assert stopping.stopped_at(tmp_path) is None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
