"""Workflows: each declared subset of cells has all names it reads, and names cells that exist."""

from collections.abc import Iterator
from typing import Any

from tools.analysis.flow import run
from tools.analysis.scopes import names_of
from tools.program import CodeCell
from tools.rules import Problem, Subject, rule
from tools.rules.order import cell_id, trees_of
from tools.workflows import KEYS, declared, included, matches, words


@rule("WF601")
def workflow_names(subject: Subject) -> Iterator[Problem]:
    """Each declared workflow binds the names that its cells read."""
    program = subject.program
    whole = run(program.cells)
    exempt = names_of(trees_of(program)).declared | {need.name for need in whole.needs}
    for name, declaration in declared(subject.notebook, subject.settings).items():
        ids = included(subject.notebook, declaration)
        cells = [code for code in program.cells if code.cell.id in ids]
        seen: set[str] = set()
        for need in run(cells).needs:
            place = whole.bound.get(need.name)
            if place and need.name not in exempt | seen:
                seen.add(need.name)
                yield Problem(
                    f'In the workflow "{name}" nothing binds `{need.name}`'
                    f"{_through(need.via)}: the cell {cell_id(program, place[0])} that does is "
                    "left out.",
                    "Keep that cell in the workflow, or bind the name in a cell that is in it.",
                    need.cell,
                    need.line,
                    None if need.sure else "warning",
                )


def _through(via: tuple[str, ...]) -> str:
    return f", which {' calls '.join(f'`{name}`' for name in via)} reads" if via else ""


@rule("WF602")
def workflow_cells(subject: Subject) -> Iterator[Problem]:
    """Each declared workflow names cells or tags that are there, and leaves something to run."""
    for name, declaration in declared(subject.notebook, subject.settings).items():
        fault = _shape_fault(declaration)
        if fault:
            yield Problem(
                f'The workflow "{name}" {fault}.',
                'Write { skip = ["id-or-tag"] } or { only = ["id-or-tag"] }.',
            )
            continue
        yield from _cell_faults(name, declaration, subject)


def _shape_fault(declaration: Any) -> str:
    """What is wrong with the form of a declaration; empty if nothing is."""
    if not isinstance(declaration, dict):
        return f"is {declaration!r}, but a table is wanted"
    if unknown := sorted(set(map(str, declaration)) - set(KEYS)):
        return f"has {', '.join(unknown)}, but only skip and only are known"
    if not any(words(declaration, key) for key in KEYS):
        return "names neither cells to skip nor the only ones to run"
    wrong = [key for key in KEYS if len(words(declaration, key)) != len(declaration.get(key, ()))]
    return f"has something else than a list of ids and tags under {wrong[0]}" if wrong else ""


def _cell_faults(name: str, declaration: dict, subject: Subject) -> Iterator[Problem]:
    cells = subject.notebook.cells
    for word in (word for key in KEYS for word in words(declaration, key)):
        if not any(matches(cell, (word,)) for cell in cells):
            yield Problem(
                f'The workflow "{name}" names `{word}`, but no cell has this id or tag.',
                "Correct the name, or take it out of the workflow.",
            )
    ids = included(subject.notebook, declaration)
    if not any(_does_something(code) for code in subject.program.cells if code.cell.id in ids):
        yield Problem(
            f'The workflow "{name}" leaves no code to run.',
            "Skip fewer cells, or delete the workflow.",
        )


def _does_something(code: CodeCell) -> bool:
    return bool(code.cell.source.strip())
