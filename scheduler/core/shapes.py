"""Secrets that are known by their shape: keys and tokens with a prefix of their own. Pure.

Each shape has a literal that is searched for first, as most text holds none of them. The shapes are written from what
the issuers publish. A quantifier without an upper bound stands only at the end of a pattern, so that no text makes the
search anything but linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """A secret within a text."""

    start: int
    end: int
    kind: str


class Shape(NamedTuple):
    """What a kind of secret looks like."""

    kind: str
    literal: str
    pattern: re.Pattern[str]
    back: bool
    """Whether the letters and digits just before the match (at most 16) belong to it."""


def _shape(kind: str, literal: str, rest: str, *, bare: bool = False, back: bool = False) -> Shape:
    """`bare`: the literal is too short to be sure of within a word, so what stands before it is no letter or digit,
    unless that is the end of an escape (`\\n`, `%3D`, `\\u003d`)."""
    begin = re.escape(literal)
    if bare:
        edges = (
            r"(?<![A-Za-z0-9]{0})",
            r"(?<=\\[nrt]{0})",
            r"(?<=%[0-9A-F][0-9A-F]{0})",
            r"(?<=\\u00[0-9a-f]{{2}}{0})",
        )
        begin += "(?:" + "|".join(edge.format(begin) for edge in edges) + ")"
    return Shape(kind, literal, re.compile(begin + rest, re.ASCII), back)


# A run of 16 word characters or hyphens is part of each: see `_long_words`.
_IN_WORDS = (
    _shape("anthropic-key", "sk-ant-", r"[a-z]{2,10}\d{2}-[\w-]{16,}"),
    _shape("openai-key", "sk-", r"(?:(?:proj|svcacct|admin|service|or-v1)-[\w-]{20,}|[A-Za-z0-9]{32,})", bare=True),
    _shape("aws-key-id", "AKIA", r"[A-Z0-9]{16,}", bare=True),
    *(_shape("aws-key-id", name, r"(?=[A-Z]{0,15}\d)[A-Z0-9]{16,}", bare=True) for name in ("ASIA", "ABIA", "ACCA")),
    _shape("aws-key-id", "A3T", r"[A-Z0-9](?=[A-Z]{0,15}\d)[A-Z0-9]{16,}", bare=True),
    _shape("github-token", "gh", r"[pousr]_\w{36,}"),
    _shape("github-token", "github_pat_", r"\w{22,}"),
    _shape(
        "gitlab-token",
        "gl",
        r"(?:pat|dt|ft|ffct|soat|rt|cbt|ptt|agent|imt|oas)-[\w-]{20,}(?:\.[0-9a-z]{2}\.[0-9a-z]{7,})?",
    ),
    _shape("gitlab-token", "GR1348941", r"[\w-]{20,}"),
    _shape("slack-token", "xox", r"[abeoprs](?:\.xox[bp])?-[\w.-]{12,}", bare=True),
    _shape("slack-token", "xapp-", r"\d-[\w-]{16,}", bare=True),
    _shape("stripe-key", "sk_", r"(?:live|test|prod)_[A-Za-z0-9]{16,}", bare=True),
    _shape("stripe-key", "rk_", r"(?:live|test|prod)_[A-Za-z0-9]{16,}", bare=True),
    _shape("google-key", "AIza", r"[\w-]{35,}"),
    _shape("google-token", "ya29.", r"[\w-]{20,}"),
    _shape("google-token", "1//0", r"[\w-]{40,}", bare=True),
    _shape("google-secret", "GOCSPX-", r"[\w-]{20,}"),
    _shape("jwt", "eyJ", r"[\w-]{14,2048}\.[\w-]{10,}(?:\.[\w-]*)*", bare=True),
    _shape("npm-token", "npm_", r"[A-Za-z0-9]{36,}", bare=True),
    _shape("pypi-token", "pypi-Ag", r"[\w-]{16,}"),
    _shape("docker-token", "dckr_", r"[po]at_[\w-]{20,}"),
    _shape("rubygems-key", "rubygems_", r"[0-9a-f]{32,}"),
    _shape("crates-token", "cio", r"[A-Za-z0-9]{32}(?![A-Za-z0-9])", bare=True),
    _shape("nuget-key", "oy2", r"[a-z0-9]{43}(?![A-Za-z0-9])", bare=True),
    _shape("huggingface-token", "hf_", r"[A-Za-z0-9]{30,}", bare=True),
    _shape("huggingface-token", "api_org_", r"[A-Za-z0-9]{34,}"),
    _shape("groq-key", "gsk_", r"[A-Za-z0-9]{40,}"),
    _shape("xai-key", "xai-", r"[A-Za-z0-9]{40,}", bare=True),
    _shape("perplexity-key", "pplx-", r"[A-Za-z0-9]{40,}"),
    _shape("replicate-token", "r8_", r"[A-Za-z0-9]{30,}", bare=True),
    _shape("nvidia-key", "nvapi-", r"[\w-]{40,}"),
    _shape("langsmith-key", "lsv2_", r"[ps][tk]_[0-9a-f]{32}_[0-9a-f]{10,}"),
    _shape("sendgrid-key", "SG.", r"[\w-]{16,64}\.[\w-]{16,}", bare=True),
    _shape("mailgun-key", "key-", r"[0-9a-f]{32}(?![A-Za-z0-9])", bare=True),
    _shape("brevo-key", "xkeysib-", r"[\w-]{40,}"),
    _shape("twilio-key", "SK", r"[0-9a-fA-F]{32}(?![A-Za-z0-9])", bare=True),
    _shape("digitalocean-token", "_v1_", r"(?<=do[opr]_v1_)[0-9a-f]{32,}", back=True),
    _shape("databricks-token", "dapi", r"[0-9a-f]{32}(?:-\d{1,2})?", bare=True),
    _shape("vault-token", "hv", r"[sbr]\.[\w-]{20,}", bare=True),
    _shape("terraform-token", ".atlasv1.", r"(?<=[A-Za-z0-9]{14}\.atlasv1\.)[\w=-]{40,}", back=True),
    _shape("tailscale-key", "tskey-", r"[\w-]{16,}"),
    _shape("age-key", "AGE-SECRET-KEY-1", r"[0-9A-Z]{50,}"),
    _shape(
        "onepassword-key", "A3-", r"[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}", bare=True
    ),
    _shape("grafana-token", "glsa_", r"\w{32,}"),
    _shape("linear-key", "lin_", r"(?:api|oauth)_[A-Za-z0-9]{32,}", bare=True),
    _shape("notion-token", "ntn_", r"[A-Za-z0-9]{40,}", bare=True),
    _shape("notion-token", "secret_", r"[A-Za-z0-9]{43}(?![A-Za-z0-9])", bare=True),
    _shape("postman-key", "PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}"),
    _shape("sentry-token", "sntryu_", r"[0-9a-f]{40,}"),
    _shape("supabase-key", "sbp_", r"[0-9a-f]{40,}", bare=True),
    _shape("supabase-key", "sb_secret_", r"[\w-]{20,}", bare=True),
    _shape("figma-token", "fig", r"[dou][a-z]{0,2}_[\w-]{36,}", bare=True),
    _shape("shopify-token", "shp", r"(?:at|ca|pa|ss)_[0-9a-fA-F]{32,}"),
    _shape("telegram-token", ":AA", r"(?<=\d{8}:AA)[\w-]{32,}", back=True),
    _shape("atlassian-token", "TT3", r"(?<=AT[ACS]TT3)[\w=-]{40,}", back=True),
    _shape("atlassian-token", "ATBB", r"[A-Za-z0-9]{28,}", bare=True),
    _shape("heroku-key", "HRKU-", r"[\w-]{36,}"),
    _shape("newrelic-key", "NR", r"(?:AK|RA|II|JS)-[\w-]{19,}", bare=True),
    _shape("doppler-token", "dp.", r"(?:pt|st|ct|sa|scim|audit)\.[\w.-]{40,}", bare=True),
    _shape("pulumi-token", "pul-", r"[0-9a-f]{40,}", bare=True),
    _shape("planetscale-token", "pscale_", r"(?:tkn|pw|oauth)_[\w=.-]{32,}"),
    _shape("square-token", "sq0", r"[a-z]{3}-[\w-]{22,}", bare=True),
    _shape("netlify-token", "nfp_", r"[A-Za-z0-9]{36,}", bare=True),
    _shape("openshift-token", "sha256~", r"[\w-]{40,}"),
    _shape("artifactory-key", "AKCp", r"[A-Za-z0-9]{60,}", bare=True),
    _shape("alibaba-key-id", "LTAI", r"[A-Za-z0-9]{16,}", bare=True),
    _shape("cloudflare-key", "v1.0-", r"[0-9a-f]{24}-[0-9a-f]{100,}", bare=True),
    _shape("sentry-token", "sntrys_", r"[\w+/=-]{40,}"),
    _shape("grafana-token", "glc_", r"[\w+/=-]{32,}", bare=True),
    _shape("grafana-token", "eyJrIjoi", r"[\w+/=-]{40,}"),
    _shape("onepassword-token", "ops_eyJ", r"[\w+/=-]{50,}"),
)
_ANYWHERE = (
    _shape("slack-webhook", "hooks.slack.com/", r"(?:services|workflows|triggers)/[\w/+-]{20,}"),
    _shape("discord-webhook", "/api/webhooks/", r"\d{16,20}/[\w-]{40,}"),
    _shape("stripe-secret", "whsec_", r"[\w+/=-]{24,}"),
    _shape("azure-secret", "Q~", r"(?<=[\w~.]{3}\dQ~)[\w~.-]{30,}", back=True),
    _shape("fly-token", "fm2_", r"[\w+/=-]{60,}", bare=True),
)
_LONG_ENOUGH = 3
BEGINNING = re.compile(
    "(?:"
    + "|".join(
        [r"gh[pousr]_", r"gl[a-z]{2,5}-", r"hv[sbr]\."]
        + [re.escape(s.literal) for s in _IN_WORDS if len(s.literal) >= _LONG_ENOUGH and not s.back]
    )
    + r")[\w.-]{0,512}",
    re.ASCII,
)
"""What may be the first part of a secret of a known shape, where the rest is elsewhere."""
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_WORDS = bytes(ord("w") if byte in _WORD else ord(" ") for byte in range(256))
_RUN = re.compile(b"w" * 16 + b"w*")
_BEFORE = 12
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~.")


def shaped(text: str) -> Iterator[Span]:
    """The secrets in `text` that have a known shape, in no order; they may overlap."""
    words = _long_words(text)
    for shape in _IN_WORDS if words else ():
        if shape.literal in words:
            yield from _found(shape, text)
    for shape in _ANYWHERE:
        if shape.literal in text:
            yield from _found(shape, text)


def _long_words(text: str) -> str:
    """The runs of 16 word characters and more, each with the few characters before it: little of an ordinary text,
    and quick to find."""
    mapped = text.encode("latin-1", "replace").translate(_WORDS)
    return "\n".join([text[max(0, run.start() - _BEFORE) : run.end()] for run in _RUN.finditer(mapped)])


def _found(shape: Shape, text: str) -> Iterator[Span]:
    for match in shape.pattern.finditer(text):
        start = match.start()
        lowest = max(0, start - 16) if shape.back else start
        while start > lowest and text[start - 1] in _LETTERS:
            start -= 1
        yield Span(start, match.end(), shape.kind)
