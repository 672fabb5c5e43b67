"""What is measured and what was found: plain values that go between processes as JSON. Loads without torch."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from core.config import StageConfig
from core.config_sections import BatchConfig, DataConfig, ModelConfig, OptimConfig, TokenizerConfig

Precision = Literal["auto", "float32", "bfloat16"]
Limit = Literal["", "operations", "bytes"]

FORMULA = (
    "operations of a training token = 6 N + 12 layers * width * context; N: the numbers of the blocks and of the head; "
    "of a prompt's token a third, the head counted once; bytes of a drawn token: those numbers, and the keys and "
    "values of the tokens before"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """A GPT-2 and the micro-batch that it is trained with."""

    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int
    """Rows of the embedding."""
    micro_batch: int

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.micro_batch * self.context

    def config(self, precision: Precision = "auto") -> StageConfig:
        """A stage of one micro-batch a step that trains a model of these sizes, with everything else as usual."""
        return StageConfig(
            steps=1,
            precision=precision,
            model=ModelConfig(layers=self.layers, heads=self.heads, width=self.width, context=self.context),
            tokenizer=TokenizerConfig(kind="gpt2"),
            data=DataConfig(source="sandlot"),
            batch=BatchConfig(tokens=self.tokens, micro_batch=self.micro_batch),
            optim=OptimConfig(learning_rate=6e-4),
        )

    def in_words(self) -> str:
        return (
            f"{self.layers} layers, width {self.width}, context {self.context}, vocabulary {self.vocabulary}, "
            f"micro-batch {self.micro_batch}"
        )


SMALL = Sizes(layers=6, heads=4, width=256, context=256, vocabulary=8192, micro_batch=32)
GPT2_SMALL = Sizes(layers=12, heads=12, width=768, context=1024, vocabulary=50304, micro_batch=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One quantity, measured several times."""

    name: str
    """What `--only` calls it."""
    what: str
    unit: str
    samples: tuple[float, ...] = ()
    memory_bytes: int = 0
    """Most that the measuring process held, or on a GPU what was allocated there; 0 where that says nothing."""
    device: str = ""
    precision: str = ""
    limit: Limit = ""
    """What sets the fastest that is possible: operations a second, or bytes read a second."""
    cost: float = 0.0
    """Operations or bytes that one unit takes: of a token where the unit is tokens/s."""
    note: str = ""
    problem: str = ""
    """Why there are no samples."""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def best(self) -> float:
        """The highest sample."""
        return max(self.samples)

    def share(self, found: Iterable["Measurement"]) -> float | None:
        """The part of the machine's limit that the median reaches; None where that limit was not measured."""
        kind = {"operations": "matmul", "bytes": "bandwidth"}.get(self.limit)
        limits = [
            each.best * 1e9
            for each in found
            if each.name == kind
            and each.samples
            and (each.precision == self.precision or self.limit == "bytes")
        ]
        return self.median * self.cost / max(limits) if limits and self.samples else None

    def to_row(self) -> dict[str, Any]:
        """All of it as plain JSON values, with median, lowest and highest."""
        figures: dict[str, Any] = {"median": None, "low": None, "high": None}
        if self.samples:
            figures = {"median": self.median, "low": min(self.samples), "high": max(self.samples)}
        return asdict(self) | figures

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Measurement":
        """What `to_row` made. Raises: KeyError, TypeError for anything else."""
        fields = {key: value for key, value in row.items() if key not in ("median", "low", "high")}
        fields["samples"] = tuple(float(sample) for sample in row["samples"])
        return cls(**fields)
