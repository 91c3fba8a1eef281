"""Rows that cannot be read: skipped, counted by reason, written to a file."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from multimodal.core.errors import MultimodalError, Unreadable, shown

LINE_START = b'{"row": '  # of the file of rejects


@dataclass(unsafe_hash=True)  # not frozen, like Batch, of which it is part
class Reject:
    """A row that was skipped.

    Args:
        row: its number; in a stream, its number in ``file``.
        key: its key.
        column: the column at fault.
        value: the value there, shortened.
        reason: what is wrong, equal for all values with the same fault.
        message: what is wrong with this value, in full.
        file: the file of a stream; else empty.

    Examples:
        >>> Reject(3, "cup-4", "picture", "cup.png", "missing file", "the picture cup.png does not exist.").reason
        'missing file'
    """

    row: int
    key: str
    column: str
    value: str
    reason: str
    message: str
    file: str = ""

    @classmethod
    def of(cls, row: int, key: str, column: str, value: Any, error: Exception) -> Reject:
        """Create the reject for an error in reading or processing a value.

        Args:
            row: the row's number.
            key: the row's key.
            column: the column of the value.
            value: the value.
            error: the exception that was raised.
        """
        reason = error.reason if isinstance(error, Unreadable) else "unreadable"
        message = str(error) if isinstance(error, MultimodalError) else f"{type(error).__name__}: {error}"
        return cls(row, key, column, shown(value), reason, message)


class Rejects:
    """Collects rejects, each row and column once, and stops the work when there are too many.

    Args:
        max_rejects: the fraction of the rows that may be rejected, in [0, 1].
        rows: the number of rows; None: unknown, as in a stream, where the fraction is of the rows read so far (at least 1,000).
        path: the JSON Lines file to write them to; the rejects in an existing file count too. None: no file.
        key_of: row number -> key, which replaces the keys of added rejects. None: they are kept.

    Raises:
        MultimodalError: the file contains something other than rejects.

    Examples:
        >>> rejects = Rejects(max_rejects=0.5, rows=4)
        >>> rejects.add([Reject(3, "3", "picture", "cup.png", "missing file", "cup.png does not exist.")])
        >>> len(rejects), rejects.reasons
        (1, {'missing file': 1})
    """

    def __init__(
        self,
        max_rejects: float,
        rows: int | None,
        path: Path | None = None,
        key_of: Callable[[int], str] | None = None,
    ) -> None:
        self.max_rejects, self.rows, self.path, self._key_of = max_rejects, rows, path, key_of
        self.seen = 0
        self._reasons: dict[tuple[str, int, str], str] = {}
        self._rejected: set[tuple[str, int]] = set()
        self._first: Reject | None = None
        if path is not None and path.is_file():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            for line in whole.decode("utf-8").split("\n")[:-1]:
                self._record(Reject(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise MultimodalError(
                f"{path} is not a file of rejected rows, or it is damaged ({error}); move it away."
            ) from error
        cut = content[len(whole) :]  # of a process that was killed while it wrote; its row is read again
        if cut and cut[: len(LINE_START)] != LINE_START[: len(cut)]:
            raise MultimodalError(f"{path} is not a file of rejected rows, or it is damaged; move it away.")
        if cut:
            os.truncate(path, len(whole))

    def __repr__(self) -> str:
        return f"Rejects: {self.summary()}"

    def __len__(self) -> int:
        """The number of rejected rows."""
        return len(self._rejected)

    @property
    def reasons(self) -> dict[str, int]:
        """The number of rows for each reason, the most frequent first."""
        return dict(Counter(self._reasons.values()).most_common())

    def add(self, rejects: Iterable[Reject], seen: int = 0) -> None:
        """Record rejects, and stop the work if there are too many.

        Args:
            rejects: the rejects among the rows read since the last call.
            seen: the number of these rows.

        Raises:
            MultimodalError: more than ``max_rejects`` of the rows are rejected; the message counts the reasons.
        """
        self.seen += seen
        if self._key_of is not None:
            rejects = [replace(reject, key=self._key_of(reject.row)) for reject in rejects]
        new = [reject for reject in rejects if self._record(reject)]
        if not new:
            return
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(reject)) + "\n" for reject in new)
        if len(self) > self.limit:
            raise MultimodalError(f"{self.summary()} max_rejects {self._sufficient:g} would allow those found so far.")

    def forget(self, rows: Iterable[int]) -> None:
        """Remove the rejects of rows that will be read again."""
        rows_to_remove = set(rows)
        removed = [cell for cell in self._reasons if cell[1] in rows_to_remove]
        if not removed:
            return
        for cell in removed:
            del self._reasons[cell]
        self._rejected = {(file, row) for file, row, _ in self._reasons}
        self._first = None
        if self.path is not None and self.path.is_file():
            kept = [
                line
                for line in self.path.read_text(encoding="utf-8").split("\n")
                if line and json.loads(line)["row"] not in rows_to_remove
            ]
            new = self.path.with_name(f"{self.path.name}.new")
            new.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            os.replace(new, self.path)

    @property
    def limit(self) -> int:
        """The number of rows that may be rejected so far."""
        return int(self.max_rejects * self._rows)

    @property
    def _rows(self) -> int:
        """The number of rows of which a fraction may be rejected."""
        return max(self.seen, 1000) if self.rows is None else self.rows

    @property
    def _sufficient(self) -> float:
        """The smallest fraction of three decimals that allows the rejects so far."""
        thousandths = math.ceil(1000 * len(self) / self._rows)
        while int(thousandths / 1000 * self._rows) < len(self):  # rounded down
            thousandths += 1
        return thousandths / 1000

    def summary(self) -> str:
        """Say in one line how many rows were rejected and why."""
        if not self._reasons:
            return "No row was rejected."
        reasons = ", ".join(f"{count} x {reason}" for reason, count in self.reasons.items())
        total = f"{self.seen:,} read so far" if self.rows is None else f"{self.rows:,}"
        first = self._first
        if first is None:
            example = ""
        else:
            key = "" if first.key == str(first.row) else f" ({first.key!r})"
            example = f" The first: row {first.row}{key}, column {first.column!r}: {first.message}"
        where = "" if self.path is None else f" All are in {self.path}."
        return (
            f"{len(self):,} of {total} rows cannot be read ({reasons}); max_rejects {self.max_rejects:g} allows"
            f" {self.limit:,}.{example}{where}"
        )

    def _record(self, reject: Reject) -> bool:
        """Record a reject and return True, unless its row and column are already recorded."""
        cell = (reject.file, reject.row, reject.column)
        if cell in self._reasons:
            return False
        self._reasons[cell] = reject.reason
        self._rejected.add((reject.file, reject.row))
        self._first = self._first or reject
        return True
