"""Attempts to make the runtime believe, read, allocate or run what it must not, one by one, each
with its reasoning. Every attack has a clean twin, the same bundle without the one evil, which
opens: so it is the evil that is refused. One file for each layer of the format.

    PYTHONPATH=.:tests/support python -m attack_cases    # try all of them in this one process
"""

from __future__ import annotations

from attack_cases.golden_attacks import GOLDEN
from attack_cases.manifest_attacks import HIDDEN, MANIFESTS
from attack_cases.model_attacks import MODELS
from attack_cases.name_attacks import NAMES
from attack_cases.output_attacks import OUTPUTS
from attack_cases.signature_attacks import SIGNATURES
from attack_cases.zip_attacks import ZIPS

ATTACKS = (*ZIPS, *NAMES, *MANIFESTS, *HIDDEN, *MODELS, *GOLDEN, *OUTPUTS, *SIGNATURES)
