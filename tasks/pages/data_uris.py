"""Files as text inside a page, so that the page is one file."""

from base64 import b64encode


def data_uri(kind: str, content: bytes) -> str:
    """Return the address of a content that carries it (RFC 2397).

    Args:
        kind: its media type, such as image/png.
    """
    return f"data:{kind};base64,{b64encode(content).decode()}"
