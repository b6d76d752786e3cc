"""The body of a request, as Chat Completions has it."""

import base64
import json
from collections.abc import Sequence
from typing import Any


def request_body(text: str, pictures: Sequence[bytes], sampling: dict[str, Any]) -> bytes:
    """Return the body of a request: the pictures first, as data URLs, then the text.

    Args:
        pictures: JPEG bytes.
        sampling: all that the request says beside its message: model, temperature, seed, max_tokens, response_format.
    """
    # base64 needs no escaping: written around it, a megabyte of pictures costs no pass of the JSON encoder
    parts = [
        b'{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,' + base64.b64encode(picture) + b'"}}'
        for picture in pictures
    ]
    content = b", ".join([*parts, json.dumps({"type": "text", "text": text}).encode()])
    return b'{"messages": [{"role": "user", "content": [' + content + b"]}], " + json.dumps(sampling).encode()[1:]
