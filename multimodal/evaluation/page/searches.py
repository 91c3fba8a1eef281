"""Example queries with their hits, right and wrong marked, and the worst failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from multimodal.core.html_page import text
from multimodal.data.shown_values import Values
from multimodal.evaluation.evaluated import Evaluated
from multimodal.evaluation.page.first_hits import FirstHits, scores_of
from multimodal.evaluation.ranking import TIE_TOLERANCE

QUERIES, FAILURES, HITS = 30, 5, 5  # of a direction; failures by rank, and as many by margin
MOST_LOOKED_AT = 1000  # candidates of a query, among which equal ones are found
MOST_SHOWN = 400  # queries of a page


@dataclass(frozen=True)
class Hit:
    """A candidate that a query finds, or its right answer.

    Attributes:
        row: its row in the table.
        score: the cosine.
        is_right: whether it is in the query's group.
        equal: number of further candidates with an equal value, which are all right or all wrong as this one.
    """

    row: int
    score: float
    is_right: bool
    equal: int = 0


@dataclass(frozen=True)
class Search:
    """A query and what it finds.

    Attributes:
        pair: "text->image".
        row: its row in the table.
        rank: of the first right answer.
        hits: the first different ones, in their order; of equal scores the wrong ones first.
        answer: the best right answer.
    """

    pair: str
    row: int
    rank: int
    hits: tuple[Hit, ...]
    answer: Hit


def example_searches(evaluated: Evaluated) -> list[Search]:
    """Return searches of queries that are drawn at random, up to 30 of each direction.

    Args:
        evaluated: the evaluation.
    """
    of_pair = max(1, min(QUERIES, MOST_SHOWN // max(1, len(evaluated.by_query))))
    found = []
    for pair, measured in evaluated.by_query.items():
        draws = np.random.default_rng(0).permutation(len(measured.queries))[:of_pair]
        found += [_search(evaluated, pair, int(place)) for place in sorted(draws.tolist())]
    return found


def worst_searches(evaluated: Evaluated, first: Mapping[str, FirstHits]) -> list[Search]:
    """Return the searches whose right answer ranks worst, and those in which a wrong one is ahead by most; no other.

    Args:
        evaluated: the evaluation.
        first: "text->image" -> its first hits.
    """
    found = []
    for pair, measured in evaluated.by_query.items():
        ranks = measured.ranks.cpu()
        by_rank = ranks.argsort(descending=True, stable=True)[:FAILURES].tolist()
        margins = first[pair].margins
        queries = first[pair].queries[
            margins.argsort(descending=True, stable=True)[:FAILURES].to(first[pair].queries.device)
        ]
        by_margin = torch.searchsorted(measured.queries, queries).tolist()
        for place in dict.fromkeys([*by_rank, *by_margin]):
            if ranks[place] > 1:
                found.append(_search(evaluated, pair, place))
    return found


def _search(evaluated: Evaluated, pair: str, place: int) -> Search:
    """Return the search of one of the measured queries of a direction."""
    source, _, target = pair.partition("->")
    measured, queries, pool = evaluated.by_query[pair], evaluated.searched_for, evaluated.pool.embeddings
    number = measured.queries[place : place + 1]
    all_scores, all_right = scores_of(queries, pool, source, target, number)
    scores, right = all_scores[0].cpu(), all_right[0].cpu()
    order = (scores - TIE_TOLERANCE * right).argsort(descending=True, stable=True)[:MOST_LOOKED_AT]
    order = order[scores[order] > -torch.inf]
    rows, digests = pool.rows[target], evaluated.pool.digests[target]
    equal: dict[tuple[bytes, bool], list[int]] = {}  # a pool of 300 recordings of ten words has ten different texts
    for candidate, is_right in zip(order.tolist(), right[order].tolist(), strict=True):
        equal.setdefault((digests[candidate], is_right), []).append(candidate)

    def hit(candidate: int, others: int = 0) -> Hit:
        row = int(pool.keys[int(rows[candidate])])
        return Hit(row, float(scores[candidate]), bool(right[candidate]), others)

    hits = tuple(hit(found[0], len(found) - 1) for found in list(equal.values())[:HITS])
    best = int(scores.masked_fill(~right, -torch.inf).argmax()) if bool((right & scores.isfinite()).any()) else None
    answer = hit(int(right.nonzero()[0]) if best is None else best)
    row = int(queries.keys[int(queries.rows[source][number])])
    return Search(pair, row, int(measured.ranks[place]), hits, answer)


def searches_html(searches: list[Search], values: Values, name: str) -> str:
    """Return searches as HTML, with a form that filters them.

    Args:
        searches: the searches.
        values: the values of the table.
        name: of this part of the page, one word.
    """
    pairs = list(dict.fromkeys(search.pair for search in searches))
    options = "".join(f'<option value="{text(p)}">{text(_arrow(p))}</option>' for p in pairs)
    form = (
        f'<form class="filter" role="search"><label>Pair <select name="pair">{options}<option value="">all pairs</option>'
        '</select></label>\n<label>First hit <select name="verdict"><option value="">right or wrong</option>'
        '<option value="right">right</option><option value="wrong">wrong</option></select></label>\n'
        '<label>Text or key <input type="search" name="words" placeholder="contains …"></label>\n'
        '<output aria-live="polite"></output></form>\n'
    )
    items = "".join(_search_html(search, values) for search in searches)
    return f'<div class="searches" id="{text(name)}-list">\n{form}{items}</div>\n'


def _search_html(search: Search, values: Values) -> str:
    source, _, target = search.pair.partition("->")
    query = "".join(values.show(search.row, m).html() for m in source.split("+"))
    hits = "".join(_hit_html(hit, target, values) for hit in search.hits)
    first = "right" if search.rank == 1 else "wrong"
    missing = ""
    if not any(hit.is_right for hit in search.hits):
        shown = values.show(search.answer.row, target).html()
        missing = (
            f'<li class="hit answer"><b>the right answer</b>{shown}'
            f"<small>{_score(search.answer)}</small><small>{_key(values, search.answer.row)}</small></li>"
        )
    return (
        f'<article data-pair="{text(search.pair)}" data-verdict="{first}">\n'
        f'<div class="query"><small>{text(_arrow(search.pair))}, rank {search.rank:,}</small>'
        f"{query}<small>{_key(values, search.row)}</small></div>\n"
        f'<ol class="hits">{hits}{missing}</ol></article>\n'
    )


def _hit_html(hit: Hit, modality: str, values: Values) -> str:
    kind, mark, word = ("right", "✓", "right") if hit.is_right else ("wrong", "✗", "wrong")
    return (
        f'<li class="hit {kind}"><b><span aria-hidden="true">{mark}</span> {word}</b>'
        f"{values.show(hit.row, modality).html()}<small>{_score(hit)}</small><small>{_key(values, hit.row)}</small></li>"
    )


def _score(hit: Hit) -> str:
    score = f"{hit.score:.3f}" if np.isfinite(hit.score) else "no score"
    return f"{score}, and {hit.equal:,} equal" if hit.equal else score


def _key(values: Values, row: int) -> str:
    return f'<span dir="auto">{text(values.samples.key_of(row)[:80])}</span>'


def _arrow(pair: str) -> str:
    return pair.replace("->", " → ")
