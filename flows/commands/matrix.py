"""`stiv matrix`: one model over kinds of given frames, text, guidance and scales."""

from pathlib import Path

from flows.commands.named_model import choose
from flows.commands.sections import Sections
from tasks.demo.settings import CorpusSettings
from tasks.evaluation import out_folder
from tasks.evaluation.settings import EvaluationSettings
from tasks.generation.matrix import MATRIX, make_matrix, shape_scenes
from tasks.pages import matrix_page

PAGE = "matrix.html"


def matrix(
    out: Path,
    evaluation: EvaluationSettings,
    corpus: CorpusSettings,
    sections: Sections,
    checkpoint: Path | None = None,
    pipeline: str | None = None,
    set: list[str] | None = None,
) -> None:
    """Measure a model under many conditions: given frames, text or none, kinds and scales of guidance.

    Of each it tells how far videos follow the prompt, keep the frames that were given, and move as real clips do, and
    which alarms fire: OUT/matrix.html is a heat map, OUT/matrix.json has the figures. Killed, the same command goes on
    with the next condition.

    Args:
        out: Folder for the page, the figures and a picture of each condition.
        checkpoint: Folder of trained weights, as a training stage wrote it.
        pipeline: Pipeline folder, as `stiv export` wrote it, or the name of one on the hub.
        set: Use other values than those of params.yaml, such as evaluation.matrix.videos=16.

    examples:
      stiv matrix --out matrix/sft --checkpoint checkpoints/sft
      stiv matrix --out matrix/shipped --pipeline stiv_model/embedded/shapes
    """
    out_folder.refuse(out, (MATRIX, PAGE), {"checkpoint": checkpoint, "pipeline": pipeline})
    named = choose(checkpoint, pipeline)
    of_model = [one for one in set or [] if one.partition(".")[0] not in ("evaluation", "corpus")]
    told = {"model": named.sha256(), "corpus": corpus.model_dump(mode="json")}
    model = named.open(sections, of_model)
    scenes = shape_scenes(evaluation, model.defaults, corpus)
    content = make_matrix(model, scenes, out, told, evaluation, sections.devices.sampling)
    (out / PAGE).write_text(matrix_page.build(content, out), encoding="utf-8")
    print(out / PAGE)
