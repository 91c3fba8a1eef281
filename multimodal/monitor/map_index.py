"""A map for the queries of a running server: the new model answers at once, from what the old one has stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.folder_lock import write_lock
from multimodal.core.progress import progress
from multimodal.core.system_errors import writing
from multimodal.monitor.fit_query_map import MapReport, encode_anchors, fit_query_map
from multimodal.monitor.new_index import MAP, index_rows, numbers_of, table_of, working_folder
from multimodal.monitor.query_map import QueryMap
from multimodal.search.index_folder import MODEL, read_index_description

MIN_RECALL = 0.9
ANCHORS = 2000


def map_index(
    index: str | Path,
    run: str | Path,
    table: str | None = None,
    *,
    old: str | Path | None = None,
    anchors: int = ANCHORS,
    min_recall: float = MIN_RECALL,
    use: bool = False,
    seed: int = 0,
) -> MapReport:
    """Fit and measure a map from a new model's queries to the vectors in an index, as ``multimodal upgrade --map`` does.

    Rows of the table that the index was built from are drawn at random and encoded with both models.

    Args:
        index: folder of the index; it may be open in a server.
        run: folder of the new run or model.
        table: the table with the rows of the index. None: the one that it was built from.
        old: folder of the index's own run or model. None: the one that the index records, after an upgrade.
        anchors: number of rows that are encoded with both models; fewer if the index has fewer.
        min_recall: fraction of the old model's recall that the mapped queries of each modality have to reach, in [0, 1].
        use: store the map where it is good enough: a server that has the index open then encodes queries with the new model,
            maps them and searches the index, until an upgrade has put another one in its place.
        seed: of the draw of the rows.

    Raises:
        UsageError: the old model is not known, or the rows are too few.
        MultimodalError: the index, a model or the table cannot be read, or the models do not fit the index.
    """
    from multimodal.core.embedder import Embedder
    from multimodal.core.hardware import fast_device

    index = Path(index).absolute()
    description = read_index_description(index)
    known = description.get(MODEL) if old is None else str(old)
    if known is None:
        raise UsageError(f"{index} does not record the model that made it: name it by --old RUN.")
    models = [Embedder.from_pretrained(folder).to(fast_device()) for folder in (known, run)]
    before, after = models
    if before.fingerprint != description["fingerprint"]:
        raise MultimodalError(
            f"{index} was made with another model ({description['fingerprint'][:12]}) than {known}"
            f" ({before.fingerprint[:12]})."
        )
    samples = table_of(index, description, table)
    rows = numbers_of(samples, index_rows(index).keys(built_from=True), index)
    drawn = np.sort(np.random.default_rng(seed).permutation(rows)[:anchors])
    with progress("Encoding anchors", 2 * len(drawn) * len(samples.modalities), "vectors") as advance:
        encoded = encode_anchors(before, after, samples, drawn, advance)
    maps, report = fit_query_map(encoded, min_recall, seed)
    if use and report.accepted:
        work = working_folder(index)
        with write_lock(work), writing(work):
            QueryMap(maps, before.fingerprint, after.fingerprint, str(Path(run).absolute())).save(work / MAP)
    return report
