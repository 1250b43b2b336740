"""The verbs that work on finished files rather than on stages, one module each."""

from __future__ import annotations

import click

from .compare import compare
from .demo import demo
from .fetch import fetch
from .init import init
from .package import package
from .sweep import sweep
from .targets import targets
from .verify import verify

COMMANDS: tuple[click.Command, ...] = (
    compare,
    demo,
    fetch,
    init,
    package,
    sweep,
    targets,
    verify,
)
