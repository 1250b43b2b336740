"""The verbs that work on finished files rather than on stages, one module each."""

from __future__ import annotations

import click

from pipeline.cli.compare import compare
from pipeline.cli.demo import demo
from pipeline.cli.fetch import fetch
from pipeline.cli.init import init
from pipeline.cli.package import package
from pipeline.cli.sweep import sweep
from pipeline.cli.targets import targets
from pipeline.cli.verify import verify

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
