"""Make the small bundles beside this file anew: ``python -m tests.golden.make`` from the repository.

They are committed, so that every runtime's tests read the same files, and so that a later version
is tested against bundles that an earlier one wrote.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge_mrl_export.build import export
from edge_mrl_export.recipe import Recipe
from tests.support import tiny

HERE = Path(__file__).parent


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        prompts = {"query": "search: ", "document": ""}
        source = tiny.sentence_folder(Path(scratch) / "made", prompts=prompts)
        source = source.rename(Path(scratch) / "tiny-bert")
        export(str(source), HERE / "tiny-bert-16", Recipe(dim=16), force=True)
        coarse = Recipe(dim=8, coarse_only=True)
        export(str(source), HERE / "tiny-bert-coarse-8", coarse, force=True)
        static = Path(scratch) / "tiny-static"
        tiny.model2vec_folder(static, width=32, clusters=40, weights=True)
        export(str(static), HERE / "tiny-static-16", Recipe(dim=16), force=True)


if __name__ == "__main__":
    main()
