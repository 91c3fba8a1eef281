"""The reader of tar shards: that of the ``datasets`` library, with samples understood by us."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Features, Value
from datasets.builder import Key
from datasets.packaged_modules.webdataset.webdataset import WebDataset

from multimodal.data.cells import CELL
from multimodal.data.shards import ADDRESS, KEY, cells_of, samples_in


def features_of(columns: Sequence[str]) -> Features:
    """The types of the columns: a cell is JSON or a file."""
    cell = {field: Value("binary" if field == "bytes" else "string") for field in CELL}
    return Features({name: Value("string") if name in (KEY, ADDRESS) else cell for name in columns})


class TarReader(WebDataset):
    """The library's reader stops at the first value that is not of the type of those before it; this one marks it."""

    def _generate_examples(self, tar_paths: Sequence[str], tar_iterators: Sequence[Any]) -> Iterator[Any]:
        columns = list(self.info.features or {})
        for tar, (path, files) in enumerate(zip(tar_paths, tar_iterators, strict=True)):
            for number, (key, members) in enumerate(samples_in((name, file.read()) for name, file in files)):
                yield Key(tar, number), cells_of(key, members, columns) | {ADDRESS: path}
