"""The sentences of reports."""
