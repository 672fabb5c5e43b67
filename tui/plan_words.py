"""A plan in words: a label and a text a line, for the screen and for the command line."""

from core.config import stage_title
from core.plan import Plan
from core.plan_warnings import PlanWarning, warnings_of
from core.probe import Pace, estimated_s
from tui.clean import clean, clean_line
from tui.figures import bytes_text, count_text, span_text

DETACH_FROM_S = 600.0
"""An estimate over this long makes a process of its own the first thing offered."""
TIME = "time"
"""The label of the one line that is not known at once."""

Line = tuple[str, str]


def plan_title(plan: Plan) -> str:
    """`Pretrain · quickstart`."""
    title = stage_title(plan.config.stage, plan.config.domain)
    return clean_line(f"{title} · {plan.config.preset or 'own configuration'}", 60)


def plan_lines(plan: Plan, measured_bytes: int = 0) -> list[Line]:
    """What the run will be, but for its time.

    Args:
        measured_bytes: memory that a probe took; 0 where it was not measured.
    """
    lines = [("model", _model(plan))]
    if plan.config.parent:
        parent = clean_line(plan.config.parent, 60)
        lines.append(("from", f"{parent}: its weights, sizes and vocabulary"))
    lines += [
        ("steps", _steps(plan)),
        ("data", _data(plan)),
        ("validation", _validation(plan)),
        ("memory", _memory(plan, measured_bytes)),
        ("disk", _disk(plan)),
    ]
    if plan.machine:
        lines.append(("device", f"{plan.machine.device.upper()}, {plan.machine.precision}"))
    return lines


def time_words(plan: Plan, pace: Pace | None) -> str:
    """How long the run will take at that pace, and how that is known."""
    if pace is None:
        return "not measured"
    known = f"as in {clean_line(pace.of_run, 50)}" if pace.of_run else "measured"
    step = f"{span_text(pace.step_s)} a step" if pace.step_s >= 10 else f"{pace.step_s:.2g} s a step"
    total_s = estimated_s(plan, pace)
    if total_s is None:
        return f"{step}, {known}; the number of steps is not known until the data is prepared"
    return f"about {span_text(total_s)}: {step}, {known}"


def detach_words(total_s: float) -> str:
    """Why a process of its own is offered first; empty where the run is short."""
    return (
        f"About {span_text(total_s)}: detached, it goes on when you leave." if total_s > DETACH_FROM_S else ""
    )


def warning_words(plan: Plan) -> list[str]:
    """Each warning as one text: what, and what to do."""
    return [warning_text(warning) for warning in warnings_of(plan)]


def warning_text(warning: PlanWarning) -> str:
    return clean(f"{warning.what} {warning.fix}")


def _model(plan: Plan) -> str:
    model = plan.model
    kind = "GPT-2" if model.architecture == "gpt2" else model.architecture
    sizes = f"{model.layers} layers of width {model.width}, context {model.context}"
    return f"{count_text(plan.parameters)} parameters: {kind}, {sizes}; vocabulary {plan.vocabulary}"


def _steps(plan: Plan) -> str:
    rows = plan.rows_per_step
    what = f"{count_text(plan.tokens_per_step)} tokens" if plan.tokens_per_step else "all pairs"
    if plan.config.learns_pairs and rows:
        what = f"{rows:,} pairs" + (f" ({what})" if plan.tokens_per_step else "")
    if plan.steps is None:
        return f"{plan.config.epochs:g} epochs of steps of {what}"
    total = f": {count_text(plan.tokens)} tokens in all" if plan.tokens else ""
    return f"{plan.steps:,} of {what}{total}"


def _data(plan: Plan) -> str:
    source, data = plan.config.data.source, plan.data
    if data is None:
        read = f"; read {plan.config.epochs:g} times" if plan.config.epochs else ""
        return f"{source}: its size is not known until it is prepared{read}"
    about = "" if data.is_exact else "about "
    size = f"{count_text(data.train_tokens)} tokens"
    if plan.config.learns_pairs:
        size = f"{data.train_items:,} pairs, {size}"
    return f"{source}: {about}{size}{_read(plan.epochs)}"


def _read(epochs: float | None) -> str:
    if epochs is None:
        return ""
    if epochs < 0.995:
        return f"; {max(epochs, 0.01):.0%} of it is read".replace("%", " %")
    return f"; read {epochs:.2g} times" if epochs >= 1.05 else "; read once"


def _validation(plan: Plan) -> str:
    kind = "pairs" if plan.config.learns_pairs else "windows"
    rows = plan.validation_rows
    about = "" if plan.data is None or plan.data.is_exact else "about "
    what = f" on {about}{rows:,} {kind}" if rows is not None else ""
    return f"every {plan.config.validate_every:,} steps{what}"


def _memory(plan: Plan, measured_bytes: int) -> str:
    free = f"{bytes_text(plan.memory_there_bytes)} are free"
    if measured_bytes:
        return f"{bytes_text(measured_bytes)} measured; {free}"
    return f"about {bytes_text(plan.memory.total_bytes)}; {free}"


def _disk(plan: Plan) -> str:
    number = plan.checkpoints_kept
    kept = f"{number} checkpoint{'s' * (number > 1)} of {bytes_text(plan.checkpoint_bytes)}"
    unknown = " and the prepared data" if plan.data is None else ""
    return f"{bytes_text(plan.disk_bytes)}: {kept}{unknown}; {bytes_text(plan.disk_free_bytes)} are free"
