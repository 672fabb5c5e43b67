"""Protects prepared data: the split rule, folders whole or not there, damage found, the fingerprint."""

import json
import os
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from core.config import StageConfig
from core.data import prepare as preparing
from core.data.manifest import FILE_NAME, Manifest
from core.data.prepare import is_validation, prepare
from core.data.shards import DocumentWriter, PairSets, TokenShards, TokenStream
from core.errors import DataError, RetryLaterError
from core.events import PreparationProgressed
from core.tokenizer import Tokenizer


class ByteTokenizer:
    """Every byte is an id; the three markers stand above them."""

    size, end_of_text, user, assistant = 300, 256, 257, 258
    fingerprint = "bytes"

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_many(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]


TOKENIZER = cast(Tokenizer, ByteTokenizer())


def stage(path: Path, name: str = "pretrain", **data: Any) -> StageConfig:
    learns_pairs = name.endswith("finetune")
    return StageConfig.model_validate(
        {
            "stage": name,
            "steps": 1,
            "data": {"source": "files", "path": str(path), **data},
            "batch": {} if learns_pairs else {"tokens": 64},
            "optim": {"learning_rate": 1e-3},
            **({"model": {"context": 8}, "tokenizer": {}} if name == "pretrain" else {}),
        }
    )


def run(
    config: StageConfig, folder: Path, context: int = 8, should_stop: Callable[[], bool] = lambda: False
) -> tuple[Any, list[PreparationProgressed]]:
    events, steps = [], prepare(config, TOKENIZER, context, folder, should_stop)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return end.value, events


def write_documents(path: Path, texts: list[str]) -> Path:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps({"question": q, "answer": a}) for q, a in pairs))
    return path


# ---------------------------------------------------------------- split


@pytest.mark.parametrize("share", ["0.5", "0.3", "0.1", "0.08", "0.001"])
def test_the_split_holds_back_the_second_item_and_then_the_share(share: str) -> None:
    part = Fraction(share)
    held_back = [i for i in range(10_000) if is_validation(i, part)]
    assert held_back[0] == 1
    assert abs(len(held_back) - 10_000 * part) <= 1
    gaps = set(np.diff(held_back))
    assert gaps <= {1 // part, 1 // part + 1}


def test_a_tenth_is_every_tenth_item() -> None:
    assert [i for i in range(45) if is_validation(i, Fraction("0.1"))] == [1, 11, 21, 31, 41]


# ---------------------------------------------------------------- documents


def test_documents_are_split_and_each_is_followed_by_end_of_text(tmp_path: Path) -> None:
    texts = [f"document {i} é" for i in range(10)] + ["<|endoftext|>"]
    config = stage(write_documents(tmp_path / "a.jsonl", [*texts, " "]), validation_share=0.25)
    shards, _ = run(config, tmp_path / "data")
    assert isinstance(shards, TokenShards)
    held_back = [1, 5, 9]

    def stream(indices: list[int]) -> list[int]:
        return [token for i in indices for token in [*texts[i].encode(), TOKENIZER.end_of_text]]

    assert shards.validation.slice(0, len(shards.validation)).tolist() == stream(held_back)
    expected = stream([i for i in range(11) if i not in held_back])
    assert shards.train.slice(0, len(shards.train)).tolist() == expected
    assert shards.train.slice(3, 7).dtype == np.int64
    assert (shards.train_tokens, shards.train_items, shards.validation_items) == (len(expected), 8, 3)
    assert shards.validation_bytes == sum(len(texts[i].encode()) for i in held_back)
    assert (shards.skipped, shards.source) == (1, "files")
    assert shards.folder.parent == tmp_path / "data" and shards.folder.name.startswith("files-")


def test_a_stream_reads_across_shards_and_a_document_may_span_them(tmp_path: Path) -> None:
    writer = DocumentWriter(tmp_path, "train", shard_tokens=10)
    ids = list(range(300, 337))
    writer.add(ids[:4], 1)
    writer.add(ids[4:], 1)
    entries = writer.finish()
    assert list(entries) == [f"train-0000{i}.bin" for i in range(4)]
    assert [entry["bytes"] for entry in entries.values()] == [20, 20, 20, 14]
    stream = TokenStream([tmp_path / name for name in entries])
    assert len(stream) == 37
    for start in range(38):
        for stop in range(start, 38):
            assert stream.slice(start, stop).tolist() == ids[start:stop]
    with pytest.raises(IndexError):
        stream.slice(30, 38)


def test_preparing_stops_at_max_tokens_whatever_the_block(tmp_path: Path, monkeypatch) -> None:
    path = write_documents(tmp_path / "a.jsonl", ["x" * 9] * 50)
    config = stage(path, max_tokens=95)
    shards, _ = run(config, tmp_path / "one")
    monkeypatch.setattr(preparing, "_BLOCK_ITEMS", 3)
    other, _ = run(config, tmp_path / "two")
    assert shards.manifest == other.manifest
    assert shards.train_tokens + shards.validation_tokens == 100


def test_a_document_of_ten_megabytes_is_taken_whole(tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", ["ball " * 2_100_000, "short text", "another"])
    shards, _ = run(stage(path), tmp_path / "data")
    assert shards.train_tokens == 10_500_001 + 8


# ---------------------------------------------------------------- pairs


def test_pairs_are_kept_with_answer_starts_and_bytes_and_long_ones_left_out(tmp_path: Path) -> None:
    pairs = [("ab", "é"), ("q", "xyz"), ("long", "enough to be left out"), ("c", "d")]
    path = write_pairs(tmp_path / "a.jsonl", pairs)
    sets, _ = run(stage(path, "finetune"), tmp_path / "data", context=6)
    assert isinstance(sets, PairSets)
    eot, user, assistant = TOKENIZER.end_of_text, TOKENIZER.user, TOKENIZER.assistant
    assert [sets.train.ids(i).tolist() for i in range(len(sets.train))] == [
        [user, *b"ab", assistant, *"é".encode(), eot],
        [user, *b"c", assistant, *b"d", eot],
    ]
    assert sets.validation.ids(0).tolist() == [user, *b"q", assistant, *b"xyz", eot]
    assert sets.train.answer_starts.tolist() == [4, 3]
    assert sets.train.answer_bytes.tolist() == [2, 1] and sets.train.question_bytes.tolist() == [2, 1]
    assert sets.train.lengths.tolist() == [7, 5]
    assert sets.manifest.skipped == {"longer than 7 tokens": 1}
    assert (sets.train_items, sets.validation_items, sets.skipped) == (2, 1, 1)
    limited, _ = run(stage(path, "finetune", max_pairs=2), tmp_path / "data", context=6)
    assert (limited.train_items, limited.validation_items) == (1, 1)


# ---------------------------------------------------------------- too little


def test_too_little_data_is_refused_with_numbers_and_a_fix(tmp_path: Path) -> None:
    one = write_documents(tmp_path / "one.jsonl", ["only one document"])
    short = write_documents(tmp_path / "short.jsonl", ["abc", "def"])
    bad = tmp_path / "latin.txt"
    bad.write_bytes(b"caf\xe9")
    pair = write_pairs(tmp_path / "pair.jsonl", [("a", "b")])
    long = write_pairs(tmp_path / "long.jsonl", [("a", "b" * 20), ("c", "d" * 20)])
    cases = [
        (stage(one), "none is left to validate on"),
        (stage(short), "4 training tokens; one window takes 9"),
        (stage(bad), "1 not UTF-8 (first: latin.txt)"),
        (stage(pair, "finetune"), "none is left to validate on"),
        (stage(long, "finetune"), "2 longer than 9 tokens"),
    ]
    for config, words in cases:
        with pytest.raises(DataError) as caught:
            run(config, tmp_path / "data")
        assert words in caught.value.what and caught.value.fix
    assert not list((tmp_path / "data").glob("*.partial"))


# ---------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_pure_and_covers_all_that_the_result_depends_on(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.jsonl", [("a", "b"), ("c", "d"), ("e", "f")])
    config = stage(path, "finetune")

    def name(config: StageConfig, tokenizer: Tokenizer = TOKENIZER, context: int = 8) -> str:
        return preparing.fingerprint(preparing._made_from(config, tokenizer.fingerprint, context))

    class OtherTokenizer(ByteTokenizer):
        fingerprint = "others"

    names = [
        name(config),
        name(config, context=9),
        name(config, cast(Tokenizer, OtherTokenizer())),
        name(stage(path, "finetune", max_pairs=2)),
        name(stage(path, "finetune", validation_share=0.2)),
        name(config.model_copy(update={"prompt_format": "plain"})),
        name(stage(write_documents(tmp_path / "b.jsonl", ["a"]), "pretrain")),
    ]
    assert len(set(names)) == len(names)
    assert all(len(each) == 12 and set(each) <= set("0123456789abcdef") for each in names)
    unrelated = stage(path, "finetune", supervise="all").model_copy(update={"seed": 5, "steps": 9})
    assert name(unrelated) == name(config) == names[0]
    os.utime(path, ns=(1, 1))
    assert name(config) != names[0]


# ---------------------------------------------------------------- whole or nothing


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[StageConfig, Path]:
    texts = [f"document {i} is about the river" for i in range(20)]
    config = stage(write_documents(tmp_path / "a.jsonl", texts))
    shards, _ = run(config, tmp_path / "data")
    return config, shards.folder


def test_a_second_start_uses_what_is_there(prepared: tuple[StageConfig, Path]) -> None:
    config, folder = prepared
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again, events = run(config, folder.parent)
    assert again.folder == folder and not events
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert TokenShards.open(folder).train_tokens == again.train_tokens


def test_every_flipped_byte_is_found(prepared: tuple[StageConfig, Path]) -> None:
    _, folder = prepared
    random = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *random.integers(len(whole), size=40).tolist()}:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(random.integers(8))
            path.write_bytes(damaged)
            try:
                TokenShards.open(folder)
            except DataError as error:
                assert path.name in error.what and str(folder) in error.fix
            else:
                # JSON may be written in several ways that mean the same.
                assert path.name == FILE_NAME and json.loads(damaged) == json.loads(whole)
        path.write_bytes(whole)
    assert TokenShards.open(folder)


def test_truncated_missing_and_swapped_files_stop_the_start(prepared: tuple[StageConfig, Path]) -> None:
    config, folder = prepared
    train, validation = folder / "train-00000.bin", folder / "validation-00000.bin"
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for path in (train, validation, folder / FILE_NAME):
        for content in (
            whole[path][:-1],
            whole[path][: len(whole[path]) // 2],
            b"",
            whole[path] + b"x",
            None,
        ):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(DataError) as caught:
                run(config, folder.parent)
            assert path.name in caught.value.what
            assert content is None or path.name == FILE_NAME or "bytes instead of" in caught.value.what
            path.write_bytes(whole[path])
    train.write_bytes(whole[validation])
    with pytest.raises(DataError, match=r"train-00000\.bin is damaged"):
        TokenShards.open(folder)


def test_a_stop_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(preparing, "_BLOCK_ITEMS", 2)
    config = stage(write_documents(tmp_path / "a.jsonl", [f"document {i}" for i in range(50)]))
    for stop_after in range(6):
        asked = iter(range(1000))
        shards, _ = run(config, tmp_path / "data", should_stop=lambda: next(asked) >= stop_after)  # noqa: B023
        assert shards is None
        assert not [path for path in (tmp_path / "data").iterdir() if path.is_dir()]
    assert run(config, tmp_path / "data")[0] is not None


def test_an_abandoned_preparation_cleans_up_and_frees_its_lock(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(preparing, "_EVENT_PAUSE_S", 0.0)
    config = stage(write_documents(tmp_path / "a.jsonl", [f"document {i}" for i in range(50)]))
    steps = prepare(config, TOKENIZER, 8, tmp_path / "data", lambda: False)
    event = next(steps)
    assert (event.what, event.documents) == ("tokenising files", 1)
    steps.close()
    assert not [path for path in (tmp_path / "data").iterdir() if path.is_dir()]
    assert run(config, tmp_path / "data")[0] is not None


def test_what_a_killed_preparation_left_is_swept(tmp_path: Path) -> None:
    config = stage(write_documents(tmp_path / "a.jsonl", [f"document {i}" for i in range(50)]))
    shards, _ = run(config, tmp_path / "data")
    partial = shards.folder.with_name(f"{shards.folder.name}.partial")
    shards.folder.rename(partial)
    (partial / FILE_NAME).unlink()
    (partial / "junk").write_text("torn")
    again, _ = run(config, tmp_path / "data")
    assert sorted(path.name for path in again.folder.iterdir()) == [FILE_NAME, *sorted(again.manifest.files)]
    assert not partial.exists()


def test_two_that_prepare_the_same_at_once_share_one_result(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(preparing, "_BLOCK_ITEMS", 5)
    config = stage(write_documents(tmp_path / "a.jsonl", [f"document {i}" for i in range(500)]))
    made: list[str] = []
    publish = preparing._publish
    monkeypatch.setattr(preparing, "_publish", lambda *paths: (made.append("once"), publish(*paths)))
    barrier = threading.Barrier(4)
    found: list[Manifest] = []

    def work() -> None:
        barrier.wait()
        found.append(run(config, tmp_path / "data")[0].manifest)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["once"]
    assert len(found) == 4 and all(manifest == found[0] for manifest in found)


def test_a_full_disk_is_worth_trying_again_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    config = stage(write_documents(tmp_path / "a.jsonl", [f"document {i}" for i in range(50)]))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Manifest, "write", refuse)
    with pytest.raises(RetryLaterError, match="No space left"):
        run(config, tmp_path / "data")
    assert not [path for path in (tmp_path / "data").iterdir() if path.is_dir()]


def test_progress_comes_at_most_five_times_a_second(tmp_path: Path, monkeypatch) -> None:
    now = iter(range(10**6))
    # Each look at the clock finds a hundredth of a second gone.
    monkeypatch.setattr(preparing.time, "monotonic", lambda: next(now) / 100)
    config = stage(write_documents(tmp_path / "a.jsonl", ["x" * 9] * 200))
    _, events = run(config, tmp_path / "data")
    assert 8 <= len(events) <= 10
    assert [event.documents for event in events] == sorted({event.documents for event in events})
    assert all(event.tokens == 10 * event.documents for event in events)
