"""Find URLs of GitHub repositories in text, and say whether they mean the own one."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

HOSTS = (
    r"(?:www\.)?github\.com",
    r"raw\.githubusercontent\.com",
    r"colab\.research\.google\.com/github",
    r"githubtocolab\.com",
    r"nbviewer\.(?:org|jupyter\.org)/github",
    r"mybinder\.org/v2/gh",
)
# A URL is looked for whatever stands around it: a link, a string, a comment, a shell line.
URL = re.compile(
    rf"(?<![\w.-])(?P<host>{'|'.join(HOSTS)})[/:](?P<owner>[\w.-]+)/(?P<repo>[\w.-]+)"
    r"(?P<rest>[^\s\"'<>`|\\^{}\[\]()]*)(?P<open>[{(%]?)"
)
VIEWS = re.compile(r"/(?:blob|tree|raw|edit|blame)/")
REF_KINDS = re.compile(r"refs/(?:heads|tags)/")
COMMIT = re.compile(r"[0-9a-f]{40}")
PLACEHOLDER = re.compile(r"your|owner|user|name|\borg\b|^x+$", re.IGNORECASE)
LIKENESS = 0.8


@dataclass(frozen=True)
class RepositoryUrl:
    """One URL in a text: whose it is, and the ref and the path that it names."""

    host: str
    owner: str
    repo: str
    ref: str
    """Empty if it names none, or none that can be known."""
    path: str
    """Relative to the root of the repository; empty if it names none."""
    ref_span: tuple[int, int]
    path_span: tuple[int, int]
    start: int

    @property
    def slug(self) -> str:
        """Owner and name."""
        return f"{self.owner}/{self.repo}"

    @property
    def opens_colab(self) -> bool:
        """Whether it opens a notebook in Colab."""
        return "colab" in self.host

    @property
    def is_permalink(self) -> bool:
        """Whether it shows one commit for ever, on purpose."""
        return not self.opens_colab and bool(COMMIT.fullmatch(self.ref))


def repository_urls(text: str, own_ref: str = "") -> Iterator[RepositoryUrl]:
    """All URLs of repositories in a text; `own_ref` tells where a ref with slashes ends."""
    for match in URL.finditer(text):
        rest = match["rest"].rstrip(".,;:!?*_")
        repo = match["repo"] if rest else match["repo"].rstrip(".")
        if match["open"] and not rest:
            continue
        whole = rest if not match["open"] else rest[: max(rest.rfind("/"), rest.rfind("@")) + 1]
        ref, path, ref_at, path_at = _ref_and_path(match["host"], repo, whole, own_ref)
        at = match.start("rest")
        yield RepositoryUrl(
            host=match["host"],
            owner=match["owner"],
            repo=repo.removesuffix(".git"),
            ref=ref,
            path="" if match["open"] else unquote(path),
            ref_span=(at + ref_at, at + ref_at + len(ref)),
            path_span=(at + path_at, at + path_at + len(path)),
            start=match.start(),
        )


def _ref_and_path(host: str, repo: str, rest: str, own_ref: str) -> tuple[str, str, int, int]:
    """Ref and path, and where in `rest` they begin."""
    end = min((i for i in (rest.find("?"), rest.find("#")) if i >= 0), default=len(rest))
    view = VIEWS.match(rest)
    if rest.startswith("@"):
        return rest[1:end], "", 1, end
    if view:
        begin = view.end()
    elif host.startswith(("raw.", "mybinder.")) and rest.startswith("/"):
        begin = 1
    else:
        return "", "", 0, 0
    kind = REF_KINDS.match(rest, begin)
    begin = kind.end() if kind else begin
    tail = rest[begin:end]
    is_own = own_ref and (tail + "/").startswith(own_ref + "/")
    ref = own_ref if is_own else tail.partition("/")[0]
    path = tail[len(ref) + 1 :]
    if set(ref) & set("%$*"):
        return "", "", 0, 0
    return ref, path, begin, begin + len(ref) + 1


def own_slug(repository: str) -> str:
    """Owner and name in the URL of the project's repository; empty if it isn't on GitHub."""
    url = next(repository_urls(repository), None)
    return url.slug if url else ""


def is_misspelt(slug: str, own: str) -> bool:
    """Whether a slug is so near the own one that it must be meant for it."""
    (owner, repo), (own_owner, own_repo) = _parts(slug), _parts(own)
    if PLACEHOLDER.search(owner) and owner != own_owner:
        return False
    if slug.casefold() == own.casefold():
        return False
    return _are_alike(owner, own_owner) and _are_alike(repo, own_repo)


def is_namesake(slug: str, own: str) -> bool:
    """Whether a slug has the name of the own repository under an owner who is no placeholder."""
    (owner, repo), (own_owner, own_repo) = _parts(slug), _parts(own)
    return repo == own_repo and owner != own_owner and not PLACEHOLDER.search(owner)


def _parts(slug: str) -> tuple[str, str]:
    owner, _, repo = slug.casefold().partition("/")
    return owner, repo


def _are_alike(one: str, other: str) -> bool:
    """Whether a slip of the pen turns one into the other; a longer name is another project."""
    return (
        abs(len(one) - len(other)) <= 2
        and difflib.SequenceMatcher(None, one, other, autojunk=False).ratio() >= LIKENESS
    )
