import subprocess
import sys


def test_a_rank_that_hangs_ends_with_the_stacks_of_its_threads():
    program = """
import time
from stiv_model.training.watchdog import Watchdog
watchdog = Watchdog(least_seconds=0.5)
def work():
    for _ in range(20):
        time.sleep(0.01)
        watchdog.step()
def hang_here():
    time.sleep(60)
work()
with watchdog.slower():
    time.sleep(1)
print("written", flush=True)
hang_here()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    assert "written" in ended.stdout, "what is known to be slow has more time"
    assert "hang_here" in ended.stderr
