"""The text that a vocabulary of our own is trained on."""

from collections.abc import Iterator

from core.config import StageConfig
from core.data.sources import documents, sandlot_pairs

_ENOUGH_CHARACTERS = 100_000_000


def vocabulary_texts(config: StageConfig) -> Iterator[str]:
    """The documents of the stage's source, up to some 100 MB.

    The built-in corpus gives all its parts but the held-out pairs: later stages keep the vocabulary of the first, so
    that the domain's words have to be in it from the start.
    """
    if config.data.source == "sandlot":
        for part in ("pretrain", "baseball-pretrain"):
            yield from documents(config.data, part)
        for part in ("general", "baseball"):
            for pair in sandlot_pairs(part, "train"):
                yield f"{pair.question}\n{pair.answer}"
        return
    gathered = 0
    for text in documents(config.data, config.stage):
        yield text
        gathered += len(text)
        if gathered >= _ENOUGH_CHARACTERS:
            return
