"""What is said of a queue, on the screen and on the command line."""

from core.stage_queue import Standing


def halt_words(standing: Standing, title: str) -> str:
    """Where a queue that nobody works off has come to: `stopped at Finetune, step 40`.

    Args:
        title: what the stage that comes next is called here.
    """
    task = standing.next
    if task is None:
        return "is finished"
    summary = standing.summary_of(task.stage)
    if not task.run or summary is None:
        return f"waits before {title}"
    if summary.is_live:
        return f"waits for {title}, which is trained by itself"
    verb = {"failed": "failed", "interrupted": "was cut off"}.get(summary.state, "stopped")
    return f"{verb} at {title}, step {summary.step}"
