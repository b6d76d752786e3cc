"""A text encoder that a pipeline folder names instead of holding it, with its tokenizer."""

from pathlib import Path
from typing import Literal, Self

import torch
import transformers
from pydantic import model_validator

from stiv_model import package_files
from stiv_model.encoders import pinned, text
from stiv_model.settings import Settings

PARTS = ("text_encoder", "tokenizer")


class TextSource(Settings):
    """Where a text encoder and its tokenizer are on every machine, and which one is meant."""

    source: str
    """`package:NAME/FOLDER`, or the name of a repository on the hub."""
    revision: str | None
    """Commit of the hub repository, 40 digits; None for a package."""
    kind: Literal["clip", "t5", "bert"]
    sha256: str
    """`TextEncoder.sha256`, at the number of tokens of the pipeline."""

    @model_validator(mode="after")
    def is_on_other_machines(self) -> Self:
        """Refuse a folder of this machine, and a branch of the hub, which moves."""
        if self.source.startswith(package_files.PREFIX):
            return self
        if pinned.HUB_NAME.fullmatch(self.source) and pinned.COMMIT.fullmatch(self.revision or ""):
            return self
        raise ValueError(
            f"the text encoder {self.source}, revision {self.revision or 'null'}, cannot be named: it takes "
            "package:NAME/FOLDER, or a hub name with the 40 digits of a commit; store the text encoder in the folder "
            "instead"
        )


def read(
    named: TextSource, tokens: int, place: Path
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """Return the text encoder, in float32, and the tokenizer that a pipeline folder names.

    Args:
        tokens: that prompts are padded to.
        place: the file that names them, for messages.

    Raises:
        FileNotFoundError: the package or repository is not there, or lacks a file.
        ValueError: it holds another text encoder, or what is no text encoder.
    """
    folder = pinned.find("text_encoder", named.source, named.revision, text.FILES, place)
    with pinned.naming("text_encoder", named.source):
        model = text.read(text.KINDS[named.kind], folder, torch.float32)
        tokenizer = text.read_tokenizer(folder)
    found = text.sha256_of(named.kind, tokens, model, tokenizer)
    if found != named.sha256:
        raise ValueError(
            f"{place} names the text encoder {named.source} with sha256 {named.sha256[:12]}, but here it has "
            f"{found[:12]}: install the release that it had, or hand the text_encoder and the tokenizer that you mean "
            "to from_pretrained"
        )
    return model, tokenizer


def check_same(
    named: TextSource,
    tokens: int,
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> None:
    """Refuse to name a text encoder where a pipeline has another; both are compared in the precision of the latter.

    Raises:
        FileNotFoundError, ValueError: as `read`; or they differ.
    """
    there, its_tokenizer = read(named, tokens, Path("text_source"))
    wanted, found = there.state_dict(), getattr(model, "_orig_mod", model).state_dict()  # torch.compile wraps it
    is_same = wanted.keys() == found.keys() and tokenizer.get_vocab() == its_tokenizer.get_vocab()
    if not is_same or any(not torch.equal(wanted[name].to(at.dtype), at.cpu()) for name, at in found.items()):
        raise ValueError(
            f"text_source names {named.source}, but the text encoder of this pipeline is another: set text_source to "
            "None, so that it is stored"
        )
