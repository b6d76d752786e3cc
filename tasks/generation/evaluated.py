"""The videos that an evaluation lacks, made by a checkpoint or a pipeline folder."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stiv_model.diffusion.frame_conditioning import clean_frame_mask
from stiv_model.encoders.text import check_lengths
from stiv_model.latents.order import draw_seed
from stiv_model.pipeline.components import NAMES, PipelineDefaults
from stiv_model.pipeline.folders import find, hashes
from stiv_model.pipeline.inputs import not_trained
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import DeviceSettings, SamplerSettings, TextSettings, VaeSettings
from stiv_model.weights import files, metadata
from stiv_model.weights.metadata import Trained
from tasks.demo.settings import CorpusSettings
from tasks.evaluation import machine, rows
from tasks.evaluation.card import Machine, Model, Suite
from tasks.evaluation.metrics import Evaluated
from tasks.evaluation.settings import EvaluationSettings
from tasks.evaluation.suites import Entry, Loaded, SuiteRun, Unusable, hash_of, load_array, stamp_of
from tasks.generation.samples import PATTERNS, facts_of, generate_requests, sample_requests
from tasks.generation.settings import SampleSettings
from tasks.generation.videos import load, make_videos, open_folder
from tasks.latents.settings import LatentSettings
from tasks.storage import atomic

MANIFEST = "making.json"
"""In a folder of videos that were made: what decides about them."""


class Sections(NamedTuple):
    """What params.yaml says of models, of the videos that they make, and of the embedded corpus."""

    sampler: SamplerSettings
    vae: VaeSettings
    text: TextSettings
    latents: LatentSettings
    samples: SampleSettings
    devices: DeviceSettings
    corpus: CorpusSettings
    evaluation: EvaluationSettings


class Maker(NamedTuple):
    """A model that makes videos."""

    checkpoint: Path | None
    pipeline: str | None
    sections: Sections

    def open(self) -> tuple[StivPipeline, Model]:
        """Load it, and return what the card says of it too, whose hashes are taken before.

        Raises:
            OSError, ValueError: as `load` and `open_folder`; or the weights are not averaged.
        """
        of = self.sections
        precision, device = of.samples.precision, of.devices.sampling
        if self.pipeline is not None:
            folder = find(self.pipeline, NAMES)
            weights = hashes(folder, NAMES)
            pipeline = open_folder(str(folder), precision, device)
        else:
            assert self.checkpoint is not None, "one of the two is named"
            check_averaged(self.checkpoint)
            weights = {"model": atomic.sha256_file(self.checkpoint / metadata.WEIGHTS)}
            pipeline = load(self.checkpoint, of.vae, of.text, of.latents, of.sampler, precision, device)
        return pipeline, Model(
            weights=weights,
            recipes={"model": trained.recipe_name} if (trained := pipeline.transformer.trained) else None,
            sampler=pipeline.defaults.model_dump(mode="json")["sampler"],
            precision=precision,
            machine=Machine.model_validate(machine.facts(device, has_networks=True)),
        )

    def encoders(self) -> dict[str, Any]:
        """Return the settings of a checkpoint's encoders, which decide about its videos; a pipeline has its own."""
        of = self.sections
        return {} if self.checkpoint is None else {"vae": of.vae.model_dump(), "text": of.text.model_dump()}


def check_averaged(checkpoint: Path) -> None:
    """Refuse weights that are not the averaged ones (EMA), which a training hands on and figures are of.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the file does not say that it holds an average.
    """
    metadata.read(checkpoint)
    weights = checkpoint / metadata.WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} does not exist: train {checkpoint} first")
    if files.averaged(weights) is None:
        raise ValueError(
            f"{weights} does not say that it holds averaged weights (EMA): evaluate what stiv train wrote, or export "
            "it (stiv export) and name the folder by --pipeline"
        )


# ---------------------------------------------------------------------------------------------------------- shapes


def make_shapes(maker: Maker, out: Path) -> None:
    """Make the samples of suite shapes in the modes that a model was trained for, unless they are there.

    Raises:
        OSError, ValueError: as `Maker.open`; or it was trained for none of them.
    """
    pipeline, model = maker.open()
    trained = pipeline.transformer.trained
    modes = _modes(trained, pipeline.defaults)
    settings, corpus = maker.sections.samples, maker.sections.corpus
    requests = [one for one in sample_requests(settings, corpus) if one.mode in modes]
    made = model.model_dump(mode="json")
    sampler = made.pop("sampler")
    made |= facts_of(requests, settings, corpus, pipeline.defaults, maker.sections.devices.sampling)
    run = {"made": made, "sampler": sampler, "size": pipeline.defaults.model_dump(mode="json")}
    run |= {"samples": settings.model_dump(), "corpus": corpus.model_dump(), **maker.encoders()}
    noted = out / MANIFEST
    if noted.is_file() and json.loads(noted.read_text()) == json.loads(json.dumps(run)):
        return
    listed = {"checkpoint": str(maker.checkpoint or maker.pipeline), "sampler": sampler, "made": made}
    models = [(lambda: pipeline, modes)]
    generate_requests(models, requests, out, run, listed, settings, corpus, maker.sections.devices.sampling, MANIFEST)


def _modes(trained: Trained | None, size: PipelineDefaults) -> tuple[str, ...]:
    """Return what a model makes of the suite: the modes that it was trained for; of several given frames, only these.

    Not mode cascade, for which there is no other model's video to be given, nor long videos, which are of no card.

    Args:
        size: frames and stride of its videos.

    Raises:
        ValueError: it was trained for none of them; with what it was trained for.
    """
    if trained is None:
        return ("t2v",)

    def reason(mode: str) -> str | None:
        places = clean_frame_mask(PATTERNS[mode], size.frames).nonzero().flatten().tolist()
        return not_trained(places, size.frames, size.stride_frames, trained)

    for modes in (("predict", "between", "tup"), ("t2v", "ti2v")):
        if known := tuple(mode for mode in modes if reason(mode) is None):
            return known
    raise ValueError(f"suite shapes has no mode that this model was trained for: {reason('ti2v')}")


# --------------------------------------------------------------------------------------------------------- prompts


class Asked(NamedTuple):
    """A video of a file of prompts."""

    id: str
    prompt: str
    text: str
    """What the model is given: the prompt, or what it was rewritten to."""
    seed: int


SEEDS = "seed {}: the first 7 bytes of sha256('SEED PROMPT NUMBER'), lowest first"


def read_lines(file: Path) -> list[str]:
    """Return the prompts of a file, a line each.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8, or a line is empty, or there is none.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"{file}: line {number} is empty: a prompt on each line")
    return lines


def asked_videos(prompts: Path, rewritten: Path | None, settings: EvaluationSettings) -> list[Asked]:
    """Return the videos of a file of prompts.

    Raises:
        OSError: a file cannot be read.
        ValueError: as `read_lines`; or the files have different lengths, or a prompt stands twice.
    """
    lines = read_lines(prompts)
    texts = lines if rewritten is None else read_lines(rewritten)
    if len(texts) != len(lines):
        raise ValueError(
            f"--rewritten {rewritten} has {len(texts)} lines, and {prompts} has {len(lines)}: a line for each prompt, "
            "in its order"
        )
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if first.setdefault(line, number) != number:
            raise ValueError(
                f"{prompts}: lines {first[line]} and {number} are the same, whose videos would be too: take one out"
            )
    return [
        Asked(f"{number:05d}-{copy}", line, text, draw_seed(settings.seed, line, copy))
        for number, (line, text) in enumerate(zip(lines, texts, strict=True), 1)
        for copy in range(settings.videos_per_prompt)
    ]


def make_prompts(prompts: Path, rewritten: Path | None, maker: Maker, out: Path, shard: str | None) -> SuiteRun:
    """Return the suite of a file of prompts, its videos made, each whole or not at all, as far as they are missing.

    Args:
        out: folder for the videos, as arrays.
        shard: of which videos to make; None: all.

    Raises:
        OSError, ValueError: as `asked_videos` and `Maker.open`; or the folder holds videos of other settings.
    """
    settings = maker.sections.evaluation
    asked = asked_videos(prompts, rewritten, settings)
    batch = maker.sections.samples.batch
    share = {one.id for one in rows.share(asked, shard, batch)}
    pipeline, model = maker.open()
    check_lengths(pipeline.tokenizer, [one.text for one in asked], pipeline.defaults.text_tokens)
    told: dict[str, Any] = {"model": model.model_dump(mode="json"), "asked": hash_of(asked)}
    told |= {"makes": pipeline.defaults.model_dump(mode="json"), "batch": maker.sections.samples.batch}
    told |= maker.encoders()
    _open_folder(out, told)
    for first in range(0, len(asked), batch):
        these = asked[first : first + batch]
        if these[0].id in share and not all(_file(one, out).exists() for one in these):
            _make(pipeline, these, out)
    suite = Suite(
        name="prompts",
        sha256=hash_of([one.prompt for one in asked]),
        prompts_sha256=atomic.sha256_file(prompts if rewritten is None else rewritten),
        prompts_are_rewritten=rewritten is not None,
        seeds=SEEDS.format(settings.seed),
    )
    return SuiteRun(suite, model, [_entry(one, out) for one in asked], batch)


def _open_folder(out: Path, told: dict[str, Any]) -> None:
    """Make the folder of videos, or refuse one that holds others.

    Raises:
        ValueError: something else is there.
    """
    out.mkdir(parents=True, exist_ok=True)
    note = out / MANIFEST
    if note.is_file():
        if (there := json.loads(note.read_text())) != json.loads(json.dumps(told)):
            key = next(name for name in told if there.get(name) != json.loads(json.dumps(told[name])))
            raise ValueError(f"{out} holds videos that were made otherwise ({key} differs): name another --out")
        return
    if any(out.iterdir()):
        raise ValueError(f"{out} holds other files and no {MANIFEST}: name another --out")
    with atomic.atomic_write(note) as tmp_path:
        tmp_path.write_text(json.dumps(told))


def _file(asked: Asked, folder: Path) -> Path:
    return folder / f"{asked.id}.npy"


def _make(pipeline: StivPipeline, asked: Sequence[Asked], out: Path) -> None:
    """Make the videos of a batch, which is always the same one: what stands beside a video decides its last bits."""
    videos = make_videos(pipeline, [one.text for one in asked], [one.seed for one in asked], "none", None)
    for one, video in zip(asked, videos, strict=True):
        with atomic.atomic_write(_file(one, out)) as tmp_path, tmp_path.open("wb") as file:
            np.save(file, video)


def _entry(asked: Asked, folder: Path) -> Entry:
    path = _file(asked, folder)
    about = {"prompt": asked.prompt, "id": asked.id}
    return Entry(asked.id, "", about, partial(stamp_of, path), partial(_load, path, asked))


def _load(path: Path, asked: Asked) -> Loaded:
    if not path.exists():
        raise Unusable("failed", "not_generated")
    facts = {"fps": None, "pixels": "arrays", "codec": None, "crf": None}
    return Loaded(Evaluated(asked.id, load_array(path), prompt=asked.prompt), facts)
