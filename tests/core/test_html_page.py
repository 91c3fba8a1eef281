"""Pages escape what they are given and allow no script but their own."""

from __future__ import annotations

import base64
import hashlib

from html_pages import EVIL, Page

from multimodal.core.html_page import bars, cards, page, section, table


def test_everything_that_is_given_as_text_is_escaped() -> None:
    found = Page(
        page(
            EVIL,
            section(
                EVIL,
                cards([(EVIL, EVIL)]),
                table([EVIL, "n"], [[EVIL, 1_000], ["a", 0.5]]),
                bars([(EVIL, 3)]),
                name=EVIL,
            ),
        )
    )
    assert "script" not in found.tags
    assert "\u202e" not in found.text
    assert found.text.count("<script>alert('x')</script>") >= 6
    assert {"1,000", "50.0%"} <= set(found.text.split())


def test_the_policy_allows_the_page_its_script_alone() -> None:
    script = "document.title = '<'"
    policies = [dict(Page(page("t", "", script=s)).attributes)["content"] for s in (script, "")]
    policy = next(v for n, v in Page(page("t", "", script=script)).attributes if "default-src" in v)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "script-src 'none'" in policies[1]
