"""Try every attack; print one line for each that is not refused as it should be."""

from __future__ import annotations

import re
import sys

from attack_cases import ATTACKS
from attack_cases.attack import attempt
from runtime import PredictorError


def main() -> int:
    wrong = 0
    for attack in ATTACKS:
        try:
            attempt(attack.evil(), attack.keys)
        except PredictorError as exc:
            if type(exc) is attack.error and re.search(attack.message, str(exc), re.DOTALL):
                continue
            print(f"{attack.name}: {type(exc).__name__}: {exc}")
        else:
            print(f"{attack.name}: accepted")
        wrong += 1
    print(f"{len(ATTACKS) - wrong} of {len(ATTACKS)} attacks refused")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
