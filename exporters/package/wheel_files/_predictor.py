"""The predictor of the model in this package."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from pathlib import Path

from runtime import PredictorError
from runtime.bundle import Source
from runtime.predictor import Predictor as _Predictor

BUNDLE = Path(__file__).absolute().parent / "bundle.zip"


def packaged_bundle() -> Source:
    """Return the path of the bundle in this package, or its bytes when the package is in a zip."""
    if BUNDLE.is_file():
        return BUNDLE
    try:
        data = pkgutil.get_data(__package__, "bundle.zip")
    except OSError:  # a frozen app that was made without the package's data
        data = None
    if data is None:
        raise PredictorError(
            f"bundle.zip, the model itself, is missing in the package {__package__}; expected "
            f"{BUNDLE}. Install the wheel again. If this app was frozen, pass the package's data: "
            f"PyInstaller finds it by the package's own hook, or by --collect-all {__package__}; "
            f"Nuitka by --include-package-data={__package__}; cx_Freeze by packages."
        )
    return data


class Predictor(_Predictor):
    """The runtime's Predictor, which opens this package's model by default."""

    def __init__(
        self,
        bundle: Source | None = None,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
        *,
        trusted_keys: Iterable[str] | None = None,
    ) -> None:
        super().__init__(
            packaged_bundle() if bundle is None else bundle,
            device,
            variant,
            threads,
            trusted_keys=trusted_keys,
        )
