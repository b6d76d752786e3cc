"""The model that comes with the package: small enough to come with it, whole, and of use."""

import re

import numpy as np
import torch

from stiv_model.pipeline import StivPipeline, card
from stiv_model.pipeline.components import NAMES
from stiv_model.pipeline.folders import SHIPPED
from tasks.demo.shapes import judge

_ABSOLUTE_PATH = re.compile(r"(?<![\w.)/-])/(?!/)[\w.-]+/|file:/")


def test_it_is_small_and_has_no_code_and_no_path_of_the_machine_that_made_it():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".mp4", ".png"}
    texts = [path.read_text() for path in files if path.suffix in (".json", ".md")]
    assert not [found for text in texts for found in _ABSOLUTE_PATH.findall(text)]


def test_its_card_states_the_hash_of_every_file_of_weights():
    stated = card.stated(SHIPPED)
    assert stated == card.hashes(SHIPPED, NAMES)
    assert {name.partition("/")[0] for name in stated} == {"transformer", "vae"}


def test_it_makes_the_video_that_the_prompt_says():
    pipe = StivPipeline.from_pretrained(SHIPPED)
    assert pipe.text_source is not None, "the text encoder comes from a package"
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a red circle moves left", generator=torch.Generator().manual_seed(0), output_type="np").frames[0]
    seen = judge((255 * made).round().astype(np.uint8))
    assert (seen.colour, seen.direction, seen.is_one_object) == ("red", "left", True)
