"""Which device, and why; without a GPU, so onnxruntime's side of CUDA is played by stand-ins for
its two answers. ``test_gpu_wheel.py`` runs the real wheel."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from runtime import BundleFormatError, DeviceError, Predictor, onnx_session, providers
from runtime.devices import DEVICES
from runtime.providers import choose

HAS_CUDA = DEVICES["cuda"].provider in providers.onnxruntime.get_available_providers()


def attempt_only(*working: str) -> Any:
    def attempt(device: Any) -> str:
        if device.name not in working:
            raise DeviceError(f"no {device.name} here.")
        return str(device.provider)

    return attempt


@pytest.mark.parametrize(
    ("device", "order", "working", "expected"),
    [
        ("cpu", ("cuda", "cpu"), ("cuda", "cpu"), ("CPUExecutionProvider", "cpu was requested.")),
        (
            "auto",
            ("cuda", "cpu"),
            ("cuda", "cpu"),
            ("CUDAExecutionProvider", "cuda is the first that works."),
        ),
        (
            "auto",
            ("npu", "cuda", "cpu"),
            ("cpu",),
            (
                "CPUExecutionProvider",
                "cpu is the first that works. npu was passed over: device 'npu' is unknown; "
                "expected 'auto' or one of cpu, cuda, openvino. cuda was passed over: no cuda "
                "here.",
            ),
        ),
    ],
)
def test_the_reason_names_each_device_that_was_passed_over(
    device: str, order: tuple[str, ...], working: tuple[str, ...], expected: tuple[str, str]
) -> None:
    assert choose(device, order, attempt_only(*working)) == expected


def test_no_device_at_all_lists_every_cause() -> None:
    with pytest.raises(DeviceError, match=r"\['cuda', 'cpu'\].*no cuda here.*no cpu here"):
        choose("auto", ("cuda", "cpu"), attempt_only())
    with pytest.raises(DeviceError, match="no cuda here"):
        choose("cuda", ("cuda", "cpu"), attempt_only("cpu"))


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime has CUDA")
def test_the_cpu_wheel_asked_for_cuda_names_the_extra(gray_bundle: bytes) -> None:
    with pytest.raises(DeviceError, match=r"cuda is not in the installed onnxruntime .*install"):
        Predictor(gray_bundle, device="cuda")
    with Predictor(gray_bundle) as p:
        assert p.info.device == "cpu"
        assert "cuda was passed over: cuda is not in the installed onnxruntime" in p.info.reason


class StandIn:
    """The module onnxruntime of a machine with CUDA, as far as ``providers`` looks at it."""

    __version__ = "1.99"
    printed = "libcublas.so.13: cannot open shared object file"

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        print(self.printed)


class CudaSession:
    """A CPU session that claims to run on ``provider`` and whose answers ``change`` passes on."""

    def __init__(self, session: Any, provider: str, change: Any) -> None:
        self._session, self._provider, self._change = session, provider, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self._provider, "CPUExecutionProvider"]

    def run(self, *arguments: Any) -> Any:
        return [self._change(array) for array in self._session.run(*arguments)]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    real = onnx_session.create

    def install(
        provider: str = "CUDAExecutionProvider",
        change: Any = lambda array: array,
        failure: str = "",
    ) -> None:
        def create(model: bytes, wanted: str, threads: int, *_: Any, **options: Any) -> Any:
            session = real(model, "CPUExecutionProvider", threads)
            if wanted == "CPUExecutionProvider":
                return session
            os.write(2, b"printed by C++\n")
            if failure:
                raise Fail(failure)
            return CudaSession(session, provider, change)

        monkeypatch.setattr(providers, "onnxruntime", StandIn())
        monkeypatch.setattr(onnx_session, "create", create)

    return install


def test_cuda_is_taken_when_the_session_says_so_and_the_golden_samples_pass(
    cuda: Any, gray_bundle: bytes
) -> None:
    cuda()
    with Predictor(gray_bundle) as p:
        assert (p.info.device, p.info.target) == ("cuda", "cuda")
        assert p.info.provider == "CUDAExecutionProvider"
        assert p.info.reason.startswith("device: cuda is the first that works.")
        p.selftest()


def test_cuda_that_computes_otherwise_is_not_taken(
    cuda: Any, build: Any, gray_bundle: bytes
) -> None:
    cuda(change=lambda answer: build.shifted(answer, 0.01))
    with pytest.raises(DeviceError, match="cuda fails the golden samples: variant 'fp32' differs"):
        Predictor(gray_bundle, device="cuda")
    with Predictor(gray_bundle) as p:
        assert p.info.device == "cpu" and "cuda fails the golden samples" in p.info.reason


def test_a_device_is_proved_by_its_own_tolerance(cuda: Any, build: Any) -> None:
    def loosen(manifest: dict[str, Any]) -> None:
        manifest["variants"][0]["device_tolerance"] = 0.05

    cuda(change=lambda answer: build.shifted(answer, 0.01))
    with Predictor(build.bundle(edit=loosen), device="cuda") as p:
        report = p.selftest()
        assert report.tolerance == 0.05 and 0.009 < report.max_difference < 0.011


def test_a_session_that_quietly_fell_back_is_an_error_and_nothing_is_spilled(
    cuda: Any, gray_bundle: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    cuda(provider="CPUExecutionProvider")
    with pytest.raises(DeviceError, match=r"missing libraries: libcublas\.so\.13\. Run pip"):
        Predictor(gray_bundle, device="cuda")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    print("and printing works again", file=sys.stderr)
    assert "works again" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", "finds no CUDA device"),
        ("CUDA failure 35: CUDA driver version is insufficient ; GPU=-1", "driver is older"),
        ("CUDA failure 2: out of memory ; GPU=0", "memory is full"),
        ("x.cc:1 CUDA failure 36: API call is odd ; GPU=-1", "CUDA failure 36: API call is odd."),
        ("first line\nsomething else", "something else"),
    ],
)
def test_the_cause_is_read_from_what_cuda_says(
    cuda: Any,
    gray_bundle: bytes,
    failure: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda(failure=failure)
    monkeypatch.setattr(StandIn, "printed", "")
    monkeypatch.setattr(providers, "_missing_driver", lambda device: [])
    monkeypatch.setattr(os, "write", lambda *_: None)
    with pytest.raises(DeviceError, match=message):
        Predictor(gray_bundle, device="cuda")


def test_a_model_that_no_device_can_load_is_not_a_device_s_fault(cuda: Any, build: Any) -> None:
    cuda()
    with pytest.raises(BundleFormatError, match="ONNX model"):
        Predictor.from_parts(build.GRAY, None, b"junk", device="cuda")


def test_another_device_needs_golden_samples(cuda: Any, build: Any) -> None:
    cuda()

    def forget(manifest: dict[str, Any]) -> None:
        del manifest["files"]["golden.npz"]

    data = build.bundle(edit=forget, pack=lambda members: members.pop("golden.npz"))
    with pytest.raises(DeviceError, match=r"golden\.npz is missing"):
        Predictor(data, device="cuda")
