"""Everything that the exporters raise on purpose.

ExportError
├── GraphError        a model cannot be written, or the result is not what was asked for
├── QuantizeError     a variant cannot be made, or the tools ignored a request
└── PackageError      a bundle or wheel cannot be written, or does not open again
"""


class ExportError(Exception):
    """Base of all errors of this package: found, expected, what to do."""


class GraphError(ExportError):
    """A model cannot be exported, or the file is not what was asked for."""


class QuantizeError(ExportError):
    """A variant cannot be made, or an option was ignored by the tools that make it."""


class PackageError(ExportError):
    """A bundle or a wheel cannot be written, or does not open again."""
