"""Documentation that can't lie: the map is the tree, examples run, links lead somewhere."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAPPED = ("training.ipynb", "helpers", "tools", "benchmarks")
NOTES = {
    "training.ipynb": "Train one model, step by step.",
    "helpers/README.md": "The guide to the engine.",
    "tools/README.md": "The guide to the tools.",
}


def tracked_files() -> list[str]:
    """Files of the tree that the map describes, folders before their parts."""
    files = [
        p.relative_to(ROOT).as_posix()
        for name in MAPPED
        for p in ([ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*")))
        if p.is_file() and p.suffix in {".py", ".ipynb", ".md"} and "results" not in p.parts
    ]
    return [name for name in files if "__pycache__" not in name]


def first_line(name: str) -> str:
    """The idea of a file, as its first docstring line says it."""
    if name in NOTES:
        return NOTES[name]
    return ast.get_docstring(ast.parse((ROOT / name).read_text())).splitlines()[0]


def expected_map() -> str:
    width = max(map(len, tracked_files()))
    return "\n".join(f"{name:<{width}}  {first_line(name)}" for name in tracked_files())


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_map_of_the_readme_is_the_tree():
    shown = re.search(r"checked by tests/test_docs.py -->\n```\n(.*?)\n```", readme(), re.DOTALL)

    assert shown and shown.group(1) == expected_map()


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
    print(expected_map())
