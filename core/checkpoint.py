"""Checkpoints: written whole or not at all, verified before a byte of them is used.

A folder `step-0001200/` holds `model.safetensors`, `optimizer.safetensors`, `state.json`, `tokenizer.json` and
`MANIFEST.json`, which names each with its size and SHA-256. safetensors has no checksum of its own.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.config_sections import BestBy
from core.errors import CheckpointError, MissingError, RetryLaterError
from core.runs import Run
from core.tokenizer import Tokenizer

MODEL, OPTIMIZER, STATE, MANIFEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "MANIFEST.json",
)
_SAVING = ".saving-"
_SET_ASIDE = "damaged-"
_LONGEST_TEXT_BYTES = 4 << 20


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
    probabilities: list[float] = field(default_factory=list)
    """Mean probability that these very weights give to right answers: the domain's, then the general ones."""
    interventions: list[dict[str, Any]] = field(default_factory=list)
    """What was changed by hand so far, each as its event's row."""
    data: str = ""
    """Name of the folder of prepared data that the run learns from."""
    model: dict[str, float | str] = field(default_factory=dict)
    """The architecture and the sizes that the weights belong to."""
    tokenizer: str = ""
    """The fingerprint that the weights belong to."""

    def count_step(self, tokens: int) -> None:
        """One more step is made, of so many tokens: what was measured of the weights before holds no longer."""
        self.step += 1
        self.tokens += tokens
        self.validation_loss, self.probabilities = None, []


_STATE_READER = TypeAdapter(TrainState)


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
        (temporary / MANIFEST).write_text(
            json.dumps({"format": 1, "files": listed}, indent=1), encoding="utf-8"
        )
        for path in [*files, temporary / MANIFEST, temporary]:
            sync(path)
        if target.exists():  # the same step again, after a resume
            shutil.rmtree(target)
        temporary.rename(target)
        sync(run.folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)[:120]
        raise RetryLaterError(
            f"Cannot write the checkpoint of step {state.step} of {run.name}: {reason}.",
            "Free disk space, then let the run go on: its earlier checkpoints are whole.",
        ) from None
    return sum(int(entry["bytes"]) for entry in listed.values())


def sweep(run: Run) -> None:
    """Remove what a save that was cut off has left."""
    for path in run.folder.glob(f"{_SAVING}*"):
        shutil.rmtree(path, ignore_errors=True)


def prune(run: Run, keep_last: int, best_by: BestBy | None = None) -> None:
    """Keep the newest checkpoints and the best one, as `best_step` finds it; remove the others."""
    steps = run.checkpoint_steps()
    kept = {*steps[-keep_last:], best_step(run, best_by)}
    for step in steps:
        if step not in kept:
            folder = run.checkpoint_folder(step)
            # Renamed first: a folder half removed must not look like a checkpoint.
            doomed = folder.with_name(f"{_SAVING}{folder.name}")
            # An old checkpoint that cannot go is no reason to end a run.
            with contextlib.suppress(OSError):
                folder.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)


def best_step(run: Run, best_by: BestBy | None = None) -> int | None:
    """The step of the best checkpoint by a rule, or else by the run's own; None where none can be rated by it."""
    rule = best_by or run.config.quality.best_by
    rated = []
    for step in run.checkpoint_steps():
        try:
            rating = _rating(_read_state(run.checkpoint_folder(step)), rule)
        except CheckpointError:
            continue
        if rating is not None:
            rated.append((rating, -step))
    return -max(rated)[1] if rated else None


def _rating(state: TrainState, best_by: BestBy) -> float | None:
    """How good a checkpoint is by the rule, higher is better; None where that was not measured."""
    if best_by == "validation_loss":
        return None if state.validation_loss is None else -state.validation_loss
    domain, general = [*state.probabilities, None, None][:2]
    if best_by == "domain_probability":
        return domain
    if best_by == "general_probability":
        return general
    return None if domain is None or general is None else math.sqrt(domain * general)


def verify(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a whole checkpoint. Raises: CheckpointError that says what is wrong."""
    expected = _manifest(folder)
    # Entries are compared with what is there, so that no name of the manifest is ever looked up on the disk.
    there = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    for name, (size, digest) in expected.items():
        path = there.get(name)
        # A link would read outside the checkpoint.
        if path is None or path.is_symlink() or not path.is_file():
            raise _damaged(folder, f"{name[:60]!r} is missing or not a plain file")
        if path.stat().st_size != size:
            raise _damaged(folder, f"{name} has {path.stat().st_size} bytes, not {size}")
        if sha256_of(path) != digest:
            raise _damaged(folder, f"{name} does not match its SHA-256")
    if extra := sorted(there.keys() - expected.keys() - {MANIFEST}):
        raise _damaged(folder, f"{extra[0][:60]!r} does not belong to it")
    return {name: digest for name, (_, digest) in expected.items()}


def _manifest(folder: Path) -> dict[str, tuple[int, str]]:
    path = folder / MANIFEST
    try:
        is_plain = path.is_file() and not path.is_symlink() and not folder.is_symlink()
        if not is_plain or path.stat().st_size > _LONGEST_TEXT_BYTES:
            raise ValueError
        document = json.loads(path.read_text(encoding="utf-8"))
        listed = {name: (int(row["bytes"]), str(row["sha256"])) for name, row in document["files"].items()}
        if document["format"] != 1:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise _damaged(folder, f"{MANIFEST} is missing or damaged") from None
    if not {MODEL, OPTIMIZER, STATE, "tokenizer.json"} <= listed.keys():
        raise _damaged(folder, f"{MANIFEST} does not list every file")
    return listed


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{folder.name}: {what}.",
        "Choose another checkpoint of this run (RUN@STEP), or train the stage again.",
    )


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
            with contextlib.suppress(OSError):
                folder.rename(aside)
            set_aside(aside, error.what)
    return None


def load(folder: Path) -> Weights:
    """A checkpoint's weights. Raises: CheckpointError where it does not verify."""
    digests = verify(folder)
    state = _read_state(folder)
    if folder.name != f"step-{state.step:07d}":
        raise _damaged(folder, f"it is the checkpoint of step {state.step}, under another name")
    return Weights(_tensors(folder / MODEL), state, digests[MODEL], folder)


def load_optimizer(folder: Path) -> dict[str, Tensor]:
    """The optimizer's memory of a checkpoint that `load` has verified."""
    return _tensors(folder / OPTIMIZER)


def load_at(run: Run, at: str = "last") -> Weights:
    """The weights of a run's last, best, or numbered checkpoint, changing nothing in its folder.

    `last` is the newest one that verifies, `best` is by the run's own rule. Raises: MissingError where there is
    none; CheckpointError.
    """
    steps = run.checkpoint_steps()
    if not steps:
        raise MissingError(
            f"{run.name} has no checkpoint yet.", "Let it run to its first one, or choose another run."
        )
    if at == "last":
        problem: CheckpointError | None = None
        for step in reversed(steps):
            try:
                return load(run.checkpoint_folder(step))
            except CheckpointError as error:
                problem = problem or error
        what = problem.what if problem else ""
        raise CheckpointError(f"No checkpoint of {run.name} is whole. {what}", "Train this stage again.")
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
        with path.open("rb") as file:
            # The header is parsed whole: one of a hundred megabytes would take gigabytes.
            if int.from_bytes(file.read(8), "little") > _LONGEST_TEXT_BYTES:
                raise ValueError("its header is too long")
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path.parent, f"{path.name} cannot be read: {str(error)[:120]}") from None


def _read_state(folder: Path) -> TrainState:
    path = folder / STATE
    try:
        if path.stat().st_size > _LONGEST_TEXT_BYTES:
            raise ValueError
        # Checked by type: every field is used in a comparison or a sum later on.
        return _STATE_READER.validate_json(path.read_bytes(), strict=True)
    except (OSError, ValueError):
        raise _damaged(folder, f"{STATE} is missing or damaged") from None


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_fits(weights: Weights, model: torch.nn.Module, tokenizer: Tokenizer) -> None:
    """Raises: CheckpointError where weights, model and tokenizer do not belong together."""
    if weights.state.tokenizer != tokenizer.fingerprint:
        raise CheckpointError(
            f"{weights.folder.name} was trained with another vocabulary.", "Start a new run."
        )
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.tensors.items()}
    if expected != found:
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise CheckpointError(
            f"{weights.folder.name} holds a model of other sizes (first difference: {odd[0][:60]}).",
            "Start a new run.",
        )
