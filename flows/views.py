"""The flows behind the stages of multi-view, in views/dvc.yaml."""

from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from stiv_model.encoders import devices as placement
from stiv_model.settings import DeviceSettings, SamplerSettings, TextSettings, VaeSettings
from tasks.generation.settings import SampleSettings
from tasks.generation.videos import load
from tasks.latents.settings import LatentSettings
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings
from tasks.views import evaluate, table
from tasks.views.corpus import HELD_OUT, TRAINING, ViewsCorpus
from tasks.views.encode import ViewsLatents
from tasks.views.settings import ViewSettings


@flow
def views_corpus(out: Path, report: Path, views: ViewSettings, engine: EngineSettings) -> None:
    """Render the procedural objects of multi-view: of each the given view and those from the paper's six cameras.

    Args:
        out: Folder for the objects; those of the training in training/, those that are held out in held_out/.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.

    examples:
      stiv views-corpus --out data/views_raw --report reports/views_corpus.json
    """
    run_stage(ViewsCorpus(views), out, report, engine)


@flow
def views_latents(
    objects: Path,
    out: Path,
    report: Path,
    views: ViewSettings,
    latents: LatentSettings,
    vae: VaeSettings,
    text: TextSettings,
    sandbox: SandboxSettings,
    devices: DeviceSettings,
    engine: EngineSettings,
) -> None:
    """Encode folders of views by the VAE, each once, for a training with `clean_frames: views`.

    Args:
        objects: Folder of objects: OBJECT/000.png is the given view, 001.png to 006.png are those from the paper's
            cameras, and cameras.json says so.
        out: Folder for the latents, packed in shards, and their table.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.

    examples:
      stiv views-latents --objects renders --out data/views_latents --report reports/views_latents.json
    """
    placement.check(devices.encoders, "devices.encoders")
    run_stage(ViewsLatents(objects, views, latents, vae, text, sandbox, devices.encoders), out, report, engine)


@flow
def views_table(
    checkpoint: Path,
    objects: Path,
    out: Path,
    sampler: SamplerSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    samples: SampleSettings,
    devices: DeviceSettings,
    sandbox: SandboxSettings,
) -> None:
    """Make views of held-out objects and measure them beside what costs no model: PSNR, SSIM and LPIPS of each view.

    Args:
        checkpoint: Folder of weights that were trained with `clean_frames: views`.
        objects: Folder with objects to measure in held_out/, and those of the training in training/.
        out: Folder for the figures, their table and a picture of the objects.

    examples:
      stiv views-table --checkpoint checkpoints/views --objects data/views_raw --out reports/views
    """
    with Sandbox(sandbox) as opened:
        held_out = evaluate.read(objects / HELD_OUT, opened, latents.height, latents.width)
        nearest = evaluate.nearest(held_out.pictures[:, 0], objects / TRAINING, opened)
    model = load(checkpoint, vae, text, latents, sampler, samples.precision, devices.sampling)
    row = table.measure(model, held_out, nearest, vae.batch_frames, samples, out)
    print(table.told(row))
