"""Links end where X and Mastodon end them: cases of the networks' own conformance lists, and of sentences of ours."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.channels import links
from fanout.channels.links import LINK_CHARS, MASTODON, X

BOTH = [
    ("Zie https://politie.nl.", ["https://politie.nl"]),
    ("Zie https://politie.nl, of bel.", ["https://politie.nl"]),
    ("(https://politie.nl/zaak/12)", ["https://politie.nl/zaak/12"]),
    ("https://politie.nl/zaak/12?a=b&c=d!", ["https://politie.nl/zaak/12?a=b&c=d"]),
    ("https://politie.nl?", ["https://politie.nl"]),
    ("https://politie.nl:8443/a;", ["https://politie.nl:8443/a"]),
    ("'https://politie.nl/'", ["https://politie.nl/"]),
    ("“https://politie.nl”", ["https://politie.nl"]),
    ("https://politie.nl。漢漢", ["https://politie.nl"]),
    ("https://politie.nl漢漢", ["https://politie.nl"]),
    ("text http://en.wikipedia.org/wiki/Primer_(film)", ["http://en.wikipedia.org/wiki/Primer_(film)"]),
    ("http://a.com/a(b(c)d)e) x", ["http://a.com/a(b(c)d)e"]),
    ("text http://✪df.ws/ejp", ["http://✪df.ws/ejp"]),
    ("text http://chilp.it/?77e8fd", ["http://chilp.it/?77e8fd"]),
    ("text http://foo.com?#foo text", ["http://foo.com?#foo"]),
    ("text http://xo.com/~matthew+%ff-x", ["http://xo.com/~matthew+%ff-x"]),
    ("Go to http://example.com/a+ or http://example.com/a-", ["http://example.com/a+", "http://example.com/a-"]),
    ("Go to http://twitter.com/Русские_слова", ["http://twitter.com/Русские_слова"]),
    ("test http://sub_domain-dash.twitter.com", ["http://sub_domain-dash.twitter.com"]),
    ("test http://a.b.cd", ["http://a.b.cd"]),
    ("http://www.foo.com/foo/path-with-period./", ["http://www.foo.com/foo/path-with-period./"]),
    ("http://twitter.com\nhttp://example.com/path\n", ["http://twitter.com", "http://example.com/path"]),
    ("http://example.com/path...........", ["http://example.com/path"]),
    ("HTTPS://www.ExaMPLE.COM/index.html", ["HTTPS://www.ExaMPLE.COM/index.html"]),
    ("text http://no-tld and http://tld-too-short.x", []),
    ("test http://-twitter.com http://twitter-.com http://_a.twitter.com", []),
    ("test http://twitter_underscore.com", []),
    ("@http://test.com #http://test.com $http://test.com xhttp://test.com", []),
]


def found(text: str, rules: links.Rules) -> list[str]:
    return [text[one.begin : one.end] for one in links.links(text, rules) if one.certain]


@pytest.mark.parametrize("rules", [X, MASTODON], ids=["x", "mastodon"])
@pytest.mark.parametrize(("text", "wanted"), BOTH, ids=lambda value: value if isinstance(value, str) else "")
def test_where_a_link_ends(text: str, wanted: list[str], rules: links.Rules) -> None:
    assert found(text, rules) == wanted


def test_scripts_in_a_path_part_the_two() -> None:
    text = "http://twitter.com/これは日本語です。 x"
    assert found(text, X) == ["http://twitter.com/"]
    assert found(text, MASTODON) == ["http://twitter.com/これは日本語です。"]
    text = "http://twitter.com/?q=日本 x"
    assert found(text, X) == ["http://twitter.com/?q="]
    assert found(text, MASTODON) == ["http://twitter.com/?q=日本"]


@pytest.mark.parametrize("text", ["https://a.рф", "https://a.museum", "https://a.example"])
def test_what_may_be_a_link_counts_as_what_is_more(text: str) -> None:
    assert found(text, X) == []
    assert links.length(text, X) == max(LINK_CHARS, len(text))
    longer = text + "/" + 50 * "x"
    assert links.length(longer, X) >= len(longer) - 5


def test_a_hyphen_behind_the_name_may_end_it() -> None:
    assert links.length("https://a.com-that", X) == LINK_CHARS + 5


def test_bare_names() -> None:
    text = "これは日本語です。example.com中国語t.co/abcde한국 a@b.nl 1.5"
    assert [text[one.begin : one.end] for one in links.bare(text, X)] == ["example.com", "t.co/abcde"]


@given(st.text("htps:/.ac漢。(),?=&@-_ \n", max_size=60))
def test_links_lie_in_order_and_count_once(text: str) -> None:
    ends = [place for one in links.links("https://" + text, X) for place in (one.begin, one.end)]
    assert ends == sorted(ends)
    assert links.length(text, X) >= 0


@pytest.mark.parametrize("piece", ["(", "a(", ".", "a.", "()", "https://a.nl/(", "_", "https://a-", "%", "a-"])
def test_no_text_takes_long(piece: str) -> None:
    text = "https://a.nl/" + piece * (5_000 // len(piece))
    begin_s = time.process_time()
    for rules in (X, MASTODON):
        links.length(text, rules)
        list(links.bare(text, rules))
    assert time.process_time() - begin_s < 2.0
