"""What a person sees who gets something wrong: one line with value, place and remedy, and nothing half-written."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flows.__main__ import COMMANDS, FLOWS, main
from flows.running import locks
from flows.running.server import free_port, server
from tasks.videos import buckets

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    with server(tmp_path_factory.mktemp("prefect"), free_port()) as env:
        yield env | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def alone(tmp_path) -> dict[str, str]:
    """An environment in which no server of Prefect is named."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return others | {"PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def here(tmp_path):
    shutil.copy(ROOT / "tests/params.yaml", tmp_path / "params.yaml")
    return tmp_path


def last_line(env: dict[str, str], folder: Path, *words: str, before: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [*before, sys.executable, "-m", "flows", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def test_a_port_in_use_is_named_with_the_remedy(here, monkeypatch):
    monkeypatch.chdir(here)
    (here / ".dvc").mkdir()
    (here / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (here / "dvc.yaml").write_text("stages: {only: {cmd: python -m flows doctor, outs: [out]}}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"^stiv demo: --port {port}: "):
            main(["demo", "--port", str(port)])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "which is no folder"),
        (lambda folder: folder.mkdir(), "no file"),
    ],
    ids=["missing", "empty"],
)
def test_a_source_without_videos_is_named(here, alone, make, said):
    make(here / "videos")
    line = last_line(
        alone, here, "probe", "--source", "videos", "--out", "data/videos", "--report", "reports/videos.json"
    )
    assert line.startswith("stiv probe: ")
    assert "videos" in line
    assert "source" in line
    assert said in line
    assert not (here / "data/videos").exists()


def test_the_work_is_done_without_a_server_and_one_line_says_that_it_is_shown_nowhere(here, alone):
    command = [sys.executable, "-m", "flows", "collect", "--out", "raw", "--report", "corpus.json", "--set"]
    env = alone | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run([*command, "corpus.shapes=1"], cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (here / "raw").is_dir()
    about = [line for line in done.stderr.splitlines() if "server" in line]
    assert len(about) == 1
    assert "PREFECT_API_URL names 127.0.0.1:9, where no server answers" in about[0]
    assert "shown nowhere" in about[0]
    assert not (here / "prefect/prefect.db").exists(), "no server was started for it"


def test_an_output_that_another_process_is_making_is_not_touched(here, monkeypatch):
    monkeypatch.chdir(here)
    command = ["collect", "--out", "raw", "--report", "corpus.json"]
    with (
        locks.output(here / "raw", "collect"),
        pytest.raises(SystemExit, match=rf"process {os.getpid()} .* making raw"),
    ):
        main(command)
    assert not list(here.glob("raw*"))


def test_latents_that_are_not_there_are_named(here, prefect):
    line = last_line(
        prefect,
        here,
        "train",
        "--latents",
        "data/latents",
        "--out",
        "checkpoints/t2i",
        "--curve",
        "t2i.tsv",
        "--recipe",
        "train.t2i",
    )
    assert line == "stiv train: data/latents/latents.parquet does not exist: run stage latents first"
    assert not list(here.glob("checkpoints*"))


def test_a_full_disk_ends_in_one_line_and_leaves_no_output(here, alone):
    confined = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*confined, "true"], capture_output=True).returncode:
        pytest.skip("this kernel lets no user mount a small disk")
    (here / "data").mkdir()
    script = 'mount -t tmpfs -o size=256k none data && "$@"; code=$?; ls -A data >&2; exit $code'
    collect = [sys.executable, "-m", "flows", "collect", "--out", "data/raw", "--report", "corpus.json"]
    done = subprocess.run(
        [*confined, "sh", "-c", script, "sh", *collect],
        cwd=here,
        env=alone,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    *_, line, left = done.stderr.strip().splitlines()
    assert line.startswith("stiv collect: ")
    assert "No space left on device" in line
    assert "free some space" in line
    assert left == "raw.partial"


@pytest.mark.parametrize("verb", sorted(FLOWS | COMMANDS))
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: stiv {verb}" in told
    assert "Raises:" not in told


@pytest.mark.parametrize("verb", ["collect", "split", "score", "select", "caption", "doctor", "why", "forget"])
def test_help_shows_how_the_command_is_written(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    assert f"\n  stiv {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", sorted(FLOWS | COMMANDS))
def test_every_verb_has_an_example_in_its_help_and_says_nothing_to_programmers(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    _, _, told = capsys.readouterr().out.partition("\n\n")  # after the usage
    assert f"  stiv {verb}" in told or f" stiv {verb} " in told
    assert "Raises:" not in told


HEAVY = ("torch", "prefect", "deepspeed", "great_expectations", "transformers", "diffusers", "cv2", "dvc", "streamlit")


def test_help_of_no_verb_imports_what_takes_seconds():
    code = """import contextlib, io, sys
from flows.__main__ import COMMANDS, FLOWS, main
for verb in FLOWS | COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([*verb.split(), "--help"])
print(*sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert "flows.command_line" in loaded
    assert not loaded & set(HEAVY)


def test_help_tells_each_setting_with_its_type_value_and_meaning(capsys, monkeypatch, here):
    monkeypatch.chdir(here)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = capsys.readouterr().out
    assert re.search(r"\n  zero_stage  \(one of 0, 1, 2, 3; now \d\)\n      \w+", told)
    assert re.search(r"\n  hang_seconds  \(number above 0; now \d+", told)


def test_a_recipe_must_be_named(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--latents", "l", "--out", "o", "--curve", "c"])
    assert stop.value.code == 2
    assert "required: --recipe" in capsys.readouterr().err


def test_each_of_the_settings_that_commands_share_is_named_by_an_option_of_its_own(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    told = capsys.readouterr().out
    assert re.search(r"--latents SECTION +section of params\.yaml to read", told) and "settings: latents\n" in told
    with pytest.raises(SystemExit, match=r"^stiv sample: --latents is text, .* it is one of latents$"):
        main(["sample", "--prompt", "red", "--out", "red.mp4", "--latents", "text"])


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("trainin.ranks=8", r"params\.yaml has no key trainin: did you mean training\?"),
        ("training.rank=8", r"training has no key rank: did you mean ranks\?"),
        ("train.t2w.steps=8", r"train has no key t2w: did you mean t2v\?"),
        ("fence.workers=8", r"params\.yaml has no key fence: it is called sandbox now"),
        ("training.ranks=0", r"--set training\.ranks=0: training\.ranks: .*greater than 0"),
        ("training.ranks", r"write it as SECTION\.KEY=VALUE"),
        ("training.ranks=[", r"\[ is not a value as params\.yaml has them"),
    ],
)
def test_a_wrong_override_is_one_line_with_the_nearest_right_name(here, monkeypatch, assignment, said):
    monkeypatch.chdir(here)
    command = ["train", "--latents", "l", "--out", "o", "--curve", "c", "--recipe", "train.t2v", "--set", assignment]
    with pytest.raises(SystemExit, match=rf"^stiv train: .*{said}"):
        main(command)


def test_an_override_is_what_the_work_is_done_with(here, monkeypatch, capsys, video_with_cut):
    monkeypatch.chdir(here)
    assert '"ok"' in _probed(video_with_cut, capsys)
    assert '"too_short"' in _probed(video_with_cut, capsys, "--set", "videos.min_seconds=3", "videos.max_seconds=9")


def _probed(video: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with contextlib.suppress(SystemExit):  # none is usable
        main(["probe", str(video), *words])
    return capsys.readouterr().out


CANARY = "caNary7cAnary"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["probe", "--source", f"s3://key:{CANARY}@raw/x"], "--source is s3://***@raw/x"),
        (["probe", "--source", f"https://h/x.mp4?X-Amz-Signature={CANARY}"], "X-Amz-Signature=***,"),
        (["probe", "--source", "data", "--out", f"https://u:{CANARY}@h/x"], "--out is https:/***@h/x"),
        (["probe", "--source", "data", "--set", f"engine.address=ray://u:{CANARY}@h:1"], "--set is engine.address="),
        ([f"https://u:{CANARY}@h/x"], "no verb https://***@h/x"),
        (["probe", "--source", "a", f"--nothing=https://u:{CANARY}@h"], "unrecognized arguments"),
        (["probe", "--source", "s3://raw/x"], "http://***@127.0.0.1:9/raw"),
        (["serve"], "PREFECT_API_URL is http://***@127.0.0.1:9/api"),
    ],
)
def test_no_password_and_no_signature_is_printed(here, monkeypatch, capfd, words, said):
    monkeypatch.chdir(here)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{CANARY}@127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", f"http://user:{CANARY}@127.0.0.1:9/api")
    monkeypatch.setattr(buckets, "_ATTEMPTS", 1)
    buckets.client.cache_clear()
    options = ["--out", "out", "--report", "out.json"] if words[0] == "probe" and "--out" not in words else []
    if "--out" in words:
        options = ["--report", "out.json"]
    with pytest.raises(SystemExit) as ended:
        main([*words, *options])
    buckets.client.cache_clear()
    printed = "".join(capfd.readouterr()) + str(ended.value)
    assert said in printed
    assert CANARY not in printed
