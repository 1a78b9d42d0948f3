"""The certificate of the ext_proc port: made up, read, read again, refused."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from inference_picker.errors import ConfigError
from inference_picker.tls import FilePair, KeyPair, Tls, read_pair, self_signed, tls_of

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    return written(tmp_path, self_signed(NOW))


def written(directory: Path, pair: KeyPair) -> tuple[Path, Path]:
    certificate, key = directory / "tls.crt", directory / "tls.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    # Two writes within one tick of the file system's clock must differ all the same.
    for path in (certificate, key):
        stamp = path.stat().st_mtime_ns + next(_TICKS)
        os.utime(path, ns=(stamp, stamp))
    return certificate, key


_TICKS = iter(range(1_000_000, 10**12, 1_000_000))


def test_a_made_up_certificate_is_valid_from_the_day_before() -> None:
    found = x509.load_pem_x509_certificate(self_signed(NOW).certificate)

    assert found.not_valid_before_utc == NOW - dt.timedelta(days=1)
    assert found.not_valid_after_utc > NOW + dt.timedelta(days=3_000)


def test_a_pair_is_read_again_once_when_it_changed(files: tuple[Path, Path]) -> None:
    pair = FilePair(*files)
    assert pair.changed() is None
    new = self_signed(NOW)
    written(files[0].parent, new)

    assert pair.changed() == new
    assert pair.changed() is None


def test_halves_of_two_pairs_leave_the_old_one_in_use(files: tuple[Path, Path]) -> None:
    pair = FilePair(*files)
    old, new = pair.current, self_signed(NOW)
    files[1].write_bytes(new.key)

    assert pair.changed() is None
    assert pair.current == old
    files[0].write_bytes(new.certificate)
    assert pair.changed() == new


def test_files_that_vanish_leave_the_old_pair_in_use(files: tuple[Path, Path]) -> None:
    pair = FilePair(*files)
    files[0].unlink()

    assert pair.changed() is None


def test_a_mounted_secret_is_followed_through_its_links(tmp_path: Path) -> None:
    # The kubelet replaces the link ..data, never the files that the paths name.
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, self_signed(NOW))
    data = tmp_path / "..data"
    data.symlink_to(tmp_path / "one")
    pair = FilePair(data / "tls.crt", data / "tls.key")
    data.unlink()
    data.symlink_to(tmp_path / "two")

    assert pair.changed() == read_pair(tmp_path / "two" / "tls.crt", tmp_path / "two" / "tls.key")


def test_what_is_no_pair_is_refused_with_its_files(files: tuple[Path, Path]) -> None:
    certificate, key = files
    with pytest.raises(ConfigError, match="can't be read"):
        read_pair(certificate.with_name("none"), key)
    key.write_bytes(self_signed(NOW).key)
    with pytest.raises(ConfigError, match="is not the key of"):
        read_pair(certificate, key)
    key.write_bytes(b"x")
    with pytest.raises(ConfigError, match="no PEM certificate"):
        read_pair(certificate, key)


def test_flags_choose_and_contradictions_are_told(files: tuple[Path, Path]) -> None:
    assert tls_of(None, None, insecure=True) is None
    assert tls_of(None, None, insecure=False) == Tls()
    found = tls_of(*files, insecure=False)
    assert found is not None
    assert found.files is not None
    with pytest.raises(ConfigError, match="give both"):
        tls_of(files[0], None, insecure=False)
    with pytest.raises(ConfigError, match="without --tls-cert"):
        tls_of(*files, insecure=True)
