"""From a source to arrays: decoded, split, checked for what crosses splits, written."""
