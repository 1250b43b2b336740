"""Mutated bundles: each is refused with one of the runtime's own errors, or answers as the sound
one does.

    PYTHONPATH=.:tests/support python -m attack_cases.mutations COUNT SEED [BUNDLE]

Without BUNDLE, which must be of a multi-class model, three small ones are mutated in turns. Prints
JSON. The mutations are of bytes, as damage is: hashes are not made to fit (that is a forger's work,
and in the other modules).
"""

from __future__ import annotations

import io
import json
import random
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from attack_cases import zips
from attack_cases.attack import attempt
from attack_cases.forging import build, plain
from attack_cases.signature_attacks import well_signed
from runtime import PredictorError

Mutation = Callable[[bytes, random.Random], bytes]
TOO_LONG_S = 5.0  # of CPU time, for a bundle of 10 to 700 KB: a hang


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_structure(data: bytes, rng: random.Random) -> bytes:
    """Bits of headers, directory and end record, where a parser can be led astray."""
    marks = [i for i in range(len(data) - 4) if data[i : i + 2] == b"PK" and data[i + 3] < 7]
    changed = bytearray(data)
    position = rng.choice(marks) + rng.randrange(46)
    changed[min(position, len(changed) - 1)] = rng.choice(
        [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
    )
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 2000) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start : start + rng.randint(1, 2000)] * 2 + data[start:]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.randint(1, 600)
    return data[:start] + rng.randbytes(len(data[start : start + length])) + data[start + length :]


def swap_members(data: bytes, rng: random.Random) -> bytes:
    """A sound zip in which two members have each other's bytes, or a member is missing, twice
    there, or another's."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    one, other = rng.sample(sorted(members), 2)
    kind = rng.randrange(4)
    if kind == 0:
        members[one], members[other] = members[other], members[one]
    elif kind == 1:
        members[one] = members[other]
    elif kind == 2:
        del members[one]
    else:
        members[one] = flip_bits(members[one], rng) if members[one] else b"x"
    rows = zips.entries(members)
    rng.shuffle(rows)
    return zips.write(rows)


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, flip_structure, truncate, cut_out, repeat, overwrite, swap_members),
)


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    if len(sys.argv) > 3:
        sound = [Path(sys.argv[3]).read_bytes()]
    else:  # stored, deflated, signed
        sound = [plain(), build.bundle(), well_signed()]
    expected = attempt(sound[0])
    outcomes: Counter[str] = Counter()
    slowest, problems = 0.0, []
    for index in range(count):
        mutate = MUTATIONS[index % len(MUTATIONS)]
        data = mutate(sound[index // len(MUTATIONS) % len(sound)], rng)
        start = time.process_time()
        try:
            answer = attempt(data)
        except PredictorError as exc:
            outcomes[type(exc).__name__] += 1
        except BaseException as exc:
            problems.append(f"{index} {mutate.__name__}: {exc!r}")
        else:
            outcomes["correct answer"] += 1
            if answer != expected:
                problems.append(f"{index} {mutate.__name__}: answers {answer}")
        slowest = max(slowest, time.process_time() - start)
    if slowest > TOO_LONG_S:
        problems.append(f"the slowest took {slowest:.1f} s of CPU time")
    print(
        json.dumps(
            {"count": count, "outcomes": outcomes, "slowest_s": slowest, "problems": problems}
        )
    )


if __name__ == "__main__":
    main()
