"""The certificate and key that sign videos: the user's, or one this machine makes for itself.

A self-made certificate proves that a file is unchanged since it was signed, not who made it; it
names nobody. Nothing is sent anywhere: no time stamp, no revocation check.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from filelock import FileLock

from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.runtime import atomic_path, disk_errors

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SELF_MADE = "talkgs (self-made certificate)"
VALID_YEARS = 10
INSTALL_HINT = "pip install 'talkgs[c2pa]'"


@dataclass(frozen=True)
class Credentials:
    """What signs.

    Attributes:
        chain_pem: The certificate, then those that vouch for it.
        key_pem: Its private key, unencrypted.
        algorithm: Name of the signature, as C2PA spells it.
        self_made: Whether this machine made it.
    """

    chain_pem: bytes
    key_pem: bytes
    algorithm: str
    self_made: bool


def config_folder() -> Path:
    """Where what a user keeps lies: $TALKGS_CONFIG, or the platform's folder for settings."""
    return Path(os.environ.get("TALKGS_CONFIG") or platformdirs.user_config_dir("talkgs"))


def can_sign() -> bool:
    """Whether the package that signs is installed."""
    return find_spec("c2pa") is not None and find_spec("cryptography") is not None


def credentials_for(certificate: str | None, key: str | None) -> Credentials | None:
    """The user's credentials, else this machine's own; None where nothing can sign.

    Args:
        certificate: PEM file of the certificate and those that vouch for it, or None.
        key: PEM file of its private key, or None.

    Raises:
        UsageError: one of the two without the other.
        MachineLacks: a certificate is given and the package is missing.
        BadInput: the files can't be used.
    """
    if bool(certificate) != bool(key):
        raise UsageError(
            "A certificate and its key belong together.",
            hint="Give both --c2pa-cert and --c2pa-key, or neither.",
        )
    if certificate and key:
        if not can_sign():
            raise MachineLacks("Signing needs the package c2pa-python.", hint=INSTALL_HINT)
        return _user_credentials(Path(certificate), Path(key))
    return own_credentials() if can_sign() else None


def own_credentials() -> Credentials:
    """This machine's certificate, made once and kept in the config folder."""
    folder = config_folder() / "c2pa"
    chain_file, key_file = folder / "certificate.pem", folder / "key.pem"
    with disk_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not (chain_file.is_file() and key_file.is_file()) or _ends_soon(chain_file):
                chain, key = _make()
                with atomic_path(key_file) as partial:
                    partial.write_bytes(key)
                key_file.chmod(0o600)
                with atomic_path(chain_file) as partial:
                    partial.write_bytes(chain)
            return Credentials(chain_file.read_bytes(), key_file.read_bytes(), "es256", True)


def own_serial_number() -> int | None:
    """Serial number of this machine's certificate, None where it has none."""
    file = config_folder() / "c2pa" / "certificate.pem"
    return _first_certificate(file.read_bytes()).serial_number if file.is_file() else None


def _ends_soon(chain_file: Path) -> bool:
    return _first_certificate(chain_file.read_bytes()).not_valid_after_utc < datetime.now(
        UTC
    ) + timedelta(days=30)


def _first_certificate(pem: bytes) -> Certificate:
    from cryptography import x509

    return x509.load_pem_x509_certificates(pem)[0]


def _make() -> tuple[bytes, bytes]:
    """A chain of two and the key of its first: C2PA refuses a certificate that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def name(common: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, SELF_MADE),
                x509.NameAttribute(NameOID.COMMON_NAME, common),
            ]
        )

    def certificate(common: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(common))
            .issuer_name(name("root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365 * VALID_YEARS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )

    def usage(*, signs_files: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=signs_files,
            key_cert_sign=not signs_files,
            crl_sign=not signs_files,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    root = (
        certificate("root", root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_files=False), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        certificate("signer", key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_files=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    chain = b"".join(
        one.public_bytes(serialization.Encoding.PEM) for one in (leaf, root)
    )  # the root's key is thrown away: it can vouch for nothing else
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return chain, pem


def _user_credentials(certificate: Path, key: Path) -> Credentials:
    from cryptography.hazmat.primitives import serialization

    pems = []
    for path, what in ((certificate, "certificate"), (key, "key")):
        if not path.is_file():
            raise BadInput(f"There is no file {path}.", hint=f"Give the {what} as a PEM file.")
        pems.append(path.read_bytes())
    try:
        leaf = _first_certificate(pems[0])
    except (ValueError, IndexError) as error:
        raise BadInput(f"{certificate} holds no PEM certificate.", hint="Convert it.") from error
    try:
        private = serialization.load_pem_private_key(pems[1], None)
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"{key} holds no private key that can be read without a password.",
            hint="Give an unencrypted PEM key.",
        ) from error
    encoding = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*encoding) != leaf.public_key().public_bytes(*encoding):
        raise BadInput(
            f"{key} is not the key of the first certificate in {certificate}.",
            hint="The file holds the signing certificate first, then those that vouch for it.",
        )
    return Credentials(pems[0], pems[1], _algorithm(private, key), self_made=False)


def _algorithm(private: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in curves:
        return curves[private.curve.name]
    raise BadInput(
        f"{path} is a key that C2PA doesn't sign with.",
        hint="Use ECDSA on P-256, P-384 or P-521, Ed25519, or RSA.",
    )
