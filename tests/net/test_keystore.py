"""Key files: what is written, what is refused, and what a crash leaves (THREATS.md "Keys at rest", Z2, Z3)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, IoError, LocalError, NetworkError, SerializationError
from musignet.net import keystore, privatefile
from musignet.net.keystore import KdfCost, load_identity, save_identity

CHEAP = KdfCost(memory_kib=19 * 1024, passes=2, lanes=1)
ALICE = Identity.from_secret(bytes(range(1, 33)))
BOB = Identity.from_secret(bytes(range(2, 34)))
SALT = slice(20, 52)
posix_only = pytest.mark.skipif(not privatefile._POSIX, reason="owners and mode bits are POSIX")
root_only = pytest.mark.skipif(
    not privatefile._POSIX or os.geteuid() != 0, reason="only root may give a file to somebody else"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that nobody else may write to, whatever the umask is."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "alice.key"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of one encrypted file."""
    file = tmp_path_factory.mktemp("sealed") / "k"
    save_identity(ALICE, file, "pass", cost=CHEAP)
    return file.read_bytes()


def put(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def save(path: Path, who: Identity = ALICE, passphrase: str | None = "pass", *, overwrite: bool = False) -> None:
    save_identity(who, path, passphrase, overwrite=overwrite, cost=CHEAP)


# --- round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("pass", "pass"),
        ("pass", b"pass"),
        (bytearray(b"\xff\x00"), memoryview(b"\xff\x00")),
        ("caf\u00e9", "cafe\u0301"),  # one key press, or two
    ],
)
def test_what_is_saved_is_loaded(path: Path, written: str | bytearray, read: str | bytes | memoryview) -> None:
    save_identity(ALICE, path, written, cost=CHEAP)
    loaded = load_identity(str(path), read)
    assert loaded.pubkey == ALICE.pubkey
    assert loaded.sign(bytes(32)) == ALICE.sign(bytes(32))


def test_a_saved_identity_can_still_sign(path: Path) -> None:
    before = ALICE.sign(bytes(32))
    save(path)
    assert ALICE.sign(bytes(32)) == before


def test_the_default_cost_is_that_of_the_threat_table() -> None:
    assert KdfCost() == keystore.DEFAULT_COST == KdfCost(memory_kib=256 * 1024, passes=3, lanes=4)


def test_the_default_cost_round_trip(path: Path) -> None:
    save_identity(ALICE, path, "pass")
    assert path.read_bytes()[8:20] == bytes([1, 1, 1, 4, 0, 4, 0, 0, 0, 0, 0, 3])
    assert load_identity(path, "pass").pubkey == ALICE.pubkey


def test_each_write_has_its_own_salt(folder: Path) -> None:
    one, two = folder / "one", folder / "two"
    save(one)
    save(two)
    assert one.read_bytes()[SALT] != two.read_bytes()[SALT]


def test_only_the_key_file_is_left_and_only_its_owner_may_read_it(path: Path) -> None:
    old = os.umask(0)
    try:
        save(path)
    finally:
        os.umask(old)
    assert os.listdir(path.parent) == [path.name]
    if privatefile._POSIX:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_nlink == 1


def test_without_descriptors_of_folders_the_same_file_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privatefile, "_POSIX", False)
    save(path)
    with pytest.raises(IoError, match="overwrite=True"):
        save(path, BOB)
    save(path, BOB, overwrite=True)
    assert load_identity(path, "pass").pubkey == BOB.pubkey
    assert os.listdir(path.parent) == [path.name]


# --- passphrases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passphrase", ["", b"", bytearray(), "\ud800"])
def test_what_is_no_passphrase_is_refused(path: Path, passphrase: str | bytes) -> None:
    with pytest.raises(LocalError, match="passphrase"):
        save_identity(ALICE, path, passphrase, cost=CHEAP)
    with pytest.raises(LocalError, match="passphrase"):
        load_identity(path, passphrase)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(("passphrase", "insecure", "got"), [(None, False, "neither"), ("pass", True, "both")])
def test_no_passphrase_has_to_be_said_aloud(path: Path, passphrase: str | None, insecure: bool, got: str) -> None:
    with pytest.raises(LocalError, match=f"insecure_no_passphrase=True, got {got}"):
        save_identity(ALICE, path, passphrase, insecure_no_passphrase=insecure, cost=CHEAP)
    assert os.listdir(path.parent) == []


def test_an_unencrypted_file_says_so_and_opens_without_a_passphrase_only(path: Path) -> None:
    save_identity(ALICE, path, None, insecure_no_passphrase=True)
    assert path.read_bytes()[8:20] == bytes([1, 1, 0, *bytes(9)])
    assert load_identity(path, None).pubkey == ALICE.pubkey
    with pytest.raises(AuthenticationError, match=r"unencrypted key file: .*: expected no passphrase"):
        load_identity(path, "pass")


def test_an_encrypted_file_needs_its_passphrase(folder: Path, sealed: bytes) -> None:
    with pytest.raises(LocalError, match=r"encrypted key file: .*: expected its passphrase"):
        load_identity(put(folder / "k", sealed), None)


def test_a_wiped_identity_is_not_saved(path: Path) -> None:
    wiped = Identity.generate()
    wiped.wipe()
    with pytest.raises(LocalError, match="cannot store"):
        save(path, wiped)
    assert os.listdir(path.parent) == []


def test_an_altered_file_is_refused(folder: Path, sealed: bytes) -> None:
    with pytest.raises(AuthenticationError, match=r"altered key file, it cannot be told which: .*/k$"):
        load_identity(put(folder / "k", sealed[:-1] + b"?"), "pass")


@pytest.mark.parametrize("more", [b"\n", bytes(1 << 20)])
def test_a_longer_file_is_refused(folder: Path, sealed: bytes, more: bytes) -> None:
    with pytest.raises(SerializationError, match="expected 100 bytes, got more"):
        load_identity(put(folder / "k", sealed + more), "pass")


# --- who may read and write (Z3) ------------------------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize("mode", [0o600 | bit for bit in (0o1, 0o2, 0o4, 0o10, 0o20, 0o40)] + [0o644, 0o666, 0o777])
def test_a_file_that_others_may_touch_is_refused(folder: Path, sealed: bytes, mode: int) -> None:
    file = put(folder / "my key", sealed, mode)
    with pytest.raises(IoError, match=rf"got mode {mode:o}; chmod 600 '.*my key'"):
        load_identity(file, "pass")


@posix_only
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owner_alone_is_read(folder: Path, sealed: bytes, mode: int) -> None:
    assert load_identity(put(folder / "k", sealed, mode), "pass").pubkey == ALICE.pubkey


@posix_only
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o770])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, sealed: bytes, mode: int) -> None:
    file = put(folder / "k", sealed)
    folder.chmod(mode)
    with pytest.raises(IoError, match=rf"got mode {mode:o}; chmod go-w "):
        load_identity(file, "pass")
    with pytest.raises(IoError, match=rf"got mode {mode:o}; chmod go-w "):
        save(folder / "new")
    assert os.listdir(folder) == ["k"]


@posix_only
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_a_folder_in_which_nobody_can_replace_the_file_is_used(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    save(folder / "k")
    assert load_identity(folder / "k", "pass").pubkey == ALICE.pubkey


@root_only
def test_a_file_of_somebody_else_is_refused(folder: Path, sealed: bytes) -> None:
    file = put(folder / "k", sealed)
    os.chown(file, 12345, -1)
    with pytest.raises(IoError, match="expected owner 0, got owner 12345"):
        load_identity(file, "pass")


@root_only
def test_a_folder_of_somebody_else_is_refused(folder: Path, sealed: bytes) -> None:
    file = put(folder / "k", sealed)
    os.chown(folder, 12345, -1)
    with pytest.raises(IoError, match="expected owner 0, got owner 12345"):
        load_identity(file, "pass")


@posix_only
def test_a_symbolic_link_is_not_followed(folder: Path, sealed: bytes) -> None:
    target, link = put(folder / "target", sealed), folder / "link"
    link.symlink_to(target)
    with pytest.raises(IoError, match="not of a symbolic link"):
        load_identity(link, "pass")
    for overwrite in (False, True):
        with pytest.raises(IoError):
            save(link, BOB, overwrite=overwrite)
    assert link.is_symlink()
    assert target.read_bytes() == sealed


@posix_only
def test_a_dangling_symbolic_link_is_not_written_through(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "target")
    for overwrite in (False, True):
        with pytest.raises(IoError):
            save(folder / "link", overwrite=overwrite)
    assert os.listdir(folder) == ["link"]


@posix_only
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_regular_file_is_refused(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with pytest.raises(IoError, match="expected a regular file"):
        load_identity(path, "pass")
    with pytest.raises(IoError, match="expected a regular file"):
        save(path, overwrite=True)


def test_a_missing_file_or_folder_is_an_io_error(folder: Path) -> None:
    for place in (folder / "none", folder / "none" / "k"):
        with pytest.raises(IoError, match="check the path"):
            load_identity(place, "pass")
    with pytest.raises(IoError, match="the folder must exist"):
        save(folder / "none" / "k")


@pytest.mark.parametrize("name", ["", ".", "/", "..", "x/..", "nul\0byte"])
def test_a_path_that_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(LocalError, match="expected the name of a file"):
        load_identity(name, "pass")
    with pytest.raises(LocalError, match="expected the name of a file"):
        save_identity(ALICE, name, "pass", cost=CHEAP)


@posix_only
def test_a_folder_that_is_swapped_meanwhile_is_not_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, away, fsync = folder / "ours", folder / "away", os.fsync
    ours.mkdir(mode=0o700)

    def swapping(fd: int) -> None:
        fsync(fd)
        if not away.exists():
            ours.rename(away)
            ours.mkdir(mode=0o777)

    monkeypatch.setattr(os, "fsync", swapping)
    save(ours / "k")
    assert os.listdir(ours) == []
    assert load_identity(away / "k", "pass").pubkey == ALICE.pubkey


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="open descriptors are listed in /dev/fd")
def test_no_descriptor_is_left_open(path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    save(path)
    load_identity(path, "pass")
    with pytest.raises(IoError):
        save(path)
    path.chmod(0o644)
    with pytest.raises(IoError):
        load_identity(path, "pass")
    path.parent.chmod(0o777)
    with pytest.raises(IoError):
        load_identity(path, "pass")
    assert len(os.listdir("/dev/fd")) == before


# --- overwriting ----------------------------------------------------------------------------------------------------


def test_a_key_file_is_replaced_only_when_asked(path: Path) -> None:
    save(path)
    before = path.read_bytes()
    with pytest.raises(IoError, match=r"File exists: .*; pass overwrite=True"):
        save(path, BOB)
    assert path.read_bytes() == before
    save(path, BOB, "other", overwrite=True)
    assert load_identity(path, "other").pubkey == BOB.pubkey
    assert os.listdir(path.parent) == [path.name]


def test_overwrite_also_writes_a_first_file(path: Path) -> None:
    save(path, overwrite=True)
    assert load_identity(path, "pass").pubkey == ALICE.pubkey


@pytest.mark.parametrize("data", [b"", b"my wallet", b"MUSIGKEY\x01\x02" + bytes(90)])
def test_nothing_but_an_identity_file_is_replaced(path: Path, data: bytes) -> None:
    put(path, data)
    with pytest.raises(SerializationError, match="not a key file"):
        save(path, overwrite=True)
    assert path.read_bytes() == data
    assert os.listdir(path.parent) == [path.name]


# --- crashes and failing disks --------------------------------------------------------------------------------------


class PowerCut(BaseException):
    """The machine stops: no clean-up of ours succeeds either."""


STEPS = ("open", "fsync", "read", "link", "replace", "unlink")


class Faults:
    """Lets `after` calls of the given functions of `os` pass, then raises `fault`: once, or for ever."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int, fault: BaseException, *, forever: bool) -> None:
        self.left, self.fault, self.forever, self.hit = after, fault, forever, ""
        for name in STEPS:
            patch.setattr(os, name, self.guard(name, getattr(os, name)))

    def guard(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def guarded(*args: object, **kwargs: object) -> object:
            self.left -= 1
            if self.left == -1 or (self.forever and self.left < 0):
                self.hit = self.hit or name
                raise self.fault
            return call(*args, **kwargs)

        return guarded


def states(
    folder: Path, overwrite: bool, fault: BaseException, forever: bool
) -> Iterator[tuple[str, Path, Exception | None]]:
    """Save BOB with a fault at the first, second, ... step; yield the step, the path, and what was raised."""
    for after in range(100):
        here = folder / str(after)
        here.mkdir(mode=0o700)
        path = here / "k"
        if overwrite:
            save(path)
        raised: BaseException | None = None
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, after, fault, forever=forever)
            try:
                save(path, BOB, "new", overwrite=overwrite)
            except (NetworkError, PowerCut) as error:
                raised = error
        yield faults.hit, path, raised
        if not faults.hit:
            return


def holds(path: Path) -> bytes | None:
    """The public key that the file opens to, by either passphrase; None where there is no file."""
    if not path.exists():
        return None
    try:
        return load_identity(path, "new").pubkey
    except AuthenticationError:
        return load_identity(path, "pass").pubkey


@pytest.mark.parametrize("overwrite", [False, True])
def test_after_a_power_cut_at_any_step_the_file_is_the_old_or_the_new_one(folder: Path, overwrite: bool) -> None:
    seen = set()
    for step, path, raised in states(folder, overwrite, PowerCut(), forever=True):
        assert (raised is None) == (step == "")
        found = holds(path)
        assert found in (ALICE.pubkey if overwrite else None, BOB.pubkey), step
        seen.add((step, found == BOB.pubkey))
    placed = "replace" if overwrite else "link"
    assert {("open", False), ("fsync", False), ("read", False), (placed, False), ("fsync", True), ("", True)} <= seen


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failing_disk_is_an_io_error_that_says_whether_the_file_is_in_place(folder: Path, overwrite: bool) -> None:
    steps = []
    for step, path, raised in states(folder, overwrite, OSError(errno.EIO, "Input/output error"), forever=False):
        steps.append(step)
        if step in ("", "unlink"):  # a temporary name that cannot be removed does no harm
            assert raised is None
        else:
            assert isinstance(raised, IoError)
            assert set(os.listdir(path.parent)) <= {path.name}
        in_place = raised is None or "in place" in str(raised)
        assert holds(path) == (BOB.pubkey if in_place else ALICE.pubkey if overwrite else None), step
    assert steps.count("fsync") == 2


def test_a_disk_that_returns_other_bytes_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path)
    before = path.read_bytes()
    read, calls = os.read, iter(range(100))

    def flipping(fd: int, size: int) -> bytes:
        data = read(fd, size)
        return data if next(calls) == 0 else data[:-1] + bytes([data[-1] ^ 1])

    monkeypatch.setattr(os, "read", flipping)
    with pytest.raises(AuthenticationError, match="altered key file"):
        save(path, BOB, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_file_that_changed_under_our_hands_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def racing(*names: str, **folders: int) -> None:
        link(*names, **folders)
        with path.open("r+b") as file:
            file.write(b"other")

    monkeypatch.setattr(os, "link", racing)
    with pytest.raises(IoError, match="in place, but somebody else changed it"):
        save(path)


def test_too_little_memory_for_the_key_derivation_is_a_local_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr("musignet.net.keyfile.argon2id", no_memory)
    with pytest.raises(LocalError, match="not enough memory"):
        save(path)
    assert os.listdir(path.parent) == []
