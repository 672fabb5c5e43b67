"""The Chat tab: one prompt, two models, the same seed, two answers side by side."""

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, HorizontalGroup, Vertical
from textual.content import Content
from textual.events import Click, Resize, Show
from textual.message import Message
from textual.widgets import Static

from core.runs import Run
from core.sampling import Sampling
from tui.clean import clean_line
from tui.widgets.model_chat import ModelChat, Transcript
from tui.widgets.prompt_box import PromptBox
from tui.widgets.run_list import RunList
from tui.widgets.sampling_form import SamplingForm
from tui.workers.listing import Lister, Model, Models, missing_words, model_of, models_of, role_of

if TYPE_CHECKING:
    from tui.app import BbtuiApp

SIDE_BY_SIDE_COLUMNS = 100
STACKED_COLUMNS, STACKED_ROWS = 72, 20


class ChatPane(Vertical):
    """Two models and a prompt box. It loads a model only when it is asked something."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", tooltip="Stop the answers that are being drawn."),
        Binding("escape", "leave_box", "Leave box", tooltip="Leave the prompt box: keys are commands then."),
        Binding("enter", "write", "Write", tooltip="Go to the prompt box."),
        Binding("s", "stop", "Stop", show=False, tooltip="Stop the answers that are being drawn."),
        Binding("n", "start_anew", "New", tooltip="Start a new conversation with both models."),
        Binding(
            "g", "answer_again", "Again", tooltip="Draw new answers to the last prompt, with the next seed."
        ),
        Binding(
            "e", "edit_last", "Edit", show=False, tooltip="Edit the last prompt and ask it anew in its place."
        ),
        Binding("m", "choose_model", "Model", tooltip="Choose the model of the focused side from all runs."),
        Binding(
            "t", "sampling", "Sampling", show=False, tooltip="Change temperature, top-k, top-p, seed, length."
        ),
        Binding("o,ctrl+o", "other_side", "Other side", show=False, tooltip="Go to the other model's side."),
        Binding("y", "copy_reply", "Copy", tooltip="Copy the newest answer of the focused side."),
    ]

    class ModelsFound(Message):
        """From the worker that looks for models."""

        def __init__(self, models: Models) -> None:
            super().__init__()
            self.models = models

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sampling = Sampling()
        self.models: Models | None = None
        self._chosen: dict[str, Run] = {}
        """Runs that the user picked, by side; the other sides follow the newest pair."""
        self._side = "left"
        """The side that is meant where neither has the focus, and the one shown where there is room for one."""
        self._asked = 0
        self._last_prompt = ""
        self._is_editing = False
        self._lister: Lister | None = None
        self._has_come = False
        """Whether the tab was just opened, so that the focus is to be put."""

    def compose(self) -> ComposeResult:
        with Container(id="chat-sides"):
            yield ModelChat(id="chat-left")
            yield ModelChat(id="chat-right")
        yield Static(id="chat-notice")
        yield Static(id="chat-sampling")
        with HorizontalGroup(id="chat-ask"):
            yield Static(Content("›"), id="chat-sign")
            yield PromptBox(id="chat-box")

    def on_mount(self) -> None:
        self.box.disabled = True
        self._show_sampling()
        self._show_notice()

    @property
    def _app(self) -> "BbtuiApp":
        return cast("BbtuiApp", self.app)

    @property
    def box(self) -> PromptBox:
        return self.query_one(PromptBox)

    @property
    def sides(self) -> dict[str, ModelChat]:
        return {name: self.query_one(f"#chat-{name}", ModelChat) for name in ("left", "right")}

    @property
    def is_answering(self) -> bool:
        return any(side.is_busy for side in self.sides.values())

    # ------------------------------------------------------------ which models

    def on_show(self, _event: Show) -> None:
        self._has_come = True
        # Who types at once must not have the letters taken for commands.
        if not self.box.disabled and not self.has_focus_within:
            self.focus_default()
        self.look_for_models()

    def look_for_models(self) -> None:
        """Look, off the UI thread, which models there are; the sides that follow the newest pair take it up."""
        store = self._app.store
        self.run_worker(
            lambda: self.post_message(self.ModelsFound(models_of(store))),
            name="look for models",
            thread=True,
            exit_on_error=False,
        )

    def on_chat_pane_models_found(self, message: ModelsFound) -> None:
        message.stop()
        self.models = message.models
        if not self.is_answering:
            self._place_models()
        if self._has_come and self.is_on_screen:
            self._has_come = False
            if self.screen.focused is None or self.has_focus_within:
                self.focus_default()

    def _place_models(self) -> None:
        """Give each side its model: the chosen one, or the pair's; a conversation keeps the model it is with."""
        models = self.models
        if models is None:
            return
        newest = {"left": models.general, "right": models.baseball}
        for name, side in self.sides.items():
            model = model_of(self._chosen[name]) if name in self._chosen else newest[name]
            is_other = side.model is not None and model is not None and side.model.run != model.run
            if is_other and side.exchanges and name not in self._chosen:
                continue
            if model is None:
                stage = "finetune" if name == "left" else "baseball-finetune"
                side.show_missing(missing_words(stage, models, self._app.domain))
            else:
                side.show_model(model, role_of(model.run, self._app.domain))
        has_model = any(side.model for side in self.sides.values())
        self.box.disabled = not has_model
        self._show_placeholder()
        self._show_notice()
        self.refresh_bindings()

    def _newer_pair(self) -> bool:
        """Whether a side that follows the newest pair still talks as an older model."""
        if self.models is None:
            return False
        newest: dict[str, Model | None] = {"left": self.models.general, "right": self.models.baseball}
        return any(
            side.model and model and name not in self._chosen and side.model.run != model.run
            for (name, side), model in zip(self.sides.items(), newest.values(), strict=True)
        )

    def action_choose_model(self) -> None:
        """Choose the model of the focused side from a list."""
        name = self.focused_side()
        self._lister = self._lister or Lister(self._app.store)

        def take(choice: Run | str | None) -> None:
            if choice is None:
                return
            if isinstance(choice, Run):
                self._chosen[name] = choice
            else:
                self._chosen.pop(name, None)
                self.sides[name].start_anew()
            self._place_models()

        self.app.push_screen(RunList(self._lister, f"Model of the {name} side"), take)

    # ------------------------------------------------------------ asking

    def on_prompt_box_submitted(self, message: PromptBox.Submitted) -> None:
        message.stop()
        if self.is_answering:
            self._say("Still answering. Press Escape to stop.", "warning")
            return
        if self._is_editing:
            self._take_back()
        self.box.clear()
        self._ask(message.text)

    def on_prompt_box_last_wanted(self, message: PromptBox.LastWanted) -> None:
        message.stop()
        self.action_edit_last()

    def _ask(self, prompt: str) -> None:
        self._asked += 1
        self._last_prompt = prompt
        for side in self.sides.values():
            side.ask(self._asked, prompt, self.sampling)

    def _take_back(self) -> None:
        for side in self.sides.values():
            side.take_back(self._asked)
        self._set_editing(False)

    def action_answer_again(self) -> None:
        """Draw new answers to the last prompt: the same seed would draw the same ones."""
        if self._has_last_prompt():
            self.sampling = self.sampling.with_next_seed()
            self._show_sampling()
            self._take_back()
            self._ask(self._last_prompt)

    def action_edit_last(self) -> None:
        """Put the last prompt back into the box; asking it then replaces its answers."""
        if self._has_last_prompt():
            self._set_editing(True)
            self.box.fill(self._last_prompt)
            self.box.focus()

    def _has_last_prompt(self) -> bool:
        if self.is_answering:
            self._say("Still answering. Press Escape to stop.", "warning")
        elif not self._last_prompt:
            self._say("Nothing has been asked yet.", "warning")
        return bool(self._last_prompt) and not self.is_answering

    def _set_editing(self, is_editing: bool) -> None:
        self._is_editing = is_editing
        self._show_notice()

    def action_start_anew(self) -> None:
        """Forget both conversations; sides that follow the newest pair take it up."""
        for side in self.sides.values():
            side.start_anew()
        self._last_prompt = ""
        self._set_editing(False)
        self._place_models()
        self.look_for_models()

    def action_stop(self) -> None:
        for side in self.sides.values():
            side.stop()

    @on(Click, "#chat-sampling")
    def action_sampling(self) -> None:
        """Change how answers are drawn."""

        def take(choice: Sampling | None) -> None:
            if choice:
                self.sampling = choice
                self._show_sampling()

        self.app.push_screen(SamplingForm(self.sampling), take)

    # ------------------------------------------------------------ moving about

    def focused_side(self) -> str:
        """The side that has the focus, or had it last."""
        for name, side in self.sides.items():
            if side.has_focus_within:
                self._side = name
        return self._side

    def on_descendant_focus(self) -> None:
        self.focused_side()

    def focus_default(self) -> None:
        """Put the focus into the box, or, where there is nobody to ask, where digits switch tabs."""
        (self.sides[self._side].query_one(Transcript) if self.box.disabled else self.box).focus()

    def action_write(self) -> None:
        self.box.focus()

    def action_leave_box(self) -> None:
        if self._is_editing:
            self.box.clear()
            self._set_editing(False)
        self.sides[self._side].query_one(Transcript).focus()

    def action_other_side(self) -> None:
        """Go to the other side; where there is room for one only, it is shown in place of this one."""
        self._side = "right" if self.focused_side() == "left" else "left"
        self._lay_out()
        if not self.box.has_focus:
            self.sides[self._side].query_one(Transcript).focus()

    def action_copy_reply(self) -> None:
        """Copy the newest answer of the focused side, and say so."""
        side = self.sides[self.focused_side()]
        if text := side.last_reply:
            self.app.copy_to_clipboard(text)
            self._say(f"Copied the answer of {side.model.run.short_name if side.model else side.role}.")
        else:
            self._say("There is no answer to copy yet.", "warning")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that would do nothing, or are typed now, are neither bound nor shown."""
        del parameters
        if isinstance(self.app.focused, PromptBox) and action not in ("stop", "leave_box", "other_side"):
            return False
        match action:
            case "stop":
                return self.is_answering
            case "leave_box":
                return self.box.has_focus
            case "write":
                return not self.box.disabled and not self.box.has_focus
        return True

    # ------------------------------------------------------------ showing

    def on_resize(self, _event: Resize) -> None:
        self._lay_out()
        self._show_sampling()

    def _lay_out(self) -> None:
        """Side by side, one above the other, or one at a time."""
        is_wide = self.size.width >= SIDE_BY_SIDE_COLUMNS
        is_single = not is_wide and (self.size.width < STACKED_COLUMNS or self.size.height < STACKED_ROWS)
        self.set_class(is_wide, "-wide")
        for position, (name, side) in enumerate(self.sides.items(), 1):
            side.display = not is_single or name == self._side
            side.border_subtitle = Content(f"{position} of 2 · ctrl+o: the other") if is_single else None

    def on_model_chat_changed(self, message: ModelChat.Changed) -> None:
        message.stop()
        self._show_notice()
        self.refresh_bindings()

    def _show_sampling(self) -> None:
        hint = "   t changes it" if self.size.width >= STACKED_COLUMNS else ""
        self.query_one("#chat-sampling", Static).update(Content(self.sampling.in_words() + hint))

    def _show_placeholder(self) -> None:
        count = sum(side.model is not None for side in self.sides.values())
        words = ["Nothing to ask yet", "Ask the model…", "Ask both models…"][count]
        self.box.placeholder = Content(words)

    def _show_notice(self) -> None:
        """One line for what must not be overlooked, or none."""
        left, right = (side.model for side in self.sides.values())
        words = ""
        if self._is_editing:
            words = (
                "Editing the last prompt: Enter asks it in place of the old one, Escape leaves all as it was."
            )
        elif left and right and left.sha256 and left.sha256 == right.sha256:
            words = f"Both sides are the same weights ({left.sha256[:6]}): expect the same answer twice."
        elif self._newer_pair():
            words = "A newer pair of models is ready: n starts a new conversation with it."
        notice = self.query_one("#chat-notice", Static)
        notice.update(Content(words))
        notice.display = bool(words)

    def _say(self, words: str, severity: str = "information") -> None:
        level = "warning" if severity == "warning" else "information"
        self.app.notify(clean_line(words, 150), severity=level, markup=False)
