"""VBench's results as cards: one convention is not held against another."""

import json

from tasks.evaluation.vbench.conventions import convention


def write_results(path, name, mean=0.5):
    of = convention(name)
    known = [*of.counted]
    path.write_text(json.dumps({one: [mean, [{"video_path": "a", "video_results": mean}] * 3] for one in known}))
    return str(path)


def test_totals_by_two_conventions_are_refused_and_of_two_models_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
