"""``python -m bench``: measure, and write ``bench/RESULTS.rst``."""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench import results
from bench.figures import Bench
from bench.postfix import missing_for_postfix
from bench.rows import rows


def main() -> None:
    """Measure what the command line asks for."""
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="mta-bench-", dir=arguments.folder))
    folder.chmod(0o711)  # Postfix's own users pass through
    # On ext4: each server's files in a part of the disk of their own.
    subprocess.run(["chattr", "+T", str(folder)], stderr=subprocess.DEVNULL, check=False)
    scale = 0.2 if arguments.quick else 1.0
    bench = Bench(folder, 1 if arguments.quick else arguments.runs, scale, arguments.workers)
    if missing := missing_for_postfix():
        print(f"without the peer: {missing}")
    figures = []
    try:
        for row in rows(lambda name: fnmatch.fnmatch(name, f"*{arguments.only}*")):
            for figure in row.measure(bench):
                figures.append(figure)
                print(results.line(figure), flush=True)
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    arguments.output.write_text(results.document(figures, bench), "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="a fifth of the load, once")
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows with such names")
    parser.add_argument("--runs", type=int, default=5, help="how often each load is run")
    parser.add_argument("--workers", type=int, default=2, help="our `queue.workers`")
    parser.add_argument("--folder", type=Path, help="where, on the disk that is meant")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("RESULTS.rst"), metavar="FILE"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
