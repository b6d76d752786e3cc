"""The flow behind stage evaluate: videos measured, and what came of it as a score card."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from prefect import flow

from flows.edit_params import params_with
from flows.running import stage_names
from flows.running.code_hash import code_of
from flows.running.progress import show
from stiv_model.settings import DeviceSettings
from tasks.evaluation import measure, out_folder, values, video_suite
from tasks.evaluation.card import FILE, Card
from tasks.evaluation.drift import measure_long
from tasks.evaluation.evaluate import PAGE, Evaluation, evaluate_all
from tasks.evaluation.learning import judge_validations
from tasks.evaluation.settings import EvaluationSettings, SuiteName
from tasks.evaluation.suites import SuiteRun, shapes
from tasks.operations.task_runs import call
from tasks.pages import card_page
from tasks.sandbox.settings import SandboxSettings

log = logging.getLogger(__name__)


@flow
def evaluate(
    out: Path,
    evaluation: EvaluationSettings,
    sandbox: SandboxSettings,
    devices: DeviceSettings,
    card: Path | None = None,
    suite: SuiteName = "shapes",
    samples: Path | None = None,
    videos: Path | None = None,
    prompts: Path | None = None,
    rewritten: Path | None = None,
    checkpoint: Path | None = None,
    pipeline: str | None = None,
    shard: str | None = None,
    metrics: list[str] | None = None,
    training: Path | None = None,
    learning: Path | None = None,
    long: Path | None = None,
    fvd_curve: bool = False,
    set: list[str] | None = None,
) -> None:
    """Measure videos by a suite, and write the score card: figures with intervals, and all that they depend on.

    Killed, the same command goes on where it was, and the card is the same.

    Args:
        out: Folder for the page and the table of values per video; videos that are made are in OUT_videos.
        card: File for the card (JSON); card.json in the folder without it.
        suite: What was asked for. shapes: prompts about the embedded corpus, which the judge knows; videos: a folder of
            videos, of which nothing is known but a text beside each; prompts: a file of prompts.
        samples: Folder of stage samples, for suite shapes; without it they are made.
        videos: Folder of videos (.mp4 ..., or .npy of uint8 T, H, W, 3), for suite videos. NAME.txt beside NAME.mp4 is
            its prompt.
        prompts: File with a prompt on each line, for suite prompts.
        rewritten: File with what each prompt was rewritten to, line by line, which the model is given instead.
        checkpoint: Folder of trained weights that makes the videos, where they are made.
        pipeline: Pipeline folder that makes them, as stiv export wrote it.
        shard: Measure only this part of the videos, such as 3/8; the same command without it joins the parts.
        metrics: What is measured besides what always is, such as fvd; in place of evaluation.metrics.
        training: Folder with what the trainings show; their validation videos are judged too.
        learning: File for the figures of the validation videos (TSV), a line per validation.
        long: File for the figures of the long videos among the samples (JSON): drift by window, and jumps.
        fvd_curve: Measure FVD, and draw it over the number of clips, extrapolated to infinity: OUT/fvd_curve.svg, and
            .json beside.
        set: Use other values than those of params.yaml, such as sampler.steps=20.

    examples:
      stiv evaluate --samples data/samples --out reports/evaluation --card reports/card.json
      stiv evaluate --suite videos --videos my_videos --out cards/mine
      stiv evaluate --suite prompts --prompts prompts.txt --checkpoint checkpoints/sft --out cards/sft
    """
    asked = _Asked(suite, samples, videos, prompts, rewritten, checkpoint, pipeline)
    names = evaluation.metrics if metrics is None else metrics
    inputs = asked.inputs() | {"training": training, "set evaluation.reference": evaluation.reference}
    out_folder.refuse(out, (values.FILE, PAGE), inputs)
    chosen = measure.choose([*names, *(["fvd"] if fvd_curve and "fvd" not in names else [])], evaluation)
    with _opened(asked, out, sandbox, shard, set) as run:
        decided_by = {"code": code_of("evaluate"), "sandbox": sandbox.model_dump(mode="json")}
        what = Evaluation(run, evaluation, chosen, devices.sampling, decided_by)
        made = call(evaluate_all, what, out, card or out / FILE, shard, card_page.build)
    if training is not None and learning is not None:
        call(judge_validations, training, stage_names.recipes(), learning)
    if samples is not None and long is not None:
        call(measure_long, samples, long)
    if made is not None and fvd_curve:
        _draw_curve(out, made, evaluation)
    if made is not None:
        for line in [*card_page.headlines(made), f"the card: {card or out / FILE}; its page: {out / PAGE}"]:
            log.info(line)
        table = card_page.markdown(made)
        show("markdown", "card", markdown=table, description="The score card")


def _draw_curve(out: Path, card: Card, evaluation: EvaluationSettings) -> None:
    """Draw FVD over n of the videos of an evaluation.

    Raises:
        ValueError: there are too few of them, or they are of another kind than the reference.
    """
    from tasks.evaluation import distances, likeness  # torch
    from tasks.pages import distance_figure

    real, _ = likeness.reference_for(card.videos.model_dump(), evaluation)
    curves = distances.curves(real, likeness.logits_in(out))
    distance_figure.write(out / "fvd_curve.svg", curves, "FVD")


class _Asked(NamedTuple):
    suite: SuiteName
    samples: Path | None
    videos: Path | None
    prompts: Path | None
    rewritten: Path | None
    checkpoint: Path | None
    pipeline: str | None

    def inputs(self) -> dict[str, Path | str | None]:
        """Return by option what is read; of a pipeline the name on a hub, where it is no folder."""
        return {name: value for name, value in self._asdict().items() if name != "suite"}

    def check(self) -> None:
        """Refuse options that the suite has no use for, or lacks.

        Raises:
            ValueError: with the first of them.
        """
        is_made = self.checkpoint is not None or self.pipeline is not None
        wanted = {"shapes": ("samples",), "videos": ("videos",), "prompts": ("prompts", "rewritten")}[self.suite]
        for name in ("samples", "videos", "prompts", "rewritten"):
            if getattr(self, name) is not None and name not in wanted:
                raise ValueError(f"--{name} {getattr(self, name)} is of no use for --suite {self.suite}: leave it out")
        if self.checkpoint is not None and self.pipeline is not None:
            raise ValueError(
                f"--checkpoint {self.checkpoint} and --pipeline {self.pipeline} are two models: name one of them"
            )
        if is_made and (self.samples or self.videos):
            given = self.samples or self.videos
            raise ValueError(f"{given} holds videos, and a model is named that makes others: name one of the two")
        if self.suite == "videos" and self.videos is None:
            raise ValueError("--suite videos needs --videos FOLDER")
        if self.suite == "prompts" and self.prompts is None:
            raise ValueError("--suite prompts needs --prompts FILE")
        if self.suite != "videos" and not is_made and self.samples is None:
            lack = "--samples FOLDER, or " if self.suite == "shapes" else ""
            raise ValueError(f"--suite {self.suite} needs {lack}--checkpoint or --pipeline, which makes the videos")


@contextmanager
def _opened(
    asked: _Asked, out: Path, sandbox: SandboxSettings, shard: str | None, assignments: list[str] | None
) -> Iterator[SuiteRun]:
    """Give the suite with its videos, those that are missing made.

    Raises:
        OSError, ValueError: the request is wrong, or a folder or a model is not what it is named as.
    """
    asked.check()
    if asked.suite == "videos":
        assert asked.videos is not None, "it was asked for"
        with video_suite.opened_videos(asked.videos, sandbox) as run:
            yield run
        return
    if asked.samples is not None:
        yield shapes(asked.samples)
        return
    from tasks.generation import evaluated  # torch: seconds that videos which are there need not wait for

    params = params_with(assignments)
    sections = evaluated.Sections(**{name: getattr(params, name) for name in evaluated.Sections._fields})
    maker, folder = evaluated.Maker(asked.checkpoint, asked.pipeline, sections), out.with_name(f"{out.name}_videos")
    if asked.suite == "shapes":
        out_folder.refuse(folder, (evaluated.MANIFEST,), asked.inputs())
        evaluated.make_shapes(maker, folder)
        yield shapes(folder)
        return
    assert asked.prompts is not None, "it was asked for"
    yield evaluated.make_prompts(asked.prompts, asked.rewritten, maker, folder, shard)
