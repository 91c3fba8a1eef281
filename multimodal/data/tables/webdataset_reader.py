"""The reader of tar shards: that of the ``datasets`` library, with samples understood by us."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Features, SplitGenerator, Value
from datasets.builder import Key
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from datasets.utils.file_utils import xopen

from multimodal.data.tables.cells import CELL_FIELDS
from multimodal.data.tables.webdataset import ADDRESS, KEY, cells_of, group_members, read_members


def cell_features(columns: Sequence[str]) -> Features:
    """The types of the columns: a cell is JSON or a file."""
    cell = {field: Value("binary" if field == "bytes" else "string") for field in CELL_FIELDS}
    return Features({name: Value("string") if name in (KEY, ADDRESS) else cell for name in columns})


class TarReader(WebDataset):
    """The library's reader stops at the first value that is not of the type of those before it, and not at all at the
    end of a tar that breaks off; this one marks the value, and tells of the tar.
    """

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        addresses = list(self.config.data_files["train"])  # pyright: ignore
        files = dl_manager.download(addresses)  # copies of those that lie elsewhere, if they are not streamed
        return [SplitGenerator("train", gen_kwargs={"files": files, "addresses": addresses})]

    def _generate_shards(self, files: Sequence[str], addresses: Sequence[str]) -> Iterator[str]:
        yield from addresses

    def _generate_examples(self, files: Sequence[str], addresses: Sequence[str]) -> Iterator[Any]:
        columns = list(self.info.features or {})
        for tar, (file, address) in enumerate(zip(files, addresses, strict=True)):
            with xopen(file, "rb", block_size=0) as stream:  # from one end to the other
                for number, (key, members) in enumerate(group_members(read_members(address, stream))):  # pyright: ignore
                    yield Key(tar, number), cells_of(key, members, columns) | {ADDRESS: address}
