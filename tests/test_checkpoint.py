"""Checkpoints are whole or refused: cut-off saves, damage, mix-ups, hostile files never reach the weights."""

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core import checkpoint
from core.checkpoint import MANIFEST, MODEL, OPTIMIZER, STATE, TrainState, Weights
from core.config import ModelConfig, load_stage, to_toml
from core.errors import CheckpointError, MissingError, RetryLaterError
from core.events import CheckpointSetAside
from core.generate import load_voice
from core.model import GPT
from core.runs import Run, Runs
from core.tokenizer import Tokenizer
from core.train import train

FILES = [MODEL, OPTIMIZER, STATE, "tokenizer.json", MANIFEST]
SIZES = ModelConfig(layers=1, heads=1, width=8, context=8)


@cache
def vocabulary(text: str = "the ball and the bat") -> Tokenizer:
    return Tokenizer.train([text * 20], 280)


def weights_of(step: int) -> dict[str, torch.Tensor]:
    model = GPT(SIZES, vocabulary().padded_size)
    model.initialise(step)
    return dict(model.state_dict())


def save_step(run: Run, step: int, loss: float | None = None) -> Path:
    """Save a checkpoint whose tensors follow from its step; returns its folder."""
    state = TrainState(
        step=step, tokens=step * 10, seed=7, validation_loss=loss, tokenizer=vocabulary().fingerprint
    )
    weights = weights_of(step)
    moments = {f"{name}/exp_avg": tensor * 0.1 for name, tensor in weights.items()}
    assert checkpoint.save(run, state, vocabulary(), weights, moments) > 0
    return run.checkpoint_folder(step)


def seal(folder: Path) -> None:
    """Write a manifest that fits whatever the folder holds, as whoever wants to deceive us would."""
    names = [path.name for path in folder.iterdir() if path.name != MANIFEST]
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": checkpoint.sha256_of(folder / name)}
        for name in names
    }
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": files}))


def assert_step(weights: Weights | None, step: int) -> None:
    """The weights are those of that step, bit for bit, optimizer included."""
    assert weights is not None and weights.state.step == step
    expected = weights_of(step)
    assert weights.tensors.keys() == expected.keys()
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in expected.items())
    moments = checkpoint.load_optimizer(weights.folder)
    assert all(torch.equal(moments[f"{name}/exp_avg"], tensor * 0.1) for name, tensor in expected.items())


def leftovers(run: Run) -> list[str]:
    return [path.name for path in run.folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "checkpoints/pretrain/2026-01-01-test-0001"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(load_stage("smoke", "pretrain", tmp_path)))
    return Run(folder)


@pytest.fixture
def folder(run: Run) -> Path:
    """The later one of two good checkpoints, of the steps 4 and 8."""
    save_step(run, 4)
    return save_step(run, 8)


def test_what_is_saved_is_what_is_loaded(run: Run, folder: Path) -> None:
    assert_step(checkpoint.load_at(run), 8)
    assert_step(checkpoint.load_at(run, "4"), 4)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert checkpoint.load(folder).sha256 == checkpoint.sha256_of(folder / MODEL)
    assert Tokenizer.load(folder).fingerprint == vocabulary().fingerprint


def test_every_field_of_the_state_comes_back(run: Run) -> None:
    state = TrainState(
        step=3,
        tokens=99,
        seed=5,
        validated_step=3,
        validation_loss=0.1 + 0.2,
        probabilities=[1.0, 0.1 + 0.2],
        interventions=[{"event": "LearningRateChanged", "step": 2, "multiplier": 1 / 3}],
    )
    checkpoint.save(run, state, vocabulary(), {"a": torch.ones(1)}, {})
    assert checkpoint.load_at(run).state == state


# ---------------------------------------------------------------- a save that is cut off


class Killed(BaseException):
    """The process ends here: no handler of ours may run on."""


@cache
def _calls() -> dict[str, tuple[Any, str]]:
    """What saving asks of the operating system."""
    return {
        "mkdir": (os, "mkdir"),
        "rename": (os, "rename"),
        "fsync": (os, "fsync"),
        "open": (os, "open"),
        "unlink": (os, "unlink"),
        "rmdir": (os, "rmdir"),
        "write": (Path, "write_text"),
        "tensors": (checkpoint, "save_file"),
    }


class Tripwire:
    """Counts the calls of saving; at call number `at` it raises, before the call or after it is done."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, error: BaseException, after: bool = False) -> None:
        self.count, self.at, self.error, self.after = 0, at, error, after
        for owner, name in _calls().values():
            patch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    @property
    def has_tripped(self) -> bool:
        return self.count >= self.at

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count != self.at:
                return real(*args, **options)
            if self.after:
                real(*args, **options)
            raise self.error

        return call


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step again"])
def test_killed_at_any_call_of_a_save_an_earlier_checkpoint_loads(run: Run, after: bool, again: bool) -> None:
    save_step(run, 4)
    for at in range(1, 200):
        if again:
            save_step(run, 8)
        with pytest.MonkeyPatch.context() as patch:
            wire = Tripwire(patch, at, Killed(), after)
            with contextlib.suppress(Killed):
                save_step(run, 8)
        checkpoint.sweep(run)
        assert not leftovers(run)
        found = checkpoint.newest_good(run, lambda *_: None)
        assert found is not None
        assert_step(found, found.state.step)
        assert found.state.step in (4, 8)
        for path in run.folder.glob("*0000008"):
            shutil.rmtree(path)
        if not wire.has_tripped:
            break
    assert 15 < at < 199


def test_the_disk_failing_at_any_call_of_a_save_is_said_and_leaves_nothing(run: Run) -> None:
    save_step(run, 4)
    for at in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            wire = Tripwire(patch, at, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            try:
                save_step(run, 8)
            except RetryLaterError as error:
                assert error.exit_code == 3
                assert "step 8" in error.what and run.name in error.what and "No space left" in error.what
                assert "disk space" in error.fix
        assert not leftovers(run)
        assert_step(checkpoint.load_at(run), checkpoint.load_at(run).state.step)
        shutil.rmtree(run.checkpoint_folder(8), ignore_errors=True)
        if not wire.has_tripped:
            break
    assert 15 < at < 199


def test_a_real_limit_on_bytes_leaves_the_earlier_checkpoint_whole(run: Run) -> None:
    """The system itself refuses the byte at each limit: in the tensors, the vocabulary, the manifest."""
    folder = save_step(run, 4)
    largest = max(path.stat().st_size for path in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for limit in [*range(0, largest, largest // 25), largest - 1]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            save_step(run, 8)
        except RetryLaterError:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not leftovers(run)
        assert run.checkpoint_steps() == [4]
        assert_step(checkpoint.load_at(run), 4)
    assert refused >= 25


def test_the_next_start_sweeps_what_a_cut_off_save_has_left(trained_copy: Path) -> None:
    run = Runs(trained_copy).all("pretrain")[0]
    left = run.folder / ".saving-step-0000099"
    shutil.copytree(run.checkpoint_folder(run.checkpoint_steps()[-1]), left)
    deque(train(run.config, run), maxlen=0)
    assert not left.exists() and not leftovers(run)
    assert 99 not in run.checkpoint_steps()


# ---------------------------------------------------------------- damage


def damaged_copies(
    folder: Path, scratch: Path, damage: Callable[[bytes, random.Random], bytes]
) -> Iterator[Path]:
    """The checkpoint folder again and again, each time with one file damaged: 60 times each."""
    chance = random.Random(20)
    shutil.copytree(folder, scratch)
    for name in FILES:
        whole = (folder / name).read_bytes()
        for _ in range(60):
            (scratch / name).write_bytes(damage(whole, chance))
            yield scratch
        (scratch / name).write_bytes(whole)


def flip_a_bit(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def cut_short(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_damage_anywhere_is_refused(folder: Path, tmp_path: Path, damage: Callable[..., bytes]) -> None:
    refused = 0
    for copy in damaged_copies(folder, tmp_path / folder.name, damage):
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(copy)
        assert folder.name in caught.value.what and caught.value.fix
        refused += 1
    assert refused == 300


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", FILES)
def test_the_newest_good_one_wins_and_the_bad_one_is_set_aside_and_named(run: Run, name: str) -> None:
    save_step(run, 12)
    for step in (8, 12):
        path = run.checkpoint_folder(step) / name
        path.write_bytes(path.read_bytes()[:-1])
    told: list[tuple[str, str]] = []
    assert_step(checkpoint.newest_good(run, lambda path, reason: told.append((path.name, reason))), 4)
    assert [path for path, _ in told] == ["damaged-step-0000012", "damaged-step-0000008"]
    assert all(name in reason for _, reason in told)
    assert run.checkpoint_steps() == [4]
    assert (run.folder / "damaged-step-0000012" / MODEL).is_file()
    # Met again, nothing is left to complain of.
    assert_step(checkpoint.newest_good(run, lambda *_: pytest.fail("set aside twice")), 4)


def test_a_run_goes_on_from_the_one_before_and_tells_the_user(trained_copy: Path) -> None:
    run = Runs(trained_copy).all("pretrain")[0]
    last, before = run.checkpoint_steps()[-1], run.checkpoint_steps()[-2]
    path = run.checkpoint_folder(last) / MODEL
    path.write_bytes(flip_a_bit(path.read_bytes(), random.Random(1)))
    events = list(train(run.config, run))
    aside = [event for event in events if isinstance(event, CheckpointSetAside)]
    assert [event.path for event in aside] == [f"damaged-step-{last:07d}"]
    assert "SHA-256" in aside[0].reason
    assert [event.resumed_from_step for event in events if hasattr(event, "resumed_from_step")] == [before]
    assert run.checkpoint_steps()[-1] == last


def test_reading_takes_the_newest_good_one_and_changes_nothing(run: Run, folder: Path) -> None:
    (folder / MODEL).write_bytes(b"")
    assert_step(checkpoint.load_at(run), 4)
    assert run.checkpoint_steps() == [4, 8]
    with pytest.raises(CheckpointError, match="0000008"):
        checkpoint.load_at(run, "8")
    (run.checkpoint_folder(4) / STATE).unlink()
    with pytest.raises(CheckpointError, match=r"No checkpoint of .* is whole") as caught:
        checkpoint.load_at(run)
    assert caught.value.exit_code == 2 and caught.value.fix


def test_a_checkpoint_that_is_not_there_is_said_with_those_that_are(run: Run) -> None:
    with pytest.raises(MissingError, match="no checkpoint yet"):
        checkpoint.load_at(run)
    assert checkpoint.newest_good(run, lambda *_: None) is None
    save_step(run, 4)
    with pytest.raises(MissingError, match="@5") as caught:
        checkpoint.load_at(run, "5")
    assert "4" in caught.value.fix
    with pytest.raises(MissingError, match="@best"):
        checkpoint.load_at(run, "best")


# ---------------------------------------------------------------- which ones are kept


def test_the_last_ones_and_the_best_one_are_kept(run: Run) -> None:
    for step, loss in [(1, 5.0), (2, 3.0), (3, 4.0), (4, 4.5), (5, None)]:
        save_step(run, step, loss)
    assert checkpoint.best_step(run) == 2
    checkpoint.prune(run, keep_last=2)
    assert run.checkpoint_steps() == [2, 4, 5]
    assert checkpoint.load_at(run, "best").state.step == 2
    assert not leftovers(run)
    checkpoint.prune(run, keep_last=1)
    assert run.checkpoint_steps() == [2, 5]
    checkpoint.prune(run, keep_last=1000)
    assert run.checkpoint_steps() == [2, 5]


def test_a_damaged_state_is_never_the_best(run: Run) -> None:
    save_step(run, 1, 5.0)
    save_step(run, 2, 1.0)
    for text in ["", "[]", '{"validation_loss": "low"}', '{"step": true}', "[" * 100_000, "\x00"]:
        (run.checkpoint_folder(2) / STATE).write_text(text)
        assert checkpoint.best_step(run) == 1


def test_a_trained_run_keeps_as_many_as_its_configuration_says(trained_root: Path) -> None:
    for run in Runs(trained_root).all():
        kept = run.checkpoint_steps()
        assert kept[-1] == run.config.steps
        assert len(kept) <= run.config.keep_last + 1
        assert checkpoint.best_step(run) in kept


# ---------------------------------------------------------------- mix-ups


def _missing(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _swap(one: str, other: str) -> Callable[[Path], None]:
    def swap(folder: Path) -> None:
        first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
        (folder / one).write_bytes(second)
        (folder / other).write_bytes(first)

    return swap


def _from_before(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copy(folder.with_name("step-0000004") / name, folder / name)  # type: ignore[return-value]


def _empty_folder_as(name: str) -> Callable[[Path], None]:
    def put(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return put


def _whole_of_another_step(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-0000004"), folder)


MIX_UPS = {
    **{f"no {name}": _missing(name) for name in FILES},
    **{f"{name} of another step": _from_before(name) for name in (MODEL, OPTIMIZER, STATE, MANIFEST)},
    **{f"a folder as {name}": _empty_folder_as(name) for name in (MODEL, MANIFEST)},
    "model and optimizer swapped": _swap(MODEL, OPTIMIZER),
    "state and vocabulary swapped": _swap(STATE, "tokenizer.json"),
    "manifest and state swapped": _swap(MANIFEST, STATE),
    "a file more": lambda folder: (folder / "model.bin").write_bytes(b"more"),
    "a folder more": _empty_folder_as("more"),
    "the whole of another step": _whole_of_another_step,
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("mix_up", MIX_UPS.values(), ids=MIX_UPS.keys())
def test_a_mix_up_of_files_is_refused(run: Run, folder: Path, mix_up: Callable[[Path], object]) -> None:
    mix_up(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder)
    assert "step-0000008" in caught.value.what and caught.value.fix
    assert_step(checkpoint.newest_good(run, lambda *_: None), 4)


def test_what_a_file_browser_leaves_does_no_harm(run: Run, folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"seen")
    assert_step(checkpoint.load_at(run), 8)


def test_another_vocabulary_or_another_model_is_refused(folder: Path) -> None:
    weights = checkpoint.load(folder)
    model = GPT(SIZES, vocabulary().padded_size)
    checkpoint.check_fits(weights, model, vocabulary())
    other = vocabulary("a quite other text with other pairs in it")
    with pytest.raises(CheckpointError, match="another vocabulary") as caught:
        checkpoint.check_fits(weights, model, other)
    assert caught.value.fix
    larger = GPT(ModelConfig(layers=1, heads=1, width=16, context=8), vocabulary().padded_size)
    deeper = GPT(ModelConfig(layers=2, heads=1, width=8, context=8), vocabulary().padded_size)
    for odd in (larger, deeper):
        with pytest.raises(CheckpointError, match="other sizes") as caught:
            checkpoint.check_fits(weights, odd, vocabulary())
        assert caught.value.fix
    missing = replace(weights, tensors={k: t for k, t in weights.tensors.items() if k != "wte.weight"})
    with pytest.raises(CheckpointError, match=r"wte\.weight"):
        checkpoint.check_fits(missing, model, vocabulary())


def test_a_vocabulary_put_into_a_trained_run_is_refused(trained_copy: Path) -> None:
    """Even with a manifest that fits it: the state says which vocabulary the weights belong to."""
    run = Runs(trained_copy).all("pretrain")[0]
    for step in run.checkpoint_steps():
        vocabulary().save(run.checkpoint_folder(step))
        seal(run.checkpoint_folder(step))
    with pytest.raises(CheckpointError, match="another vocabulary"):
        load_voice(run)


# ---------------------------------------------------------------- hostile files


def _tensor_file(header: object, data: bytes = b"\0" * 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE_TENSORS = {
    # A pickle that would make a file when it is read.
    "pickle": b"\x80\x02cos\nsystem\nq\x00X\x0d\x00\x00\x00touch was-run\x85q\x01R.",
    "huge header": struct.pack("<Q", 1 << 40) + b"{}",
    "header as long as a file can be": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "header of 90 MB": struct.pack("<Q", 90 << 20) + b"[" * (90 << 20),
    "no header": b"\x01\x02",
    "nothing": b"",
    "header that is not JSON": _tensor_file(b"{not json"),
    "header nested deeply": _tensor_file(b"[" * 100_000),
    "overlapping offsets": _tensor_file({"a": _entry(0, 16, [4]), "b": _entry(8, 24, [4])}),
    "offsets past the end": _tensor_file({"a": _entry(0, 1 << 50, [1 << 48])}),
    "offsets backwards": _tensor_file({"a": _entry(64, 0, [16])}),
    "a hole": _tensor_file({"a": _entry(32, 64, [8])}),
    "sizes that do not fit": _tensor_file({"a": _entry(0, 64, [1 << 40])}),
    "sizes that overflow": _tensor_file({"a": _entry(0, 64, [1 << 33, 1 << 33])}),
    # Sound in itself, but a hundred thousand tensors of nothing cost more than all of ours.
    "a header of 100,000 tensors": _tensor_file(
        {f"{i:030d}": _entry(0, 0, [0]) for i in range(100_000)}, b""
    ),
    "an unknown type": _tensor_file({"a": _entry(0, 64, [16], "OBJECT")}),
}


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER])
@pytest.mark.parametrize("content", HOSTILE_TENSORS.values(), ids=HOSTILE_TENSORS.keys())
def test_a_hostile_tensor_file_is_refused_cheaply(
    folder: Path, content: bytes, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / name).write_bytes(content)
    seal(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=name) as caught:
        checkpoint.load(folder)
        checkpoint.load_optimizer(folder)
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown_bytes < 200e6
    assert len(str(caught.value)) < 500
    assert not (tmp_path / "was-run").exists()


def _listed(name: str) -> Callable[[Path], None]:
    """The manifest lists a file that lies elsewhere, with its true size and hash."""

    def add(folder: Path) -> None:
        secret = folder.parent / "secret.txt"
        secret.write_text("secret")
        document = json.loads((folder / MANIFEST).read_text())
        document["files"][name.replace("{secret}", str(secret))] = {
            "bytes": 6,
            "sha256": checkpoint.sha256_of(secret),
        }
        (folder / MANIFEST).write_text(json.dumps(document))

    return add


def _link(name: str) -> Callable[[Path], None]:
    def link(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return link


def _folder_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def _manifest_text(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / MANIFEST).write_text(text)  # type: ignore[return-value]


def _pipe(name: str) -> Callable[[Path], None]:
    def put(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return put


def _sealed(name: str, text: str) -> Callable[[Path], None]:
    def put(folder: Path) -> None:
        (folder / name).write_text(text)
        seal(folder)

    return put


HOSTILE = {
    **{
        f"a name with a path: {name}": _listed(name)
        for name in ("../secret.txt", "{secret}", "./../secret.txt")
    },
    **{
        f"an odd name {i}": _listed(name)
        for i, name in enumerate(["", ".", "..", "a\0b", "x" * 5000, "\ud800"])
    },
    **{f"{name} is a link": _link(name) for name in FILES},
    "the folder is a link": _folder_link,
    **{f"{name} is a pipe": _pipe(name) for name in (MODEL, MANIFEST)},
    "a manifest that is a list": _manifest_text("[1, 2]"),
    "a manifest nested deeply": _manifest_text("[" * 100_000),
    "a manifest of endless numbers": _manifest_text(
        '{"format": 1, "files": {"a": {"bytes": 1e999, "sha256": ""}}}'
    ),
    "a manifest with long digits": _manifest_text(
        '{"format": 1, "files": {"a": {"bytes": ' + "9" * 9999 + "}}}"
    ),
    "a manifest of 50 MB": _manifest_text("{" + " " * (50 << 20) + "}"),
    "a manifest of another format": lambda folder: (folder / MANIFEST).write_text(
        (folder / MANIFEST).read_text().replace('"format": 1', '"format": 2')
    ),
    "a state of other types": _sealed(STATE, '{"step": 8, "validation_loss": "low", "interventions": 3}'),
    "a state nested deeply": _sealed(STATE, "[" * 100_000),
    "a state of 50 MB": _sealed(STATE, "{" + " " * (50 << 20) + "}"),
}


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.timeout(20)
def test_a_hostile_folder_is_refused(run: Run, folder: Path, attack: Callable[[Path], object]) -> None:
    attack(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder)
    assert "step-0000008" in caught.value.what and len(str(caught.value)) < 500
    assert_step(checkpoint.newest_good(run, lambda *_: None), 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"kind": "trained", "tokens": [], "fingerprint": ""}',
        '{"kind": "trained", "tokens": ["YQ==", "YQ=="], "fingerprint": "0"}',
        '{"kind": "trained", "tokens": [5], "fingerprint": "0"}',
        '{"kind": "gpt2", "fingerprint": "0"}',
        " " * (20 << 20),
    ],
    ids=["empty", "list", "deep", "no tokens", "twice", "numbers", "other gpt2", "20 MB"],
)
def test_a_hostile_vocabulary_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged") as caught:
        Tokenizer.load(tmp_path)
    assert caught.value.fix


def test_a_vocabulary_without_all_bytes_is_refused(tmp_path: Path) -> None:
    """Its fingerprint fits, but the first text with another byte would end the process."""
    small = Tokenizer("trained", {b"a": 0, b"b": 1})
    small.save(tmp_path)
    with pytest.raises(CheckpointError, match="damaged"):
        Tokenizer.load(tmp_path)


def test_tensors_that_are_views_or_transposed_are_saved_whole(run: Run) -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    checkpoint.save(run, TrainState(step=1), vocabulary(), {"t": matrix.t(), "v": matrix[:, 1:3]}, {})
    found = checkpoint.load_at(run).tensors
    assert torch.equal(found["t"], matrix.t()) and torch.equal(found["v"], matrix[:, 1:3])


def test_a_tensor_file_written_by_others_reads_the_same(tmp_path: Path) -> None:
    """The format is plain safetensors: nothing of ours is needed to open it."""
    save_file({"a": torch.ones(2)}, tmp_path / MODEL)
    assert checkpoint._tensors(tmp_path / MODEL)["a"].tolist() == [1.0, 1.0]
