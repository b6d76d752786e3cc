import json
from pathlib import Path

import pytest

from flows.params import load_params
from tasks.captions import expectations, token_lengths
from tasks.captions.stage import Captions
from tasks.storage import queries, stage, tables

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
TEXT = PARAMS.text
SETTINGS = PARAMS.captions.model_copy(update={"captioners": ("sidecar",), "max_failed_fraction": 0.5})


def caption(number: int, **changes) -> dict:
    row = dict.fromkeys(tables.CAPTIONS.names) | {"clip": f"clip-{number}", "status": "ok", "captioner": "sidecar"}
    return row | {"text": f"a dog number {number}", "short": "a dog", "rules": [], "of_whole_video": False} | changes


def failed_of(tmp_path: Path, rows: list[dict], cut: float = 0.0, settings=SETTINGS) -> list[str]:
    table = tmp_path / tables.CAPTION_TABLE
    tables.write_rows(table, rows, tables.CAPTIONS)
    failed = sum(row["status"] == "failed" for row in rows)
    account = tables.Account("clips", len(rows), len(rows) - failed, 0, failed, {})
    with queries.connect(tmp_path) as connection:
        return expectations.check(
            connection, table, settings, account, {"tokens": 24, "cut": cut, "cut_none": 99}, tmp_path / "docs"
        ).failed


def test_a_table_of_captions_passes_and_its_pages_open(tmp_path):
    rows = [caption(0), caption(1, status="failed", reason="language", text=None, short=None)]
    assert failed_of(tmp_path, rows) == []
    assert "a reason is one of those" in "".join(page.read_text() for page in (tmp_path / "docs").rglob("*.html"))


def test_every_wrong_row_and_share_is_told(tmp_path):
    rows = [
        caption(0, text="a\x1b[31m dog"),
        caption(0, captioner="somebody", short=None),
        caption(2, status="failed", reason="bad_luck"),
        caption(3, status="failed"),
        caption(4, status="failed", reason="language"),
    ]
    wanted = ("0.5 of the clips", "0.2 of the captions", "text is one line", "captioner is one of", "its short")
    wanted += ("no clip is there twice", "docs/captions.md", "every failed clip has its reason")
    told = failed_of(tmp_path, rows, cut=0.9, settings=SETTINGS.model_copy(update={"max_cut_fraction": 0.2}))
    assert [sum(word in sentence for sentence in told) for word in wanted] == [1] * len(wanted)
    assert len(told) == len(wanted)
    assert any("text.tokens: 99 would cut none" in sentence for sentence in told)


def test_captions_that_the_text_encoder_would_cut_are_counted_and_the_gate_keeps_the_table_from_its_name(tmp_path):
    texts = ["a dog", "a dog that runs over a green field " + "and over another " * 9]
    clips = [dict.fromkeys(tables.CLIPS.names) | {"clip": text[:9], "caption": text, "status": "ok"} for text in texts]
    for folder, name, rows, schema in (
        ("clips", tables.CLIP_TABLE, clips, tables.CLIPS),
        ("shots", tables.SPLIT_TABLE, [], tables.SPLITS),
    ):
        (tmp_path / folder).mkdir()
        tables.write_rows(tmp_path / folder / name, rows, schema)
    checks = SETTINGS.checks.model_copy(update={"max_repeated": 1.0})

    def run(most: float) -> None:
        settings = SETTINGS.model_copy(update={"max_cut_fraction": most, "checks": checks})
        places = (tmp_path / name for name in ("clips", "shots", "docs"))
        declared = Captions(*places, settings, TEXT)
        stage.run(declared, tmp_path / "captions", tmp_path / "report.json", "code", earlier=tmp_path / "earlier")

    with pytest.raises(ValueError, match=r"text\.tokens: 37 would cut none.*docs\.failed/index\.html"):
        run(0.2)
    assert not (tmp_path / "captions").exists() and (tmp_path / "docs.failed/index.html").exists()
    run(0.5)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["text_tokens"] == {"tokens": 24, "looked_at": 2, "cut": 0.5, "cut_none": 37}
    assert report["gate"]["success"] and (tmp_path / "docs/index.html").exists()
    assert not (tmp_path / "docs.failed").exists()


def test_tokens_are_counted_as_the_text_encoder_counts_them():
    from transformers import AutoTokenizer

    from stiv_model.encoders.text import find, lengths

    texts = ["", "a red circle moves left", "Zwölf Boxkämpfer jagen 640 x 480 😀", "word " * 300]
    assert token_lengths.tokens_of(TEXT)(texts) == lengths(AutoTokenizer.from_pretrained(find(TEXT)), texts)
