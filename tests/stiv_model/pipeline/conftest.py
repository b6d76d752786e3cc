"""A tiny pipeline for all tests of the room, as test_pipeline.py makes it."""

from tests.stiv_model.pipeline.test_folders import repository  # noqa: F401
from tests.stiv_model.pipeline.test_pipeline import clip, encoders, exported, make, pipe, trained  # noqa: F401
