"""`bbtui plan`: what a run would be, before it is started."""

import json
from typing import Annotated

import typer

from core.config import DEFAULT_PRESET, STAGES
from core.errors import BbtuiError
from core.plan import Plan
from core.probe import MachineFound, Pace, PaceMeasured, ProbeFailed, ProbeProcess
from core.runs import Runs
from tui.commands.options import AsJson, Root, store_of


def plan(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(help=", ".join(STAGES))],
    preset: Annotated[str, typer.Option(help="Preset of the run.")] = DEFAULT_PRESET,
    from_run: Annotated[
        str | None, typer.Option("--from", help="RUN to start from, with @best or @STEP.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as in the preset's file.")
    ] = None,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Do not measure this machine's pace.")] = False,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Say what a stage would take: steps, epochs, memory, disk, time; and what to think of first."""
    from core.plan import plan_of
    from core.plan_warnings import warnings_of
    from core.probe import estimated_s
    from tui import plan_words

    store = store_of(context, root)
    planned = plan_of(store, preset, stage, from_run, settings)
    planned, pace, memory_bytes, notice = _measured(store, planned, no_probe, as_json)
    if as_json:
        total_s = estimated_s(planned, pace) if pace else None
        row = planned.to_row() | {
            "step_s": pace.step_s if pace else None,
            "pace_of_run": pace.of_run if pace else "",
            "estimated_s": total_s,
            "measured_memory_bytes": memory_bytes or None,
            "notice": notice,
            "warnings": [{"what": w.what, "fix": w.fix} for w in warnings_of(planned)],
        }
        print(json.dumps(row, allow_nan=False))
        return
    print(plan_words.plan_title(planned))
    time = plan_words.time_words(planned, pace)
    for label, text in [*plan_words.plan_lines(planned, memory_bytes), (plan_words.TIME, time)]:
        print(f"{label:>13}  {text}")
    for text in [notice] if notice else []:
        print(f"{'':>13}  {text}")
    for text in plan_words.warning_words(planned):
        print(f"warning: {text}")


def _measured(store: Runs, planned: Plan, no_probe: bool, quiet: bool) -> tuple[Plan, Pace | None, int, str]:
    """The plan on this machine, the pace, the memory measured, and why nothing was."""
    import sys

    from core.probe import busy_words, last_pace

    notice = busy_words(store)
    if no_probe or notice:
        from core.probe_bench import machine_of

        return planned.on(machine_of(planned.config)), last_pace(store, planned), 0, notice
    if not quiet and sys.stderr.isatty():
        print("Measuring this machine, for some 10 s…", file=sys.stderr)
    for event in ProbeProcess(planned).events():
        if isinstance(event, MachineFound):
            planned = planned.on(event.machine)
        elif isinstance(event, PaceMeasured):
            return planned, event.pace, event.memory_bytes, ""
        elif isinstance(event, ProbeFailed):
            notice = f"{event.what} {event.fix}".strip()
    if planned.machine is None:
        raise BbtuiError(notice, "Plan without measuring: --no-probe.")
    return planned, last_pace(store, planned), 0, notice
