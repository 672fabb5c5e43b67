"""What an evaluation found, to and from JSON."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from core.errors import DataError

GENERAL, BASEBALL = "general", "baseball"
"""The labels of the pair; the ratio is the second's mean probability over the first's."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    run: str
    """stage/id"""
    step: int
    sha256: str
    """Of the weights' file."""


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model on one set. Means are over all answer tokens, end-of-text too, unless the name says other."""

    mean_probability: float
    ci95: tuple[float, float]
    """Of mean_probability, by bootstrap over questions."""
    nats_per_byte: float
    """Summed nats of the tokens per byte of the answers' text: compares across vocabularies."""
    per_question_mean: float
    """Mean of each question's own mean: long answers weigh no more than short ones."""
    geometric_mean: float
    mean_probability_without_end: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class SetResult:
    items: int
    """Questions scored: those that fit into every model's context."""
    tokens: int
    """Their answers' tokens under the first model."""
    skipped: int
    """Questions left out for all models, because they are longer than one model's context."""
    by_model: dict[str, ModelResult]
    ratio: float | None = None
    """Baseball's mean probability over general's; None without the two."""
    ratio_ci95: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """One question of one set."""

    set: str
    id: str
    question: str
    answer: str
    mean_probability: dict[str, float]
    """Of the answer's tokens, end-of-text included, by model."""


@dataclass(frozen=True, slots=True)
class Report:
    models: dict[str, ModelInfo]
    sets: dict[str, SetResult]
    questions: list[QuestionResult] = field(default_factory=list)

    def to_json(self, questions: bool = False) -> dict[str, Any]:
        """The report as plain JSON values, the questions only if asked for."""
        document: dict[str, Any] = {
            "sets": {name: _set_to_json(result) for name, result in self.sets.items()},
            "models": {label: asdict(info) for label, info in self.models.items()},
        }
        if questions:
            document["questions"] = [asdict(row) for row in self.questions]
        return document

    @classmethod
    def from_json(cls, document: Any) -> "Report":
        """The report that `to_json` wrote. Raises: DataError for anything else."""
        try:
            models = {
                str(label): ModelInfo(str(info["run"]), int(info["step"]), str(info["sha256"]))
                for label, info in document["models"].items()
            }
            sets = {str(name): _set_from_json(row) for name, row in document["sets"].items()}
            if any(result.by_model.keys() != models.keys() for result in sets.values()):
                raise ValueError
            return cls(models, sets, [_question_from_json(row) for row in document.get("questions", [])])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise DataError("This is not a report of an evaluation.", "Evaluate again: bbtui eval.") from None


def _set_to_json(result: SetResult) -> dict[str, Any]:
    by_model = {label: _model_to_json(found) for label, found in result.by_model.items()}
    row: dict[str, Any] = {"items": result.items, "tokens": result.tokens, "skipped": result.skipped}
    row["by_model"] = by_model
    if result.ratio is not None and result.ratio_ci95 is not None:
        row |= {label: dict(by_model[label]) for label in (GENERAL, BASEBALL)}
        row |= {"ratio": result.ratio, "ratio_ci95": list(result.ratio_ci95)}
    return row


def _model_to_json(result: ModelResult) -> dict[str, Any]:
    return asdict(result) | {"ci95": list(result.ci95)}


def _set_from_json(row: Any) -> SetResult:
    by_model = {str(label): _model_from_json(found) for label, found in row["by_model"].items()}
    ratio = ratio_ci95 = None
    if "ratio" in row:
        ratio, ratio_ci95 = float(row["ratio"]), _interval_from_json(row["ratio_ci95"])
    return SetResult(int(row["items"]), int(row["tokens"]), int(row["skipped"]), by_model, ratio, ratio_ci95)


def _model_from_json(row: Any) -> ModelResult:
    figures = {f.name: float(row[f.name]) for f in fields(ModelResult) if f.name != "ci95"}
    return ModelResult(ci95=_interval_from_json(row["ci95"]), **figures)


def _interval_from_json(ends: Any) -> tuple[float, float]:
    low, high = ends
    return float(low), float(high)


def _question_from_json(row: Any) -> QuestionResult:
    texts = {name: str(row[name]) for name in ("set", "id", "question", "answer")}
    means = {str(label): float(mean) for label, mean in row["mean_probability"].items()}
    return QuestionResult(**texts, mean_probability=means)
