"""Rules on links: URLs of the own repository, paths into the tree, anchors."""

import os
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote

from tools.analysis.path_literals import FileTraffic, file_traffic
from tools.analysis.pinned_refs import pinned_refs
from tools.analysis.repository_urls import (
    RepositoryUrl,
    is_misspelt,
    is_namesake,
    own_slug,
    repository_urls,
)
from tools.analysis.tree_paths import is_missing, linked_file, may_come, stands
from tools.document.markdown import outline, parse_markdown, slugs
from tools.notebook import Cell
from tools.rules import Problem, Severity, Subject, fixes, rule


@rule("CO101")
def own_urls(subject: Subject) -> Iterator[Problem]:
    """The badge and all URLs of the own repository name its slug, its ref and a path of it."""
    own = own_slug(subject.settings.repository)
    if not own:
        return
    yield from _badge_problems(subject, own)
    for cell in subject.notebook.cells:
        for line, text in enumerate(cell.source.split("\n"), start=1):
            for url in repository_urls(text, subject.settings.ref):
                for message, cure, severity in _faults(subject, own, url, cell):
                    yield Problem(message, cure, cell.index, line, severity)
    yield from _pin_problems(subject, own)


@fixes("CO101")
def correct_own_urls(subject: Subject) -> None:
    """Write the ref of the settings, and in the badge the path of the notebook itself."""
    own = own_slug(subject.settings.repository)
    for cell in subject.notebook.cells if own else ():
        text = cell.source
        urls = list(repository_urls(text, subject.settings.ref))
        badge = next((url for url in urls if url.opens_colab), None)
        for url in reversed(urls):
            if url.slug.casefold() != own.casefold():
                continue
            if url is badge and _is_first_markdown(subject, cell) and _strays(subject, url):
                text = _spliced(text, url.path_span, _own_path(subject))
            if _has_wrong_ref(subject, url):
                text = _spliced(text, url.ref_span, subject.settings.ref)
        if text != cell.source:
            cell.source = text


def _faults(
    subject: Subject, own: str, url: RepositoryUrl, cell: Cell
) -> Iterator[tuple[str, str, Severity | None]]:
    """What is wrong with a URL: its slug, or else its ref and its path."""
    ref = subject.settings.ref
    if url.slug.casefold() != own.casefold():
        if is_misspelt(url.slug, own) or is_namesake(url.slug, own):
            is_meant = cell.kind == "code" or url.opens_colab or _is_in_tree(subject, url.path)
            is_sure = is_misspelt(url.slug, own) or is_meant
            yield (
                f"A URL names the repository {url.slug}, but this one is {own}.",
                f"Write {own}.",
                None if is_sure else "warning",
            )
        return
    if _has_wrong_ref(subject, url):
        # Another branch has another tree; what is in it cannot be known here.
        yield f"A URL points to {url.ref}, but the project is at {ref}.", f"Write {ref}.", None
        return
    is_badge = url.opens_colab and _is_first_markdown(subject, cell) and _is_listed(subject)
    if url.path and not (is_badge or url.is_permalink or _is_in_tree(subject, url.path)):
        yield (
            f"A URL names {url.path}, which is not in the tree of {own}.",
            "Name a file that is there.",
            None,
        )


def _badge_problems(subject: Subject, own: str) -> Iterator[Problem]:
    """The first link of a notebook of the project opens it in Colab."""
    first = next((cell for cell in subject.notebook.cells if cell.kind == "markdown"), None)
    if first is None or not _is_listed(subject):
        return
    cure = "Run `python -m tools sync`, or put the badge of this notebook before all other links."
    links = parse_markdown(first.source).links
    badges = [
        (i, link, url)
        for i, link in enumerate(links)
        for url in repository_urls(link.target, subject.settings.ref)
        if url.opens_colab
    ]
    if not badges:
        yield Problem("The first text cell has no badge that opens Colab.", cure, first.index)
        return
    place, link, url = badges[0]
    if place:
        message = "Another link comes before the badge that opens Colab."
        yield Problem(message, cure, first.index, link.line, "warning")
    is_own = url.slug.casefold() == own.casefold()
    if not (is_own or is_misspelt(url.slug, own) or is_namesake(url.slug, own)):
        message = f"The badge opens a notebook of {url.slug}, but this one belongs to {own}."
        yield Problem(message, cure, first.index, link.line)
    elif _strays(subject, url):
        wanted = _own_path(subject)
        message = f"The badge opens {url.path or 'no file'}, but this notebook is {wanted}."
        yield Problem(message, f"Write {wanted}.", first.index, link.line)


def _pin_problems(subject: Subject, own: str) -> Iterator[Problem]:
    """The ref that set-up code pins beside the URL of the repository."""
    ref = subject.settings.ref
    for cell in subject.program.cells if ref else ():
        urls = repository_urls(cell.cell.source, ref)
        if any(url.slug.casefold() == own.casefold() for url in urls):
            for line, pinned in pinned_refs(cell, own):
                if pinned != ref:
                    message = f"The code fetches {pinned} of {own}, but the project is at {ref}."
                    yield Problem(message, f"Write {ref}.", cell.index, line)


def _is_first_markdown(subject: Subject, cell: Cell) -> bool:
    kinds = (node.get("cell_type") for node in subject.notebook.nodes)
    return cell.index == next((i for i, kind in enumerate(kinds) if kind == "markdown"), None)


def _strays(subject: Subject, url: RepositoryUrl) -> bool:
    """Whether a badge opens another notebook than the one it stands in."""
    return _is_listed(subject) and url.path != _own_path(subject)


def _has_wrong_ref(subject: Subject, url: RepositoryUrl) -> bool:
    ref = subject.settings.ref
    return bool(ref and url.ref and url.ref != ref and not url.is_permalink)


def _spliced(text: str, span: tuple[int, int], replacement: str) -> str:
    return text[: span[0]] + replacement + text[span[1] :]


def _own_path(subject: Subject) -> str:
    """The notebook's path in the tree."""
    path = os.path.relpath(subject.notebook.path.resolve(), subject.root.resolve())
    return path.replace(os.sep, "/")


def _is_listed(subject: Subject) -> bool:
    root = subject.settings.root.resolve()
    path = os.path.relpath(subject.notebook.path.resolve(), root).replace(os.sep, "/")
    return path in subject.settings.paths and not _own_path(subject).startswith("../")


def _is_in_tree(subject: Subject, path: str) -> bool:
    return bool(path) and os.path.exists(os.path.join(subject.root, path))


@rule("CO105")
def paths(subject: Subject) -> Iterator[Problem]:
    """Relative links in text and paths spelled out in code name files that are in the tree."""
    traffic = file_traffic(subject.program)
    for cell in subject.notebook.cells:
        if cell.kind == "markdown":
            yield from _broken_links(subject, cell, traffic)
    for use in dict.fromkeys(traffic.uses):
        if is_missing(subject, use, traffic):
            yield Problem(
                f"The code needs {use.path}, which is not in the tree.",
                "Name a file that is there, or write it in an earlier cell.",
                use.cell,
                use.line,
            )


def _broken_links(subject: Subject, cell: Cell, traffic: FileTraffic) -> Iterator[Problem]:
    for link in parse_markdown(cell.source).links:
        path = linked_file(link.target)
        if path and not (may_come(subject, path, traffic) or stands(subject, path)):
            yield Problem(
                f"A link points to {path}, which is not in the tree.",
                "Name a file that is there, or link to its URL.",
                cell.index,
                link.line,
            )


@rule("CO106")
def anchors(subject: Subject) -> Iterator[Problem]:
    """Links to a place of the notebook find a heading or an HTML anchor there."""
    links = [
        (cell.index, link.line, link.target[1:])
        for cell in subject.notebook.cells
        if cell.kind == "markdown" and "#" in cell.source
        for link in parse_markdown(cell.source).links
        if link.target.startswith("#")
    ]
    known = _anchors(subject) if links else set()
    for cell, line, target in links:
        if not _leads_somewhere(subject, target, known):
            yield Problem(
                f"A link points to #{target}, but no heading or anchor here has that name.",
                "Write the heading with hyphens for spaces, as in #Set-up.",
                cell,
                line,
            )


def _anchors(subject: Subject) -> set[str]:
    """All names that a link of this notebook may point to."""
    seen: Counter[str] = Counter()
    known = {"", "top"}
    for _, heading in outline(subject.notebook):
        known.update(slugs(heading.text, seen[heading.text]))
        seen[heading.text] += 1
    for cell in subject.notebook.cells:
        if cell.kind == "markdown":
            known.update(parse_markdown(cell.source).anchors)
    return known


def _leads_somewhere(subject: Subject, target: str, known: set[str]) -> bool:
    anchor = unquote(target)
    if anchor.startswith("scrollTo="):
        id = anchor.removeprefix("scrollTo=").partition("&")[0]
        return id in _ids(subject) or len(_ids(subject)) < len(subject.notebook.nodes)
    if {anchor, target} & known:
        return True
    # An anchor may be made by HTML that a code cell shows.
    return any(anchor in cell.source for cell in subject.notebook.cells if cell.kind == "code")


def _ids(subject: Subject) -> set[str]:
    """The ids that cells have in the file, or have from Colab."""
    ids = set()
    for node in subject.notebook.nodes:
        metadata = node.get("metadata")
        ids.add(metadata.get("id") if isinstance(metadata, dict) else None)
        ids.add(node.get("id"))
    return {id for id in ids if isinstance(id, str)}
