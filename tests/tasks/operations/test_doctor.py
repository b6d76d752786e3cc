"""The doctor sees what is missing and says what to do about it."""

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows.params import load_params
from tasks.operations import doctor
from tasks.operations.doctor import GIB, Finding

TRAINING = load_params(Path(__file__).parents[2] / "params.yaml").training


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture
def server():
    """A server on loopback that answers /api/health only; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/health" else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("free", "state"),
    [(doctor.NEEDED_DISK, "ok"), (doctor.NEEDED_DISK - 1, "warning"), (GIB // 2, "missing")],
)
def test_disk_is_judged_by_what_is_free(free, state):
    assert doctor.disk(free).state == state


def test_little_memory_is_a_warning_with_a_remedy():
    finding = doctor.memory(GIB)
    assert finding.state == "warning" and "training.ranks" in finding.remedy


def test_an_unreachable_prefect_server_is_a_warning(closed_port):
    url = f"http://127.0.0.1:{closed_port}/api"
    finding = doctor.prefect_server(url)
    assert finding.state == "warning" and url in finding.detail and "stiv server" in finding.remedy


def test_a_prefect_server_that_answers_is_ok(server):
    assert doctor.prefect_server(f"{server}/api").state == "ok"


def test_a_server_that_refuses_us_is_a_warning(server):
    finding = doctor.prefect_server(f"{server}/elsewhere")
    assert finding.state == "warning" and "401" in finding.detail


def test_a_url_that_is_none_is_missing_not_a_traceback():
    assert doctor.prefect_server("localhost 4200").state == "missing"


def test_no_prefect_url_is_fine():
    finding = doctor.prefect_server(None)
    assert finding.state == "ok" and "without a server" in finding.detail


def test_more_ranks_than_cores_is_a_warning_that_names_the_key(monkeypatch):
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: False)
    finding = doctor.deepspeed(ranks=2, cores=1.0)
    assert finding.state == "warning" and "training.ranks is 2" in finding.detail
    assert doctor.deepspeed(ranks=2, cores=2.0).state == "ok"


ENCODING = doctor.Workload("encoding", "devices.encoders", "float32", "cpu", "clip", 1000, 10**15)


def test_how_long_the_device_that_is_named_takes_is_told_with_what_it_supposes():
    finding = doctor.workload(ENCODING, gpu_rate=2.5)
    assert finding.state == "ok" and "price" not in finding.detail, "a CPU has none"
    said = re.search(
        r"1,000 clips take ([\d.]+) h of one process: 1 TFLOP each, in float32, at 40% .* of the (\S+) TFLOP/s",
        finding.detail,
    )
    assert float(said[1]) == pytest.approx(1000 / (0.4 * float(said[2])) / 3600, rel=0.02)


@pytest.mark.skipif(doctor.torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_named_and_not_here_is_missing():
    finding = doctor.workload(ENCODING._replace(device="cuda"), None)
    assert finding.state == "missing" and "devices.encoders is cuda" in finding.detail
    assert "devices.encoders: cpu" in finding.remedy


def test_the_codecs_of_this_environment_are_all_there():
    assert doctor.codecs().state == "ok"


def test_an_absent_codec_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "DECODERS", ("h264", "betamax"))
    finding = doctor.codecs()
    assert finding.state == "missing" and "decoder betamax" in finding.detail


def test_a_folder_without_dvc_is_no_repository(tmp_path):
    assert doctor.dvc_repository(tmp_path).state == "missing"


@pytest.mark.parametrize(
    ("changes", "state", "remedy"),
    [
        ({}, "ok", ""),
        ({"launcher": "{python} -m torch.distributed.run --standalone {work}"}, "warning", "local_ranks"),
        ({"launcher": "torchrun --nnodes 1 {work}"}, "warning", "local_ranks"),
        ({"launcher": "bash infra/slurm/train.sh {nodes} {work}", "nodes": 2}, "warning", "docs/launching.md"),
    ],
)
def test_a_launcher_whose_port_others_reach_is_warned_of(changes, state, remedy):
    finding = doctor.launcher(TRAINING.model_copy(update=changes))
    assert finding.state == state
    assert remedy in finding.remedy


def test_the_launcher_that_is_recommended_is_the_default():
    assert TRAINING.launcher == doctor._LAUNCHER


def test_a_repository_of_dvc_needs_one_of_git_unless_it_is_told_otherwise(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").touch()
    assert doctor.dvc_repository(tmp_path).state == "missing"
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    assert doctor.dvc_repository(tmp_path).state == "warning"
    (tmp_path / ".git").mkdir()
    assert doctor.dvc_repository(tmp_path).state == "ok"


def test_the_default_remote_is_found_where_dvc_writes_it(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("['remote \"store\"']\n    url = s3://bucket/dvc\n")
    assert doctor.dvc_remote(tmp_path).state == "warning"
    (tmp_path / ".dvc" / "config.local").write_text("[core]\n    remote = store\n")
    assert doctor.dvc_remote(tmp_path) == Finding("DVC remote", "ok", "store at s3://bucket/dvc", "")


def test_an_absent_vae_is_missing(tmp_path):
    assert doctor.embedded_vae(tmp_path).state == "missing"


def test_the_text_encoder_of_this_environment_is_there():
    assert doctor.embedded_text_encoder().state == "ok"


def test_a_fence_that_does_not_hold_is_named_with_what_the_kernel_said():
    finding = doctor.protections(
        {"time": True, "read": False}, {"Landlock": "Landlock: not implemented"}, is_strict=False
    )
    assert finding.state == "warning" and "read" in finding.detail and "time" not in finding.detail
    assert "not implemented" in finding.detail


def test_a_fence_that_does_not_hold_is_missing_where_all_are_demanded():
    finding = doctor.protections({"read": False}, {}, is_strict=True)
    assert finding.state == "missing" and "sandbox.strict" in finding.remedy
    assert doctor.protections({"read": True}, {}, is_strict=True).state == "ok"


def test_exit_code_follows_what_is_missing():
    ok, warning, missing = (Finding("x", state, "", "") for state in ("ok", "warning", "missing"))
    assert doctor.exit_code([ok, warning]) == 0 and doctor.exit_code([ok, missing]) == 1


def test_the_table_is_aligned_and_tells_each_remedy():
    lines = doctor.render([Finding("a", "ok", "fine", ""), Finding("longer", "missing", "gone", "get it")])
    first, second, third = lines.split("\n")
    assert first.index("fine") == second.index("gone") == third.index("→") and "get it" in third


def test_the_whole_examination_is_quick_and_complete(tmp_path, sandbox_settings):
    findings = doctor.examine(tmp_path, sandbox_settings, TRAINING)
    assert len({finding.subject for finding in findings}) == len(findings) == 13
    assert all(bool(finding.remedy) == (finding.state != "ok") for finding in findings)
