"""The diffusers pipeline of a trained model: `from stiv_model.pipeline import StivPipeline`."""

from stiv_model.pipeline.pipeline import StivPipeline

__all__ = ["StivPipeline"]
