"""Kill ``Slot.install`` at random moments, and see whether the slot can be used.

    PYTHONPATH=. python tests/runtime/slot_kills.py FOLDER A.zip B.zip COUNT SEED

Prints JSON: how often it was killed, how many of these the install had already ended, how many
slots were unusable. One warm process forks the victims, since an interpreter takes longer to
start than an install takes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from runtime import Bundle, PredictorError, Slot


def victim(folder: Path, bundles: list[bytes]) -> None:
    """Install one after the other until death."""
    slot = Slot(folder, allow_downgrade=True)
    for i in range(10_000):
        slot.install(bundles[i % 2], device="cpu", threads=1)


def duration(folder: Path, bundles: list[bytes]) -> float:
    """Seconds of one install."""
    slot = Slot(folder, allow_downgrade=True)
    start = time.perf_counter()
    for data in bundles * 3:
        slot.install(data, device="cpu", threads=1)
    return (time.perf_counter() - start) / (3 * len(bundles))


def problem(folder: Path, ids: set[str | None]) -> str | None:
    """Why the slot cannot be used; None if it can: it opens, answers, and takes an install."""
    try:
        slot = Slot(folder)
        with slot.open("cpu", threads=1) as predictor:
            if predictor.info.bundle_id not in ids:
                return f"opens {predictor.info.bundle_id}"
        if slot.state.problem or slot.state.opened != slot.state.current:
            return f"fell back: {slot.state.problem}"
    except PredictorError as exc:
        return f"{type(exc).__name__}: {exc}"
    return None


def main() -> None:
    folder, first, second = (Path(word) for word in sys.argv[1:4])
    count, rng = int(sys.argv[4]), random.Random(int(sys.argv[5]))
    bundles = [first.read_bytes(), second.read_bytes()]
    ids = {Bundle.open(data).id for data in bundles}
    seconds = duration(folder, bundles)
    found, seen = [], set()
    for _ in range(count):
        child = os.fork()
        if child == 0:
            victim(folder, bundles)
        time.sleep(rng.uniform(0, 3 * seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if reason := problem(folder, ids):
            found.append(reason)
        seen.add(tuple(sorted(path.parent.name for path in folder.rglob("*") if path.is_file())))
    Slot(folder, allow_downgrade=True).install(bundles[0], device="cpu", threads=1)
    left = sorted(path.name for path in (folder / "bundles").iterdir())
    print(
        json.dumps(
            {
                "kills": count,
                "unusable": found,
                "states": len(seen),  # different numbers of files: deaths at different steps
                "left": len(left),
                "install_ms": round(1000 * seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
