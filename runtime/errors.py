"""All errors that the runtime raises on purpose; each message says what was found, what was
expected and what to do.

PredictorError
├── InputError          an image, a batch or an option that the model does not take
├── DeviceError         the requested device is not usable; says what is missing
├── AnswerError         the outputs of the model cannot be an answer: shape, NaN, no probability
├── RuntimeMissing      no onnxruntime (or, for signatures, no cryptography) is installed
├── BundleError         the bundle cannot be trusted or understood
│   ├── BundleFormatError     not a zip, truncated, no manifest, a newer schema, an unlisted member
│   ├── BundleIntegrityError  a member's size or hash is not what the manifest says
│   ├── SignatureError        no trusted key has signed the bundle
│   └── VariantError          the requested variant is not in the bundle
├── SelftestError       the golden samples do not come out as they were recorded
└── SlotError           a slot holds no bundle that works, or another process installs into it
"""


class PredictorError(Exception):
    """Base of all errors of this package. Its text is one line that can be printed as it is,
    whatever strings of a bundle, a path or onnxruntime it quotes."""

    def __str__(self) -> str:
        from .plain_text import one_line  # here: importing the package takes a millisecond

        return one_line(super().__str__())


class InputError(PredictorError, ValueError):
    """An image, a batch or an option has a shape, type or value that the model does not take."""


class DeviceError(PredictorError):
    """The requested device is not usable here; the message names what is missing."""


class AnswerError(PredictorError):
    """The outputs of the model are not an answer for each image.

    ``image`` is the number of the image in the batch that was given, from 0; None where the fault
    is of the answer as a whole.
    """

    def __init__(self, message: str, image: int | None = None) -> None:
        super().__init__(message)
        self.image = image


class RuntimeMissing(PredictorError, ImportError):
    """onnxruntime is not installed, or two of its wheels overwrote each other's files; or
    signatures are to be checked and cryptography is not installed."""


class BundleError(PredictorError):
    """The bundle cannot be trusted or understood."""


class BundleFormatError(BundleError):
    """Not a bundle, a truncated one, one of a newer schema, or one with unlisted members."""


class BundleIntegrityError(BundleError):
    """A member's bytes are not those that the manifest lists."""


class SignatureError(BundleError):
    """The bundle is not signed, or not by a trusted key."""


class VariantError(BundleError):
    """The bundle has no variant of the requested name."""


class SelftestError(PredictorError):
    """A golden sample did not come out as it was recorded."""


class SlotError(PredictorError):
    """A slot holds no bundle that works, cannot be written, or is in use by another installer."""
