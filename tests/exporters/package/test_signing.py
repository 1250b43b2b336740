"""Keys and signatures, from keygen to a predictor that trusts them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from exporters.errors import PackageError
from exporters.package.signing import generate_key, sign_bundle
from pipeline.cli.main import cli
from runtime import Bundle, InputError, Predictor, RuntimeMissing, SignatureError
from runtime.__main__ import main
from runtime.signature import DOMAIN, key_bytes


@pytest.fixture
def bundle(digits_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(digits_bundle, tmp_path / "bundle.zip"))


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "keys" / "private.pem"
    return path, generate_key(path)


def test_a_private_key_is_its_owner_s_alone(key: tuple[Path, str]) -> None:
    path, public = key
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.with_name("private.pem.pub").read_text() == f"{public}\n"
    assert public.startswith("ed25519:") and len(key_bytes(public)) == 32
    with pytest.raises(PackageError, match="existing key"):
        generate_key(path)


def test_a_signed_bundle_opens_with_its_key_only(bundle: Path, key: tuple[Path, str]) -> None:
    path, public = key
    other = generate_key(path.with_name("other.pem"))
    before = Bundle.open(bundle).id
    with pytest.raises(SignatureError, match="is not signed; expected a signature by one of the 1"):
        Predictor(bundle, device="cpu", trusted_keys=[public])
    assert sign_bundle(bundle, path) == public
    signed = bundle.read_bytes()
    with Predictor(bundle, device="cpu", trusted_keys=[other, public]) as p:
        assert p.info.signed_by == public
        assert p.info.bundle_id == before
        p.selftest()
    with Predictor(bundle, device="cpu") as p:
        assert p.info.signed_by is None  # nobody asked
    with pytest.raises(SignatureError, match="none of the 1 trusted keys"):
        Predictor(bundle, device="cpu", trusted_keys=[other])
    sign_bundle(bundle, path)
    assert bundle.read_bytes() == signed
    sign_bundle(bundle, path.with_name("other.pem"))  # replaces
    assert Bundle.open(bundle, [other]).signed_by == other


def test_the_signature_follows_the_specification(bundle: Path, key: tuple[Path, str]) -> None:
    path, public = key
    sign_bundle(bundle, path)
    with zipfile.ZipFile(bundle) as archive:
        manifest, signature = archive.read("manifest.json"), archive.read("manifest.sig")
    assert DOMAIN == b"edgeproof bundle 1\n"
    Ed25519PublicKey.from_public_bytes(key_bytes(public)).verify(
        signature, b"edgeproof bundle 1\n" + manifest
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "trusted_keys is empty"),
        ("ed25519:AAAA", "expected a list of keys"),
        (["AAAA"], "does not begin with 'ed25519:'"),
        (["ed25519:AAAA"], "it has 3 bytes"),
        (["ed25519:!"], "public key"),
        ([b"x" * 32], "public key"),
        ([None], "None .*public key"),
    ],
)
def test_what_is_not_a_key_is_refused(bundle: Path, keys: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Predictor(bundle, device="cpu", trusted_keys=keys)


def test_without_cryptography_the_error_names_the_extra(
    bundle: Path, key: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, public = key
    sign_bundle(bundle, path)
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(RuntimeMissing, match=r"pip install 'edgeproof\[sign\]'"):
        Predictor(bundle, device="cpu", trusted_keys=[public])
    with pytest.raises(PackageError, match=r"pip install 'edgeproof\[sign\]'"):
        sign_bundle(bundle, path)
    Predictor(bundle, device="cpu").close()  # needs none


def test_what_cannot_sign_is_refused(bundle: Path, key: tuple[Path, str], tmp_path: Path) -> None:
    before = bundle.read_bytes()
    elliptic = tmp_path / "elliptic.pem"
    elliptic.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    for file, message in (
        (tmp_path / "no.pem", "expected a PEM file"),
        (bundle, "expected a PEM file"),
        (elliptic, "expected an Ed25519 key"),
    ):
        with pytest.raises(PackageError, match=message):
            sign_bundle(bundle, file)
    with pytest.raises(
        PackageError, match=r"the bundle is not signed: .*no\.zip: cannot be opened"
    ):
        sign_bundle(tmp_path / "no.zip", key[0])
    assert bundle.read_bytes() == before


def test_the_commands(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private = tmp_path / "key.pem"
    made = CliRunner().invoke(cli, ["keygen", str(private)])
    assert made.exit_code == 0 and made.output.startswith("ed25519:")
    public = made.output.strip()
    words = ["selftest", str(bundle), "--device", "cpu", "--trusted-key"]
    assert main([*words, public]) == 1
    assert "is not signed" in capsys.readouterr().err
    look = ["inspect", str(bundle)]
    assert "signature: none" in CliRunner().invoke(cli, look).output
    signed = CliRunner().invoke(cli, ["sign", str(bundle), "--key", str(private)])
    assert signed.exit_code == 0 and public in signed.output
    assert main([*words, public]) == main([*words, f"{private}.pub"]) == 0
    capsys.readouterr()
    assert "--trusted-key" in CliRunner().invoke(cli, look).output
    shown = CliRunner().invoke(cli, [*look, "--trusted-key", f"{private}.pub"]).output
    assert f"signature: {public}" in shown
    assert main([*words, "nowhere.pub"]) == 1
    assert "--trusted-key nowhere.pub cannot be read" in capsys.readouterr().err
    for refused in (["keygen", str(private)], ["sign", str(bundle), "--key", str(bundle)]):
        assert CliRunner().invoke(cli, refused).exit_code == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="not run: there is no openssl")
def test_openssl_agrees(bundle: Path, key: tuple[Path, str], tmp_path: Path) -> None:
    """The commands of BUNDLE.md."""
    sign_bundle(bundle, key[0])
    with zipfile.ZipFile(bundle) as archive:
        (tmp_path / "signed").write_bytes(DOMAIN + archive.read("manifest.json"))
        (tmp_path / "sig").write_bytes(archive.read("manifest.sig"))
    command = ["openssl", "pkey", "-in", str(key[0]), "-pubout", "-out", "public.pem"]
    subprocess.run(command, cwd=tmp_path, check=True)
    command = "openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in signed -sigfile sig"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True)
    if "Verified Successfully" not in done.stdout and "rawin" in done.stderr:
        pytest.skip("not run: this openssl is older than 3")
    assert "Verified Successfully" in done.stdout, done.stderr
