"""Values of indexed rows, read from the table that was embedded: for pictures of hits, and to explain them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.samples import Samples
from multimodal.data.tables.open import IN_MEMORY
from multimodal.search.index import Index
from multimodal.search.index_rows import IndexRows


class Rows:
    """The rows of the table of an index; the table is opened when the first value is asked for.

    Args:
        settings: settings with which the table was opened (``Samples.settings``); None: unknown.
        processors: modality -> its processor.
        changed: keys of the rows that were added or replaced since the index was built, which are not those of the table.
        recorded: says of which rows other processes did so. None: no other process does.

    Examples:
        >>> Rows(None, {}).values("cup-1")
        {}
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None,
        processors: Mapping[str, Processor],
        changed: Iterable[str] = (),
        recorded: IndexRows | None = None,
    ) -> None:
        self._settings, self._processors, self._recorded = settings, processors, recorded
        self._samples: Samples | None = None
        self._unreadable = False
        self._opening = threading.Lock()
        self.changed = set(changed)

    @classmethod
    def of(cls, index: Index, processors: Mapping[str, Processor], shared: bool = False) -> Rows:
        """Return the rows of an index.

        Args:
            index: the index.
            processors: modality -> its processor.
            shared: whether other processes change the index too.
        """
        recorded = IndexRows.of(index.folder)
        changed = () if recorded is None else recorded.added_keys(0)
        return cls(index.data, processors, changed, recorded if shared else None)

    @property
    def known(self) -> bool:
        """Whether the index says from which table it was made."""
        return self._settings is not None and self._settings["table"] != IN_MEMORY

    def values(self, key: str) -> dict[str, Any]:
        """Return the raw values of a row by modality; none if there is no such row, or it cannot be read."""
        if key in self.changed or (samples := self._open()) is None:
            return {}
        try:
            if self._recorded is not None and self._recorded.was_added(key):
                return {}
            return samples.values_of(key, self._processors)
        except (UsageError, MultimodalError, OSError):  # a row that was added later, or whose file is gone
            return {}

    def _open(self) -> Samples | None:
        """Return the table; None, and once a line for the operator, if it cannot be read."""
        with self._opening:
            if self._samples is None and self.known and self._settings is not None and not self._unreadable:
                try:
                    self._samples = Samples.of(**self._settings)
                except (MultimodalError, OSError) as error:
                    self._unreadable = True
                    print(f"Hits are shown without their pictures and texts: {error}", file=sys.stderr, flush=True)
            return self._samples
