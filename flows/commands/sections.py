"""What params.yaml says of a model that makes videos: the sections that every command which opens one reads."""

from typing import NamedTuple

from stiv_model.settings import DeviceSettings, SamplerSettings, TextSettings, VaeSettings
from tasks.generation.settings import SampleSettings
from tasks.latents.settings import LatentSettings


class Sections(NamedTuple):
    """Sections of params.yaml, which a command that has them in its signature takes as options of their names."""

    sampler: SamplerSettings
    vae: VaeSettings
    text: TextSettings
    latents: LatentSettings
    samples: SampleSettings
    devices: DeviceSettings
