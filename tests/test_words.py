"""The worst words of the project's old dialect do not grow back: it is written in the field's standard terms.

    python tests/test_words.py                      # the whole repository, with counts by folder and by word
    python tests/test_words.py multimodal/core ...  # some folders or files

Checked are docstrings, comments, error texts, identifiers and names of files in ``*.py``, ``*.md``, ``*.yaml`` and
``*.toml``. Words in capitals are data (names of Unicode characters); a line that ends in ``words: data`` is left out.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml"}
NOT_OURS = {"build", "dist", "runs", "site"}  # made on this machine; hidden folders are left out too
DATA = re.compile(r"words: data\W*$")

# regular expression -> what to write instead. A space matches an underscore and a line end too. After "no" and "none"
# correct English is left alone: "there is no such file", "it is no longer there".
WORDS = {
    "told": "reported, printed, shown, given; 'told apart': distinguished",
    "tells?|telling": "says, reports, shows, determines; 'tell from': distinguish from; 'tell an object': notify",
    "beside": "next to, in addition to",
    "anew": "again",
    "stays|staying": "is kept, remains, is unchanged",
    "lacks?|lacking": "is missing, has no, without",
    "hangs? together": "are linked, are in one component",
    "(?:there )?(?:is|are|was|were) no (?!longer|more|less|fewer|larger|smaller|other|such|need|way|one)[a-z]+": "is not a",
    "(?:there )?(?:is|are|was|were) (?-i:none)": "is not one of, is not a, is invalid",
    "mend": "fix",
    "dealt|dealing": "assigned (to splits, to batches)",
    "go(?:es|ing)? on|went on": "continues, resumes",
    "go(?:es)? along": "are copied unchanged",
    "lets? go": "releases, drops",
    "taken? up": "reuses, loads",
    "takes? note|take note": "records, counts",
    "passed over": "ignored, skipped",
    "made of it": "computed from it",
    "to the bit": "bit for bit, identical",
    "whole or not": "complete or absent, atomic",
    "without a word": "silently",
    "by heart": "memorised",
    "for ever": "forever, without end",
    "all the same": "nevertheless",
    "at hand": "current, given",
    "so (?:many|much)": "this many, the given number of",
    "ever (?:new|other)": "always different, changing",
    "see there": "see ``Name``",
    "as (?:it|they) stands?": "unchanged, literally",
    "stands? (?:in|at|on|beside|before|behind|there|still|together|side)": "is in, is next to",
    "(?:the|this|a|no|largest|larger) part of (?:the |all |its |them )?"
    "(?:rows?|quer(?:y|ies)|steps?|groups?|values?|frames|bands|edge|training|table)": "fraction of",
    "part in \\[": "fraction in [",
    "number of weights|numbers? of a vector": "number of parameters; number of components",
}


def _compiled(words: str) -> re.Pattern[str]:
    spaced = words.replace(" ", r"[\s_]+")
    return re.compile(rf"(?<![a-z.])(?:{spaced})(?![a-z])", re.IGNORECASE)


PATTERNS = {words: _compiled(words) for words in WORDS}


@dataclass(frozen=True)
class Hit:
    """One word of the old dialect: where it is, as ``words`` in the table finds it."""

    path: Path
    line: int
    found: str
    words: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r} -> {WORDS[self.words]}"


def hits_in(text: str, path: Path) -> list[Hit]:
    """The old words in the text of a file, in their order."""
    lines = text.splitlines()
    matches = [(match, words) for words, pattern in PATTERNS.items() for match in pattern.finditer(text)]
    hits = []
    for match, words in sorted(matches, key=lambda found: found[0].start()):
        number = text.count("\n", 0, match.start()) + 1
        is_fine = match[0].isupper() or match[0].lower().startswith("there")  # as in "there is no"
        if not (is_fine or DATA.search(lines[number - 1])):
            hits.append(Hit(path, number, " ".join(match[0].split()), words))
    return hits


def files_below(path: Path) -> Iterator[Path]:
    """The files of the project in a folder, or the file itself."""
    if path.is_file():
        yield path
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in NOT_OURS and "egg-info" not in f)
        yield from (Path(folder, name) for name in sorted(names) if Path(name).suffix in SUFFIXES)


def hits_below(paths: Sequence[Path]) -> list[Hit]:
    """The old words in files and in the names of files."""
    hits: list[Hit] = []
    for file in (file.absolute() for path in paths for file in files_below(path)):
        if file != Path(__file__).absolute():
            name = file.relative_to(ROOT)
            hits += [Hit(name, 0, hit.found, hit.words) for hit in hits_in(name.as_posix(), name)]
            hits += hits_in(file.read_text(encoding="utf-8"), name)
    return hits


def report(hits: Sequence[Hit]) -> str:
    """Each hit as ``path:line: word -> better``, then their numbers by word and by folder."""
    words = Counter(hit.words for hit in hits)
    folders = Counter(hit.path.parent.as_posix() for hit in hits)
    lines = [*map(str, hits), "", *(f"{count:5} {word}" for word, count in words.most_common())]
    lines += ["", *(f"{count:5} {folder}" for folder, count in sorted(folders.items())), f"{len(hits):5} in all"]
    return "\n".join(lines)


def test_the_old_words_do_not_come_back() -> None:
    hits = hits_below([ROOT])
    assert not hits, f"\n{report(hits)}"


def test_old_words_are_found_and_correct_english_is_not() -> None:
    old = "It is told. tells_of Beside it; a file that\nis no picture, is_no_picture; what stays; they hang\n  together"
    assert [hit.found for hit in hits_in(old, Path("x"))] == [
        "told", "tells", "Beside", "is no picture", "is_no_picture", "stays", "hang together",
    ]  # fmt: skip
    fine = "besides, there is no file; it is no longer there; retold; TOLD; stay; file.tell(); if there are none; x is None"
    assert hits_in(fine, Path("x")) == []
    assert hits_in('text = "the tale that was told"  # words: data', Path("x")) == []


if __name__ == "__main__":
    found = hits_below([Path(path) for path in sys.argv[1:]] or [ROOT])
    print(report(found))
    raise SystemExit(1 if found else 0)
