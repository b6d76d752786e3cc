"""The whole road at test size: real Prefect server, real DVC, real DeepSpeed ranks, real ffmpeg, a real S3 server."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.commands import shipping
from flows.running.server import child, free_port, server
from tasks.evaluation import judgement
from tests.made_road import RECIPES, ROOT, STAGES, Undisturbed, environment, kill_tree, manifests, run, workspace

pytestmark = [pytest.mark.road, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    """The environment of a Prefect server started by hand."""
    with server(tmp_path_factory.mktemp("prefect"), free_port()) as env:
        yield env


@pytest.fixture(scope="module")
def road(tmp_path_factory, prefect):
    """A workspace in which the deployment stiv/full-pipeline has run through the command line of Prefect."""
    undisturbed = Undisturbed(tmp_path_factory)
    with undisturbed.lock:
        folder, env = deployed(workspace(tmp_path_factory.mktemp("road")), prefect)
        undisturbed.keep(folder)
    return folder, env


def deployed(folder: Path, prefect: dict[str, str]) -> tuple[Path, dict[str, str]]:
    env = environment(prefect, folder)
    os.chdir(folder)  # the served flow runs where it is served
    try:
        with child(["flows", "serve"], Path(env["PREFECT_HOME"]), "serve", env):
            limit = time.monotonic() + 400
            inspect = ["prefect", "deployment", "inspect", "stiv/full-pipeline"]
            while subprocess.run(inspect, env=env, capture_output=True).returncode:
                assert time.monotonic() < limit, (Path(env["PREFECT_HOME"]) / "serve.log").read_text()[-3000:]
                time.sleep(1)
            out = run(folder, env, "prefect", "deployment", "run", "stiv/full-pipeline", "--watch")
    finally:
        os.chdir(ROOT)
    assert "Completed" in out
    return folder, env


def test_the_deployment_ends_completed_with_a_child_flow_run_per_stage(road, prefect):
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    async def children() -> list[tuple[str, str]]:

        async with get_client() as client:
            runs = await client.read_flow_runs()
            (parent,) = [run for run in runs if run.name == "full pipeline"]
            below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]))
            found = await client.read_flow_runs(flow_run_filter=below)
            return [(run.name, run.state.name) for run in found]

    where = {PREFECT_API_URL: prefect["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: prefect["PREFECT_API_AUTH_STRING"]}
    with temporary_settings(where):
        found = asyncio.run(children())
    assert len(found) == len(STAGES)
    assert {state for _, state in found} == {"Completed"}
    assert {f"train {recipe}" for recipe in RECIPES} <= {name for name, _ in found}


def test_what_each_stage_hands_on_the_next_one_accounts_for(road):
    folder, _ = road
    accounts = {
        (path.stem, unit): account
        for path in (folder / "reports").glob("*.json")
        for unit, account in json.loads(path.read_text()).items()
        if isinstance(account, dict) and "given" in account
    }
    for (stage, unit), account in accounts.items():
        total = account["ok"] + account["rejected"] + account["failed"]
        assert account["given"] == total, (stage, unit, account)
    files = sum(accounts["corpus", kind]["ok"] for kind in ("shapes", "packaged"))
    assert accounts["videos", "videos"]["given"] == files
    assert accounts["shots", "videos"]["given"] == accounts["videos", "videos"]["ok"]
    assert accounts["scores", "shots"]["given"] == accounts["shots", "shots"]["ok"]
    assert accounts["clips", "shots"]["given"] == accounts["scores", "shots"]["ok"]
    assert accounts["captions", "clips"]["given"] == accounts["clips", "shots"]["ok"]
    assert accounts["latents", "clips"]["given"] == accounts["captions", "clips"]["ok"]
    assert accounts["latents", "clips"]["ok"] > 0


def test_the_report_and_everything_it_stands_on_is_there(road):
    folder, _ = road
    page = (folder / "reports/report.html").read_text()
    assert "t2v-000" in page
    assert "ti2v-000" in page
    for recipe in RECIPES:
        assert len((folder / f"reports/losses/{recipe}.tsv").read_text().splitlines()) == 1 + 6
        assert (folder / f"checkpoints/{recipe}/model.safetensors").exists()
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*.tmp"))


def test_nothing_runs_twice_that_has_not_changed(road):
    folder, env = road
    before = {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*")}
    out = run(folder, env, "dvc", "repro")
    assert "Running stage" not in out
    assert {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*")} == before
    assert "up to date" in run(folder, env, "dvc", "status")


def test_dvc_shows_metrics_and_plots(road):
    folder, env = road
    metrics = json.loads(run(folder, env, "dvc", "metrics", "show", "--json"))
    assert metrics[""]["data"]["reports/card.json"]["data"]["dimensions"]["t2v held_out"]["colour"]["n"] == 4
    plots = run(folder, env, "dvc", "plots", "show", "--json")
    for recipe in RECIPES:
        assert f"reports/losses/{recipe}.tsv" in plots


def test_a_sample_can_be_made_from_the_command_line(road):
    import av

    folder, env = road
    image = "data/samples/ti2v-000.png"
    run(folder, env, "stiv", "sample", "--prompt", "a red circle moves left", "--image", image, "--out", "red.mp4")
    with av.open(str(folder / "red.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


@pytest.mark.long
def test_an_experiment_changes_one_recipe(road):
    folder, env = road
    run(folder, env, "git", "add", "-A")
    run(folder, env, "git", "commit", "-qm", "what ran")
    out = run(folder, env, "dvc", "exp", "run", "-S", "train.t2i.steps=8", "t2i")
    assert "Running stage 't2i'" in out
    assert "Running stage 'latents'" not in out
    assert len((folder / "reports/losses/t2i.tsv").read_text().splitlines()) == 1 + 8
    run(folder, env, "git", "checkout", "-q", "--", ".")
    run(folder, env, "dvc", "checkout")


def test_outputs_are_links_into_dvcs_cache_and_no_stage_that_ran_again_wrote_through_one(road):
    folder, _ = road
    assert (folder / "data/clips/clips.parquet").stat().st_nlink > 1
    objects = [path for path in (folder / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
    assert len(objects) > len(STAGES)
    for path in objects:
        assert hashlib.md5(path.read_bytes()).hexdigest() == (path.parent.name + path.name).removesuffix(".dir"), path


def test_what_is_pushed_to_a_bucket_comes_back(road, s3_server, bucket):
    folder, env = road
    env = env | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    run(folder, env, "dvc", "remote", "add", "-d", "-f", "store", f"s3://{bucket.name}/dvc")
    run(folder, env, "dvc", "remote", "modify", "store", "endpointurl", s3_server)
    before = manifests(folder)
    weights = (folder / "checkpoints/tup/model.safetensors").read_bytes()
    run(folder, env, "dvc", "push")
    for name in (".dvc/cache", "data", "checkpoints"):
        shutil.rmtree(folder / name)
    run(folder, env, "dvc", "pull")
    assert manifests(folder) == before
    assert (folder / "checkpoints/tup/model.safetensors").read_bytes() == weights


def test_a_stage_that_fails_leaves_nothing_and_says_why_in_one_line(road):
    folder, env = road
    copy = folder.parent / "failing"
    shutil.copytree(folder, copy)
    (copy / "params.yaml").write_text(
        (copy / "params.yaml").read_text().replace("gate_min_clips: 6", "gate_min_clips: 600")
    )
    done = subprocess.run(
        ["stiv", "pipeline", "--stages", "clips", "captions"],
        cwd=copy,
        env=environment(env, copy),
        capture_output=True,
        text=True,
    )
    last = (done.stdout + done.stderr).strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("stiv pipeline: stage clips failed: stiv select: ")
    assert "clips.gate_min_clips" in last
    assert not (copy / "data/clips").exists()


def test_the_model_of_a_run_is_packed_with_its_first_samples_figures_and_times(road, tmp_path, monkeypatch):
    folder, _ = road
    monkeypatch.chdir(folder)
    out = tmp_path / "pipelines/shapes"
    assert shipping.pack(out) == sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    listed = json.loads((out / "samples/samples.json").read_text())["samples"]
    made = json.loads((folder / "data/samples/samples.json").read_text())["samples"]
    wanted = [row["id"] for row in made if row["held_out"] and row["mode"] in ("t2v", "ti2v")]
    assert [row["id"] for row in listed] == wanted and len(wanted) == 6
    for row in listed:
        for name in filter(None, (row["video"], row["image"])):
            assert (out / "samples" / name).read_bytes() == (folder / "data/samples" / name).read_bytes()
        assert row["verdict"]["id"] == row["id"] and (row["image"] is None) == (row["mode"] == "t2v")
    judged = judgement.read(folder / "reports/card.json")
    assert json.loads((out / "judge.json").read_text())["modes"] == judged["modes"]
    times = json.loads((out / "stage_times.json").read_text())
    assert list(times["trained"]) == RECIPES and all(one["steps"] == 6 for one in times["trained"].values())
    assert set(times["stages"]) == set(STAGES) and all(times["stages"].values())
    assert (out / "model_index.json").is_file() and not list(out.parent.glob("*.scratch"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    shipping.pack(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "stage_times.json").unlink()
    with pytest.raises(ValueError, match=r"pipelines/shapes is there and was not made by stiv learn"):
        shipping.pack(out)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_learn_killed_five_times_goes_on_beside_the_demo_to_the_same_weights(road, tmp_path):
    undisturbed, env = road
    folder = workspace(tmp_path)
    env = environment(env, folder)
    log = tmp_path / "learn.log"
    command = [sys.executable, "-m", "flows", "learn", "--params", "tests/params.yaml"]
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    among = STAGES[1 : STAGES.index("evaluate")]
    kills = [(stage, draw.uniform(0, 10)) for stage in sorted(draw.sample(among, 5), key=STAGES.index)]
    for stage, seconds in kills:
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=file)
        reached = f"Running stage '{stage}'", f"stage {stage} is up to date"  # before the last kill
        while process.poll() is None and not any(line in log.read_text() for line in reached):
            time.sleep(0.2)
        time.sleep(seconds)
        assert process.poll() is None, (seed, stage, log.read_text()[-3000:])
        kill_tree(process)
    run(folder, env, *command)
    for recipe in RECIPES:
        same = f"checkpoints/{recipe}/model.safetensors"
        assert (folder / "learn" / same).read_bytes() == (undisturbed / same).read_bytes(), (seed, kills)
    made = sorted(path.name for path in (undisturbed / "data/samples").glob("*.npy"))
    for name in made:
        assert (folder / "learn/data/samples" / name).read_bytes() == (undisturbed / "data/samples" / name).read_bytes()
    assert len(made) and (folder / "learn/pipelines/shapes/samples/samples.json").is_file(), seed
    assert not any((folder / name).exists() for name in ("data", "checkpoints", "reports", "dvc.lock")), "of the demo"
    assert not list((folder / "learn").rglob("*.partial")), seed
