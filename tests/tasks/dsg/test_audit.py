"""What people say about objects is kept whatever happens, and corrects what is known of a judge."""

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from flows.running.web_guard import WebGuard
from tasks.dsg import audit
from tasks.dsg.audit import FILE, Claim, Said
from tasks.dsg.correction import Known
from tasks.dsg.stage import DSG_TABLE, EVIDENCE_TABLE
from tasks.pages.audit_page import Audit
from tasks.storage import tables
from tests.made_stills import write_stills

CLIP, OTHER = f"{1:020x}-0-1", f"{2:020x}-0-1"
CLAIMS = [
    Claim(CLIP, "Is there a circle?", (("video", "a red circle"),), "present"),
    Claim(CLIP, "Is there a square?", (("video", "a square"), ("frames", "a square too")), "present"),
    Claim(OTHER, "Is there a cross?", (("video", "a cross"),), "invented"),
]


def said(claim: Claim, answer: str, who: str = "ada") -> Said:
    return Said(clip=claim.clip, question=claim.question, answer=answer, who=who, when="2026-01-01T00:00:00+00:00")


def key(claim: Claim) -> tuple[str, str]:
    return claim.clip, claim.question


def test_the_last_word_holds_and_one_that_is_taken_back_does_not(tmp_path):
    assert audit.read(tmp_path) == {}
    for claim, answer in ((CLAIMS[0], "no"), (CLAIMS[1], "yes"), (CLAIMS[0], "yes"), (CLAIMS[1], "withdrawn")):
        audit.append(tmp_path, said(claim, answer))
    assert audit.read(tmp_path) == {key(CLAIMS[0]): said(CLAIMS[0], "yes")}
    assert len((tmp_path / FILE).read_text().splitlines()) == 4  # nothing is overwritten


def test_a_line_that_a_crash_cut_off_costs_itself_alone(tmp_path):
    audit.append(tmp_path, said(CLAIMS[0], "yes"))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + whole[:20])
    assert list(audit.read(tmp_path)) == [key(CLAIMS[0])]
    (tmp_path / FILE).write_bytes(whole + whole[:20] + b"\n" + whole)
    with pytest.raises(ValueError, match=r"line 2: .*mend the line, or delete it"):
        audit.read(tmp_path)


def test_a_line_after_one_that_was_cut_off_is_whole(tmp_path):
    (tmp_path / FILE).write_bytes(b'{"clip": "a')
    audit.append(tmp_path, said(CLAIMS[0], "yes"))
    first, second, end = (tmp_path / FILE).read_text().split("\n")
    assert (first, end) == ('{"clip": "a', "") and Said.model_validate_json(second).answer == "yes"


def test_a_takedown_takes_the_lines_about_a_videos_clips(tmp_path):
    assert audit.forget(tmp_path, CLIP[:20]) == 0 and not (tmp_path / FILE).exists()
    for claim in CLAIMS:
        audit.append(tmp_path, said(claim, "yes"))
    assert audit.forget(tmp_path, CLIP[:20]) == 2 and list(audit.read(tmp_path)) == [key(CLAIMS[2])]


def test_objects_that_are_there_give_specificity_and_those_that_are_not_sensitivity():
    verdicts = {key(claim): said(claim, answer) for claim, answer in zip(CLAIMS, ("yes", "no", "yes"), strict=True)}
    found = audit.agreement(CLAIMS, verdicts)
    assert found == (Known(1, 2), Known(0, 1))
    evidence = [{"role": "caption", "kind": "object", "text": c.question, "verdict": c.verdict} for c in CLAIMS]
    rows = [{"clip": CLIP, "evidence": evidence[:2] * 2}, {"clip": OTHER, "evidence": evidence[2:]}]
    assert audit.total([audit.known_of(row, verdicts) for row in rows]) == found  # answers by frame count once
    unsure = {key(claim): said(claim, "unsure") for claim in CLAIMS}
    assert audit.agreement(CLAIMS, unsure) == (Known(0, 0), Known(0, 0))


def test_claims_are_the_objects_of_some_clips_each_once(tmp_path):
    rows = [dict.fromkeys(tables.DSG.names) | {"clip": f"{n}-0-1", "status": "ok", "captioner": by, "text": f"{by} {n}"}
            for n in range(9) for by in ("frames", "video")]  # fmt: skip
    blank = dict.fromkeys(tables.EVIDENCE.names) | {"role": "caption", "kind": "object", "verdict": "present"}
    evidence = [blank | {"clip": row["clip"], "captioner": row["captioner"], "text": "Is there a dog?"} for row in rows]
    evidence += [one | {"role": "decoy", "text": "Is there a cat?"} for one in evidence]
    evidence += [one | {"kind": "attribute", "text": "Is it red?"} for one in evidence]
    with pytest.raises(FileNotFoundError, match="run stage dsg first"):
        audit.claims(tmp_path / DSG_TABLE, tmp_path / EVIDENCE_TABLE, 4, 0)
    tables.write_rows(tmp_path / DSG_TABLE, rows, tables.DSG)
    tables.write_rows(tmp_path / EVIDENCE_TABLE, evidence, tables.EVIDENCE)
    found = audit.claims(tmp_path / DSG_TABLE, tmp_path / EVIDENCE_TABLE, 4, 0)
    assert len(found) == len({claim.clip for claim in found}) == 4
    assert {claim.question for claim in found} == {"Is there a dog?"}
    number = found[0].clip.partition("-")[0]
    assert found[0].texts == (("frames", f"frames {number}"), ("video", f"video {number}"))


@pytest.fixture
def client(tmp_path):
    """The page behind its guard, as a browser that came by the printed address sees it."""
    write_stills(tmp_path / "shots", {CLIP: [b"\xff\xd8\xff first", b"\xff\xd8\xff second"]})
    app = Audit(CLAIMS, tmp_path / "shots", tmp_path / "audits", "ada").app()
    browser = TestClient(WebGuard(app, 8502, "secret"), base_url="http://127.0.0.1:8502", follow_redirects=True)
    browser.folder = tmp_path / "audits"
    assert browser.get("/?token=secret").status_code == 200
    return browser


def form(claim: Claim, answer: str) -> dict[str, str]:
    named = hashlib.sha256(f"{claim.clip} {claim.question}".encode()).hexdigest()
    return {"claim": named, "answer": answer}


def test_one_object_after_the_other_is_asked_about_and_the_judge_is_told_afterwards(client):
    first = client.get("/").text
    assert "Is there a circle?" in first and first.count("data:image/jpeg") == 2 and "0 of 3 objects" in first
    assert "judge says" not in first
    second = client.post("/", data=form(CLAIMS[0], "yes")).text
    assert "Is there a square?" in second and re.search(r"judge says <b>present</b>: it <b[^>]*>agrees", second)
    third = client.post("/", data=form(CLAIMS[1], "no")).text
    assert "Is there a cross?" in third and "disagrees" in third and "0 of 1</b> objects that are not" in third
    assert "no stills" in third
    assert "That was all" in client.post("/", data=form(CLAIMS[2], "unsure")).text
    assert "Is there a cross?" in client.post("/", data=form(CLAIMS[2], "withdrawn")).text
    lines = [json.loads(line) for line in (client.folder / FILE).read_text().splitlines()]
    assert [(one["answer"], one["who"]) for one in lines] == [(a, "ada") for a in ("yes", "no", "unsure", "withdrawn")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://some.page"}, 403),
        ({"Host": "some.page"}, 421),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Cookie": "stiv-8502=guessed"}, 401),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_no_page_of_another_origin_says_anything(client, headers, status):
    if "Cookie" in headers:
        client.cookies.clear()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/", content=urlencode(form(CLAIMS[0], "no")), headers=kind | headers)
    assert answer.status_code == status and not (client.folder / FILE).exists()


@pytest.mark.parametrize("changed", [{"answer": "maybe"}, {"claim": "c"}, {"claim": ""}])
def test_what_was_not_asked_is_not_taken_down(client, changed):
    assert client.post("/", data=form(CLAIMS[0], "yes") | changed).status_code == 400
    assert not (client.folder / FILE).exists()


def test_the_page_runs_its_own_script_alone(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    (nonce,) = re.findall(r"'nonce-([^']+)'", policy)
    assert f'<script nonce="{nonce}">' in answer.text and answer.text.count("<script") == 1
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert nonce not in client.get("/").text


def test_the_shipped_file_of_verdicts_is_one(tmp_path):
    assert audit.read(Path(__file__).parents[3] / "audits") == {}
