"""The full-size settings are the paper's, the services are closed by default, the images are pinned."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.params import load_params
from stiv_model import plan
from stiv_model.settings import ModelSettings, RecipeSettings

TOP = Path(__file__).parents[1]
INFRA = TOP / "infra"
FULL_SIZE = sorted((INFRA / "params").glob("*.yaml"))
EMBEDDED = [TOP / "params.yaml", TOP / "tests/params.yaml"]
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
    "tup": "every_second",
}
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
        "rope_base",
        "norm_epsilon",
        "ranks",
        "precision",
        "accumulation",
    ),
    *("timestep_density", "renormalise", "original_height", "original_width"),
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
    recipes = load_params(path).train
    assert list(recipes) == list(CLEAN_FRAMES), "the same six recipes in every file"


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
    for name, recipe in load_params(path).train.items():
        assert recipe.clean_frames == CLEAN_FRAMES[name], name
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
        plan.check(name, recipe, params.model, params.training)
    assert params.latents.height % (8 * params.model.spatial_patch) == 0


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
    wanted = [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in constraints())}
    assert [str(one) for one in wanted if canonicalize_name(one.name) not in pinned] == []
    assert [str(one) for one in wanted if pinned[canonicalize_name(one.name)] not in one.specifier] == []
