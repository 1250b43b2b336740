"""Everything that the pipeline raises on purpose: found, expected, what to do.

PipelineError            exit code 1
├── RecipeError          exit code 2: unknown keys, impossible options
├── DataError            images or labels are missing, truncated or contradict each other
├── TrainError           training cannot start or went wrong
│   └── LostError        another process of the same training is gone
├── GateError            no variant may be shipped
│   └── UnprovenError    exit code 3: a file was written, but is not shown to be equal
├── StoreError           the artifact folder is locked, full or damaged
├── TargetError          a target cannot be set up, or failed to run a job
├── WebError             the page for browsers cannot be made or served
├── StageError           whatever went wrong while a stage ran, with the stage's name
└── Interrupted          exit code 130: Ctrl-C; says in which stage
"""


class PipelineError(Exception):
    """Base of all errors of this package; ``exit_code`` is what the command line returns."""

    exit_code = 1


class RecipeError(PipelineError):
    """A recipe cannot be read, has an unknown key or an impossible combination of options."""

    exit_code = 2


class DataError(PipelineError):
    """Images or labels are missing, truncated, or contradict each other."""


class TrainError(PipelineError):
    """Training cannot start with these options, or its numbers went wrong."""


class LostError(TrainError):
    """Another process of the same training is gone; what ended that one is the cause."""


class GateError(PipelineError):
    """No variant passed the gate, so there is nothing to ship."""


class UnprovenError(GateError):
    """A file was written, and nothing shows that it equals the model it was made from."""

    exit_code = 3


class StoreError(PipelineError):
    """The artifact folder is locked by another run, full, or damaged."""


class TargetError(PipelineError):
    """A target cannot be set up, or it failed where it should have answered."""


class WebError(PipelineError):
    """The page for browsers cannot be made or served, or onnxruntime-web was not fetched."""


class StageError(PipelineError):
    """A stage failed. ``stage`` is its name; the message is that of the cause, with its type in
    front unless the cause is one of this product's own errors, which speak for themselves."""

    def __init__(self, stage: str, cause: Exception) -> None:
        own = type(cause).__module__.split(".")[0] in ("pipeline", "exporters", "runtime")
        text = str(cause) if own else f"{type(cause).__name__}: {cause}"
        if isinstance(cause, OSError) and not own:
            text += ". Check free space and permissions"
        super().__init__(text)
        self.stage = stage
        self.exit_code = getattr(cause, "exit_code", 1)


class Interrupted(PipelineError):
    """Ctrl-C while a stage ran; finished stages are kept."""

    exit_code = 130  # 128 + SIGINT, as shells report it

    def __init__(self, stage: str) -> None:
        super().__init__("interrupted")
        self.stage = stage


class RenamedKeyWarning(FutureWarning):
    """A recipe, ``--set`` or ``--grid`` uses the former name of a key."""
