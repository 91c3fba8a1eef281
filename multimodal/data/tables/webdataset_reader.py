"""Reader of tar shards: that of the ``datasets`` library with the columns and cells of ``webdataset``."""

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
    """Return the types of the columns: a cell is JSON or a file."""
    cell = {field: Value("binary" if field == "bytes" else "string") for field in CELL_FIELDS}
    return Features({name: Value("string") if name in (KEY, ADDRESS) else cell for name in columns})


class TarReader(WebDataset):
    """Reader of tar shards that marks unreadable values and reports truncated tars.

    The reader of the ``datasets`` library stops at the first value whose type differs from previous values, and reads
    truncated tars without an error.

    Examples:
        >>> import io, tarfile
        >>> with tarfile.open("shop.tar", "w") as shard:
        ...     info = tarfile.TarInfo("cup.txt")
        ...     info.size = 9
        ...     shard.addfile(info, io.BytesIO(b"a red cup"))
        >>> features = cell_features(["txt", "__key__", "__url__"])
        >>> reader = TarReader(cache_dir="cache", data_files=["shop.tar"], features=features)
        >>> row = next(iter(reader.as_streaming_dataset(split="train")))
        >>> row["__key__"], row["txt"]["json"]
        ('cup', '"a red cup"')
    """

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        addresses = list(self.config.data_files["train"])  # pyright: ignore
        files = dl_manager.download(addresses)  # local copies of remote files, unless they are streamed
        return [SplitGenerator("train", gen_kwargs={"files": files, "addresses": addresses})]

    def _generate_shards(self, files: Sequence[str], addresses: Sequence[str]) -> Iterator[str]:
        yield from addresses

    def _generate_examples(self, files: Sequence[str], addresses: Sequence[str]) -> Iterator[Any]:
        columns = list(self.info.features or {})
        for tar, (file, address) in enumerate(zip(files, addresses, strict=True)):
            with xopen(file, "rb", block_size=0) as stream:  # sequentially
                samples = group_members(read_members(address, stream), address)  # pyright: ignore
                for number, (key, members) in enumerate(samples):
                    yield Key(tar, number), cells_of(key, members, columns) | {ADDRESS: address}
