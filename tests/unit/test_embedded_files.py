"""Private files, locks and accounts of the embedded servers, without any server."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded.account import Account
from app.embedded.errors import DataDirectoryUnusable
from app.embedded.files import prepare_data_dir, prepare_servers_dir, write_private
from app.embedded.locks import Lock


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory which every user of the machine may enter, as pytest's own may not be."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """A file with a password is 0600 whatever the umask says, and is replaced whole."""
    before = os.umask(0)
    try:
        write_private(tmp_path / "credentials.json", "one")
        write_private(tmp_path / "credentials.json", "two")
    finally:
        os.umask(before)
    assert (tmp_path / "credentials.json").read_text() == "two"
    assert mode(tmp_path / "credentials.json") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["credentials.json"]


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Whoever can write to the servers' directory can't make us overwrite a file elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "valkey.conf").symlink_to(victim)
    write_private(tmp_path / "valkey.conf", "ours")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "valkey.conf").is_symlink()


def test_the_data_directory_is_made_private(tmp_path: Path) -> None:
    """Nobody else can list a fresh data directory; parents that were there keep their modes."""
    tmp_path.chmod(0o750)
    data_dir = prepare_data_dir(tmp_path / "data")
    assert mode(data_dir) == 0o700
    assert mode(tmp_path) == 0o750


def test_a_data_directory_open_to_all_is_refused(tmp_path: Path) -> None:
    """Where anybody may replace our files, no password protects them."""
    tmp_path.chmod(0o777)
    with pytest.raises(DataDirectoryUnusable, match="chmod o-w"):
        prepare_data_dir(tmp_path)


def test_a_file_in_the_way_is_told_plainly(tmp_path: Path) -> None:
    """The operator reads which path is wrong and what to set, not a traceback."""
    (tmp_path / "data").write_text("")
    with pytest.raises(DataDirectoryUnusable, match="DATA_DIR"):
        prepare_data_dir(tmp_path / "data")


def test_data_that_went_missing_is_not_begun_anew(tmp_path: Path) -> None:
    """A link to a cluster that is gone stops the start: an empty database in its place would look like data loss."""
    (tmp_path / "servers").symlink_to(tmp_path / "gone")
    with pytest.raises(DataDirectoryUnusable, match="gone"):
        prepare_servers_dir(tmp_path)


def test_a_lock_has_one_holder_who_signs(tmp_path: Path) -> None:
    """The second is refused and can read who the first is, until the first lets go."""
    with Lock(tmp_path / "lock") as first, Lock(tmp_path / "lock") as second:
        assert first.take()
        first.sign()
        assert not second.take(patience=0)
        assert second.holder() == os.getpid()
        first.close()
        assert second.take(patience=0)
    assert mode(tmp_path / "lock") == 0o600


def test_users_share_a_lock_and_keep_the_owner_waiting(tmp_path: Path) -> None:
    """Any number of users, and no exclusive holder meanwhile; then the other way round."""
    path = tmp_path / "users"
    with Lock(path) as one, Lock(path) as other, Lock(path) as owner:
        assert one.share()
        assert other.share()
        assert not owner.take(patience=0)
        one.close()
        other.close()
        assert owner.take(patience=0)
        with Lock(path) as late:
            assert not late.share()


@pytest.mark.parametrize(
    ("parent_mode", "account", "enters"),
    [
        (0o700, "stranger", False),
        (0o711, "stranger", True),
        (0o710, "group", True),
        (0o701, "group", False),
        (0o700, "owner", True),
        (0o077, "owner", False),
    ],
)
def test_an_account_enters_where_its_own_bits_let_it(
    open_dir: Path, parent_mode: int, account: str, enters: bool
) -> None:
    """The first of owner, group and others that fits decides, as in the kernel (path_resolution(7))."""
    parent, inner = open_dir / "parent", open_dir / "parent" / "inner"
    inner.mkdir(parents=True)
    found = inner.stat()
    somebody = {
        "owner": Account(found.st_uid, found.st_gid),
        "group": Account(found.st_uid + 1, found.st_gid),
        "stranger": Account(found.st_uid + 1, found.st_gid + 1),
    }[account]
    inner.chmod(0o711)
    parent.chmod(parent_mode)
    # Looking further down needs the bits that `0o077` takes from us, too.
    assert somebody.enters(parent) is enters
    parent.chmod(0o700)
    assert somebody.enters(inner) is (account == "owner")
