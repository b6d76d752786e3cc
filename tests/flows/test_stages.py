"""DVC as a child of ours."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGE = """import signal
from stiv_model.lifetime import die_with_parent
from tasks import processes
die_with_parent(signal.SIGTERM)  # as flows.__main__ does under DVC
script = "trap 'echo saved >saved; exit 1' TERM; echo >ready; while :; do sleep 0.05; done"
processes.run(["bash", "-c", script])
"""
REPRODUCE = "import os; from flows import stages; stages.reproduce('only', False, dict(os.environ), print)"


def wait_for(path: Path) -> None:
    limit = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < limit, f"no {path}"
        time.sleep(0.01)


def test_a_stage_saves_its_work_when_the_pipeline_is_killed(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", "SHELL": "/bin/sh"}
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, env=environment, check=True)
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text("stages: {only: {cmd: python stage.py, outs: [out]}}")
    pipeline = subprocess.Popen([sys.executable, "-c", REPRODUCE], cwd=tmp_path, env=environment)
    try:
        wait_for(tmp_path / "ready")
    finally:
        pipeline.kill()  # and with it DVC, its child
        pipeline.wait()
    wait_for(tmp_path / "saved")
