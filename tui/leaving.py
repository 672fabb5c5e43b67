"""How the app is left: by a key, a signal, a lost terminal, an error. What it trains is saved on each of these ways."""

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console, RenderableType
from rich.text import Text
from rich.traceback import Traceback
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widgets import Input, TextArea

from core.runs import data_folder
from tui.clean import clean
from tui.frame import Frame
from tui.terminal import has_terminal, screen_on_own_descriptor
from tui.trainer import DETACHED, Trainer
from tui.widgets.dialogs import WaitScreen, quit_dialog
from tui.workers.failures import in_words

_SECONDS_TO_SAVE = 60.0
_SECONDS_BETWEEN_INTERRUPTS = 3.0
_SECONDS_BETWEEN_LOOKS = 2.0
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


class LeavableFrame(Frame):
    """A frame with a trainer, and a way out that loses no finished step.

    Args:
        root: the folder that holds `checkpoints/`.
        trainer: what may be training when the app is left.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "q", "quit", "Quit", show=False, tooltip="Leave the app; it asks first while it trains a run."
        ),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding(
            "ctrl+c",
            "interrupt",
            "Interrupt",
            show=False,
            priority=True,
            tooltip="Copy what is selected; or leave: pressed twice at once, a run stopped and saved.",
        ),
    ]

    def __init__(self, root: Path, trainer: Trainer, domain: str) -> None:
        super().__init__(root, domain)
        self.trainer = trainer
        self._log_folder = data_folder(root)
        self._exit_code: int | None = None
        """Set once the app only waits for its run to end."""
        self._patience: Timer | None = None
        """How long the end of the run is waited for."""
        self._early_signal: signal.Signals | None = None
        """One that came before the app could act on it."""
        self._interrupted_at = -_SECONDS_BETWEEN_INTERRUPTS
        self._had_terminal = False

    @property
    def is_leaving(self) -> bool:
        """Whether the app only waits for its run to end."""
        return self._exit_code is not None

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _EXIT_CODES:
            # Python lets only the main thread do it, and not on Windows.
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, self._leave_by, number)
        if self._early_signal:
            self._leave_by(self._early_signal)
        self.set_interval(_SECONDS_BETWEEN_LOOKS, self._look_for_terminal)

    # ------------------------------------------------------------ by keys

    async def action_quit(self) -> None:
        """Leave; while a run is trained here, ask what shall become of it."""
        if self.is_leaving or self._is_asking:
            return
        if not self.trainer.is_busy:
            self.exit()
            return
        run = self.trainer.job.run if self.trainer.job else None
        state = self.stage_pane(self.trainer.stage).state
        name, step = run.short_name if run else self.trainer.stage, state.step if state else 0
        dialog = quit_dialog(name, step, self.trainer.is_queue)
        dialog.add_class("-leaving")
        self.push_screen(dialog, self._quit_answered)

    @property
    def _is_asking(self) -> bool:
        return any(screen.has_class("-leaving") for screen in self.screen_stack)

    def _quit_answered(self, answer: str | None) -> None:
        if answer == "detach":
            self._leave_when_stopped(0, save=True, reason=DETACHED)
        elif answer in ("save", "discard"):
            self._leave_when_stopped(0, save=answer == "save", reason="stopped")

    async def action_interrupt(self) -> None:
        """Leave on the second press, as after SIGINT; the first asks, or says so. Raises: SkipAction to copy."""
        typed = isinstance(self.focused, (Input, TextArea)) and self.focused.selected_text
        if typed or self.screen.get_selected_text():
            raise SkipAction
        now = time.monotonic()
        if self._is_asking or now - self._interrupted_at < _SECONDS_BETWEEN_INTERRUPTS:
            self._leave_by(signal.SIGINT)
        elif self.trainer.is_busy:
            await self.action_quit()
        else:
            self.notify("Press ctrl+c again to leave.", timeout=_SECONDS_BETWEEN_INTERRUPTS)
        self._interrupted_at = now

    # ------------------------------------------------------------ by signals and by a lost terminal

    def _leave_by(self, number: signal.Signals) -> None:
        self._leave_when_stopped(_EXIT_CODES[number], save=True, reason=number.name)

    def _leave_when_stopped(self, exit_code: int, save: bool, reason: str) -> None:
        if self.is_leaving:
            return
        self._exit_code = exit_code
        if not self.trainer.is_busy:
            self.leave_now()
            return
        self.trainer.stop(save, reason)
        self.push_screen(WaitScreen("Saving a checkpoint…" if save else "Stopping…"))
        self._patience = self.set_timer(_SECONDS_TO_SAVE, self.leave_now)

    def stay(self) -> None:
        """Leave no more, if the app was about to: there is something to be decided first."""
        if self._patience:
            self._patience.stop()
            self._patience = self._exit_code = None
            if isinstance(self.screen, WaitScreen):
                self.pop_screen()

    def leave_now(self) -> None:
        """Leave with the exit code that was settled; nothing is waited for any more."""
        self.exit(return_code=self._exit_code or 0)

    @property
    def _has_lost_terminal(self) -> bool:
        return self._had_terminal and not has_terminal()

    def _look_for_terminal(self) -> None:
        # Not every terminal that goes sends a hang-up; without one, reads end and nothing else happens.
        if self._has_lost_terminal:
            self._leave_by(signal.SIGHUP)

    # ------------------------------------------------------------ by an error

    def panic(self, *renderables: RenderableType) -> None:
        """Leave after an error nobody expected; a terminal that is gone counts as a hang-up."""
        if self._has_lost_terminal:
            self._leave_by(signal.SIGHUP)
        elif any(isinstance(renderable, Traceback) for renderable in renderables):
            self._log_folder.mkdir(parents=True, exist_ok=True)
            log = self._log_folder / "stderr.log"
            with contextlib.suppress(OSError), log.open("a", encoding="utf-8", errors="replace") as file:
                Console(file=file, width=120).print(*renderables)
            super().panic(Text(f"The terminal could not be read. The whole story is in {log}."))
        else:
            super().panic(*renderables)

    def _handle_exception(self, error: Exception) -> None:
        settled = self.return_code
        super()._handle_exception(error)
        if settled is not None:
            self._return_code = settled

    def _fatal_error(self) -> None:
        # Textual would fill the terminal with a traceback and the values of its variables.
        error = sys.exc_info()[1] or self._exception or RuntimeError("unknown")
        what, fix = in_words(error, self._log_folder)
        # Of several errors the first is said; one that comes while the widgets are taken down changes nothing more.
        if not self._exit_renderables and not self._exit:
            self.panic(Text(clean(f"error: {what}\n{fix}")))

    # ------------------------------------------------------------ what all of them come to

    def run(self, **options: Any) -> None:
        """Run the app in the terminal; when it returns, no training of this app goes on."""
        with screen_on_own_descriptor(self._log_folder / "stderr.log"):
            self._had_terminal = has_terminal()
            for number in _EXIT_CODES:
                # A signal that comes while the first picture is drawn must not leave the terminal as it is then.
                with contextlib.suppress(ValueError):
                    signal.signal(number, self._note_signal)
            try:
                super().run(**options)
            finally:
                self._save_what_still_trains()

    def _note_signal(self, number: int, _frame: object) -> None:
        self._early_signal = signal.Signals(number)

    def _save_what_still_trains(self) -> None:
        job = self.trainer.job
        if job is None or not job.is_alive:
            return
        # Nobody listens for signals any more, and none of these may cut the saving short; ctrl+c may.
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if not self.is_leaving:
            name = job.run.name if job.run else job.request.stage
            print(f"Stopping {name} and saving a checkpoint…", file=sys.stderr)
            job.stop(save=True, reason="interrupted")
        job.join(_SECONDS_TO_SAVE)
