"""`python -m tools validate` on one notebook and on many: time, memory, and how both grow.

Run: python benchmarks/bench_validate.py
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (25, 50, 100, 200)


def measure(paths: list[Path]) -> tuple[float, float]:
    """Seconds of the whole command, and the peak of its processes' memory together, in MB."""
    command = [sys.executable, "-m", "tools", "validate", "--root", str(ROOT), *map(str, paths)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak))
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    watcher.join()
    if code not in (0, 1):
        sys.exit(f"validate ended with exit code {code}, but 0 or 1 is wanted.")
    return seconds, peak[0]


def _watch(pid: int, peak: list[float]) -> None:
    """Keep the largest sum of proportional set sizes; pages shared by two count once."""
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for member in [process, *process.children(recursive=True)]:
                try:
                    total += member.memory_full_info().pss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total / 1e6)
            time.sleep(0.05)
    except psutil.Error:
        return


def copies(folder: Path, count: int) -> list[Path]:
    """The project's notebooks over and over, each with a comment of its own in every code cell."""
    sources = sorted(ROOT.glob("*.ipynb"))
    paths = []
    for i in range(count):
        content = json.loads(sources[i % len(sources)].read_text(encoding="utf-8"))
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                source = "".join(cell["source"])
                cell["source"] = f"{source}\n# notebook {i}"
        path = folder / f"notebook_{i:03}.ipynb"
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def main() -> None:
    """Print the table, each figure beside its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    own = sorted(ROOT.glob("*.ipynb"))
    best = min(measure(own)[0] for _ in range(rounds))
    print(f"{len(own)} own notebooks, best of {rounds}: {best:.2f} s (limit 2 s)")
    folder = Path(tempfile.mkdtemp())
    try:
        paths = copies(folder, COUNTS[-1])
        print(f"{'notebooks':>9}  {'s':>6}  {'ms each':>8}  {'memory, MB':>10}")
        for count in COUNTS:
            seconds, memory = measure(paths[:count])
            each = 1000 * seconds / count
            print(f"{count:>9}  {seconds:>6.2f}  {each:>8.1f}  {memory:>10.0f}")
        print("limits: 200 notebooks in 30 s, 500 MB")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
