"""Documentation that can't lie: the map is the tree, examples run, links lead somewhere."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTES = {
    "training.ipynb": "Train one model, step by step.",
    "helpers/README.md": "The guide to the engine.",
    "tools/README.md": "The guide to the tools.",
    "RELIABILITY.md": "What is promised of a run, and what the last test of it found.",
    "tests": "Tests of all of this; tests/faults/ has those that kill, fill and damage.",
}
MAP = re.compile(r"checked by tests/test_docs.py -->\n```\n(.*?)\n```", re.DOTALL)


def overview() -> dict[str, str]:
    """What a reader of the README finds: the top, and each folder of code by its idea."""
    found = {name: note for name, note in NOTES.items() if name != "tests"}
    for top in ("helpers", "tools"):
        for package in [ROOT / top, *sorted(p for p in (ROOT / top).iterdir() if p.is_dir())]:
            if (package / "__init__.py").is_file():
                found[f"{package.relative_to(ROOT).as_posix()}/"] = idea(package / "__init__.py")
    found["tests/"] = NOTES["tests"]
    found["benchmarks/"] = idea(ROOT / "benchmarks/__init__.py")
    return found


def files_of(top: str) -> dict[str, str]:
    """The modules below a folder by their ideas, folders before their parts."""
    paths = sorted(p for p in (ROOT / top).rglob("*.py") if "__pycache__" not in p.parts)
    return {p.relative_to(ROOT / top).as_posix(): idea(p) for p in paths}


def idea(path: Path) -> str:
    """The idea of a module, as its first docstring line says it."""
    return ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]


MAPS = {
    "README.md": overview,
    "helpers/README.md": lambda: files_of("helpers"),
    "tools/README.md": lambda: files_of("tools"),
}


def as_map(found: dict[str, str]) -> str:
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {note}" for name, note in found.items())


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_the_tree(name):
    shown = MAP.search((ROOT / name).read_text())

    assert shown and shown.group(1) == as_map(MAPS[name]())


def readme() -> str:
    return (ROOT / "README.md").read_text()


def test_examples_of_the_guide_run_in_an_empty_folder(tmp_path):
    program = "\n".join(python_blocks(ROOT / "helpers/README.md"))
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout


@pytest.mark.parametrize(
    "name", ["README.md", "helpers/README.md", "tools/README.md", "CHANGELOG.md", "NOTES.md"]
)
def test_relative_links_lead_to_files(name):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)\)", (ROOT / name).read_text())

    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []


def test_repository_address_is_the_one_of_the_project_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    address = project["project"]["urls"]["Repository"]
    ref = project["tool"]["notebooks"]["ref"]
    slug = address.removeprefix("https://github.com/")
    badge = f"https://colab.research.google.com/github/{slug}/blob/{ref}/training.ipynb"

    for name in ("README.md", "training.ipynb"):
        text = (ROOT / name).read_text()
        found = re.findall(r"colab\.research\.google\.com/github/[^)\s\\]+", text)
        assert found and {f"https://{link}" for link in found} == {badge}


def test_makefile_has_every_verb_of_the_readme():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"(?:`| {4})make ([a-z]+)", readme())) <= targets


def test_constraints_pin_every_requirement():
    pins = {line.split("==")[0].lower() for line in lines("constraints.txt")}
    wanted = {re.split(r"[<>=]", line)[0].lower() for line in lines("requirements.txt")}

    assert wanted <= pins


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text().splitlines()
    return [line.strip() for line in text if line.strip() and not line.startswith("#")]


if __name__ == "__main__":
    for name, found in MAPS.items():
        text = (ROOT / name).read_text()
        shown = MAP.search(text)
        (ROOT / name).write_text(text[: shown.start(1)] + as_map(found()) + text[shown.end(1) :])
