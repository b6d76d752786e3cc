import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from flows.params import load_params
from stiv_model.network.transformer import StivTransformer
from stiv_model.weights import files
from tasks.evaluation import drift
from tasks.generation.samples import LONG, batch_threads, generate_requests, sample_requests
from tasks.generation.videos import load

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


def test_each_of_the_threads_for_batches_has_one_of_torch_and_a_failure_lets_none_begin():
    with batch_threads("cpu") as threads:
        assert threads.submit(torch.get_num_threads).result() == 1
    done = []
    with pytest.raises(ZeroDivisionError), batch_threads("cuda") as threads:  # one batch at a time
        failed, *_ = [threads.submit(divmod, 1, 0), *(threads.submit(time.sleep, 0.05) for _ in range(4))]
        threads.submit(done.append, "the last")
        failed.result()
    assert not done


def test_a_long_video_goes_there_and_back_beside_where_it_should_and_is_listed_apart(tmp_path):
    torch.manual_seed(0)
    files.save(tmp_path, StivTransformer(PARAMS.model, is_video=True).state_dict().items(), PARAMS.model, is_video=True)
    pipeline = load(tmp_path, PARAMS.vae, PARAMS.text, PARAMS.latents, PARAMS.sampler, "float32", "cpu")
    settings = PARAMS.samples.model_copy(update={"long": 2, "long_windows": 3, "given_steps": 2})
    requests = [one for one in sample_requests(settings, PARAMS.corpus) if one.mode in ("t2v", LONG)][-3:]
    models = [(lambda: pipeline, ("t2v", LONG))]
    generate_requests(models, requests, tmp_path / "out", {}, {}, settings, PARAMS.corpus, "cpu")
    listed = json.loads((tmp_path / "out/samples.json").read_text())
    assert [row["mode"] for row in listed["samples"]] == ["t2v"]
    assert [row["id"] for row in listed["long"]] == ["long-000", "long-001"]
    found = drift.read(tmp_path / "out")
    for row, long in zip(listed["long"], found, strict=True):
        assert long.video.shape == long.truth.shape and len(long.video) == 3 * 3 + 1 and long.window == 4
        assert len(row["prompts"]) == 4 and row["prompts"][0] == row["prompt"] != row["prompts"][2]
        assert row["given_frames"] == [0] and (tmp_path / "out" / row["truth"]).exists()
    assert not np.array_equal(found[0].video, found[1].video)
    assert drift.measure(found)["windows"] == 3
