"""Protects batches: pure functions of (seed, step, row), all seen once an epoch, masks, rows kept apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.config import StageConfig
from core.data.batches import IGNORED, Batch, PairBatches, WindowBatches, batches_of
from core.data.manifest import Manifest
from core.data.shards import DocumentWriter, PairSets, PairWriter, TokenShards, counts_of
from core.errors import ConfigError, DataError

PAD = 999


def manifest_of(kind: str, folder: Path, train: Any, validation: Any) -> Manifest:
    files = train.finish() | validation.finish()
    manifest = Manifest(kind, {"source": "files"}, counts_of(train), counts_of(validation), {}, files)
    manifest.write(folder)
    return manifest


def shards_of(folder: Path, train: int, validation: int) -> TokenShards:
    """Text whose ids count up from 0 in train and from 40,000 in validation, over several shards."""
    writers = DocumentWriter(folder, "train", 100), DocumentWriter(folder, "validation", 100)
    writers[0].add(list(range(train)), 3 * train)
    writers[1].add(list(range(40_000, 40_000 + validation)), 3 * validation)
    manifest_of("documents", folder, *writers)
    return TokenShards.open(folder)


def pairs_of(folder: Path, lengths: list[tuple[int, int]], validation: list[tuple[int, int]]) -> PairSets:
    """Pairs of (question, answer) lengths; the ids of pair i are i * 100, i * 100 + 1, ..."""
    writers = PairWriter(folder, "train"), PairWriter(folder, "validation")
    for writer, rows in zip(writers, (lengths, validation), strict=True):
        for i, (question, answer) in enumerate(rows):
            writer.add(
                [i * 100 + k for k in range(question + answer)], question, 2 * question, 2 * answer - 1
            )
    manifest_of("pairs", folder, *writers)
    return PairSets.open(folder)


def rows_of(batches: list[Batch]) -> list[tuple[list[int], list[int]]]:
    """Every row's inputs and targets, padding cut off, in a fixed order."""
    rows = []
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            fed = len(inputs) - inputs.count(PAD)
            assert inputs[fed:] == [PAD] * (len(inputs) - fed)
            assert set(targets[fed:]) <= {IGNORED}
            rows.append((inputs[:fed], targets[:fed]))
    return sorted(rows)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.inputs.equal(b.inputs)
        and a.targets.equal(b.targets)
        and (a.supervised, a.fed) == (b.supervised, b.fed)
        for a, b in zip(one, other, strict=True)
    )


# ---------------------------------------------------------------- windows


def test_windows_are_shifted_by_one_and_every_target_counts(tmp_path: Path) -> None:
    batches = WindowBatches(shards_of(tmp_path, 1000, 50), 16, 6, seed=7)
    parts = list(batches.micro_batches(0, 4))
    assert [part.inputs.shape for part in parts] == [(4, 16), (2, 16)]
    for part in parts:
        assert part.inputs.dtype == part.targets.dtype == part.inputs.long().dtype
        assert part.targets.equal(part.inputs + 1)
        assert (part.supervised, part.fed) == (part.inputs.numel(), part.inputs.numel())


@pytest.mark.parametrize("kind", ["windows", "pairs"])
def test_a_step_is_the_same_in_any_order_and_for_any_micro_batch(tmp_path: Path, kind: str) -> None:
    def make() -> WindowBatches | PairBatches:
        if kind == "windows":
            return WindowBatches(shards_of(tmp_path, 1000, 50), 16, 6, seed=7)
        lengths = [(2 + i % 5, 1 + i % 7) for i in range(31)]
        return PairBatches(pairs_of(tmp_path, lengths, [(2, 2)]), 6, 7, "answers", PAD)

    first = make()
    in_order = [list(first.micro_batches(step, 4)) for step in range(30)]
    again = make()
    for step in [29, 3, 17, 3, 0, 28]:
        assert same(list(again.micro_batches(step, 4)), in_order[step])
        for micro_batch in (1, 5, 6, 100):
            parts = list(again.micro_batches(step, micro_batch))
            assert rows_of(parts) == rows_of(in_order[step])
            assert sum(p.supervised for p in parts) == sum(p.supervised for p in in_order[step])
            assert sum(p.fed for p in parts) == sum(p.fed for p in in_order[step])
            assert len(parts) == -(-6 // micro_batch)
    assert not same(in_order[0], in_order[1])


def test_every_window_comes_once_an_epoch_and_borders_move(tmp_path: Path) -> None:
    batches = WindowBatches(shards_of(tmp_path, 1000, 50), 16, 1, seed=7)
    assert batches.windows == batches.steps_per_epoch == (1000 - 16) // 16
    offsets = set()
    for epoch in range(20):
        starts = []
        for step in range(epoch * batches.windows, (epoch + 1) * batches.windows):
            (part,) = batches.micro_batches(step, 1)
            starts.append(int(part.inputs[0, 0]))
        offset = batches.offset(epoch)
        assert sorted(starts) == [offset + 16 * i for i in range(batches.windows)]
        assert starts != sorted(starts)
        offsets.add(offset)
    assert len(offsets) > 8 and offsets <= set(range(16))


def test_seeds_and_epochs_have_orders_of_their_own(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 1000, 50)
    orders = []
    for seed in (7, 8):
        batches = WindowBatches(shards, 16, 61, seed)
        orders += [[item for _, item in batches.rows(epoch)] for epoch in (0, 1)]
    assert all(sorted(order) == list(range(61)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_of_an_epoch_never_changes(tmp_path: Path) -> None:
    # Runs that were stopped before an update of the program or of NumPy are resumed after it.
    batches = WindowBatches(shards_of(tmp_path, 200, 50), 16, 11, seed=7)
    assert [item for _, item in batches.rows(3)] == [10, 1, 9, 3, 6, 2, 4, 0, 7, 8, 5]
    assert batches.offset(3) == 6


def test_a_step_may_span_epochs(tmp_path: Path) -> None:
    batches = WindowBatches(shards_of(tmp_path, 200, 50), 16, 25, seed=7)
    assert batches.steps_per_epoch == 11 / 25
    rows = [row for step in range(11) for row in batches.rows(step)]
    assert [epoch for epoch, _ in rows] == [i // 11 for i in range(275)]
    for epoch in range(25):
        assert sorted(item for e, item in rows if e == epoch) == list(range(11))


def test_validation_windows_follow_each_other_and_count_their_bytes(tmp_path: Path) -> None:
    batches = WindowBatches(shards_of(tmp_path, 200, 50), 16, 2, seed=7)
    inputs = [row for part in batches.validation(2, 0) for row in part.inputs.tolist()]
    assert [row[0] for row in inputs] == [40_000, 40_016, 40_032]
    assert [row for part in batches.validation(5, 2) for row in part.inputs.tolist()] == inputs[:2]
    assert batches.validation_bytes(0) == 3 * 48
    assert batches.validation_bytes(2) == 3 * 32
    assert batches.validation_bytes(99) == batches.validation_bytes(0)


def test_the_smallest_texts_still_fit(tmp_path: Path) -> None:
    for tokens in range(17, 50):
        folder = tmp_path / str(tokens)
        folder.mkdir()
        batches = WindowBatches(shards_of(folder, tokens, 5), 16, 1, seed=7)
        for step in range(60):
            (part,) = batches.micro_batches(step, 1)
            assert part.targets[0, -1] < tokens
        (part,) = batches.validation(4, 0)
        assert part.inputs.tolist() == [[40_000, 40_001, 40_002, 40_003]]
        assert batches.validation_bytes(0) == 12


def test_less_than_a_window_is_refused_with_numbers(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 16, 50)
    with pytest.raises(
        DataError, match="16 training and 50 validation tokens are too few: one window takes 17"
    ):
        WindowBatches(shards, 16, 1, seed=7)


# ---------------------------------------------------------------- pairs


def test_masks_counted_by_hand(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, [(2, 3), (3, 1)], [(2, 2), (1, 4)])
    (part,) = PairBatches(pairs, 0, 7, "answers", PAD).micro_batches(0, 8)
    assert part.inputs.tolist() == [[0, 1, 2, 3], [100, 101, 102, PAD]]
    assert part.targets.tolist() == [[-1, 2, 3, 4], [-1, -1, 103, -1]]
    assert (part.supervised, part.fed) == (4, 7)
    (part,) = PairBatches(pairs, 0, 7, "all", PAD).micro_batches(0, 8)
    assert part.inputs.tolist() == [[0, 1, 2, 3], [100, 101, 102, PAD]]
    assert part.targets.tolist() == [[1, 2, 3, 4], [101, 102, 103, -1]]
    assert (part.supervised, part.fed) == (7, 7)


def test_padding_reaches_only_to_the_longest_of_its_micro_batch(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, [(1, 1), (2, 7), (1, 2), (2, 6)], [(1, 1)])
    parts = list(PairBatches(pairs, 0, 7, "answers", PAD).micro_batches(0, 2))
    assert [part.inputs.shape for part in parts] == [(2, 8), (2, 2)]


def test_rows_hold_one_pair_each(tmp_path: Path) -> None:
    lengths = [(1 + i % 4, 1 + i % 6) for i in range(40)]
    batches = PairBatches(pairs_of(tmp_path, lengths, [(1, 1)]), 16, 7, "answers", PAD)
    for part in batches.micro_batches(1, 8):
        for inputs, targets in zip(part.inputs.tolist(), part.targets.tolist(), strict=True):
            owners = {id // 100 for id in [*inputs, *targets] if id not in (PAD, IGNORED)}
            assert len(owners) == 1
            question, answer = lengths[owners.pop()]
            assert len(targets) - targets.count(IGNORED) == answer
            assert len(inputs) - inputs.count(PAD) == question + answer - 1


@pytest.mark.parametrize("examples_per_step", [0, 1, 7, 31, 50])
def test_every_example_comes_once_an_epoch(tmp_path: Path, examples_per_step: int) -> None:
    pairs = pairs_of(tmp_path, [(1 + i % 4, 2) for i in range(31)], [(1, 1)])
    batches = PairBatches(pairs, examples_per_step, 7, "answers", PAD)
    per_step = examples_per_step or 31
    assert batches.steps_per_epoch == 31 / per_step
    steps = range(-(-3 * 31 // per_step))
    rows = [row for step in steps for row in batches.rows(step)]
    for epoch in range(3):
        assert sorted(item for e, item in rows if e == epoch) == list(range(31))
    seen = [rows_of(list(batches.micro_batches(step, 4))) for step in steps]
    firsts = np.concatenate([[inputs[0] // 100 for inputs, _ in step] for step in seen])
    assert sorted(firsts) == sorted(item for _, item in rows)


def test_validation_pairs_are_all_or_the_first_and_count_their_bytes(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, [(1, 1)], [(2, 3), (1, 1), (3, 4)])
    answers, both = (PairBatches(pairs, 0, 7, kind, PAD) for kind in ("answers", "all"))
    assert sum(part.supervised for part in answers.validation(2, 0)) == 8
    assert sum(part.supervised for part in answers.validation(2, 2)) == 4
    assert [row[0][0] for row in rows_of(list(answers.validation(1, 2)))] == [0, 100]
    assert (answers.validation_bytes(0), answers.validation_bytes(2)) == (13, 6)
    assert (both.validation_bytes(0), both.validation_bytes(2)) == (13 + 12, 6 + 6)


def test_empty_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 pairs to learn from, 0 to validate on"):
        PairBatches(pairs_of(tmp_path, [(1, 1)], []), 0, 7, "answers", PAD)


# ---------------------------------------------------------------- from a configuration


def test_the_configuration_says_how_many_rows_a_step_has(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "pairs").mkdir()
    shards = shards_of(tmp_path / "text", 1000, 50)
    pairs = pairs_of(tmp_path / "pairs", [(1, 1)] * 10, [(1, 1)])

    def stage(name: str, batch: dict[str, int]) -> StageConfig:
        values = {"stage": name, "steps": 1, "data": {"source": "sandlot"}, "optim": {"learning_rate": 0.1}}
        return StageConfig.model_validate({**values, "batch": batch})

    text = batches_of(shards, stage("baseball-pretrain", {"tokens": 64}), 16, PAD)
    assert isinstance(text, WindowBatches) and len(text.rows(0)) == 4
    asked = batches_of(pairs, stage("finetune", {"examples": 4}), 16, PAD)
    assert isinstance(asked, PairBatches) and len(asked.rows(0)) == 4
    with pytest.raises(ConfigError) as caught:
        batches_of(shards, stage("baseball-pretrain", {"tokens": 60}), 16, PAD)
    assert "60 is not a multiple" in caught.value.what and "batch.tokens=48" in caught.value.fix
