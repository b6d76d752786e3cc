"""Passwords and signatures in texts, settings, errors and log records."""

import logging
import pickle
import warnings
from pathlib import Path

import pytest

from stiv_model.errors import redaction
from stiv_model.errors.redaction import has_secret, redact, redacted, refuse

CANARY = "caNary7"
WITH_SECRET = [
    f"http://user:{CANARY}@host:9000/bucket",
    f"https://{CANARY}@host/x",
    f"https://user:{CANARY}@[::1]:80/x",
    f"https://user:a/{CANARY}@host/x",
    f"https://user:a@{CANARY}@host/x",
    f"https://user:a?{CANARY}#@host/x",
    f"s3://key:{CANARY}@bucket/x",
    f"postgresql+psycopg://user:{CANARY}@host/database",
    f"https://b.s3.amazonaws.com/x.mp4?X-Amz-Algorithm=A&X-Amz-Credential={CANARY}%2Fs3&X-Amz-Signature={CANARY}",
    f"https://b.s3.amazonaws.com/x.mp4?AWSAccessKeyId=A&Signature={CANARY}&Expires=1",
    f"https://b.s3.amazonaws.com/x.mp4?x-amz-security-token={CANARY}",
    f"https://storage.googleapis.com/b/x?X-Goog-Credential={CANARY}&X-Goog-Signature={CANARY}",
    f"https://a.blob.core.windows.net/b/x?se=2026&sig={CANARY}",
    f"https://d.cloudfront.net/x?Policy={CANARY}&Signature={CANARY}&Key-Pair-Id={CANARY}",
    f"https://b.oss.aliyuncs.com/x?OSSAccessKeyId={CANARY}&Signature={CANARY}",
    f"https://host/x?hdnts=exp~{CANARY}",
    f"https://host/x?token={CANARY}",
    f"https://host/x?a=1&api_key={CANARY}",
    f"https://host/x#access_token={CANARY}",
    f"https://host/?url=http%3A%2F%2Fuser%3A{CANARY}%40other%2Fx",
    f"https://host/?url=http%3A%2F%2Fother%2Fx%3FX-Amz-Signature%3D{CANARY}",
]
WITHOUT = [
    "https://host:8080/@user/video/1",
    "s3://bucket/user@home/x.mp4",
    "https://host/x.mp4?design=red&author=me&tokens=5&page=2",
    "me@host.example",
    "data/raw/clip=3.mp4",
    "--set text.tokens=128",
    "https://host/x.mp4 (asked by me@host.example)",
]


@pytest.mark.parametrize("text", WITH_SECRET)
def test_what_proves_who_asks_is_taken_out_of_a_url_and_its_place_stays(text):
    said = f'cannot reach "{text}", tried {text}'
    assert CANARY not in redact(said)
    assert redact(redact(said)) == redact(said)
    assert text.partition("://")[0] in redact(said)
    assert has_secret(text)
    with pytest.raises(ValueError, match=r"engine\.address") as refused:
        refuse({"engine": {"address": text}}, "")
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("text", WITHOUT)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text
    refuse({"source": text}, "")


@pytest.mark.parametrize(
    "text",
    [f"{{'Authorization': 'Basic {CANARY}'}}", f"authorization: Bearer {CANARY}", f"host=h password={CANARY} u=x"],
)
def test_headers_and_connection_words_are_redacted_too(text):
    assert CANARY not in redact(text)


def test_a_path_that_was_a_url_is_refused_too_and_a_file_may_be_named_as_it_likes():
    with pytest.raises(ValueError, match="--out"):
        refuse([Path(f"https://user:{CANARY}@host/x")], "--out")
    refuse(Path("x.mp4?token=1"), "--out")


def test_an_error_is_raised_redacted_with_all_that_it_comes_from():
    @redacted
    def fetch():
        try:
            raise OSError(5, f"http://u:{CANARY}@h", f"https://u:{CANARY}@h/x")
        except OSError as error:
            raise ConnectionError(f"s3://b/x cannot be read ({error})") from error

    with pytest.raises(ConnectionError) as raised:
        fetch()
    assert CANARY not in f"{raised.value} {raised.value.__cause__}"
    assert "s3://b/x cannot be read" in str(raised.value)


def test_an_error_that_makes_its_words_itself_is_raised_as_another():
    class OfALibraryError(ValueError):
        def __str__(self) -> str:
            return f"no host in http://u:{CANARY}@h"

    @redacted
    def fail():
        raise OfALibraryError

    with pytest.raises(ValueError, match=r"OfALibraryError: no host in http://\*\*\*@h") as raised:
        fail()
    assert type(raised.value) is ValueError


def test_a_redacted_function_can_be_sent_to_a_worker():
    assert pickle.loads(pickle.dumps(pickled))(1) == 2


@redacted
def pickled(number: int) -> int:
    return number + 1


@pytest.fixture
def installed():
    factory, told = logging.getLogRecordFactory(), (warnings.formatwarning, redaction.sys.excepthook)
    redaction.install()
    yield
    logging.setLogRecordFactory(factory)
    warnings.formatwarning, redaction.sys.excepthook = told


def test_log_records_tracebacks_and_warnings_are_redacted(installed, caplog, capsys):
    url = f"http://user:{CANARY}@host"
    log = logging.getLogger("botocore.of.whoever")
    with caplog.at_level(logging.INFO):
        log.info("retrying %s after %d s", url, 3)
        try:
            raise ConnectionError(url)
        except ConnectionError as error:
            log.exception("failed")
            redaction.sys.excepthook(type(error), error, error.__traceback__)
        log.info("%d of %d", 3, 4)
    said = caplog.text + capsys.readouterr().err + warnings.formatwarning(url, UserWarning, "x.py", 1)
    assert "retrying http://***@host after 3 s" in said
    assert "3 of 4" in said
    assert said.count("ConnectionError: http://***@host") == 2
    assert CANARY not in said


def test_a_record_that_cannot_be_put_together_is_left_to_its_handler(installed):
    record = logging.getLogRecordFactory()("x", logging.INFO, "x.py", 1, "%d", ("no number",), None)
    assert record.args == ("no number",)
