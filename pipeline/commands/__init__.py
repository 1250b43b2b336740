"""The verbs that work on finished files rather than on stages, one module each."""

from __future__ import annotations

import click

from .demo import demo
from .fetch import fetch
from .package import package

COMMANDS: tuple[click.Command, ...] = (demo, fetch, package)
