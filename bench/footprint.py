"""What a bundle costs: ``python -m bench.footprint --bundle DIR``.

Size by file; time of an export; in fresh processes, the time from the command to the first vector and
the peak memory, for one line and for a file of documents; installed size of the runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.support.machine import save

ROOT = Path(__file__).parent.parent
COLD_RUNS = 9
BULK_TEXTS = 2000


def main() -> int:
    """Measure, print, write bench/results/footprint.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    args = parser.parse_args()
    sizes = {path.name: path.stat().st_size for path in sorted(args.bundle.iterdir())}
    results = {
        "bundle_bytes": {**sizes, "total": sum(sizes.values())},
        "export": export_time(),
        "embed_one_line": cold_start(args.bundle),
        "embed_bulk": bulk(args.bundle),
        "help_seconds": round(_median([_run(["--help"])[0] for _ in range(COLD_RUNS)]), 3),
        "installed_runtime": installed_runtime(),
    }
    path = save("footprint", {"cold_runs": COLD_RUNS, "bulk_texts": BULK_TEXTS}, results)
    print(json.dumps(results, indent=1))
    print(f"written to {path.relative_to(ROOT)}")
    return 0


def export_time() -> dict[str, Any]:
    """The default export, as a user starts it: whole process, and the stages after the imports."""
    with tempfile.TemporaryDirectory() as scratch:
        command = ["export", "-o", f"{scratch}/bundle", "--json"]
        seconds, peak, output = _run(command)
    stages = json.loads(output)["seconds"]
    return {
        "process_seconds": round(seconds, 1),
        "stage_seconds": stages,
        "stages_total_seconds": round(sum(stages.values()), 1),
        "peak_rss_mb": round(peak, 1),
    }


def cold_start(bundle: Path) -> dict[str, Any]:
    """``edge-mrl embed`` of one line, in fresh processes; the files are in the page cache."""
    command = ["embed", "--bundle", str(bundle)]
    runs = [_run(command, "how do I back up my photos\n") for _ in range(COLD_RUNS + 1)][1:]
    return {
        "median_seconds": round(_median([seconds for seconds, _, _ in runs]), 3),
        "min_seconds": round(min(seconds for seconds, _, _ in runs), 3),
        "peak_rss_mb": round(_median([peak for _, peak, _ in runs]), 1),
    }


def bulk(bundle: Path) -> dict[str, Any]:
    """``edge-mrl embed`` of documents to a .npy file, with all cores."""
    words = [
        "the",
        "river",
        "rose",
        "over",
        "night",
        "and",
        "took",
        "the",
        "footbridge",
        "with",
        "it",
    ]
    lengths = [20 + i * 37 % 181 for i in range(BULK_TEXTS)]
    texts = [" ".join(words[(i + j) % len(words)] for j in range(n)) for i, n in enumerate(lengths)]
    found = {}
    for name, extra in {"default": [], "low_memory": ["--low-memory"]}.items():
        with tempfile.TemporaryDirectory() as scratch:
            command = ["embed", "--bundle", str(bundle), "-o", f"{scratch}/v.npy", *extra]
            seconds, peak, _ = _run(command, "\n".join(texts) + "\n")
        found[name] = {
            "documents_per_second": round(BULK_TEXTS / seconds, 1),
            "peak_rss_mb": round(peak, 1),
        }
    return found


def installed_runtime() -> dict[str, Any]:
    """Size of the runtime and its dependencies in a fresh environment, and of each of them."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
        site = next(Path(scratch).glob("lib/python*/site-packages"))
        before = {path.name for path in site.iterdir()}
        empty = _tree_mb(site)
        constraints = ROOT / "constraints" / "tested.txt"
        pip = [f"{scratch}/bin/python", "-m", "pip", "install", "-q", "-c", str(constraints)]
        subprocess.run([*pip, str(ROOT)], check=True)
        total = _tree_mb(site) - empty
        added = [path for path in site.iterdir() if path.is_dir() and path.name not in before]
        parts = {path.name: _tree_mb(path) for path in added}
    largest = dict(sorted(parts.items(), key=lambda item: -item[1])[:8])
    return {"megabytes": round(total, 1), "largest": {k: round(v, 1) for k, v in largest.items()}}


def _tree_mb(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def _run(arguments: list[str], stdin: str = "") -> tuple[float, float, str]:
    """Run the command line in a fresh process: wall seconds, peak RSS in MB, standard output."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_mrl", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(stdin)
    process.stdin.close()
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"edge-mrl {arguments[0]} ended with {process.returncode}")
    return time.perf_counter() - start, _peak_mb(usage), output


def _peak_mb(usage: resource.struct_rusage) -> float:
    """ru_maxrss is in KiB on Linux and in bytes on macOS."""
    return usage.ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e6


def _median(values: list[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    sys.exit(main())
