"""Who runs the shards decides about no byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.params import load_params

ROOT = Path(__file__).parents[3]


@pytest.mark.long
def test_ray_makes_the_same_tables_as_the_local_engine(tmp_path, write_video, moving_frames):
    pytest.importorskip("prefect_ray")
    (tmp_path / "raw").mkdir()
    for number in range(4):
        write_video(tmp_path / "raw" / f"{number}.mp4", moving_frames(24, x_step=1, background=60 + 30 * number))
    params = (ROOT / "tests/params.yaml").read_text()
    assert "\n  kind: local  " in params
    made = {}
    for engine in ("local", "ray"):
        folder = tmp_path / engine
        folder.mkdir()
        (folder / "params.yaml").write_text(params.replace("\n  kind: local  ", f"\n  kind: {engine}  "))
        for words in (
            "probe --source ../raw --out videos --report videos.json",
            "split --source ../raw --videos videos --out shots --report shots.json",
        ):
            subprocess.run(
                [sys.executable, "-m", "flows", *words.split()],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                check=True,
            )
        made[engine] = {path.name: path.read_bytes() for path in folder.glob("*/*.parquet")}
    assert made["ray"] == made["local"]
    assert len(made["ray"]) == 4


def test_an_engine_that_is_none_is_refused_with_its_key(tmp_path):
    text = (ROOT / "tests/params.yaml").read_text().replace("\n  kind: local  ", "\n  kind: dask  ")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"engine\.kind: Input should be 'local' or 'ray' \(found 'dask'\)"):
        load_params(tmp_path / "params.yaml")
