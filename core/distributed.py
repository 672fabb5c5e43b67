"""Several processes that train one run together, as `torchrun` starts them; a process alone is a world of one.

The first alone holds the lock, writes log and checkpoints, and reads the commands; what it reads it says to the others,
between the same two micro-batches for all. A process that dies closes its connections, which ends the waiting of the
others at once; one that lives and answers no more, after `_LONGEST_SILENCE`.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from core.commands import Command, command_from_line
from core.errors import RunFailedError, UsageError

# Longer than a slow micro-batch, a compilation or a large checkpoint takes: all of these are waited for.
_LONGEST_SILENCE = timedelta(minutes=10)
_FINISHED = "."


class World:
    """The processes of a run, as one of them sees them. Every process has to call the same methods in the same order.

    Args:
        gpu: number of this process's own GPU, where there are several processes.
    """

    def __init__(self, rank: int = 0, size: int = 1, gpu: int | None = None) -> None:
        self.rank = rank
        self.size = size
        self.gpu = gpu
        self._between_gpus: Any = None

    @classmethod
    def joined(cls) -> "World":
        """The world that the environment names, once all of its processes have come. Raises: UsageError."""
        try:
            dist.init_process_group("gloo", timeout=_LONGEST_SILENCE)
            return cls(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
        except (RuntimeError, ValueError, KeyError) as error:
            raise UsageError(
                f"The processes of this run did not find each other: {str(error)[:200]}",
                "Start them with torchrun: torchrun --nproc-per-node 2 -m tui.cli train STAGE",
            ) from None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def say(self, text: str = "") -> str:
        """The first process's text, in every process."""
        if self.size == 1:
            return text
        said = torch.tensor(list(text.encode()) if self.is_first else [], dtype=torch.uint8)
        length = torch.tensor([len(said)])
        with _losses_named():
            dist.broadcast(length, 0)
            if not length:
                return ""
            if not self.is_first:
                said = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(said, 0)
        return bytes(said.tolist()).decode()

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        with _losses_named():
            dist.all_reduce(sums)
        return sums.tolist()

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make every gradient the sum of all processes' own, in one exchange."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            # Where there are fewer micro-batches than processes, one has nothing to add.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with _losses_named():
            if flat.is_cuda:
                if self._between_gpus is None:
                    self._between_gpus = dist.new_group(backend="nccl", timeout=_LONGEST_SILENCE)
                dist.all_reduce(flat, group=self._between_gpus)
            else:
                # gloo knows no other memory than the processor's.
                flat = flat.cpu()
                dist.all_reduce(flat)
        for gradient, sums in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(sums.view_as(gradient))

    def leave(self) -> None:
        """Let the others go; no method may be called any more."""
        if self.size > 1:
            dist.destroy_process_group()


class Orders:
    """The new commands at each call, the same ones in every process: the first reads them and says them."""

    def __init__(self, world: World, read: Callable[[], list[Command]]) -> None:
        self._world = world
        self._read = read
        self._is_finished = False

    def __call__(self) -> list[Command]:
        if self._world.is_first:
            commands = self._read()
            self._world.say("\n".join(command.to_line() for command in commands))
            return commands
        said = self._world.say()
        self._is_finished = said == _FINISHED
        return [command for line in said.split("\n") if (command := command_from_line(line))]

    def finish(self) -> None:
        """Said by the first: what it did while the others waited is done."""
        self._world.say(_FINISHED)

    def is_finished(self) -> bool:
        """Whether the first has just said so."""
        was_finished, self._is_finished = self._is_finished, False
        return was_finished


@contextlib.contextmanager
def _losses_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        raise RunFailedError(
            "Another process of this run has ended, or answers no more.",
            "What it printed says why. Then resume the run from its last checkpoint.",
        ) from None
