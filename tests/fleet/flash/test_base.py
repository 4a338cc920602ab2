# SPDX-License-Identifier: Apache-2.0
"""Base images: every packing, by programs and by Python; damaged, interrupted, signed; and what they take in memory."""

import base64
import gzip
import hashlib
import lzma
import random
import shutil
import subprocess

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_contract.errors import ImageError, SignatureError, UsageError
from fleet.flash.base import Checks, unpack
from fleet.flash.signatures import digest_in, verify_signature
from fleet.flash.streams import PIECE, Source


def content():
    """5 MB and a bit: text, zeros, noise, zeros at the end."""
    noise = random.Random(5).randbytes(700_001)
    return b"\x01" * 3000 + bytes(2 << 20) + noise + bytes((2 << 20) + 77)


PACKERS = {
    "raw": lambda data: data,
    "xz": lambda data: lzma.compress(data, preset=1),
    "zst": lambda data: zstandard.compress(data, 1),
    "gz": lambda data: gzip.compress(data, 1, mtime=0),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("published"), content()
    found = {}
    for kind, pack in PACKERS.items():
        found[kind] = folder / f"pi.img.{kind}"
        found[kind].write_bytes(pack(data))
    return found


@pytest.mark.parametrize("with_programs", [True, False])
@pytest.mark.parametrize("kind", list(PACKERS))
def test_every_packing_gives_the_image(published, tmp_path, kind, with_programs):
    source = Source(published[kind], with_programs=with_programs)
    assert source.kind == kind
    assert source.means == (
        "copy" if kind == "raw" else {"zst": "zstd", "gz": "gzip"}.get(kind, kind) if with_programs else "python"
    )
    heard = []
    done = unpack(source, tmp_path / "pi.img", Checks(), lambda read, written: heard.append((read, written)))
    assert (tmp_path / "pi.img").read_bytes() == content()
    assert done.sha256 == hashlib.sha256(content()).hexdigest()
    assert done.packed_sha256 == hashlib.sha256(published[kind].read_bytes()).hexdigest()
    assert (done.size, done.verified, done.reused) == (len(content()), (), 0)
    assert heard[-1][1] == len(content())
    assert (tmp_path / "pi.img").stat().st_blocks * 512 < 1_000_000  # zeros are holes
    assert [path.name for path in tmp_path.iterdir()] == ["pi.img"]


@pytest.mark.parametrize("with_programs", [True, False])
@pytest.mark.parametrize("kind", ["xz", "zst", "gz"])
def test_streams_that_follow_each_other_are_one_image(tmp_path, kind, with_programs):
    data = [b"first" * 5000, b"second" * 70_000]
    path = tmp_path / "two"
    path.write_bytes(b"".join(PACKERS[kind](part) for part in data))
    assert b"".join(Source(path, with_programs=with_programs).pieces()) == b"".join(data)


@pytest.mark.parametrize("with_programs", [True, False])
@pytest.mark.parametrize("kind", ["xz", "zst", "gz"])
@pytest.mark.parametrize("harm", ["cut", "flip"])
def test_a_damaged_image_is_named_and_leaves_nothing(published, tmp_path, kind, with_programs, harm):
    data = bytearray(published[kind].read_bytes())
    if harm == "cut":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0x55
        data[len(data) // 3] ^= 0x55
    path = tmp_path / "bad.img"
    path.write_bytes(data)
    # zstd frames of the simple interface carry no checksum: what is unpacked may be wrong, so a digest must tell
    checks = Checks(sha256=hashlib.sha256(published[kind].read_bytes()).hexdigest())
    with pytest.raises(ImageError, match="is cut short" if harm == "cut" else "is damaged|its SHA-256 is") as caught:
        unpack(Source(path, with_programs=with_programs), tmp_path / "out.img", checks)
    assert "bad.img" in str(caught.value)
    assert [found.name for found in tmp_path.iterdir()] == ["bad.img"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04" + bytes(600), "is a ZIP archive; unpack it"),
        (b"<!DOCTYPE html>" + bytes(600), "is a web page"),
        (b"short", "has 5 bytes"),
    ],
)
def test_what_is_no_image_is_said_at_once(tmp_path, data, words):
    path = tmp_path / "pi.img.xz"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=words):
        Source(path)
    with pytest.raises(UsageError, match="cannot be read"):
        Source(tmp_path / "none")


@pytest.mark.parametrize("with_programs", [True, False])
def test_an_image_that_needs_too_much_memory_is_refused(tmp_path, with_programs):
    path = tmp_path / "huge.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 << 20, "preset": 0}]
    encoder = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=[{**filters[0], "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}])
    path.write_bytes(encoder.compress(b"x" * 1000) + encoder.flush())
    with pytest.raises(ImageError, match="needs more than 72 MB of memory"):
        list(Source(path, with_programs=with_programs).pieces())


def test_a_run_of_zeros_does_not_grow_in_memory():
    """4 bytes of zstd may mean 128 KB: pieces stay of one size, whatever comes out."""
    import io

    from fleet.flash import streams

    counted = streams._Counted(io.BytesIO(zstandard.compress(bytes(300 << 20), 1)), lambda _: None)
    reader = streams._Zstd(counted)
    total = 0
    while piece := reader.read(PIECE):
        assert len(piece) <= PIECE
        assert len(reader._held) <= 40 << 20
        total += len(piece)
    assert total == 300 << 20


def test_an_interrupted_run_goes_on_without_writing_again(published, tmp_path):
    out = tmp_path / "pi.img"

    def stop(_read, written):
        if written >= 3 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(Source(published["xz"]), out, Checks(), stop)
    assert not out.exists()
    left = tmp_path / ".pi.img.part"
    assert left.exists()
    with left.open("r+b") as file:  # what the disk did not keep is written anew
        file.seek(2_500_000)
        file.write(b"?" * 100)
    done = unpack(Source(published["xz"]), out, Checks())
    assert done.reused >= 1 << 20
    assert out.read_bytes() == content()
    assert [path.name for path in tmp_path.iterdir()] == ["pi.img"]


def test_a_part_of_another_image_is_thrown_away(published, tmp_path):
    out = tmp_path / "pi.img"
    (tmp_path / ".pi.img.part").write_bytes(b"other" * 1000)
    (tmp_path / ".pi.img.part.of").write_text("/elsewhere 1 2\n")
    assert unpack(Source(published["gz"]), out, Checks()).reused == 0
    assert out.read_bytes() == content()


def test_digests_of_the_file_or_of_the_image_are_proved(published, tmp_path):
    path = published["xz"]
    packed, inside = hashlib.sha256(path.read_bytes()).hexdigest(), hashlib.sha256(content()).hexdigest()
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{'0' * 64}  other.img.xz\n{packed} *{path.name}\n")
    for checks, words in [
        (Checks(sha256=packed.upper()), "SHA-256 of the published file"),
        (Checks(sha256=inside), "SHA-256 of the image inside"),
        (Checks(sha256_file=sums), "SHA-256 of the published file"),
    ]:
        assert unpack(Source(path), tmp_path / "o.img", checks).verified == (words,)
    (tmp_path / "o.img").unlink()
    with pytest.raises(ImageError, match=r"its SHA-256 is .*…, ffffffffffffffff… was asked for"):
        unpack(Source(path), tmp_path / "o.img", Checks(sha256="f" * 64))
    assert not (tmp_path / "o.img").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no SHA-256 of 'pi.img.xz'"),
        ("ab" * 32 + "  a\n" + "cd" * 32 + "  b\n", "no SHA-256 of 'pi.img.xz'"),
        ("xyz", "no SHA-256"),
    ],
)
def test_a_digest_file_without_this_image_is_refused(text, words):
    with pytest.raises(UsageError, match=words):
        digest_in(text, "pi.img.xz", "sums")


def test_checks_that_contradict_themselves_are_wrong_words(published, tmp_path):
    sums = tmp_path / "sums"
    sums.write_text("ab" * 32)
    for checks, words in [
        (Checks(sha256="abc"), "is no SHA-256"),
        (Checks(signature=sums), "a signature needs a key"),
        (Checks(sha256="cd" * 32, sha256_file=sums), "another digest than --sha256"),
        (Checks(sha256_file=tmp_path / "none"), "cannot be read"),
    ]:
        with pytest.raises(UsageError, match=words):
            unpack(Source(published["raw"]), tmp_path / "o.img", checks)
    assert [path.name for path in tmp_path.iterdir()] == ["sums"]


def minisign(secret, data, algorithm=b"ED", comment="timestamp:1"):
    """Sign as minisign(1) does."""
    key_id = b"\x01\x02\x03\x04\x05\x06\x07\x08"
    message = hashlib.blake2b(data).digest() if algorithm == b"ED" else data
    signature = secret.sign(message)
    body = base64.b64encode(algorithm + key_id + signature).decode()
    end = base64.b64encode(secret.sign(signature + comment.encode())).decode()
    public = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key = f"untrusted comment: key\n{base64.b64encode(b'Ed' + key_id + public).decode()}\n"
    return f"untrusted comment: x\n{body}\ntrusted comment: {comment}\n{end}\n", key


@pytest.fixture
def signed(tmp_path):
    path = tmp_path / "SHA256SUMS"
    path.write_bytes(b"ab" * 32 + b"  pi.img.xz\n")
    return path


@pytest.mark.parametrize("algorithm", [b"ED", b"Ed"])
def test_minisign_signatures_are_proved(tmp_path, signed, algorithm):
    secret = Ed25519PrivateKey.generate()
    text, key = minisign(secret, signed.read_bytes(), algorithm)
    (tmp_path / "s").write_text(text)
    (tmp_path / "k").write_text(key)
    assert verify_signature(signed, tmp_path / "s", tmp_path / "k") == "minisign key 0807060504030201"
    (tmp_path / "s").write_text(text.replace("timestamp:1", "timestamp:2"))
    with pytest.raises(SignatureError, match="not of this key and file"):
        verify_signature(signed, tmp_path / "s", tmp_path / "k")
    (tmp_path / "s").write_text(text)
    signed.write_bytes(b"cd" * 32 + b"  pi.img.xz\n")
    with pytest.raises(SignatureError, match="not of this key and file"):
        verify_signature(signed, tmp_path / "s", tmp_path / "k")


@pytest.mark.parametrize("form", ["pem", "hex", "raw"])
def test_bare_ed25519_signatures_are_proved(tmp_path, signed, form):
    secret = Ed25519PrivateKey.generate()
    public = secret.public_key()
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "k").write_bytes({"pem": pem, "hex": raw.hex().encode() + b"\n", "raw": raw}[form])
    (tmp_path / "s").write_bytes(secret.sign(signed.read_bytes()))
    assert verify_signature(signed, tmp_path / "s", tmp_path / "k").startswith(f"ed25519 key {raw[:4].hex()}")
    (tmp_path / "s").write_bytes(secret.sign(b"other"))
    with pytest.raises(SignatureError, match="not of this key"):
        verify_signature(signed, tmp_path / "s", tmp_path / "k")


def test_openpgp_signatures_are_proved_by_gpg(tmp_path, signed, monkeypatch):
    gpg = shutil.which("gpg")
    if gpg is None:
        pytest.skip("gpg is missing; run: apt-get install gpg")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    base = [gpg, "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
    subprocess.run(
        [*base, "--quick-generate-key", "maker@example.org", "ed25519", "sign"], check=True, capture_output=True
    )
    subprocess.run([*base, "--output", str(tmp_path / "k"), "--export"], check=True, capture_output=True)
    subprocess.run(
        [*base, "--detach-sign", "--output", str(tmp_path / "s"), str(signed)], check=True, capture_output=True
    )
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
    assert verify_signature(signed, tmp_path / "s", tmp_path / "k").startswith("OpenPGP key ")
    signed.write_bytes(b"changed")
    with pytest.raises(SignatureError, match="OpenPGP signature is not good"):
        verify_signature(signed, tmp_path / "s", tmp_path / "k")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match="needs sqv or gpg; run: apt-get install sqv"):
        verify_signature(signed, tmp_path / "s", tmp_path / "k")


def test_a_wrong_signature_is_said_before_unpacking(published, tmp_path):
    path = published["xz"]
    sums = tmp_path / "sums"
    sums.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    secret = Ed25519PrivateKey.generate()
    text, key = minisign(secret, sums.read_bytes())
    (tmp_path / "s").write_text(text)
    (tmp_path / "k").write_text(key)
    checks = Checks(sha256_file=sums, signature=tmp_path / "s", key=tmp_path / "k")
    done = unpack(Source(path), tmp_path / "o.img", checks)
    assert done.verified == ("SHA-256 of the published file", "signature of sums by minisign key 0807060504030201")
    sums.write_text(sums.read_text() + "\n")

    def never(_read, _written):
        raise AssertionError("unpacked before the signature was checked")

    with pytest.raises(SignatureError):
        unpack(Source(path), tmp_path / "p.img", checks, never)


def test_what_a_signature_is_of_is_told_by_its_name(tmp_path):
    image, sums = tmp_path / "pi.img.xz", tmp_path / "pi.img.xz.sha256"

    def of(name, with_sums=sums):
        return Checks(sha256_file=with_sums, signature=tmp_path / name).signed(image)

    assert of("pi.img.xz.sig") == image
    assert of("pi.img.xz.sha256.sig") == sums
    assert of("SHA256SUMS.asc") == sums
    assert of("x.sig", None) == image
