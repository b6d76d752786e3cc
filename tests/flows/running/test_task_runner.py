"""Who runs the shards decides about no byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.scale_points import without_limits
from flows.params import load_params

ROOT = Path(__file__).parents[3]


@pytest.mark.long
def test_ray_makes_the_same_tables_as_the_local_engine(tmp_path, write_video, moving_frames):
    pytest.importorskip("prefect_ray")
    (tmp_path / "raw").mkdir()
    for number in range(4):
        write_video(tmp_path / "raw" / f"{number}.mp4", moving_frames(24, x_step=1, background=60 + 30 * number))
    params = yaml.safe_load((ROOT / "tests/params.yaml").read_text())
    params["clips"] = without_limits(load_params(ROOT / "tests/params.yaml").clips).model_dump(mode="json")
    params["latents"]["shard_clips"] = 1
    made = {}
    for engine in ("local", "ray"):
        folder = tmp_path / engine
        folder.mkdir()
        params["engine"]["kind"] = engine
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        for words in (
            "probe --source ../raw --out videos --report videos.json",
            "split --source ../raw --videos videos --out shots --report shots.json",
            "score --shots shots --out scores --report scores.json",
            "select --scores scores --out clips --report clips.json --docs docs",
            "caption --clips clips --out captions --report captions.json",
            "encode --source ../raw --clips clips --captions captions --out latents --report latents.json",
        ):
            subprocess.run(
                [sys.executable, "-m", "flows", *words.split()],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
                check=True,
            )
        files = [path for pattern in ("*/*.parquet", "latents/part-*") for path in folder.glob(pattern)]
        made[engine] = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    assert made["ray"] == made["local"]
    assert sum(name.startswith("latents/part-") for name in made["ray"]) >= 2


def test_an_engine_that_is_none_is_refused_with_its_key(tmp_path):
    text = (ROOT / "tests/params.yaml").read_text().replace("\n  kind: local  ", "\n  kind: dask  ")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"engine\.kind: Input should be 'local' or 'ray' \(found 'dask'\)"):
        load_params(tmp_path / "params.yaml")
