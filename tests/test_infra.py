"""The full-size settings are the paper's, the services are closed by default, the images are pinned."""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.params import load_params
from stiv_model.latents import data_plan
from stiv_model.monitoring.inference_costs import find_config
from stiv_model.settings import ModelSettings, RecipeSettings, TrainingSettings
from tasks.training.launch import launch_command

TOP = Path(__file__).parents[1]
INFRA = TOP / "infra"
EMBEDDED = [TOP / "params.yaml", TOP / "tests/params.yaml", INFRA / "params/learn.yaml"]
FULL_SIZE = sorted({*(INFRA / "params").glob("*.yaml")} - {*EMBEDDED})
DOCKERFILES = sorted(INFRA.glob("*.Dockerfile"))

# In 1e9 parameters, by the counting under `count`: image model, video model; which of them the label of the
# paper's Tab. 1 fits, and the label.
PARAMETERS = {
    "xl-256": (0.603, 0.751, "image", 0.6),
    "xxl-256": (1.449, 1.807, "image", 1.5),
    "m-256": (7.002, 8.739, "video", 8.7),
    "m-512": (7.002, 8.739, "video", 8.7),
}
PIXELS = {"xl-256": 256, "xxl-256": 256, "m-256": 256, "m-512": 512}
BATCH = {"t2i": 4096, "t2v": 1024, "stiv": 1024, "tup": 1024}
CLEAN_FRAMES = {
    "t2i": "none",
    "t2v": "none",
    "stiv": "first",
    "sft": "first",
    "unmask_sft": "first",
    "tasks": ("first_four", "first_and_last"),
    "tup": "every_second",
}
FURTHER = {"v2v": "first_four", "interpolation": "first_and_last"}
"""Recipes at the paper's sizes that no stage trains."""
# What the paper does not say, by the first word of the line.
OPEN = (
    *(
        "content_threshold",
        "fade_threshold",
        "motion",
        "aesthetic",
        "text_area",
        "clarity",
        "temporal_consistency",
    ),
    *(
        "tokens",
        "ffn_ratio",
        "spatial_patch",
        "base",
        "cross_attention_norm",
        "norm_epsilon",
        "ranks",
        "precision",
        "accumulation",
    ),
    *("timestep_density", "timestep_shift", "solver", "shift", "renormalise", "original_height", "original_width"),
)

each_full_size = pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: path.stem)
each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)


def count(model: ModelSettings, is_video: bool, blocks: int) -> float:
    """Return parameters in 1e9: AdaLN 6 d^2; per block 4 d^2 for each attention, 2 ratio d^2 for the FFN."""
    per_block = 4 + 4 + 2 * model.ffn_ratio + (4 if is_video else 0)
    return (6 + per_block * blocks) * model.width**2 / 1e9


def paper_recipes(path: Path) -> dict[str, RecipeSettings]:
    """Return the recipes whose steps, batch and learning rate the paper states."""
    recipes = load_params(path).train
    return {name: recipes[name] for name in BATCH}


@pytest.mark.parametrize("path", [*EMBEDDED, *FULL_SIZE], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_params_file_fits_the_settings(path: Path):
    recipes = list(load_params(path).train)
    further = [name for name in FURTHER if path in FULL_SIZE]
    assert recipes[: len(CLEAN_FRAMES)] == list(CLEAN_FRAMES), "those of stages, the same in every file"
    assert set(further) <= set(recipes[len(CLEAN_FRAMES) :])


def test_all_sizes_of_the_paper_have_a_file():
    assert {path.stem for path in FULL_SIZE} == PARAMETERS.keys()


@each_full_size
def test_parameters_agree_with_the_label(path: Path):
    model = load_params(path).model
    image, video, labelled, label = PARAMETERS[path.stem]
    assert count(model, False, model.depth) == pytest.approx(image, abs=0.0005)
    assert count(model, True, model.depth) == pytest.approx(video, abs=0.0005)
    assert {"image": image, "video": video}[labelled] == pytest.approx(label, rel=0.05)


@each_full_size
def test_model_is_that_of_the_paper(path: Path):
    params = load_params(path)
    model, latents = params.model, params.latents
    assert model.width / model.heads == 64
    assert (model.unmasked_depth, model.spatial_patch, model.temporal_patch) == (2, 2, 2)
    assert (latents.frames, latents.stride_frames) == (20, 3)
    assert latents.height == latents.width == PIXELS[path.stem]
    assert (params.sampler.steps, params.sampler.guidance_scale) == (50, 7.5)


@each_full_size
def test_recipes_have_the_steps_batch_and_rate_of_the_paper(path: Path):
    for name, recipe in paper_recipes(path).items():
        assert (recipe.steps, recipe.batch) == (400_000, BATCH[name]), name
        assert (recipe.learning_rate, recipe.warmup_steps) == (2e-4, 1000), name
        assert recipe.mask_ratio == 0.5, name


@each_full_size
def test_recipes_differ_in_frames_masks_and_dropouts_as_in_the_paper(path: Path):
    recipes = load_params(path).train
    for name, patterns in (CLEAN_FRAMES | FURTHER).items():
        recipe = recipes[name]
        (modes,) = recipe.lengths.values()
        given = tuple(mode.clean_frames for mode in modes)
        assert given == (patterns if isinstance(patterns, tuple) else (patterns,)), name
        assert recipe.frames == (1 if name == "t2i" else 20), name
        assert recipe.mask_ratio == (0.0 if name == "unmask_sft" else 0.5), name
        assert recipe.text_dropout == 0.1, name
        assert recipe.image_dropout == (0.0 if recipe.clean_frames == "none" else 0.08), name


@each_full_size
def test_optimizer_has_the_values_of_the_paper(path: Path):
    training = load_params(path).training
    optimizer = training.optimizer
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay) == (0.9, 0.999, 0.0)
    assert (optimizer.clip_norm, optimizer.ema_decay) == (1.0, 0.9999)
    assert (training.device, training.precision, training.ranks) == ("cuda", "bfloat16", 8)
    assert training.activation_checkpointing


@each_full_size
def test_batches_and_pictures_can_be_shared_out(path: Path):
    params = load_params(path)
    for name, recipe in params.train.items():
        data_plan.check(name, recipe, params.model, params.training)
    assert params.latents.height % (8 * params.model.spatial_patch) == 0


@each_full_size
def test_what_is_not_trained_runs_on_gpus_and_is_counted_before_it_is_fetched(path: Path):
    params = load_params(path)
    assert (params.devices.encoders, params.devices.sampling) == ("cuda", "cuda")
    assert {params.vae.precision, params.text.precision, params.samples.precision} == {"bfloat16"}
    vae, text = (
        find_config(name, section.source, section.revision, INFRA / "encoders")
        for name, section in (("vae", params.vae), ("text", params.text))
    )
    assert vae["latent_channels"] == params.model.latent_channels
    assert (text["hidden_size"], text["max_position_embeddings"]) == (params.model.text_width, params.text.tokens)


@each_full_size
def test_what_the_paper_leaves_open_says_so(path: Path):
    lines = {line.split(":")[0].strip(): line for line in path.read_text().splitlines()}
    assert [key for key in OPEN if "open in the paper" not in lines[key]] == []


@each_full_size
def test_a_hub_revision_that_moves_says_so(path: Path):
    for line in path.read_text().splitlines():
        if line.strip().startswith("revision:"):
            revision = line.split()[1]
            assert re.fullmatch("[0-9a-f]{40}", revision) or "a branch, which moves" in line, line


def services() -> dict[str, dict]:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]


def test_compose_has_the_services():
    assert services().keys() == {"database", "server", "store", "buckets", "worker"}


def test_every_image_is_pinned():
    images = {name: service["image"] for name, service in services().items()}
    for path in DOCKERFILES:
        images |= {f"{path.name} {image}": image for image in re.findall(r"^FROM (\S+)", path.read_text(), re.M)}
    for place, image in images.items():
        name, _, tag = image.rpartition(":")
        assert name and re.search(r"\d", tag) and "latest" not in tag, f"{place}: {image}"


def test_prefect_server_is_the_version_of_the_constraints():
    version = dict(line.split("==") for line in constraints())["prefect"]
    assert services()["server"]["image"] == f"prefecthq/prefect:{version}-python3.11"


def test_every_port_is_on_loopback_only():
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)] == []


def test_no_secret_is_written_in_compose():
    secret = re.compile("PASSWORD|SECRET|AUTH_STRING|ENCRYPTION_KEY|ACCESS_KEY|ROOT_USER")
    found = [
        (key, value)
        for service in services().values()
        for key, value in service.get("environment", {}).items()
        if secret.search(key)
    ]
    assert len(found) >= 8
    assert [key for key, value in found if not re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value)] == []


def test_services_that_run_on_have_a_healthcheck():
    lasting = {name: service for name, service in services().items() if "restart" in service}
    assert lasting.keys() == {"database", "server", "store", "worker"}
    assert [name for name, service in lasting.items() if not service["healthcheck"]["test"]] == []


def test_worker_polls_the_pool_and_has_no_way_out():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    worker = compose["services"]["worker"]
    assert "--pool stiv --type process" in worker["command"]
    assert worker["build"]["dockerfile"] == "infra/curate.Dockerfile"
    assert [compose["networks"][name] for name in worker["networks"]] == [{"internal": True}]


def test_named_volumes_are_declared():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    used = {volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])}
    assert used - {".."} == compose["volumes"].keys()


@each_dockerfile
def test_image_installs_by_the_constraints(path: Path):
    installs = [line for line in path.read_text().splitlines() if "pip install" in line]
    assert installs
    assert [line for line in installs if "-c constraints.txt" not in line] == []


@each_dockerfile
def test_image_runs_without_root(path: Path):
    users = re.findall(r"^USER (\S+)", path.read_text(), re.M)
    assert users[-1:] not in ([], ["root"], ["0"])


@each_dockerfile
def test_image_copies_what_exists(path: Path):
    copied = [
        line.split()[1:-1] for line in path.read_text().splitlines() if line.startswith("COPY ") and "--" not in line
    ]
    assert {name for names in copied for name in names} >= {"flows", "tasks", "stiv_model", "constraints.txt"}
    assert [name for names in copied for name in names if not (TOP / name).exists()] == []


def constraints() -> list[str]:
    return (TOP / "constraints.txt").read_text().splitlines()


def test_constraints_are_exact_versions_of_an_index():
    assert [line for line in constraints() if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    names = [line.split("==")[0].lower() for line in constraints()]
    assert len(names) == len(set(names))


def test_constraints_cover_every_dependency():
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    wanted = [Requirement(text) for text in [*project["dependencies"], *extras]]
    wanted = [one for one in wanted if one.name != project["name"]]
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in constraints())}
    assert [str(one) for one in wanted if canonicalize_name(one.name) not in pinned] == []
    assert [str(one) for one in wanted if pinned[canonicalize_name(one.name)] not in one.specifier] == []


# ---- launchers: docs/launching.md

LAUNCHING = (TOP / "docs/launching.md").read_text()
LAUNCHERS = [yaml.safe_load(line)["launcher"] for line in re.findall(r"^ *(launcher: .+)$", LAUNCHING, re.M)]
SCRIPTS = sorted([*INFRA.glob("*.sh"), *INFRA.glob("slurm/*"), *INFRA.glob("k8s/*.sh")])


def training_settings(**changes) -> TrainingSettings:
    plain = load_params(TOP / "params.yaml").training.model_dump()
    return TrainingSettings.model_validate(plain | {"ranks": 16, "nodes": 2} | changes)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make commands of a cluster that are shell scripts, and run a launcher of ours with them."""
    monkeypatch.chdir(TOP)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    work = tmp_path / "run"
    work.mkdir()

    def launch(launcher: str, stop_at: str | None = None, **commands: str) -> subprocess.CompletedProcess:
        for name, text in ({"sleep": "exec /bin/sleep 0.3"} | commands).items():
            (tmp_path / name).write_text(f"#!/bin/bash\nset -eu\ncalls={tmp_path}/calls work={work}\n{text}\n")
            (tmp_path / name).chmod(0o755)
        words = launch_command(training_settings(launcher=launcher), work)
        words = [str(tmp_path / "python") if word == sys.executable else word for word in words]
        if stop_at is None:
            return subprocess.run(words, capture_output=True, text=True, timeout=30)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0)
        while not (tmp_path / stop_at).exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)  # as tasks.operations.processes does
        out, _ = process.communicate(timeout=30)
        return subprocess.CompletedProcess(words, process.returncode, out)

    launch.work, launch.calls = work, tmp_path / "calls"
    return launch


SLURM = "bash infra/slurm/train.sh {python} {nodes} {ranks_per_node} {work}"
SLURM_COMMANDS = {
    # runs the job at once, on this machine
    "sbatch": """while [[ $1 == --* ]]; do
        case $1 in --output) log=$2; shift 2;; --wait) shift;; *) shift 2;; esac
    done
    SLURM_JOB_ID=7 SLURM_JOB_NODELIST=node[1-2] bash "$@" >>"$log" 2>&1""",
    "scontrol": "printf 'node1\\nnode2\\n'",
    "srun": """while [[ $1 == --* ]]; do shift; done
    for node in 0 1; do SLURM_NODEID=$node "$@" || exit; done""",
}
BUSY = {
    "setsid": """case $1 in tail) /bin/sleep 0.5;; esac; exec /usr/bin/setsid "$@" """
}  # what follows the log is late
KUBERNETES = "bash infra/k8s/train.sh {nodes} {ranks_per_node} {work}"


def test_the_docs_have_a_launcher_for_each_kind_of_cluster():
    assert [
        next(kind for kind in ("slurm", "k8s", "deepspeed", "local_ranks") if kind in one) for one in LAUNCHERS
    ] == [
        "local_ranks",
        "deepspeed",
        "slurm",
        "k8s",
    ]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_of_the_docs_can_be_filled_in(launcher: str):
    nodes = 1 if "local_ranks" in launcher else 2
    words = launch_command(training_settings(launcher=launcher, nodes=nodes), Path("a folder/run"))
    assert "a folder/run" in words
    assert str(16 // nodes) in words
    assert not [word for word in words if "{" in word]


@pytest.mark.parametrize("path", [*EMBEDDED, *FULL_SIZE], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_params_file_starts_one_node_by_its_own_launcher(path: Path):
    training = load_params(path).training
    assert training.nodes == 1
    assert training.launcher == LAUNCHERS[0]


def test_a_launcher_with_an_unknown_word_in_braces_is_refused():
    with pytest.raises(ValueError, match=r"\{gpus\} is unknown in training\.launcher"):
        launch_command(training_settings(launcher="start {gpus} {nodes} {work}"), Path("run"))


def test_a_launcher_of_one_node_is_refused_for_several():
    with pytest.raises(ValueError, match=r"\{nodes\} is missing in training\.launcher .* training\.nodes 2"):
        launch_command(training_settings(launcher=LAUNCHERS[0]), Path("run"))


def test_ranks_that_the_nodes_cannot_share_are_refused():
    with pytest.raises(ValueError, match=r"training\.ranks is 9, but training\.nodes is 2"):
        training_settings(ranks=9)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_is_well_formed(path: Path):
    assert len(SCRIPTS) == 4
    subprocess.run(["bash", "-n", path], check=True)


def test_ranks_have_the_time_to_save_before_they_are_killed():
    batch, manifest = (INFRA / "slurm/train.sbatch").read_text(), (INFRA / "k8s/train.yaml").read_text()
    ahead = int(re.search(r"^#SBATCH --signal=TERM@(\d+)$", batch, re.M)[1])
    grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", manifest)[1])
    waits = [int(seconds) for text in (batch, manifest) for seconds in re.findall(r"--shutdown_timeout (\d+)", text)]
    assert len(waits) == 2
    assert max(waits) < min(ahead, grace)


@pytest.mark.parametrize("machine", ({}, BUSY), ids=("idle", "busy"))
def test_slurm_runs_torchrun_on_every_node_and_its_log_is_followed(cluster, machine):
    ended = cluster(SLURM, **SLURM_COMMANDS, **machine, python='echo "$@"; mkdir -p "$work/weights"')
    assert ended.returncode == 0, ended
    expected = "--nnodes 2 --nproc_per_node 8 --master_addr node1 --master_port 20007 --shutdown_timeout 270"
    assert [line for line in ended.stdout.splitlines() if "torch" in line] == [
        f"-m torch.distributed.run --node_rank {node} {expected} -m stiv_model.training.train {cluster.work}"
        for node in (0, 1)
    ]


def test_slurm_job_that_saved_its_work_at_the_time_limit_is_submitted_again(cluster):
    python = """echo once more >>"$calls"
    [ "$(wc --lines <"$calls")" -gt 2 ] || { touch "$work/stopped.json"; exit 1; }
    mkdir -p "$work/weights" """
    assert cluster(SLURM, **SLURM_COMMANDS, python=python).returncode == 0
    assert (cluster.work / "weights").exists()
    assert not (cluster.work / "stopped.json").exists()


def test_slurm_job_that_fails_is_not_submitted_again(cluster):
    ended = cluster(SLURM, **SLURM_COMMANDS, python='echo once >>"$calls"; exit 3')
    assert ended.returncode == 3
    assert (cluster.work.parent / "calls").read_text() == "once\n"


@pytest.mark.parametrize("machine", ({}, BUSY), ids=("idle", "busy"))
def test_slurm_job_of_a_stage_that_is_asked_to_stop_saves_its_work_and_is_not_submitted_again(cluster, machine):
    # calls is there with its content at once: the stage is asked to stop as soon as it is
    python = """echo once >"$work/once"; mv "$work/once" "$calls"; echo stepping
    until [ -e "$work/term" ]; do /bin/sleep 0.05; done
    /bin/sleep 0.3; echo saved after step 7; touch "$work/stopped.json"; exit 1"""
    scancel = """echo scancel "$@" >>"$calls"; case $* in *--signal=TERM*) touch "$work/term";; esac"""
    ended = cluster(SLURM, stop_at="calls", **SLURM_COMMANDS, **machine, python=python, scancel=scancel)
    assert ended.returncode == 75
    assert "saved after step 7" in ended.stdout
    name = f"stiv-train {cluster.work}"
    assert (cluster.work.parent / "calls").read_text().splitlines() == [
        "once",
        f"scancel --state=PENDING --name {name}",
        f"scancel --state=RUNNING --signal=TERM --name {name}",
    ]


def test_kubernetes_stage_that_is_asked_to_stop_waits_until_the_pods_have_ended(cluster):
    ended = cluster(KUBERNETES, stop_at="run/asked", kubectl=kubectl(""))
    assert ended.returncode == 143
    assert re.fullmatch(r"delete jobset stiv-train-\w+ --cascade=foreground\n", cluster.calls.read_text())


def kubectl(end: str) -> str:
    return f"""case $1 in
        apply) cat >"$work/applied.yaml"; echo "from the first node" >>"$work/kubernetes-0.log";;
        get) touch "$work/asked"; echo 'state {end}';;
        delete) echo "$@" >>"$calls";;
    esac"""


def test_kubernetes_gets_a_jobset_of_one_pod_per_node_and_its_log_is_followed(cluster):
    ended = cluster(KUBERNETES, kubectl=kubectl("Completed"))
    assert ended.returncode == 0, ended
    assert "from the first node" in ended.stdout
    jobset = yaml.safe_load((cluster.work / "applied.yaml").read_text())
    name = jobset["metadata"]["name"]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job, pod = replicated["template"]["spec"], replicated["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (jobset["kind"], job["completionMode"]) == ("JobSet", "Indexed")
    assert (job["parallelism"], job["completions"]) == (2, 2)
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert f"--master_addr {name}-{replicated['name']}-0-0.{name} " in container["args"][0]
    assert f'-m stiv_model.training.train "{cluster.work}"' in container["args"][0]
    assert "${" not in str(jobset)
    assert (cluster.work.parent / "calls").read_text() == f"delete jobset {name}\n"


def test_kubernetes_jobset_that_fails_fails_the_launcher(cluster):
    assert cluster(KUBERNETES, kubectl=kubectl("Failed")).returncode == 1


def test_kubernetes_pod_restarts_with_all_others_and_runs_without_root_in_the_image_of_the_readme():
    jobset = yaml.safe_load((INFRA / "k8s/train.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert jobset["spec"]["failurePolicy"]["restartStrategy"] == "BlockingRecreate"
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"-t {pod['containers'][0]['image']} ." in (INFRA / "README.md").read_text()
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
