from pathlib import Path
from typing import get_args

import pytest
import yaml

from flows.__main__ import main
from flows.params import RENAMED, Params, load_params, section
from stiv_model.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def changed(tmp_path):
    """Write params.yaml with one value changed, added or taken away."""

    def write(place: str, value: object) -> Path:
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        *keys, last = place.split(".")
        part = params
        for key in keys:
            part = part[key]
        if value is None:
            del part[last]
        else:
            part[last] = part[last] | value if place in ("train.t2v", "model") else value
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        return tmp_path / "params.yaml"

    return write


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("model.widht", 3, r"model\.widht: Extra inputs are not permitted \(found 3\)"),
        ("model.width", None, r"model\.width: Field required"),
        ("clips.motion.min", -1.0, r"clips\.motion\.min: .*greater than or equal to 0 \(found -1\.0\)"),
        ("clips.height", {"min": 9.0, "max": 3.0}, r"clips\.height: .*min 9\.0 is above max 3\.0"),
        ("clips.orientations", [], r"clips\.orientations: .*at least 1 item"),
        ("shots.min_seconds", 61.0, r"shots\.min_seconds 61\.0 is above max_seconds 60\.0"),
        ("clips.duplicate_similarity", 0.95, r"duplicate_similarity is 0\.95, but scores\.embedding is null"),
        ("train.t2v.frames", 3, r"train\.t2v\.frames is 3, but model\.temporal_patch is 2"),
        ("train.t2v.frames", 20, r"train\.t2v\.frames is 20, but latents\.frames is only 10"),
        ("train.t2i.clean_frames", "first", r"train\.t2i: .*frames is 1, but clean_frames first needs at least 2"),
        ("train.t2v.decay", None, r"train\.t2v\.decay: Field required"),
        ("train.t2v.decay", {"kind": "linear", "steps": 0, "floor": 0.0}, r"steps: .*greater than 0 \(found 0\)"),
        ("train.t2v.decay", {"kind": "linear", "steps": 9, "floor": 1.0}, r"floor: .*less than 1 \(found 1\.0\)"),
        ("train.t2v.decay", {"kind": "cosine", "steps": 9, "floor": -0.1}, r"floor: .*equal to 0 \(found -0\.1\)"),
        ("train.t2v.decay", {"kind": "steep", "steps": 9, "floor": 0.0}, r"'constant', 'linear', 'cosine'"),
        (
            "model.positions",
            {"kind": "learned", "rows": 4, "columns": 4, "num_temporal": 4, "std": 0.0},
            r"std: .*greater than 0 \(found 0\.0\)",
        ),
        ("training.timestep_shift", 0.0, r"timestep_shift: .*greater than 0 \(found 0\.0\)"),
        ("sampler.shift", 0.0, r"sampler\.shift: .*greater than 0 \(found 0\.0\)"),
        ("model.heads", 7, r"model\.width is 96 and model\.heads is 7"),
        ("corpus.shapes_size", [0.42, 0.25], r"corpus: shapes_size is \[0\.42, 0\.25\]: state the smaller"),
        ("corpus.shapes_size", [0.1, 0.3], r"corpus\.shapes_size\.0: .*greater than or equal to 0\.25 \(found 0\.1\)"),
        (
            "corpus.shapes_travel",
            [0.2, 0.5],
            r"corpus: shapes_size goes up to 0\.58 and shapes_travel up to 0\.5: .*lower",
        ),
        ("corpus.shapes_travel", [0.1, 0.3], r"corpus\.shapes_travel\.0: .*\(found 0\.1\)"),
        (
            "corpus.shapes_start",
            0.5,
            r"corpus: shapes_start is 0\.5, but an object of size 0\.58 .*at 0\.48 or before",
        ),
        ("corpus.shapes_across", [0.0, 0.2], r"corpus: shapes_across is \[0\.0, 0\.2\], .*0\.31 to 0\.69"),
        ("corpus.shapes_backgrounds", [], r"corpus\.shapes_backgrounds: .*at least 1 item"),
        ("corpus.shapes_backgrounds", ["plaid"], r"corpus\.shapes_backgrounds\.0: .*'plain' \(found 'plaid'\)"),
        ("corpus.shapes_backgrounds", ["plain", "plain"], r"corpus: shapes_backgrounds .*state each kind once"),
        ("training.optimizer.kind", "sgd", r"optimizer\.kind: Input should be .* \(found 'sgd'\)"),
        ("devices.encoders", "cuda:1", r"devices\.encoders: Input should be 'cpu' or 'cuda' \(found 'cuda:1'\)"),
        ("sampler.guidance_scale", float("nan"), r"sampler\.guidance_scale: .*finite"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(changed, place, value, said):
    with pytest.raises(ValueError, match=said):
        load_params(changed(place, value))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("clips.height", {"min": 9.0, "max": 3.0}, r"clips\.height: min 9\.0 is above max 3\.0: nothing would be kept"),
        ("model.heads", 7, r"model: model\.width is 96 and model\.heads is 7: the width .*"),
        ("train.t2v.frames", 3, r"train\.t2v\.frames is 3, but model\.temporal_patch is 2: .*"),
        (
            "model.positions",
            {"kind": "learned", "rows": 4, "columns": 4, "num_temporal": 3, "std": 0.5},
            r"model\.positions\.num_temporal is 3, but train\.\w+\.frames 10 / model\.temporal_patch 2 are 5 temporal "
            r"tokens: set it to 5",
        ),
        (
            "model",
            {"temporal_gain": 0.2, "temporal_modulation": True},
            r"model: model\.temporal_gain is 0\.2, but model\.temporal_modulation is true, where a gate that starts at "
            r"zero takes the gain's place: set the former to 0\.0 or the latter to false",
        ),
        (
            "model",
            {"temporal_contrast": 1.0, "temporal_patch": 1},
            r"model: model\.temporal_contrast is 1\.0, but model\.temporal_patch is 1, where no frames share a patch: "
            r"set the former to 0\.0",
        ),
        (
            "train.t2v.decay",
            {"kind": "linear", "steps": 51, "floor": 0.0},
            r"train\.t2v: warmup_steps 20 and decay\.steps 51 are more than steps 70: set decay\.steps to 50 "
            r"or fewer, decay to {kind: constant}, or steps to 71 or more",
        ),
        (
            "train.t2v",
            {"steps": 20, "decay": {"kind": "cosine", "steps": 5, "floor": 0.1}},
            r"train\.t2v: warmup_steps 20 and decay\.steps 5 are more than steps 20: set decay to {kind: constant}, or "
            r"steps to 25 or more",
        ),
    ],
)
def test_what_a_rule_of_ours_says_is_told_in_its_own_words(changed, place, value, said):
    """Of a section of tasks, of one of stiv_model, and of sections together."""
    path = changed(place, value)
    with pytest.raises(ValueError, match=rf"^{path}: {said}$"):
        load_params(path)


def test_every_wrong_value_is_told_at_once(changed):
    path = changed("model.widht", 3)
    path.write_text(path.read_text().replace("ranks: 2", "ranks: 0"))
    with pytest.raises(ValueError, match=r"(?s)model\.widht.*training\.ranks|training\.ranks.*model\.widht"):
        load_params(path)


def test_a_section_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=r"train\.t3v: .*t2v"):
        section(load_params(ROOT / "params.yaml"), "train.t3v")


def test_the_last_word_of_the_command_is_one_line_and_no_traceback(changed, monkeypatch, capsys):
    monkeypatch.chdir(changed("clips.motion.min", -1.0).parent)
    with pytest.raises(SystemExit) as stop:
        main(["pipeline"])
    assert str(stop.value).startswith("stiv pipeline: params.yaml: clips.motion.min")
    assert "\n" not in str(stop.value)


def test_outside_of_a_repository_the_command_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="run stiv at the top of the repository"):
        main(["pipeline"])


def test_an_unknown_verb_is_answered_with_the_known_ones():
    with pytest.raises(SystemExit, match=r"\btrian\b.*\btrain\b"):
        main(["trian"])


@pytest.mark.parametrize("old, new, place", [("clips:", "clip:", ""), ("  width: 96", "  widht: 128", "model.")])
def test_a_misspelt_key_is_told_with_the_one_that_is_nearest(tmp_path, old, new, place):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace(f"\n{old}", f"\n{new}", 1))
    wrong, meant = (word.strip().split(":")[0] for word in (new, old))
    with pytest.raises(ValueError, match=rf"{place}{wrong}: .*\b{meant}\b"):
        load_params(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"- a\n- b\n", "is one list, without sections"),
        (b"source: \xff\n", r"is not UTF-8: .* at byte 8 \(0xff\)"),
        (b"source: [\nshots: {\n", "is not valid YAML"),
        (None, "is a folder"),
    ],
    ids=["empty", "comment", "list", "latin", "broken", "folder"],
)
def test_a_file_that_holds_no_settings_is_named_in_one_line(tmp_path, content, said):
    path = tmp_path / "params.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=rf"^{path} {said}") as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["probe", "film.mp4", "--sandbox", "shots"], "sandbox"),
        (["probe", "film.mp4", "--sandbox", "source"], "sandbox"),
        (["train", "--latents", "l", "--out", "o", "--curve", "c", "--recipe", "train"], "train.t2i, train.t2v"),
    ],
)
def test_a_section_of_another_kind_is_refused_with_those_that_fit(monkeypatch, words, known):
    monkeypatch.chdir(ROOT)
    *_, option, name = words
    with pytest.raises(SystemExit, match=rf": {option} is {name}, .*\b{known}"):
        main(words)


def test_probe_without_a_file_says_so_as_shots_does(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=r"^stiv probe: .*file"):
        main(["probe"])


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_by_its_earlier_name_is_refused_with_the_one_of_today(tmp_path, old, new):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    part, (*parents, before), (*_, now) = params, old.split("."), new.split(".")
    for key in parents:
        part = part[key]
    part[before] = part.pop(now, 1)  # not every section has all of its keys: kinds of positions differ
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match=rf"^{path}: {old} .*\b{new}\b"):
        load_params(path)


@pytest.mark.parametrize("old", RENAMED)
def test_an_earlier_name_is_no_key_of_today(old):
    def kinds(annotation: object) -> list[type[Settings]]:
        inner = get_args(annotation) or (annotation,)
        return [kind for kind in inner if isinstance(kind, type) and issubclass(kind, Settings)]

    *parents, last = old.split(".")
    sections = [Params]
    for key in parents:
        sections = [kind for section in sections for kind in kinds(section.model_fields[key].annotation)]
    assert sections
    assert all(last not in kind.model_fields for kind in sections)


@pytest.mark.parametrize("old", RENAMED)
def test_the_name_of_today_is_a_key(old):
    *parents, last = RENAMED[old].split(".")
    part = Params
    for key in parents:
        part = part.model_fields[key].annotation
    assert any(last in kind.model_fields for kind in get_args(part) or (part,))


def test_a_launcher_of_an_earlier_module_is_refused_with_the_one_of_today(changed):
    path = changed("training.launcher", "torchrun -m stiv_model.train {work}")
    with pytest.raises(ValueError, match=rf"^{path}: training\.launcher: .*stiv_model\.training\.train now: rename"):
        load_params(path)


@pytest.mark.parametrize(("wrong", "meant"), [("sandbx", "sandbox"), ("train.t2vv", "t2v")])
def test_a_misspelt_section_is_told_with_the_one_that_is_nearest(wrong, meant):
    with pytest.raises(ValueError, match=rf"\b{wrong}: .*\b{meant}\b"):
        section(load_params(ROOT / "params.yaml"), wrong)
