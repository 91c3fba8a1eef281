"""Failures of the system are one line with the file and what to do."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pyarrow as pa
import pytest

from multimodal.core.errors import MultimodalError
from multimodal.core.system_errors import ADVICE, SystemFault, system_fault, writing


def caused_by(cause: BaseException) -> Exception:
    try:
        try:
            raise cause
        except BaseException as inner:
            raise ValueError("generating the data set failed") from inner
    except ValueError as outer:
        return outer


FULL, FILES = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), os.strerror(errno.EMFILE)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FULL, "The disk is full; free some space, or name a folder on another disk."),
        (PermissionError(errno.EACCES, "no", "/data/a.csv"), "/data/a.csv: permission denied; check who owns it"),
        (IsADirectoryError(errno.EISDIR, "no", b"a.csv"), "a.csv: it is a folder, not a file."),
        (OSError(errno.EROFS, "no", Path("out")), "out: the file system is read-only; name a folder elsewhere."),
        (OSError(errno.EMFILE, "no", "a.png"), "a.png: this process has too many open files; raise the limit with"),
        (caused_by(FULL), "The disk is full"),
        # as data workers and libraries report them
        (
            OSError(f"Caught OSError in worker 0.\n  line 3\nOSError: [Errno 24] {FILES}: 'b.png'"),
            "b.png: this process",
        ),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "The disk is full"),
        (pa.ArrowInvalid("Error writing: [errno 122] Disk quota exceeded"), "The disk quota is used up"),
        (RuntimeError("[enforce fail at inline_container.cc:668] . PytorchStreamWriter failed"), "The disk is full"),
        (OSError("4096 requested and 512 written"), "The disk is full"),
    ],
)
def test_a_failure_of_the_system_is_described(error: BaseException, line: str) -> None:
    assert str(system_fault(error)).startswith(line)


@pytest.mark.parametrize(
    "error", [ValueError("no"), OSError("odd"), KeyError("disk"), BrokenPipeError(errno.EPIPE, "")]
)
def test_other_errors_are_not_the_system_s(error: Exception) -> None:
    assert system_fault(error) is None


def test_every_advice_reads_as_a_sentence_after_a_name() -> None:
    for code in ADVICE:
        line = str(SystemFault(code, "x"))
        assert (line[:3], line[-1]) == ("x: ", ".")
        assert str(SystemFault(code))[0].isupper()


def test_a_failed_write_names_the_folder_that_was_written(tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match=r"^out cannot be written: the disk is full; free"), writing(Path("out")):
        raise FULL
    with pytest.raises(PermissionError), writing(Path("out")):  # of another file, perhaps one that is read
        raise PermissionError(errno.EACCES, "no", "table.csv")
    with pytest.raises(MultimodalError, match=r"^mine$"), writing(Path("out")):
        raise MultimodalError("mine")


def test_a_real_write_beyond_a_limit_is_described(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # Python ignores the signal, and gets EFBIG
    try:
        message = r"out cannot be written: the file would be larger than"
        with pytest.raises(MultimodalError, match=message), writing(tmp_path / "out"):
            (tmp_path / "big").write_bytes(bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
