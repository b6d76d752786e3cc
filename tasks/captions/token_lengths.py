"""How much of the captions the text encoder will not see: their lengths in its own tokens, against `text.tokens`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stiv_model.encoders import pinned
from stiv_model.settings import TextSettings
from tasks.storage import queries

_MOST = 20_000  # captions that are looked at, spread evenly over the table


def cut(table: Path, settings: TextSettings) -> dict[str, Any]:
    """Return what share of a table's captions `text.tokens` would cut, and the number of tokens that would cut none.

    Raises:
        FileNotFoundError, ValueError: there is no such text encoder (`pinned.find`).
    """
    ok = f"""(SELECT text, row_number() OVER (ORDER BY file_row_number) - 1 AS place
        FROM {queries.scan([table], numbered=True)} WHERE status = 'ok')"""
    with queries.connect(table.parent) as connection:
        (count,) = connection.sql(f"SELECT count(*) FROM {ok}").fetchall()[0]
        step = max(1, -(-count // _MOST))
        texts = connection.sql(f"SELECT text FROM {ok} WHERE place % {step} = 0 ORDER BY place").fetchall()
    lengths = tokens_of(settings)([text for (text,) in texts]) if texts else []
    over = sum(length > settings.tokens for length in lengths)
    return {
        "tokens": settings.tokens,
        "looked_at": len(lengths),
        "cut": over / max(1, len(lengths)),
        "cut_none": max(lengths, default=0),
    }


def tokens_of(settings: TextSettings) -> Callable[[list[str]], list[int]]:
    """Return the function that counts the tokens of texts as the text encoder does, those that it adds included."""
    folder = pinned.find("text", settings.source, settings.revision, (pinned.CONFIG, *pinned.TOKENIZER_FILES))
    if (folder / pinned.TOKENIZER).is_file():
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(folder / pinned.TOKENIZER))
        fast.no_truncation()
        fast.no_padding()
        return lambda texts: [len(encoded.ids) for encoded in fast.encode_batch(texts)]
    from transformers import AutoTokenizer  # torch: seconds; an encoder with a vocabulary in another form needs it

    slow = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return lambda texts: [len(ids) for ids in slow(texts, truncation=False, verbose=False)["input_ids"]]
