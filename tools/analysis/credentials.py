"""Find credentials in text: the detectors of detect-secrets, and those that our field needs.

A text is looked at only around the marks that a credential cannot be without, so that megabytes
of output cost little, and detect-secrets is imported only where such a mark stands.
"""

import importlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import log2
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Credential:
    """Something that opens a door, and the line of the text where it stands, from 1."""

    kind: str
    value: str
    line: int

    def __str__(self) -> str:
        return f"{self.kind} ({self.value[:4]}..., {len(self.value)} characters)"


class Detector(NamedTuple):
    """One kind of credential, and the marks of which one must be in the text."""

    kind: str
    marks: tuple[str, ...]
    finder: str
    """`module.Class` of a plugin of detect-secrets, or a regular expression with one group."""
    reach: int = 400
    """Characters after a mark within which the credential ends."""


PLUGINS = (
    Detector("an AWS key", ("AKIA", "ASIA", "ABIA", "ACCA", "aws_", "AWS_"), "aws.AWSKey"),
    Detector("an Azure key", ("AccountKey=",), "azure_storage_key.AzureStorageKey"),
    Detector("a GitHub token", tuple(f"gh{kind}_" for kind in "pousr"), "github_token.GitHubToken"),
    Detector("a GitLab token", ("glpat-", "gldt-", "GR1348941"), "gitlab_token.GitLabToken"),
    Detector("a JSON web token", ("eyJ",), "jwt.JwtToken", 2000),
    Detector("a Mailchimp key", ("-us1", "-us2", "-us3"), "mailchimp.Mailchimp"),
    Detector("an npm token", (":_authToken=",), "npm.Npm"),
    Detector("a PyPI token", ("pypi-AgE",), "pypi_token.PypiToken"),
    Detector("a SendGrid key", ("SG.",), "sendgrid.SendGrid"),
    Detector("a Slack token", ("xox", "hooks.slack.com"), "slack.Slack"),
    Detector("a Square secret", ("sq0csp-",), "square_oauth.SquareOAuth"),
    Detector("a Stripe key", ("k_live_",), "stripe.Stripe"),
)
# Names of secrets: a flat list of words in either case, which `re` finds three times as fast.
KEYWORDS = (
    "[Tt]oken|TOKEN|[Ss]ecret|SECRET|[Pp]assw(?:or)?d|PASSW(?:OR)?D|[Aa]pi_?[Kk]ey|API_?KEY"
    "|[Aa]ccess_?[Kk]ey|ACCESS_?KEY|[Ss]ecret_?[Kk]ey|SECRET_?KEY|[Pp]rivate_?[Kk]ey|PRIVATE_?KEY"
    "|[Aa]uth_?[Kk]ey|AUTH_?KEY"
)
PATTERNS = (
    Detector(
        "a password in a URL",
        ("://",),
        r"://[^\s:/?#@<>\"'{}$]{1,64}:([^\s:/?#@<>\"'{}$]{6,128})@",
    ),
    Detector("a Hugging Face token", ("hf_",), r"\b(hf_[A-Za-z0-9]{30,})\b"),
    # Longer than the plugin of detect-secrets knows it.
    Detector("an OpenAI key", ("T3BlbkFJ",), r"\b(sk-[\w-]{0,120}T3BlbkFJ[\w-]{20,160})"),
    Detector("an API key", ("sk-",), r"(?<![\w-])(sk-[A-Za-z0-9_-]{32,})"),
    Detector("a Google API key", ("AIza",), r"(?<![\w-])(AIza[\w-]{35})(?![\w-])"),
    Detector("a GitHub token", ("github_pat_",), r"\b(github_pat_\w{22,})"),
    Detector("a Groq key", ("gsk_",), r"\b(gsk_[A-Za-z0-9]{40,})\b"),
    Detector("a Replicate token", ("r8_",), r"\b(r8_[A-Za-z0-9]{37})\b"),
    Detector(
        "a Weights & Biases key",
        ("wandb",),
        r"wandb[^\n]{0,40}?\blogin\b[^\n]{0,60}?\b([0-9a-f]{40})\b",
    ),
    Detector(
        "a Kaggle key",
        ("username",),
        r"""username\W{1,6}[\w-]+\W{1,6}key\W{1,6}([0-9a-f]{32})\b""",
    ),
    Detector(
        "an ngrok token",
        ("auth_token", "authtoken"),
        r"auth_?token[\s\"'(=]+([A-Za-z0-9]{20,}_[A-Za-z0-9]{15,})",
    ),
    Detector(
        "a private key",
        ("PRIVATE KEY",),
        r"(BEGIN (?:\w+ ){0,2}PRIVATE KEY(?: BLOCK)?-----(?:\\+n|[\s\"'+]){0,20}[\w+/=]{40})",
    ),
    Detector(
        "a secret",
        ("oken", "OKEN", "ecret", "ECRET", "assword", "ASSWORD", "asswd", "_key", "_KEY", "iKey"),
        rf"(?:{KEYWORDS})"
        r"\\?[\"']?\]?\s*[=:,]\s*\\?[\"']?([A-Za-z0-9+/_.~=-]{20,})(?![\w(.\[])",
    ),
)
DETECTORS = PLUGINS + PATTERNS
BEFORE = 160
PLACEHOLDER = re.compile(
    r"your|example|placeholder|insert|dummy|fake|sample|replace|change|redacted|xxx|\.\.\.|\*\*\*"
    r"|passw|secret|_here|[<>{}$]",
    re.IGNORECASE,
)
PARTS = re.compile(r"[-_./~=+]+")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LEAST_ENTROPY = 3.0
SHORTEST = 16


def find_credentials(text: str) -> Iterator[Credential]:
    """All credentials in a text, each once; placeholders are left out."""
    seen = set()
    for detector in DETECTORS:
        for start, window in _windows(text, detector):
            for value in _finder(detector)(_plain(window)):
                if value not in seen and _is_real(value, detector):
                    seen.add(value)
                    at = max(text.find(value, start), start)
                    yield Credential(detector.kind, value, text.count("\n", 0, at) + 1)


def _windows(text: str, detector: Detector) -> Iterator[tuple[int, str]]:
    """The surroundings of all marks, those that overlap as one."""
    stride = detector.reach // 2
    places = sorted(place for mark in detector.marks for place in _places(text, mark, stride))
    start = end = -1
    for place in places:
        if start < 0 or place - BEFORE > end:
            if start >= 0:
                yield start, text[start:end]
            start = max(place - BEFORE, 0)
        end = place + stride + detector.reach
    if start >= 0:
        yield start, text[start:end]


def _places(text: str, mark: str, stride: int) -> Iterator[int]:
    """Where a mark stands; one place speaks for all within a stride."""
    at = text.find(mark)
    while at >= 0:
        yield at
        at = text.find(mark, at + stride)


def _plain(window: str) -> str:
    """Without what terminals and HTML put between the signs of a text."""
    if "\x1b" in window:
        window = ANSI.sub("", window)
    return window.replace("&quot;", '"').replace("&#39;", "'") if "&" in window else window


@cache
def _finder(detector: Detector) -> Callable[[str], Iterator[str]]:
    """The function that finds the values of one kind in a text."""
    if detector in PATTERNS:
        pattern = re.compile(detector.finder)
        return lambda text: (match[1] for match in pattern.finditer(text))
    module, _, name = detector.finder.partition(".")
    plugin = getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), f"{name}Detector")
    return lambda text: (value for line in text.split("\n") for value in _values(plugin, line))


def _values(plugin: Any, line: str) -> Iterator[str]:
    """What a plugin finds in a line, whole; its own search yields the groups of a match alone."""
    is_valid = getattr(plugin, "is_formally_valid", lambda value: True)
    for pattern in plugin.denylist:
        for match in pattern.finditer(line):
            group = max(filter(None, match.groups()), key=len, default="")
            value = group if len(group) >= SHORTEST else match[0]
            if is_valid(value):
                yield value


def _is_real(value: str, detector: Detector) -> bool:
    """Whether a value looks drawn by chance, as credentials are and placeholders are not."""
    if detector.kind == "a private key":
        return not PLACEHOLDER.search(value[-40:])
    if detector.kind == "a password in a URL":
        return len(value) >= 6 and not PLACEHOLDER.search(value)
    body = value.rpartition("_")[2] if value.startswith(("hf_", "gh", "gsk_")) else value
    if PLACEHOLDER.search(value) or _entropy(body) < LEAST_ENTROPY or _is_sequence(body):
        return False
    return detector.kind not in ("a secret", "an API key") or _is_mixed(body)


def _is_mixed(value: str) -> bool:
    """Digits and letters in one long piece; names made of words or numbers are not."""
    longest = max(PARTS.split(value), key=len)
    digits = sum(sign.isdigit() for sign in longest)
    return (
        len(longest) >= SHORTEST and digits >= 2 and digits < len(longest) and not _is_uuid(value)
    )


def _is_uuid(value: str) -> bool:
    from detect_secrets.filters.heuristic import is_potential_uuid

    return is_potential_uuid(value)


def _is_sequence(value: str) -> bool:
    """Whether half of it is counting, as in 1234567890abcdef."""
    steps = [ord(after) - ord(before) for before, after in itertools.pairwise(value)]
    return 2 * steps.count(1) >= len(steps)


def _entropy(value: str) -> float:
    """Bits per character."""
    counts = Counter(value)
    return -sum(n / len(value) * log2(n / len(value)) for n in counts.values())
