"""The command `stiv captions audit`: a local page on which a person says which named objects are there."""

import secrets
from pathlib import Path

from flows.running.server import refuse_taken
from flows.running.web_guard import WebGuard
from tasks.dsg.settings import DsgSettings


def audit(
    *,
    clips: int = 100,
    judged: Path = Path("data/dsg"),
    shots: Path = Path("data/shots"),
    out: Path = Path("audits"),
    who: str | None = None,
    port: int = 8503,
    dsg: DsgSettings,
) -> None:
    """Show the objects that captions name, one by one, and take down whether they are there, until Ctrl-C.

    Keys y and n say that an object is there or not, s that it cannot be told, u takes the last word back. What the
    judge says of an object is shown afterwards. Stage dsg corrects its rates by what people have said: by it the judge
    is known, and where it is not fit.

    Args:
        clips: Number of clips whose objects are shown, drawn at random of those that the judge has judged.
        judged: Folder that stage dsg made.
        shots: Folder that stage shots made, with the stills.
        out: Folder with the verdicts, captions.jsonl, to which they are added; it belongs into git.
        who: Name that is written beside a verdict; of this account unless named.
        port: Port for the page on this machine.

    examples:
      stiv captions audit
      stiv captions audit --clips 12 --who ada --port 9000

    Raises:
        FileNotFoundError: no caption has been judged.
        ValueError: there is no such port, it is in use, or the verdicts are damaged.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"--port is {port}: give one from 1024 to 65535, such as 8503")
    if clips < 1:
        raise ValueError(f"--clips is {clips}: name one clip at least")
    refuse_taken(port)
    import uvicorn  # the web's libraries, for whoever opens the page

    from tasks.dsg import audit as verdicts
    from tasks.dsg.stage import DSG_TABLE, EVIDENCE_TABLE
    from tasks.pages.audit_page import Audit, user

    claims = verdicts.claims(judged / DSG_TABLE, judged / EVIDENCE_TABLE, clips, dsg.seed)
    verdicts.read(out)  # a damaged file is told before the page is open
    token = secrets.token_urlsafe(24)
    app = WebGuard(Audit(claims, shots, out, who or user()).app(), port, token)
    print(f"http://127.0.0.1:{port}/?token={token}   (Ctrl-C ends it)", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, proxy_headers=False)
    said = verdicts.agreement(claims, verdicts.read(out))
    print(
        f"the judge affirmed {said.confirmed.right} of {said.confirmed.asked} objects that are there, and denied "
        f"{said.denied.right} of {said.denied.asked} that are not: dvc repro dsg corrects its rates by them"
    )
