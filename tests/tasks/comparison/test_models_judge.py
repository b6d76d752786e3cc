"""Models behind an endpoint judge both captioners, of videos that no rule knows."""

import base64
import json
from functools import partial
from pathlib import Path

from tasks.comparison.names import FIGURES
from tasks.comparison.stage import Comparison
from tasks.pages import compare_page
from tasks.storage import stage, tables
from tests import made_judge
from tests.fault_server import MODEL, FaultServer, completion
from tests.made_clips import TEXT, by, model


def test_models_may_judge_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count = 12
    made_judge.write_clips(tmp_path, count)
    rows = [
        dict.fromkeys(tables.CLIPS.names)
        | {"clip": made_judge.clip_of(n), "uri": f"{n}.mp4", "status": "ok", "caption": made_judge.text_of(n)}
        for n in range(count)
    ]
    (tmp_path / "clips").mkdir()
    tables.write_rows(tmp_path / "clips" / tables.CLIP_TABLE, rows, tables.CLIPS)
    tables.write_rows(tmp_path / "shots" / tables.SPLIT_TABLE, [], tables.SPLITS)
    (tmp_path / "prompts/test.txt").write_text("{frames} frames")

    def caption(request):
        url = request["messages"][0]["content"][0]["image_url"]["url"]
        number = int(base64.b64decode(url.partition(",")[2])[4:].split(b".")[0])
        text = made_judge.text_of(number, made_judge.OBJECTS[(number + 5) % 10])
        return completion(request, json.dumps({"text": text, "short": text}))

    with FaultServer(caption) as captioner, FaultServer(made_judge.answer) as judge:
        captions = by("sidecar", compared=[model(captioner.url)])
        dsg = made_judge.settings(judge.url)
        declared = Comparison(
            ("video", "sidecar"),
            Path("clips"),
            Path("shots"),
            100,
            captions,
            dsg,
            TEXT,
            partial(compare_page.write, shots=Path("shots")),
            Path("answers.sqlite"),
        )
        stage.run(declared, Path("out"), Path("report.json"), "code", earlier=Path("earlier"))
    told = json.loads((Path("out") / FIGURES).read_text())
    assert told["judge"] == MODEL
    assert told["figures"]["video"]["invented"]["rate_i"]["hits"] == count
    assert told["figures"]["sidecar"]["invented"]["rate_i"]["hits"] == 0
    assert told["verdict"]["said"] == "worse"
