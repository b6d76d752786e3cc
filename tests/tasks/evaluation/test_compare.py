"""Cards of one test stand side by side; unlike ones, edited ones and those of another schema are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.__main__ import main
from tasks.evaluation import compare, sealing
from tasks.evaluation.card import Dimension
from tests.made_card import made_card, share

FVD = Dimension(name="", value=500.0, unit=None, better="lower", n=64, low=450.0, high=560.0, protocol={"frames": 10})
FIGURES = {"": {"moved": share(60, 64), "fvd": FVD}}
VIDEOS = {"height": 64, "width": 64, "frames": 10, "fps": 8.0, "pixels": "file", "codec": "h264", "crf": 12.0}
SUITE = {"name": "prompts", "sha256": "1" * 64, "prompts_sha256": "2" * 64, "prompts_are_rewritten": False}
ALIKE: dict[str, Any] = {"videos": VIDEOS, "suite": SUITE}


def write(path: Path, figures: Any = FIGURES, **changes: Any) -> str:
    sealing.write(made_card(figures, **(ALIKE | changes)), path)
    return str(path)


def ended(*words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *words])
    assert isinstance(stop.value.code, str), "which is exit code 1"
    assert "\n" not in stop.value.code
    return stop.value.code


def test_two_models_stand_side_by_side_with_intervals_and_what_they_differ_by(tmp_path, capsys):
    first = write(tmp_path / "a.json", model={"weights": {"model": "3" * 64}, "sampler": {"guidance_scale": 1.6}})
    other = {"": {"moved": share(20, 64), "fvd": FVD}}
    model = {"weights": {"model": "4" * 64}, "sampler": {"guidance_scale": 7.5}}
    main(["compare", first, write(tmp_path / "b.json", other, model=model)])
    said = capsys.readouterr().out
    moved = next(line for line in said.splitlines() if line.startswith("moved"))
    assert "93.8 % [85.0 %, 97.5 %] n=64" in moved and "-62.5 points" in moved and moved.endswith("apart")
    assert next(line for line in said.splitlines() if line.startswith("fvd")).endswith("overlap")
    assert "model.sampler.guidance_scale: 1.6 against 7.5" in said
    assert "model.weights.model: 333333333333... against 444444444444..." in said


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"suite": SUITE | {"prompts_sha256": "9" * 64}}, "suite.prompts_sha256"),
        ({"suite": SUITE | {"prompts_are_rewritten": True}}, "suite.prompts_are_rewritten"),
        ({"suite": SUITE | {"convention": "i2v_2024"}}, "suite.convention"),
        ({"videos": VIDEOS | {"crf": 23.0}}, "videos.crf"),
        ({"videos": VIDEOS | {"pixels": "arrays"}}, "videos.pixels"),
        ({"account": {"given": 2, "ok": 2, "rejected": 0, "failed": 0, "reasons": {}}}, "n"),
        ({"figures": {"": {"fvd": FVD.model_copy(update={"n": 63})}}}, "fvd n"),
        ({"figures": {"": {"fvd": FVD.model_copy(update={"protocol": {"frames": 16}})}}}, "fvd protocol.frames"),
    ],
)
def test_what_was_not_tested_alike_is_refused_with_the_field_and_printed_anyway_with_the_warning(
    tmp_path, capsys, changes, field
):
    cards = write(tmp_path / "a.json"), write(tmp_path / "b.json", **changes)
    assert f"not of the same test: {field} differ;" in ended(*cards)
    assert f"{field}: " in capsys.readouterr().err
    main(["compare", *cards, "--anyway"])
    assert f"NOT COMPARABLE: {field}: " in capsys.readouterr().out


def test_other_seeds_are_told_and_not_refused():
    cards = [made_card(FIGURES, **(ALIKE | {"suite": SUITE | {"seeds": seeds}})) for seeds in ("seed 0", "seed 1")]
    found = compare.compare(*cards)
    assert not found.unlike and [one.field for one in found.differs_by] == ["suite.seeds"]


def test_a_floor_that_differs_by_last_bits_is_of_the_same_protocol():
    protocols = [{"frames": 10, "floor": {"distance": value}} for value in (51.0, 51.0 + 1e-13)]
    cards = [made_card({"": {"fvd": FVD.model_copy(update={"protocol": protocol})}}, **ALIKE) for protocol in protocols]
    assert not compare.compare(*cards).unlike


def test_a_card_that_was_edited_or_has_another_schema_or_is_none_is_refused(tmp_path):
    good, bad = write(tmp_path / "a.json"), tmp_path / "b.json"
    content = json.loads(Path(good).read_text())
    content["dimensions"]["all"]["moved"]["value"] = 1.0
    bad.write_text(json.dumps(content))
    assert "b.json was changed after it was sealed" in ended(good, str(bad))
    bad.write_text(json.dumps(content | {"schema": "stiv-card/0"}))
    assert "is of schema 'stiv-card/0', and this version reads stiv-card/1" in ended(good, str(bad))
    bad.write_text("{}")
    assert "is no score card: it has no schema" in ended(good, str(bad))
    bad.write_text("[")
    assert "is no score card (" in ended(good, str(bad))


def test_a_key_seals_a_card_against_who_has_none(tmp_path, monkeypatch):
    content = made_card(FIGURES).model_dump(mode="json", by_alias=True)
    signed = sealing.seal(content, b"secret")
    assert signed.seal.sha256 == made_card(FIGURES).seal.sha256, "the hash of a card does not depend on the key"
    sealing.write(signed, tmp_path / "a.json")
    (tmp_path / "key").write_text("secret\n")
    monkeypatch.setenv(sealing.KEY_FILE, str(tmp_path / "key"))
    assert sealing.read(tmp_path / "a.json", sealing.key()) == signed
    with pytest.raises(ValueError, match="was not sealed by the key"):
        sealing.read(tmp_path / "a.json", b"another")
    sealing.write(made_card(FIGURES), tmp_path / "a.json")
    with pytest.raises(ValueError, match="was not sealed by the key"):
        sealing.read(tmp_path / "a.json", sealing.key())
