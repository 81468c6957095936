"""Marks of synthetic videos: what is written, what is read back, and what is noticed."""

import doctest
import json
import shutil
import stat
import sys
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.media import credentials, marking, provenance
from talkgs_cli.media.encoding import VideoWriter
from talkgs_cli.media.probe import probe
from talkgs_cli.media.video import read_frames
from talkgs_cli.stages.verify import verify

pytest.importorskip("c2pa")

FRAMES = [np.full((64, 64, 3), 40 * k, np.uint8) for k in range(5)]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Settings of the test's own, and a network that answers nobody."""
    monkeypatch.setenv("TALKGS_CONFIG", str(tmp_path / "config"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def write(path, metadata=marking.SYNTHETIC):
    with VideoWriter(path, (64, 64), Fraction(25), metadata=metadata) as writer:
        for frame in FRAMES:
            writer.write(frame)
    return path


@pytest.fixture
def video(tmp_path):
    return write(tmp_path / "made by é.mp4")


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_doctests():
    assert doctest.testmod(provenance).failed == 0


def test_a_signed_video_says_that_a_model_made_it_and_that_nothing_changed(video):
    said = marking.mark(video, credentials.own_credentials())
    assert said == {"metadata": True, "c2pa": "self-made certificate", "why_not": None}
    answer = verify(video)
    assert answer["synthetic"] is True
    assert answer["intact"] is True
    manifest = answer["c2pa"]
    assert manifest["digital_source_type"] == "trainedAlgorithmicMedia"
    assert manifest["state"] == "valid"
    assert manifest["self_made_here"] is True
    assert manifest["claim_generator"].startswith("talkgs ")
    assert manifest["problems"] == []
    assert answer["metadata"]["comment"].startswith("AI-generated")


def test_signing_leaves_picture_length_and_folder_as_they_were(video):
    before, info = list(read_frames(video)), probe(video)
    marking.mark(video, credentials.own_credentials())
    after = list(read_frames(video))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert probe(video) == info
    assert {file.name for file in video.parent.iterdir()} == {video.name, "config"}


def test_one_changed_byte_of_the_picture_is_noticed(video):
    marking.mark(video, credentials.own_credentials())
    data = bytearray(video.read_bytes())
    at = data.index(b"mdat") + 60
    data[at] ^= 1
    video.write_bytes(data)
    answer = verify(video)
    assert answer["intact"] is False
    assert answer["c2pa"]["changed"] is True
    assert any("bmffHash" in problem for problem in answer["c2pa"]["problems"])
    assert run(video).exit_code == 3


def test_a_cut_off_video_is_noticed(video):
    marking.mark(video, credentials.own_credentials())
    video.write_bytes(video.read_bytes()[:-300])
    assert verify(video)["intact"] is False


def test_metadata_alone_are_a_mark_and_their_absence_is_said(video, tmp_path):
    assert run(video).exit_code == 0
    assert verify(video)["intact"] is None
    plain = write(tmp_path / "plain.mp4", metadata={"title": "holiday"})
    said = run(plain)
    assert said.exit_code == 3
    assert "no mark" in said.stdout
    assert "marks can be removed" in said.stdout


def test_verify_prints_one_json_object(video):
    marking.mark(video, credentials.own_credentials())
    answer = json.loads(run(video, "--json").stdout)
    assert answer["synthetic"] is True
    assert answer["c2pa"]["present"] is True


def test_files_that_are_no_media_are_refused(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    for path, reason in ((text, "is not a video"), (tmp_path / "none.mp4", "no file")):
        said = run(path)
        assert said.exit_code == 3
        assert reason in said.stderr


def test_a_kind_of_file_without_place_for_a_manifest_says_why(tmp_path):
    said = marking.mark(tmp_path / "head.webm", credentials.own_credentials())
    assert said["c2pa"] is None
    assert ".webm" in said["why_not"]


def test_without_the_package_the_metadata_remain_and_a_manifest_is_still_seen(video, monkeypatch):
    unsigned = shutil.copy(video, video.with_name("unsigned.mp4"))
    marking.mark(video, credentials.own_credentials())
    for module in (credentials, provenance):
        monkeypatch.setattr(module, "can_sign", lambda: False)
    assert credentials.credentials_for(None, None) is None
    assert "c2pa" in marking.mark(video, None)["why_not"]
    seen = verify(video)
    assert seen["synthetic"] is True
    assert seen["c2pa"]["present"] is True
    assert seen["intact"] is None
    assert verify(unsigned)["c2pa"]["present"] is False
    with pytest.raises(MachineLacks, match="c2pa-python"):
        credentials.credentials_for("a.pem", "b.pem")


# -- certificates ----------------------------------------------------------------------------------


def test_the_certificate_is_made_once_and_only_its_owner_can_read_the_key(tmp_path):
    first, second = credentials.own_credentials(), credentials.own_credentials()
    assert first == second
    key = tmp_path / "config" / "c2pa" / "key.pem"
    if sys.platform != "win32":
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_certificate_about_to_end_is_replaced(monkeypatch):
    first = credentials.own_credentials()

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=365 * 10)

    monkeypatch.setattr(credentials, "datetime", Later)
    assert credentials.own_credentials() != first


def test_the_certificate_names_nobody():
    from cryptography import x509

    for one in x509.load_pem_x509_certificates(credentials.own_credentials().chain_pem):
        names = {attribute.value for attribute in one.subject}
        assert names <= {credentials.SELF_MADE, "signer", "root"}
        assert one.not_valid_after_utc > datetime.now(UTC)


@pytest.fixture
def user_files(tmp_path):
    chain, key = credentials._make()
    (tmp_path / "cert.pem").write_bytes(chain)
    (tmp_path / "cert.key").write_bytes(key)
    return str(tmp_path / "cert.pem"), str(tmp_path / "cert.key")


def test_the_users_certificate_signs_and_is_not_taken_for_this_machines(video, user_files):
    own = credentials.own_credentials()
    theirs = credentials.credentials_for(*user_files)
    assert theirs.chain_pem != own.chain_pem
    marking.require_signing(video, theirs)
    assert marking.mark(video, theirs)["c2pa"] == "your certificate"
    answer = verify(video)
    assert answer["intact"] is True
    assert answer["c2pa"]["self_made_here"] is False


def test_unusable_certificates_are_refused_with_the_reason(video, user_files, tmp_path):
    certificate, key = user_files
    with pytest.raises(UsageError, match="belong together"):
        credentials.credentials_for(certificate, None)
    with pytest.raises(BadInput, match=r"no file .*none\.pem"):
        credentials.credentials_for(str(tmp_path / "none.pem"), key)
    with pytest.raises(BadInput, match="no PEM certificate"):
        credentials.credentials_for(key, key)
    with pytest.raises(BadInput, match="no private key"):
        credentials.credentials_for(certificate, certificate)
    other = tmp_path / "other.key"
    other.write_bytes(credentials._make()[1])
    with pytest.raises(BadInput, match="not the key of"):
        credentials.credentials_for(certificate, str(other))


def test_a_certificate_that_signs_itself_is_refused_by_the_specification(video, tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "me")])
    now = datetime.now(UTC)
    one = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=9))
    pem = one.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "self.pem").write_bytes(pem)
    (tmp_path / "self.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    theirs = credentials.credentials_for(str(tmp_path / "self.pem"), str(tmp_path / "self.key"))
    assert theirs.algorithm == "es384"
    before = video.read_bytes()
    with pytest.raises(BadInput, match="can't sign"):
        marking.mark(video, theirs)
    with pytest.raises(BadInput, match="can't sign"):  # as speak asks before it renders
        marking.require_signing(tmp_path / "not there yet.mp4", theirs)
    marking.require_signing(tmp_path / "talk.webm", theirs)  # has no place for a signature
    assert video.read_bytes() == before
    assert not list(tmp_path.glob("*.partial*"))
