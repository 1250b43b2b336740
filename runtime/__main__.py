"""The command line of a device: ``python -m runtime predict|selftest|info|autotune BUNDLE``, and
``install SLOT BUNDLE``, ``rollback SLOT`` and ``slot SLOT`` for the bundle that a device keeps.

Exit code 0: done; 1: refused or failed, with one line on stderr; 2: wrong usage. Letters that the
terminal's encoding lacks are printed as escapes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from .devices import DEVICES
from .errors import InputError, PredictorError
from .plain_text import escaped
from .regular_file import read_regular

if TYPE_CHECKING:
    from .predictor import Predictor


_MAX_KEY_BYTES = 4096  # of a file that holds a public key


def main(argv: list[str] | None = None, *, package: str = "runtime", bundle: str = "") -> int:
    """Run one verb and return the exit code. A model's wheel passes its ``package`` and the path of
    its ``bundle``, which then is not an argument."""
    arguments = argument_parser(package, bundle).parse_args(argv)
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # None: a daemon's is closed
            sys.stdout.flush()
    except BrokenPipeError:  # the reader (for example "head") closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    return code


def _run(arguments: argparse.Namespace) -> int:
    try:
        from .predictor import Predictor  # here: a missing onnxruntime is reported like any error

        arguments.trusted_keys = trusted_keys(arguments.trusted_key)
        if hasattr(arguments, "slot"):
            arguments.verb(arguments)
            return 0
        with Predictor(
            arguments.bundle,
            arguments.device,
            arguments.variant,
            arguments.threads,
            trusted_keys=arguments.trusted_keys,
        ) as predictor:
            arguments.verb(predictor, arguments)
    except PredictorError as exc:
        print(f"error: {exc}", file=sys.stderr)  # one line; what is not ASCII it escapes itself
        return 1
    return 0


def argument_parser(package: str, bundle: str) -> argparse.ArgumentParser:
    """The verbs and their options; a model's ``bundle`` is not an argument."""
    common = _options()
    if bundle:
        common.set_defaults(bundle=bundle)
    else:
        common.add_argument("bundle", metavar="BUNDLE", help="Path of a bundle.zip.")
    slot = _options()
    slot.add_argument("slot", metavar="SLOT", help="Folder of the installed bundles.")

    parser = argparse.ArgumentParser(prog=f"python -m {package}", description="Run a bundle.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    predict = verbs.add_parser(
        "predict", parents=[common], help="answer for image files (needs Pillow)"
    )
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="Path of an image file.")
    predict.add_argument(
        "--top", type=int, default=3, help="Number of labels to print. Default: 3."
    )
    predict.add_argument(
        "--min-probability",
        type=float,
        default=0.0,
        help="Mark answers less probable than this, from 0 to 1, as 'unsure'. Default: 0.",
    )
    predict.set_defaults(verb=_predict)
    selftest = verbs.add_parser("selftest", parents=[common], help="run the golden samples")
    selftest.set_defaults(verb=_selftest)
    autotune = verbs.add_parser(
        "autotune", parents=[common], help="time the variants here; auto then opens the fastest"
    )
    autotune.add_argument(
        "--seconds", type=float, default=2.0, help="Seconds of timing. Default: 2."
    )
    autotune.set_defaults(verb=_autotune)
    info = verbs.add_parser(
        "info", parents=[common], help="print which variant runs on which device, and why"
    )
    info.set_defaults(verb=_info)
    install = verbs.add_parser("install", parents=[slot], help="try a bundle, then switch to it")
    install.add_argument("bundle", metavar="BUNDLE", help="Path of a bundle.zip.")
    install.add_argument(
        "--allow-downgrade",
        action="store_true",
        help="Install a bundle of a lower version than the highest that was installed.",
    )
    install.set_defaults(verb=_install)
    rollback = verbs.add_parser("rollback", parents=[slot], help="switch to the previous bundle")
    rollback.set_defaults(verb=_rollback)
    state = verbs.add_parser("slot", parents=[slot], help="print which bundles a slot holds")
    state.set_defaults(verb=_state)
    return parser


def _options() -> argparse.ArgumentParser:
    """Options of every verb."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--device",
        default="auto",
        help=f"Device that runs the model: {', '.join(DEVICES)}, or auto for the first that works. "
        "Default: auto.",
    )
    common.add_argument(
        "--variant", default="auto", help="Id of the variant. Default: auto, the fastest here."
    )
    common.add_argument(
        "--threads", type=int, help="Number of threads. Default: all cores this process may use."
    )
    common.add_argument("--json", action="store_true", help="Print JSON.")
    common.add_argument(
        "--trusted-key",
        action="append",
        metavar="KEY",
        help="Refuse bundles that this key did not sign: its text, or a file that holds it. May be "
        "repeated.",
    )
    return common


def trusted_keys(given: list[str] | None) -> list[str] | None:
    """Return the public keys of ``--trusted-key``, each a text or the content of a file; None
    without the option. Raises InputError for a file that cannot be read."""
    return None if given is None else [_key(word) for word in given]


def _key(word: str) -> str:
    if word.startswith("ed25519:"):
        return word
    try:
        return read_regular(word, _MAX_KEY_BYTES).decode("ascii").strip()
    except (OSError, ValueError) as exc:
        raise InputError(
            f"--trusted-key {word} cannot be read: {exc}; expected a public key (ed25519:...) or "
            "a file that holds one, as pipeline keygen writes it."
        ) from exc


def _install(arguments: argparse.Namespace) -> None:
    from .slot import Slot

    slot = Slot(arguments.slot, allow_downgrade=arguments.allow_downgrade)
    bundle_id = slot.install(
        arguments.bundle,
        arguments.trusted_keys,
        device=arguments.device,
        variant=arguments.variant,
        threads=arguments.threads,
    )
    _print_switch(arguments, "installed", bundle_id)


def _rollback(arguments: argparse.Namespace) -> None:
    from .slot import Slot

    bundle_id = Slot(arguments.slot).rollback(
        arguments.trusted_keys,
        device=arguments.device,
        variant=arguments.variant,
        threads=arguments.threads,
    )
    _print_switch(arguments, "rolled back to", bundle_id)


def _print_switch(arguments: argparse.Namespace, verb: str, bundle_id: str) -> None:
    if arguments.json:
        _print_json({"bundle_id": bundle_id})
        return
    _print(f"{escaped(arguments.slot)}: {verb} {bundle_id}")


def _state(arguments: argparse.Namespace) -> None:
    from .slot import Slot

    state = asdict(Slot(arguments.slot).state)
    if arguments.json:
        _print_json(state)
        return
    for key in ("current", "previous"):
        _print(f"{key:13} {state[key]}")


def _predict(predictor: Predictor, arguments: argparse.Namespace) -> None:
    predictions = predictor.predict(arguments.images, min_probability=arguments.min_probability)
    answers = zip(arguments.images, predictions, strict=True)
    if arguments.json:
        _print_json(
            [{"image": image, **answer.to_dict(arguments.top)} for image, answer in answers]
        )
        return
    for image, answer in answers:
        _print(f"{escaped(image)}: {answer.to_text(arguments.top)}")


def _autotune(predictor: Predictor, arguments: argparse.Namespace) -> None:
    report = predictor.autotune(arguments.seconds)
    if arguments.json:
        _print_json(report.to_dict())
        return
    for row in report.rows:
        _print(f"{row.variant:20} {row.latency_us:9.1f} us  {row.speedup:.2f}x  n={row.rounds}")
    for variant, reason in report.failed.items():
        _print(f"{variant:20} not timed: {reason}")
    _print(report.reason)
    _print(f"remembered in {report.remembered_in or 'nothing: the cache folder cannot be written'}")


def _selftest(predictor: Predictor, arguments: argparse.Namespace) -> None:
    report = predictor.selftest()
    if arguments.json:
        _print_json(report.to_dict())
        return
    _print(
        f"passed: {report.images} images preprocessed to the same bytes; {report.samples} samples "
        f"through {report.variant} on {report.provider} differ by at most "
        f"{report.max_difference:.3g} (allowed: {report.tolerance:.3g})"
    )


def _info(predictor: Predictor, arguments: argparse.Namespace) -> None:
    about = {"model": predictor.spec.name, **predictor.info.to_dict()}
    if arguments.json:
        _print_json({**about, "spec": predictor.spec.to_dict()})
        return
    for key, value in about.items():
        _print(f"{key:13} {value}")


def _print_json(value: object) -> None:
    _print(json.dumps(value, indent=2))


def _print(text: str) -> None:
    """Print text that may hold invisible characters (of a path), or letters (of a path or label)
    that the terminal's encoding lacks."""
    text = escaped(text, keep_lines=True)
    try:
        print(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        print(text.encode(encoding, "backslashreplace").decode(encoding))


if __name__ == "__main__":
    sys.exit(main())
