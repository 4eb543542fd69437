"""Where secret bytes live: bounded, wiped, and never copied, pickled or printed."""

from __future__ import annotations

import copy
import ctypes
import gc
import mmap
import pickle
import sys

import pytest

from musignet.crypto import backend
from musignet.crypto import secret as module
from musignet.crypto.secret import DEGRADED, SecretBuffer

SECRET = bytes(range(1, 33))


def _filled(size: int = 32) -> SecretBuffer:
    buffer = SecretBuffer(size)
    buffer.load(SECRET[:size])
    return buffer


def test_a_buffer_starts_as_zeros_and_holds_what_was_loaded() -> None:
    buffer = SecretBuffer(40)
    assert bytes(buffer.view[0:40]) == bytes(40)
    buffer.load(SECRET, 8)
    assert bytes(buffer.view[0:40]) == bytes(8) + SECRET
    buffer.load(memoryview(bytearray(b"\xff")))
    assert bytes(buffer.view[0:9]) == b"\xff" + bytes(7) + SECRET[:1]


def test_no_copy_is_made_on_the_way_in_that_nobody_would_wipe() -> None:
    class Watched(bytearray):
        def __bytes__(self) -> bytes:
            raise AssertionError("a copy that Python frees without overwriting it")

    buffer = SecretBuffer(32)
    buffer.load(Watched(SECRET))
    assert bytes(buffer.view[0:32]) == SECRET


@pytest.mark.parametrize(("size", "length", "offset"), [(32, 33, 0), (32, 32, 1), (32, 1, 32), (0, 1, 0), (32, 1, -1)])
def test_what_does_not_fit_is_refused(size: int, length: int, offset: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes at {offset} do not fit in {size}"):
        SecretBuffer(size).load(bytes(length), offset)


def test_wiping_zeroes_the_whole_mapping_and_may_be_repeated() -> None:
    buffer = _filled()
    for _ in range(2):
        buffer.wipe()
        assert bytes(buffer.view) == bytes(len(buffer.view))


def test_a_wiped_buffer_takes_no_secret_that_nobody_would_wipe() -> None:
    buffer = _filled()
    buffer.wipe()
    with pytest.raises(ValueError, match="wiped"):
        buffer.load(SECRET)
    assert bytes(buffer.view[0:32]) == bytes(32)


def test_the_bytes_are_wiped_when_the_object_dies() -> None:
    buffer = _filled()
    view = buffer.view
    del buffer
    gc.collect()
    assert bytes(view[0:32]) == bytes(32)


@pytest.mark.parametrize(
    "take",
    [copy.copy, copy.deepcopy, pickle.dumps, lambda it: it.__reduce__(), lambda it: it.__reduce_ex__(2)],
    ids=["copy", "deepcopy", "pickle", "reduce", "reduce_ex"],
)
def test_it_is_never_copied_or_pickled(take: object) -> None:
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        take(_filled())  # type: ignore[operator]


def test_it_prints_as_nothing_and_equals_only_itself() -> None:
    buffer = _filled()
    assert repr(buffer) == str(buffer) == "<SecretBuffer>"
    assert buffer != _filled()
    assert not hasattr(buffer, "__bytes__")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel says what it did only on Linux")
def test_the_mapping_is_private_locked_not_dumped_and_wiped_on_fork() -> None:
    buffer = _filled()
    flags = _vm_flags(backend.address(buffer.view))
    assert "sh" not in flags
    for protection, flag in (("mlock", "lo"), ("MADV_DONTDUMP", "dd"), ("MADV_WIPEONFORK", "wf")):
        assert (flag in flags) is (protection not in DEGRADED), protection


def _vm_flags(address: int) -> list[str]:
    """Return VmFlags of the mapping at `address` (proc(5), /proc/pid/smaps)."""
    inside = False
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            head = line.split(" ", 1)[0]
            if "-" in head and not head.endswith(":"):
                start, end = (int(part, 16) for part in head.split("-"))
                inside = start <= address < end
            elif inside and line.startswith("VmFlags:"):
                return line.split()[1:]
    raise AssertionError("the buffer is in no mapping")


# What a platform lacks is written down, and nothing fails for it.


def test_a_refused_advice_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEGRADED", degraded := set[str]())
    monkeypatch.setattr(module, "_MADVICE", (("MADV_DONTDUMP", None), ("MADV_WIPEONFORK", 9999)))
    buffer = _filled()
    assert bytes(buffer.view[0:32]) == SECRET
    assert degraded - {"mlock"} == {"MADV_DONTDUMP", "MADV_WIPEONFORK"}


def test_a_platform_without_private_mappings_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEGRADED", degraded := set[str]())
    monkeypatch.delattr(mmap, "MAP_PRIVATE")
    buffer = _filled()
    assert bytes(buffer.view[0:32]) == SECRET
    assert degraded - {"mlock"} == {"MADV_DONTDUMP", "MADV_WIPEONFORK"}


@pytest.mark.parametrize("failure", [OSError, AttributeError, TypeError])
def test_a_platform_without_mlock_is_written_down(monkeypatch: pytest.MonkeyPatch, failure: type[Exception]) -> None:
    def missing(_name: object) -> object:
        raise failure

    monkeypatch.setattr(module, "DEGRADED", degraded := set[str]())
    monkeypatch.setattr(ctypes, "CDLL", missing)
    module._libc.cache_clear()
    buffer = _filled()
    assert bytes(buffer.view[0:32]) == SECRET
    assert degraded >= {"mlock"}
