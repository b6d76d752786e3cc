"""200 damaged checkpoints: none is read, each is named, and the older one is used."""

import hashlib
import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from stiv_model.distributed import checkpoints, rank_state
from stiv_model.distributed.checkpoints import MANIFEST, Manifest
from stiv_model.settings import Run
from tests.stiv_model.ranks import Forkserver
from tests.stiv_model.runs import RECIPE, make_latents, prepare

OLDER, NEWEST = "step-00000002", "step-00000004"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, forkserver: Forkserver) -> tuple[Path, Run]:
    """The folder and the description of a run of two ranks that saved two checkpoints."""
    work = tmp_path_factory.mktemp("run")
    latents = make_latents(work / "latents", clips=(6, 4))
    described = prepare(work, latents, RECIPE.model_copy(update={"steps": 5}), latents_sha256="1")
    forkserver.finish(work, described)
    return work, described


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """This process is the only rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def folder(run: tuple[Path, Run], tmp_path: Path, alone: None) -> Path:
    """A copy of the folder with the two checkpoints."""
    return Path(shutil.copytree(run[0] / "checkpoints", tmp_path / "checkpoints"))


def manifest(path: Path) -> Manifest:
    return Manifest.model_validate_json((path / MANIFEST).read_text())


def victim(path: Path, chance: random.Random) -> Path:
    """A file of a checkpoint, the manifest among them."""
    return chance.choice(sorted(path.iterdir()))


def flip_a_bit(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return file.name


def truncate(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])
    return file.name


def zero_a_page(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    content = bytearray(file.read_bytes())
    start = chance.randrange(0, len(content), 4096)
    assert any(content[start : start + 4096])
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    file.write_bytes(content)
    return file.name


def remove(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    file.unlink()
    return file.name


def add(path: Path, chance: random.Random) -> str:
    added = chance.choice(["rank-00002.safetensors", "optim_states.pt", "latest", "weights"])
    (path / added).write_bytes(chance.randbytes(chance.randrange(9)))
    return added


def swap(path: Path, chance: random.Random) -> str:
    one, other = sorted(path.glob("rank-*"))
    one.rename(path / "aside")
    other.rename(one)
    (path / "aside").rename(other)
    return "rank-"


def take_from_another(path: Path, chance: random.Random) -> str:
    file = victim(path, chance)
    shutil.copy(path.with_name(OLDER) / file.name, file)
    return file.name


def tear_the_manifest(path: Path, chance: random.Random) -> str:
    content = (path / MANIFEST).read_bytes()
    (path / MANIFEST).write_bytes(content[: chance.choice([0, 1, len(content) // 2, len(content) - 1])])
    return MANIFEST


DAMAGES = (flip_a_bit, truncate, zero_a_page, remove, add, swap, take_from_another, tear_the_manifest)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_kept_aside_and_the_older_one_used(folder, damage):
    older, newest = folder / OLDER, folder / NEWEST
    for number in range(1, 26):
        path = checkpoints.newest_whole(folder)
        assert path == newest
        sound = folder / "sound"
        shutil.copytree(newest, sound)
        wrong = damage(newest, random.Random(f"{damage} {number}"))
        assert wrong in (checkpoints.damage(newest) or "")
        assert checkpoints.newest_whole(folder) == older
        assert (folder / f"{NEWEST}.damaged-{number}").exists()
        sound.rename(newest)


def test_each_reader_of_several_finds_the_damage_in_its_part(folder):
    file = folder / NEWEST / rank_state.file_name(1)
    file.write_bytes(file.read_bytes()[::-1])
    assert checkpoints.damage(folder / NEWEST, reader=0, readers=2) is None
    assert "rank-00001" in checkpoints.damage(folder / NEWEST, reader=1, readers=2)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(run, folder):
    for path in folder.glob("step-*"):
        remove(path, random.Random(0))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"step-00000004\.damaged-1"):
            checkpoints.resume(folder, run[1], None, None)


def test_a_half_written_checkpoint_is_none(folder):
    shutil.copytree(folder / NEWEST, folder / "step-00000006.tmp")
    assert checkpoints.newest_whole(folder) == folder / NEWEST
    assert checkpoints.newest_whole(folder / "new") is None


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.marker!r}, 'w').close()",)


@pytest.mark.parametrize("write", [torch.save, lambda payload, path: path.write_bytes(pickle.dumps(payload))])
def test_a_malicious_pickle_is_not_executed_even_with_a_manifest_that_agrees(folder, tmp_path, write):
    marker, path = tmp_path / "executed", folder / NEWEST
    for rank in (0, 1):
        write(Payload(marker), path / rank_state.file_name(rank))
    files = [
        {"size_bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(path.glob("rank-*"))
    ]
    forged = Manifest.model_validate(manifest(path).model_dump() | {"files": files})
    (path / MANIFEST).write_text(forged.text())
    assert "no safetensors file" in checkpoints.damage(path)
    assert checkpoints.newest_whole(folder) == folder / OLDER
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload is none"


def test_a_checkpoint_of_another_run_is_refused_by_the_settings_that_differ(run, folder):
    _, described = run
    recipe = described.recipe.model_copy(update={"learning_rate": 0.5})
    with pytest.raises(ValueError, match=r"recipe\.learning_rate was 0\.001, is 0\.5"):
        checkpoints.resume(folder, described.model_copy(update={"recipe": recipe}), None, None)
    with pytest.raises(ValueError, match="latents_sha256 was 1, is 2"):
        checkpoints.resume(folder, described.model_copy(update={"latents_sha256": "2"}), None, None)
    assert len(list(folder.iterdir())) == 2
