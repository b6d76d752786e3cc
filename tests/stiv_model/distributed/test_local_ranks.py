"""The launcher of one machine: what its ranks are told, how it ends, and that nothing listens for it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch.distributed as dist

from stiv_model.distributed import local_ranks
from stiv_model.process_exit import STOPPED
from tests.stiv_model.ranks import ROOT, listening

LAUNCH = [sys.executable, "-m", "stiv_model.distributed.local_ranks"]
QUICK = "import sys; from stiv_model.distributed import local_ranks as one; one._SECONDS = 0.2; "
QUICK += "sys.exit(one.run(int(sys.argv[1]), sys.argv[2:]))"


def launch(
    ranks: int, code: str, *, before: list[str] | None = None, **environment: str
) -> subprocess.CompletedProcess:
    command = [*(before or LAUNCH), str(ranks), "-c", f"import os, sys, time; rank = int(os.environ['RANK']); {code}"]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_every_rank_is_told_who_it_is_and_nothing_of_another_launcher():
    left = {"RANK": "7", "WORLD_SIZE": "8", "SLURM_PROCID": "7", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    done = launch(2, "import json; sys.stdout.write(json.dumps(dict(os.environ)) + '\\n')", **left, MASTER_ADDR="lab")
    assert done.returncode == 0, done.stderr
    told = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda one: one["RANK"])
    assert [(one["RANK"], one["LOCAL_RANK"], one["WORLD_SIZE"]) for one in told] == [("0", "0", "2"), ("1", "1", "2")]
    for one in told:
        assert one["MASTER_ADDR"] == "127.0.0.1"
        assert not {"SLURM_PROCID", "TORCHELASTIC_USE_AGENT_STORE"} & one.keys()
        assert not Path(one[local_ranks.RENDEZVOUS].removeprefix("file://")).parent.exists()  # it has ended


def test_a_rank_that_fails_ends_the_others_and_is_named_last():
    done = launch(2, "sys.exit(3) if rank else time.sleep(50)", before=[sys.executable, "-c", QUICK])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "rank 1 of 2 ended with exit code 3"


def test_a_rank_that_was_killed_is_named_with_the_signal():
    done = launch(1, "os.kill(os.getpid(), 9)")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("rank 0 of 1 was ended by signal 9 (SIGKILL): ")


def test_a_request_to_stop_reaches_each_rank_once_and_they_end_in_their_own_time(tmp_path):
    code = f"""import os, pathlib, signal, sys, time
heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).touch()
while not heard: time.sleep(0.01)
time.sleep(0.3)
sys.exit({STOPPED} if heard == [signal.SIGTERM] else 1)"""
    process = subprocess.Popen([*LAUNCH, "2", "-c", code], cwd=ROOT, process_group=0)
    try:
        limit = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < limit
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)  # as tasks.operations.processes does
        assert process.wait(timeout=60) == STOPPED
    finally:
        process.kill()
        process.wait()


def test_the_store_that_torch_makes_by_itself_listens_on_all_interfaces():
    """What the ranks' own meeting place is for; and the tests that see nothing beyond loopback would see this."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    assert listening(psutil.Process()) - {"127.0.0.1", "::1"}
    del store
