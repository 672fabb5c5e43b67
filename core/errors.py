"""The errors that users meet. Each says what happened, where, and what to do about it."""


class BbtuiError(Exception):
    """An error with a message for the user.

    Args:
        what: one sentence that names the culprit.
        fix: one sentence that says what to do; it may be empty where nothing helps.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n{self.fix}" if self.fix else self.what


class UsageError(BbtuiError):
    """A request that cannot be carried out as it was given."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration with one or more problems, all of them reported at once."""

    def __init__(self, problems: list[str], fix: str = "") -> None:
        self.problems = problems
        super().__init__("\n".join(problems), fix)


class MissingError(UsageError):
    """Something that is needed is not there: a run, a checkpoint, a file, a pair of models."""


class DataError(UsageError):
    """A data file that cannot be used as it stands."""


class RunBusyError(UsageError):
    """Another process is training this run."""


class CheckpointError(BbtuiError):
    """A checkpoint that is damaged or does not belong to this run."""

    exit_code = 2


class RunFailedError(BbtuiError):
    """A run that could not go on. Its last checkpoint stands."""


class RetryLaterError(BbtuiError):
    """A failure of the surroundings (network, disk full): the same request may work later."""

    exit_code = 3
