"""A model that is asked about many items, each of them once: what it has answered is stored."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tasks.chat.client import Question, Reply, client
from tasks.chat.prompts import Prompt, read_prompt
from tasks.chat.request import request_body
from tasks.chat.settings import PromptedSettings
from tasks.chat.store import Answers, key_of

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_AT_ONCE = 256  # questions whose bodies, with pictures, are in memory together


class PromptedModel:
    """Asks one model by one prompt.

    Args:
        settings: which, and how it is asked.
        what: it is asked, for the key under which answers are stored.
        places: names in braces that its prompt has, and what each becomes.
        key: of params.yaml, that names the prompt.
        response_format: that is asked for, in words of Chat Completions; None for none.
        decides: what decides an answer beside prompt, sampling and item, such as what is the same in all requests.

    Raises:
        FileNotFoundError, ValueError: the prompt is none (`read_prompt`).
    """

    def __init__(
        self,
        settings: PromptedSettings,
        what: str,
        places: dict[str, str],
        key: str,
        response_format: dict[str, Any] | None = None,
        decides: Mapping[str, Any] = _NOTHING,
    ) -> None:
        self.settings = settings
        self.prompt: Prompt = read_prompt(Path(settings.prompt), places, key)
        sampling = {name: getattr(settings, name) for name in ("temperature", "seed", "max_tokens")}
        self._sampling = {"model": settings.endpoint.model, **sampling}
        self._asked = key_of(
            {"kind": what, "prompt": self.prompt.text, "format": response_format, **decides, **self._sampling}
        )
        if response_format:
            self._sampling["response_format"] = response_format

    def body(self, values: Mapping[str, object], pictures: Sequence[bytes] = ()) -> bytes:
        """Return a request: its prompt with these values, after these pictures (JPEG bytes)."""
        return request_body(self.prompt.filled(values), pictures, self._sampling)

    def ask(self, bodies: Iterable[tuple[str, Callable[[], bytes]]], answers: Answers) -> dict[str, Reply]:
        """Return the reply about each item, stored or new.

        Args:
            bodies: of each item the function that makes its request, called where the item has no answer yet.
            answers: the store.

        Raises:
            TryLaterError: the endpoint is gone; what it has answered is stored.
            ValueError: it refuses every request.
        """
        waiting, found = iter(dict(bodies).items()), dict[str, Reply]()
        while some := dict(islice(waiting, _AT_ONCE)):
            known = answers.find(self._asked, list(some))
            found |= {item: Reply(answer, None) for item, answer in known.items()}
            if new := [Question(item, body()) for item, body in some.items() if item not in found]:
                replies = client(self.settings.endpoint).ask(new, self._asked, answers)
                found |= {question.item: reply for question, reply in zip(new, replies, strict=True)}
        return found
