"""What a stage's tab says where there is nothing to draw yet, and which keys it names."""

from collections.abc import Set as AbstractSet

from core.config import STAGES, check_stage_name, stage_title
from tui.run_state import RunState


def missing_words(stage: str, finished: AbstractSet[str], domain: str) -> str:
    """What has to be trained before this stage can start, with the keys that do it; empty if nothing has to."""
    at = STAGES.index(check_stage_name(stage))
    if at == 0 or STAGES[at - 1] in finished:
        return ""
    # The latest stage that is done says where to go on.
    done = max((i for i in range(at) if STAGES[i] in finished), default=-1)
    needed = {1: "pretrained model", 2: "general model", 3: f"model that has read about {domain}"}[at]
    doing = {0: "pretrain", 1: "finetune"}.get(done + 1, f"run {stage_title(STAGES[done + 1], domain)}")
    return f"No {needed} yet. Press {done + 2}, then Enter, to {doing}."


def empty_words(stage: str, finished: AbstractSet[str], domain: str) -> str:
    """The tab's text while it has no run to show."""
    if missing := missing_words(stage, finished, domain):
        return missing
    what = {
        "pretrain": "Nothing is pretrained yet. Press Enter to start from random weights.",
        "finetune": "Ready to finetune. Press Enter: the pretrained model learns to answer questions.",
        "baseball-pretrain": f"Ready. Press Enter: the general model goes on to read about {domain}.",
        "baseball-finetune": f"Ready. Press Enter: the model learns to answer questions about {domain}.",
    }[stage]
    if stage == "pretrain":
        what += "\n\nPress Q: all four stages, then compare."
    return what


def hints_for(state: RunState | None, is_live: bool, is_own: bool) -> list[tuple[str, str]]:
    """Keys and words for the footer, the most useful first."""
    if is_live:
        pause = "go on" if state and state.is_paused else "pause"
        last = ("d", "detach") if is_own else ("minus", "halve")
        return [("p", pause), ("s", "stop"), ("r", "rate"), ("z", "zoom"), last]
    start, settings = ("enter", "start"), ("S", "settings")
    if state is None or state.started is None:
        return [start, settings, ("Q", "quickstart")]
    resume = [("R", "resume")] if state.can_resume else []
    return [start, *resume, settings, ("x", "series"), ("o", "ghosts"), ("w", "watch")]
