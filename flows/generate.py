"""The flow behind stage samples."""

from pathlib import Path

from prefect import flow

from flows.running.progress import show
from stiv_model.settings import DeviceSettings, SamplerSettings, TextSettings, VaeSettings
from tasks.demo.settings import CorpusSettings
from tasks.generation.samples import generate_all
from tasks.generation.settings import SampleSettings
from tasks.latents.settings import LatentSettings


@flow
def generate(
    checkpoint: Path,
    tup: Path,
    tasks: Path,
    out: Path,
    samples: SampleSettings,
    corpus: CorpusSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    sampler: SamplerSettings,
    devices: DeviceSettings,
) -> None:
    """Generate videos for prompts and first frames that training never saw, of held-out combinations and of seen ones.

    Args:
        checkpoint: Folder of trained weights that make videos from text, and from text and a first frame.
        tup: Folder of trained weights that make the frames between given ones (temporal upsampling).
        tasks: Folder of trained weights that make what comes after given frames, and what lies between two.
        out: Folder for the generated videos and their table.

    examples:
      stiv generate --checkpoint checkpoints/unmask_sft --tup checkpoints/tup --tasks checkpoints/tasks --out samples
    """
    generate_all(checkpoint, tup, tasks, out, samples, corpus, vae, text, latents, sampler, devices.sampling)
    show(
        "markdown",
        "samples",
        markdown=f"{samples.text_prompts} videos from text, {samples.image_prompts} from text and image, "
        f"{samples.interpolated} interpolated in time, {samples.cascaded} more from the model's own frames, "
        f"{samples.predicted} from four frames, {samples.between} from the first and the last; of seen combinations "
        f"{samples.seen_text_prompts} from text and {samples.seen_image_prompts} from text and image: `{out}`; "
        "the gallery is in `reports/report.html`.",
    )
