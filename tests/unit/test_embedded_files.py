"""Private files, locks and accounts of the embedded servers, without any server."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.embedded.account import Account, server_account
from app.embedded.errors import DataDirectoryUnusable
from app.embedded.files import prepare_data_dir, prepare_servers_dir, write_private
from app.embedded.locks import Lock
from app.errors import ConfigurationError
from app.settings import load


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


@pytest.mark.parametrize(
    ("bits", "whom"),
    [
        (0o777, "every user of this machine"),
        (0o702, "every user of this machine"),
        (0o1777, "every user of this machine"),
        (0o770, "every user of its group"),
        (0o720, "every user of its group"),
        (0o2775, "every user of its group"),
    ],
)
@pytest.mark.parametrize("by_link", [False, True])
def test_a_data_directory_that_others_may_change_is_refused(
    tmp_path: Path, bits: int, whom: str, by_link: bool
) -> None:
    """Where others may replace our files no password protects them; a link to it makes no difference. Nor does the
    development key go there.
    """
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(bits)
    if by_link:
        (tmp_path / "link").symlink_to(directory)
    given = tmp_path / "link" if by_link else directory
    with pytest.raises(DataDirectoryUnusable, match=rf"{whom}.*chmod o-w,g-w"):
        prepare_data_dir(given)
    with pytest.raises(ConfigurationError, match=rf"DATA_DIR can't keep.*{whom}"):
        load({"DATA_DIR": str(given)}, dotenv=None)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("bits", [0o700, 0o750, 0o755, 0o711])
def test_a_data_directory_that_others_may_only_read_will_do(tmp_path: Path, bits: int) -> None:
    """What is in it is private anyway."""
    tmp_path.chmod(bits)
    assert prepare_data_dir(tmp_path) == tmp_path.resolve()


def test_a_link_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They could lead it elsewhere tomorrow, data and all."""
    directory = tmp_path / "data"
    directory.mkdir()
    link = tmp_path / "link"
    link.symlink_to(directory)
    us = os.geteuid()
    if us == 0:
        os.chown(link, 12345, 12345, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    with pytest.raises(DataDirectoryUnusable, match="belongs to the user"):
        prepare_data_dir(link)


def test_another_users_directory_is_refused_to_all_but_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could replace what is kept there; root keeps it under that owner's account."""
    tmp_path.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
        assert prepare_data_dir(tmp_path) == tmp_path.resolve()
    stranger = tmp_path.stat().st_uid + 1000
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(DataDirectoryUnusable, match="belongs to the user"):
        prepare_data_dir(tmp_path)


class Users:
    """The machine's list of users as a test wants it, and the programs that add to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, known: dict[str, int], *, program: str | None) -> None:
        self.known = known
        self.commands: list[list[str]] = []
        self.answers = iter(["useradd: cannot lock /etc/passwd; try again later.", ""])
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(pwd, "getpwnam", self._by_name)
        monkeypatch.setattr(pwd, "getpwuid", self._by_number)
        monkeypatch.setattr(shutil, "which", lambda name, **_: name if name == program else None)
        monkeypatch.setattr(subprocess, "run", self._run)
        monkeypatch.setattr(time, "sleep", lambda _: None)

    def _by_name(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(pw_name=name, pw_uid=self.known[name], pw_gid=self.known[name])

    def _by_number(self, uid: int) -> SimpleNamespace:
        names = {number: name for name, number in self.known.items()}
        return self._by_name(names[uid])

    def _run(self, command: list[str], **_: object) -> SimpleNamespace:
        self.commands.append(command)
        said = next(self.answers)
        if not said:
            self.known["gatehouse"] = 888
        return SimpleNamespace(stdout="", stderr=said)


@pytest.mark.parametrize("program", ["useradd", "adduser"])
def test_root_makes_an_account_for_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """`nobody` and `postgres` are there, but other programs run as them: one of our own is made, also when another
    program holds the list of users for a moment.
    """
    users = Users(monkeypatch, {"root": tmp_path.stat().st_uid, "nobody": 65534, "postgres": 70}, program=program)
    users.known["root"] = 0
    monkeypatch.setattr(Path, "stat", lambda _: SimpleNamespace(st_uid=0))
    assert server_account(tmp_path) == Account(888, 888)
    assert [command[0] for command in users.commands] == [program, program]
    assert server_account(tmp_path) == Account(888, 888)
    assert len(users.commands) == 2


@pytest.mark.parametrize(
    ("program", "answer", "told"),
    [
        (None, "", "no user can be made here"),
        ("useradd", "useradd: cannot open /etc/passwd", "cannot open /etc/passwd"),
        ("useradd", "useradd: Read-only file system", "Read-only file system"),
        ("adduser", "adduser: permission denied", "permission denied"),
    ],
)
def test_root_without_an_account_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, answer: str, told: str
) -> None:
    """Where none can be made the servers don't run as somebody else's, and the operator reads what to do."""
    users = Users(monkeypatch, {"root": 0, "nobody": 65534, "postgres": 70}, program=program)
    users.answers = iter([answer])
    monkeypatch.setattr(Path, "stat", lambda _: SimpleNamespace(st_uid=0))
    with pytest.raises(DataDirectoryUnusable, match=rf"{told}.*useradd --system gatehouse"):
        server_account(tmp_path)


@pytest.mark.parametrize(("owner", "expected"), [(1000, 1000), (65534, 888), (4242, 888), (70, 70)])
def test_as_root_the_owner_of_the_directory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, expected: int
) -> None:
    """A person's directory stays that person's; `nobody`'s and a nameless number's isn't anybody's to run servers."""
    users = {"root": 0, "nobody": 65534, "postgres": 70, "ada": 1000, "gatehouse": 888}
    Users(monkeypatch, users, program="useradd")
    monkeypatch.setattr(Path, "stat", lambda _: SimpleNamespace(st_uid=owner))
    assert server_account(tmp_path) == Account(expected, expected)


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
