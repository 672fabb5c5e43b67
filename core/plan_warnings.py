"""What a plan is warned of, in words: what is unusual about it, and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.plan import Plan

_MOST_EPOCHS = 4
"""Up to here a text read again teaches nearly as much as a new one.
Source: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", arXiv 2305.16264."""
_ENOUGH_VALIDATION_TOKENS = 100_000
_ENOUGH_VALIDATION_PAIRS = 200
_DOCUMENTS_IN_A_WINDOW = 3
_MATRIX_RATE_AT_768, _HIGHEST_MATRIX_RATE = 2e-3, 1e-2
_EMBEDDING_RATE = 2e-2
_FINETUNING_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class PlanWarning:
    what: str
    fix: str


def warnings_of(plan: Plan) -> list[PlanWarning]:
    """What to think of before the run is started; the gravest first."""
    checks = (_of_memory, _of_disk, _of_machine, _of_rate, _of_batch, _of_validation, _of_epochs, _of_context)
    return [warning for check in checks for warning in check(plan)]


def usual_rate(plan: Plan) -> float:
    """The highest learning rate that is usual for the plan's optimizer, architecture, width and stage.

    Matrices bear a rate in inverse proportion to the width (Yang et al. 2022, arXiv 2203.03466), some 2e-3 at
    width 768, under AdamW and under a Muon that is scaled to it alike. With Muon the rate is that of embeddings and
    norms, which bear 2e-2 in the modern architectures and half of it in GPT-2's, and matrices have a share of it.
    Questions are learned at a fifth of that: the model is to keep what it knows.
    """
    optim = plan.config.optim
    usual = min(_HIGHEST_MATRIX_RATE, _MATRIX_RATE_AT_768 * 768 / plan.model.width)
    if optim.matrices == "muon":
        embeddings = _EMBEDDING_RATE if plan.model.architecture != "gpt2" else _EMBEDDING_RATE / 2
        usual = min(usual / optim.muon_share, embeddings)
    return usual * (_FINETUNING_SHARE if plan.config.learns_pairs else 1)


def _of_memory(plan: Plan) -> Iterator[PlanWarning]:
    needed, there = plan.memory.total_bytes, plan.memory_there_bytes
    if needed > there:
        where = "the GPU" if plan.machine and plan.machine.gpu_free_bytes else "this machine"
        yield PlanWarning(
            f"Not enough memory: about {needed / 1e9:.1f} GB are needed, {there / 1e9:.1f} GB are free on {where}.",
            "Lower batch.micro_batch first: the result stays the same. Then model.width or model.layers."
            if plan.micro_batch > 1
            else "Lower model.width, model.layers or model.context, or close other programs.",
        )


def _of_disk(plan: Plan) -> Iterator[PlanWarning]:
    if plan.disk_bytes > plan.disk_free_bytes:
        yield PlanWarning(
            f"Not enough disk: {plan.disk_bytes / 1e9:.1f} GB are needed, "
            f"{plan.disk_free_bytes / 1e9:.1f} GB are free.",
            "Free some, lower keep_last, or name another folder with --root.",
        )


def _of_machine(plan: Plan) -> Iterator[PlanWarning]:
    machine = plan.machine
    if machine is None:
        return
    if machine.has_gpu and machine.device == "cpu":
        yield PlanWarning("There is a GPU, and device = cpu leaves it idle.", "Set device=auto.")
    if machine.precision == "bfloat16" and not machine.has_bfloat16:
        yield PlanWarning(
            f"bfloat16 is missing on this {'GPU' if machine.device != 'cpu' else 'processor'}: "
            "it is emulated, which is slower than float32.",
            "Set precision=auto.",
        )


def _of_rate(plan: Plan) -> Iterator[PlanWarning]:
    rate, usual = plan.config.optim.learning_rate, usual_rate(plan)
    if rate > usual * 1.001:
        optimizer = "Muon" if plan.config.optim.matrices == "muon" else "AdamW"
        yield PlanWarning(
            f"The rate {rate:.2g} is above the usual range for {optimizer} at width {plan.model.width} in this "
            f"stage (up to {usual:.1g}): the loss may jump or diverge.",
            f"Set optim.learning_rate={usual:.1g} or lower it while it trains: r.",
        )


def _of_batch(plan: Plan) -> Iterator[PlanWarning]:
    data, rows = plan.data, plan.rows_per_step
    if data and rows and rows > data.train_items:
        kind, key = ("pairs", "batch.examples") if plan.config.learns_pairs else ("windows", "batch.tokens")
        size = data.train_items * (1 if plan.config.learns_pairs else plan.model.context)
        yield PlanWarning(
            f"The batch is larger than the data: {rows:,} {kind} a step, {data.train_items:,} there; "
            "each step learns the same text more than once.",
            f"Set {key}={size} or less, or give more data.",
        )


def _of_validation(plan: Plan) -> Iterator[PlanWarning]:
    rows, data = plan.validation_rows, plan.data
    if rows is None or data is None:
        return
    is_pairs = plan.config.learns_pairs
    # A step of all pairs says nothing of how many are enough to measure on.
    batch = plan.config.batch.examples or plan.config.batch.micro_batch if is_pairs else plan.rows_per_step
    enough = _ENOUGH_VALIDATION_PAIRS if is_pairs else _ENOUGH_VALIDATION_TOKENS // plan.model.context
    if batch and rows < min(batch, enough):
        kind = "pairs" if is_pairs else "windows"
        limited = rows < data.validation_items
        yield PlanWarning(
            f"The validation set is smaller than one batch: {rows:,} {kind}, a step has {batch:,}; "
            "its loss will be uncertain.",
            "Raise validation_rows." if limited else "Raise data.validation_share, or give more data.",
        )


def _of_epochs(plan: Plan) -> Iterator[PlanWarning]:
    epochs = plan.epochs
    if epochs is None or epochs <= _MOST_EPOCHS + 0.05:
        return
    what = f"The data is read {epochs:.2g} times: after some {_MOST_EPOCHS} it teaches little new, and is memorised."
    if plan.config.learns_pairs:
        fix = "With questions that is usual: watch the validation loss, and stop where it rises."
    elif plan.config.stage.startswith("baseball"):
        fix = f"On a small text on {plan.config.domain} that is meant; else give more, or read it less often."
    else:
        fix = "Give more text, take fewer steps, or raise model.dropout."
    yield PlanWarning(what, fix)


def _of_context(plan: Plan) -> Iterator[PlanWarning]:
    data = plan.data
    if plan.config.learns_pairs or data is None or not data.document_tokens:
        return
    if plan.model.context > _DOCUMENTS_IN_A_WINDOW * data.document_tokens:
        fix = "Train with a shorter model.context: faster, and nothing is lost."
        if plan.config.parent:
            fix = "It works; a model for such text alone could have a shorter context."
        yield PlanWarning(
            f"The context of {plan.model.context:,} tokens is longer than most documents, of some "
            f"{data.document_tokens:.0f} each: a window holds several that have nothing to do with each other.",
            fix,
        )
