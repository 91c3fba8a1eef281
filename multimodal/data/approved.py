"""A table of suspected faults that a person has gone through: which rows are one item, and which are left out.

1. ``find_faults`` writes a line for each suspicion; a person marks those that are right in the column ``approve``;
2. ``Approved.read`` takes the marked lines of the file, and finds their keys in the table that is trained on;
3. ``Samples`` uses the groups and left-out rows in place of those of the table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from multimodal.core.errors import MultimodalError, UsageError, shown

MISMATCHED = "mismatched"
SAME_ITEM = "same item"
ACROSS_SPLITS = "duplicate across splits"
KINDS = (MISMATCHED, SAME_ITEM, ACROSS_SPLITS)
KEY, OTHER_KEY, KIND, APPROVE = "key", "other key", "kind", "approve"  # the columns that are read
YES, NO = ("yes", "y", "true", "1", "x"), ("", "no", "n", "false", "0")
MOST_CHARACTERS = 2**20  # of a cell
MOST_BYTES = 2**30  # of the file
KEYS_SHOWN = 3


@dataclass(frozen=True)
class Approved:
    r"""The approved lines of a table of suspected faults, by row number.

    Attributes:
        path: the file that they were read from.
        same: sets of rows, each of which shows one item; no row is in two of them.
        left_out: rows whose values do not belong together.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("faults.csv").write_text("kind,key,other key,approve\nsame item,a,c,yes\nmismatched,b,,no\n")
        >>> Approved.read("faults.csv", ["a", "b", "c"])
        Approved(path='faults.csv', same=((0, 2),), left_out=frozenset())
    """

    path: str
    same: tuple[tuple[int, ...], ...] = ()
    left_out: frozenset[int] = field(default_factory=frozenset)

    @classmethod
    def read(cls, path: str | Path, keys: Iterable[str]) -> Approved:
        """Read the approved lines of a file, and find their keys.

        Args:
            path: a CSV file with the columns ``kind``, ``key``, ``other key`` and ``approve``.
            keys: the key of each row of the table.

        Raises:
            MultimodalError: there is no such file, it is not a table of faults, a line is not yes or no, or an approved key is
                not in the table, or there more than once.
        """
        lines = _approved_lines(Path(path))
        rows_of: dict[str, list[int]] = {key: [] for _, named in lines for key in named}
        for row, key in enumerate(keys if rows_of else ()):
            if key in rows_of:
                rows_of[key].append(row)
        _check_found(path, rows_of)
        left_out = frozenset(rows_of[key][0] for kind, named in lines if kind == MISMATCHED for key in named)
        pairs = [[rows_of[key][0] for key in named] for kind, named in lines if kind != MISMATCHED]
        return cls(str(path), tuple(connected(pairs)), left_out)

    def __str__(self) -> str:
        joined = sum(map(len, self.same))
        return (
            f"Approved faults of {self.path}: {joined:,} rows joined into {len(self.same):,} items, {len(self.left_out):,} rows"
            " left out."
        )


def connected(pairs: Iterable[Iterable[int]]) -> list[tuple[int, ...]]:
    """Return the sets of numbers that pairs connect, each ascending, in the order of their smallest numbers.

    Args:
        pairs: pairs of numbers.

    Examples:
        >>> connected([(5, 1), (2, 3), (5, 7)])
        [(1, 5, 7), (2, 3)]
    """
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        parent.setdefault(number, number)
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for a, b in pairs:
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    members: dict[int, list[int]] = {}
    for number in sorted(parent):
        members.setdefault(root(number), []).append(number)
    return [tuple(numbers) for numbers in members.values()]


def joined_labels(same: Iterable[Iterable[str]], share_of: Mapping[str, float]) -> dict[str, str]:
    """Return, for groups that are found to be one, the group that each becomes.

    Args:
        same: for each item, the groups of its rows.
        share_of: group -> the share of the split that it is in. The group of the smallest split is kept, so that a row on which
            a model is measured does not become one that it is trained on.

    Examples:
        >>> joined_labels([["=cup", "=mug"], ["=mug", "#7"]], {"=cup": 0.8, "=mug": 0.1, "#7": 0.8})
        {'=cup': '=mug', '=mug': '=mug', '#7': '=mug'}
    """
    labels = list(share_of)
    number_of = {label: number for number, label in enumerate(labels)}
    pairs = []
    for groups in same:
        first, *others = (number_of[group] for group in groups)
        pairs += [(first, other) for other in others]
    joined = {}
    for numbers in connected(pairs):
        several = [labels[number] for number in numbers]
        kept = min(several, key=lambda label: (share_of[label], number_of[label]))
        joined.update(dict.fromkeys(several, kept))
    return joined


def _approved_lines(path: Path) -> list[tuple[str, list[str]]]:
    """Return the kind and the keys of each approved line: one of a mismatched row, two of others."""
    found = []
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"approved: {path} is larger than {MOST_BYTES / 2**30:g} GiB.")
        limit = csv.field_size_limit(MOST_CHARACTERS)
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin a file with a mark
                reader = csv.DictReader(file)
                if missing := [
                    name for name in (KIND, KEY, OTHER_KEY, APPROVE) if name not in (reader.fieldnames or ())
                ]:
                    raise UsageError(
                        f"approved: {path} is not a table of faults: it has no column {missing[0]!r}."
                        " `multimodal faults RUN --out faults.csv` writes one."
                    )
                for line in reader:
                    if _is_approved(path, reader.line_num, line[APPROVE]):
                        found.append(_kind_and_keys(path, reader.line_num, line))
        finally:
            csv.field_size_limit(limit)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MultimodalError(f"approved: {path} cannot be read: {reason}.") from error
    return found


def _is_approved(path: Path, number: int, cell: str | None) -> bool:
    answer = (cell or "").strip().lower()
    if answer not in (*YES, *NO):
        raise UsageError(f"approved: line {number} of {path} has {APPROVE} = {shown(cell)}; write yes or no.")
    return answer in YES


def _kind_and_keys(path: Path, number: int, line: Mapping[str, str | None]) -> tuple[str, list[str]]:
    kind = line[KIND]
    if kind not in KINDS:
        raise UsageError(f"approved: line {number} of {path} has the kind {shown(kind)}; known: {', '.join(KINDS)}.")
    keys = [line[KEY], *([] if kind == MISMATCHED else [line[OTHER_KEY]])]
    if None in keys or len({*keys}) < len(keys):
        raise UsageError(f"approved: line {number} of {path} does not name two rows.")
    return kind, [str(key) for key in keys]


def _check_found(path: str | Path, rows_of: Mapping[str, list[int]]) -> None:
    for fault, keys in (
        ("are not in the table", [key for key, rows in rows_of.items() if not rows]),
        ("name several rows of the table", [key for key, rows in rows_of.items() if len(rows) > 1]),
    ):
        if keys:
            names = ", ".join(repr(shown(key)) for key in keys[:KEYS_SHOWN])
            more = f" and {len(keys) - KEYS_SHOWN:,} more" if len(keys) > KEYS_SHOWN else ""
            raise UsageError(
                f"approved: keys of {path} {fault}: {names}{more}. It must be made of the table and the `key` that"
                " are used here."
            )
