"""The command line, one file per group of verbs; the only code that imports click."""
