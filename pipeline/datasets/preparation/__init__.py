"""From a source to arrays: split, judge what crosses splits, write."""
