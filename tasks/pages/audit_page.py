"""The page of `stiv captions audit`: one object of one clip at a time, and whether it is there."""

import getpass
import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from tasks.dsg import audit
from tasks.dsg.audit import ANSWERS, Answer, Claim, Said
from tasks.pages.data_uris import data_uri
from tasks.pages.templates import template
from tasks.storage import stills

_SHOWN: dict[Answer, str] = {"yes": "present", "no": "invented"}
"""Verdict of a judge that says what a person says."""


class Audit:
    """The claims, what was said of them, and the pages.

    Args:
        claims: in the order in which they are shown.
        shots: folder with the stills.
        folder: of the file of verdicts.
        who: says it.
    """

    def __init__(self, claims: Sequence[Claim], shots: Path, folder: Path, who: str) -> None:
        self._claims = {(claim.clip, claim.question): claim for claim in claims}
        self._by_id = {_id(claim.clip, claim.question): claim for claim in claims}
        self._shots, self._folder, self._who = shots, folder, who

    def app(self) -> Starlette:
        """Return the application: GET / shows what comes next, POST / takes an answer."""
        return Starlette(routes=[Route("/", self._show, methods=["GET"]), Route("/", self._take, methods=["POST"])])

    def _show(self, request: Request) -> Response:
        said = audit.read(self._folder)
        waiting = [claim for key, claim in self._claims.items() if key not in said]
        mine = [key for key in said if key in self._claims]
        nonce = secrets.token_urlsafe(16)
        page = template("audit.html.jinja").render(
            claim=waiting[0] if waiting else None,
            id=_id(waiting[0].clip, waiting[0].question) if waiting else None,
            pictures=self._pictures(waiting[0]) if waiting else [],
            done=len(mine),
            all=len(self._claims),
            last=self._last(said[mine[-1]]) if mine else None,
            agreement=audit.agreement(self._claims.values(), said),
            nonce=nonce,
        )
        return HTMLResponse(page, headers=_headers(nonce))

    async def _take(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return PlainTextResponse("a form is expected", 415)
        form = await request.form()
        claim, answer = self._by_id.get(str(form.get("claim", ""))), str(form.get("answer", ""))
        if claim is None or answer not in ANSWERS:
            return PlainTextResponse("no such object, or no such answer: open the page again", 400)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        said = {"clip": claim.clip, "question": claim.question, "answer": answer, "who": self._who, "when": now}
        audit.append(self._folder, Said.model_validate(said))
        return RedirectResponse("/", 303)

    def _pictures(self, claim: Claim) -> list[str]:
        found = stills.find(self._shots, [claim.clip]).get(claim.clip, [])
        return [data_uri("image/jpeg", picture) for picture in found]

    def _last(self, said: Said) -> dict[str, str]:
        """Return what was said last, beside what the judge says of it."""
        verdict = self._claims[said.clip, said.question].verdict
        agrees = "agrees" if _SHOWN.get(said.answer) == verdict else "disagrees"
        if said.answer == "unsure" or verdict == "undecided":
            agrees = "is not counted"
        return {
            "id": _id(said.clip, said.question),
            "question": said.question,
            "answer": said.answer,
            "verdict": verdict,
            "is": agrees,
        }


def _id(clip: str, question: str) -> str:
    """Return by what a form names a claim: a browser changes ends of lines and other signs of a text."""
    return hashlib.sha256(f"{clip} {question}".encode()).hexdigest()


def user() -> str:
    """Return who says it where nobody is named: the name of the account; "unknown" where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError: before Python 3.13
        return "unknown"


def _headers(nonce: str) -> dict[str, str]:
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",  # with no-referrer, a form's Origin would be null, which the guard refuses
        "X-Content-Type-Options": "nosniff",
    }
