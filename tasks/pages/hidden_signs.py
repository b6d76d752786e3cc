"""Signs in a text that nobody sees, or that a browser obeys."""

import re

_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def visible(text: str) -> str:
    """Return a text with such signs written out: `\\x00`, `\\u202e`."""
    return _HIDDEN.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)
