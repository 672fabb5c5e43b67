"""Checkpoints: written whole or not at all, verified before a byte of them is used.

A folder `step-0001200/` holds `model.safetensors`, `optimizer.safetensors`, `state.json`, `tokenizer.json` and
`MANIFEST.json`, which names each with its size and SHA-256. safetensors has no checksum of its own.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import CheckpointError, MissingError, RetryLaterError
from core.runs import Run
from core.tokenizer import Tokenizer

MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"
_SAVING = ".saving-"
_SET_ASIDE = "damaged-"


@dataclass(slots=True)
class TrainState:
    """Where a run stands, besides its weights and its optimizer. Random draws follow from (seed, step) alone."""

    step: int = 0
    tokens: int = 0
    seed: int = 0
    validated_step: int = -1
    """Last step whose validation loss was measured."""
    validation_loss: float | None = None
    """Of these very weights; None where they were not validated."""
    rate_changes: list[list[float]] = field(default_factory=list)
    """[step, multiplier]: the schedule is multiplied from the update that makes `step` on."""
    model: dict[str, float] = field(default_factory=dict)
    """The sizes that the weights belong to."""
    tokenizer: str = ""
    """The fingerprint that the weights belong to."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's tensors as loaded from a verified checkpoint."""

    tensors: dict[str, Tensor]
    state: TrainState
    sha256: str
    folder: Path


def save(
    run: Run, state: TrainState, tokenizer: Tokenizer, model: dict[str, Tensor], optimizer: dict[str, Tensor]
) -> int:
    """Write the checkpoint of `state.step` and return its size in bytes.

    It appears under its name only once it is whole and on disk. Raises: RetryLaterError where it cannot be written.
    """
    target = run.checkpoint_folder(state.step)
    temporary = run.folder / f"{_SAVING}{target.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in model.items()}, temporary / MODEL)
        save_file({name: tensor.contiguous() for name, tensor in optimizer.items()}, temporary / OPTIMIZER)
        (temporary / STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        tokenizer.save(temporary)
        files = sorted(path for path in temporary.iterdir())
        listed = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files}
        (temporary / MANIFEST).write_text(json.dumps({"format": 1, "files": listed}, indent=1), encoding="utf-8")
        for path in [*files, temporary / MANIFEST, temporary]:
            _sync(path)
        if target.exists():  # the same step again, after a resume
            shutil.rmtree(target)
        temporary.rename(target)
        _sync(run.folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)[:120]
        raise RetryLaterError(
            f"Cannot write the checkpoint of step {state.step} of {run.name}: {reason}.",
            "Free disk space, then resume the run: its earlier checkpoints are whole.",
        ) from None
    return sum(int(entry["bytes"]) for entry in listed.values())


def sweep(run: Run) -> None:
    """Remove what a save that was cut off has left."""
    for path in run.folder.glob(f"{_SAVING}*"):
        shutil.rmtree(path, ignore_errors=True)


def prune(run: Run, keep_last: int) -> None:
    """Keep the newest checkpoints and the best one; remove the others."""
    steps = run.checkpoint_steps()
    kept = {*steps[-keep_last:], best_step(run)}
    for step in steps:
        if step not in kept:
            folder = run.checkpoint_folder(step)
            # Renamed first: a folder half removed must not look like a checkpoint.
            doomed = folder.with_name(f"{_SAVING}{folder.name}")
            folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def best_step(run: Run) -> int | None:
    """The step of the checkpoint with the lowest validation loss, or None where none was validated."""
    rated = []
    for step in run.checkpoint_steps():
        try:
            loss = _read_state(run.checkpoint_folder(step)).validation_loss
        except CheckpointError:
            continue
        if loss is not None:
            rated.append((loss, step))
    return min(rated)[1] if rated else None


def verify(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a whole checkpoint. Raises: CheckpointError that says what is wrong."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{folder.name}: {MANIFEST} is missing or damaged.") from None
    if not {MODEL, OPTIMIZER, STATE, "tokenizer.json"} <= expected.keys():
        raise CheckpointError(f"{folder.name}: {MANIFEST} does not list every file.")
    for name, (size, digest) in expected.items():
        path = folder / name
        # A name with a folder in it, or a link, would read outside the checkpoint.
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{folder.name}: {name[:60]!r} is missing or not a plain file.")
        if path.stat().st_size != size:
            raise CheckpointError(f"{folder.name}: {name} has {path.stat().st_size} bytes, not {size}.")
        if sha256_of(path) != digest:
            raise CheckpointError(f"{folder.name}: {name} does not match its SHA-256.")
    return {name: digest for name, (_, digest) in expected.items()}


def newest_good(run: Run, set_aside: Callable[[Path, str], None]) -> Weights | None:
    """The newest checkpoint that verifies, loaded; None where there is none.

    Args:
        set_aside: told the folder and the reason of each damaged one, which is renamed so that it is not met again.
    """
    for step in reversed(run.checkpoint_steps()):
        folder = run.checkpoint_folder(step)
        try:
            return load(folder)
        except CheckpointError as error:
            aside = folder.with_name(f"{_SET_ASIDE}{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            set_aside(aside, error.what)
    return None


def load(folder: Path) -> Weights:
    """A checkpoint's weights. Raises: CheckpointError where it does not verify."""
    digests = verify(folder)
    return Weights(_tensors(folder / MODEL), _read_state(folder), digests[MODEL], folder)


def load_optimizer(folder: Path) -> dict[str, Tensor]:
    """The optimizer's memory of a checkpoint that `load` has verified."""
    return _tensors(folder / OPTIMIZER)


def load_at(run: Run, at: str = "last") -> Weights:
    """The weights of a run's last, best, or numbered checkpoint, changing nothing in its folder.

    `last` is the newest one that verifies. Raises: MissingError where there is none; CheckpointError.
    """
    steps = run.checkpoint_steps()
    if not steps:
        raise MissingError(f"{run.name} has no checkpoint yet.", "Let it run to its first one, or choose another run.")
    if at == "last":
        problem: CheckpointError | None = None
        for step in reversed(steps):
            try:
                return load(run.checkpoint_folder(step))
            except CheckpointError as error:
                problem = problem or error
        raise CheckpointError(f"No checkpoint of {run.name} is whole. {problem}", "Train this stage again.")
    step = best_step(run) if at == "best" else int(at)
    if step not in steps:
        listed = ", ".join(map(str, steps))
        raise MissingError(f"{run.name} has no checkpoint @{at}.", f"It has these steps: {listed}.")
    return load(run.checkpoint_folder(step))


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path.parent.name}: {path.name} cannot be read: {str(error)[:120]}.") from None


def _read_state(folder: Path) -> TrainState:
    try:
        return TrainState(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise CheckpointError(f"{folder.name}: {STATE} is missing or damaged.") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_fits(weights: Weights, model: torch.nn.Module, tokenizer: Tokenizer) -> None:
    """Raises: CheckpointError where weights, model and tokenizer do not belong together."""
    if weights.state.tokenizer != tokenizer.fingerprint:
        raise CheckpointError(f"{weights.folder.name} was trained with another vocabulary.", "Start a new run.")
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.tensors.items()}
    if expected != found:
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise CheckpointError(
            f"{weights.folder.name} holds a model of other sizes (first difference: {odd[0][:60]}).", "Start a new run."
        )
