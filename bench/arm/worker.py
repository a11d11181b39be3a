"""Runs on the emulated ARM CPU for bench/arm/instructions.py: embed, and ask for a reading each time.

    python bench/arm/worker.py MODEL RUNS TEXT...

MODEL is a bundle or an ``.onnx`` file, TEXT is "query" or "document". One JSON object on standard
output says, in order, what lies between the readings. A bundle is also run through edge_mrl.Encoder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

#: MARK in tests/arm/insn_count.c.
MARK = 0x5EED
LENGTHS = {"query": 10, "document": 128}
#: As many tokens, the special ones with them, in BERT's English vocabulary.
TEXTS = {
    "query": "how do I back up all my photos",
    "document": (
        "The harbour is older than the town. Boats were mended on the beach long before the first "
        "pier, and the names of the coves are those of families who pulled them up there. When the "
        "railway came, the fish went to the city in a night, and the town built a church, a school "
        "and a second pier. Then the herring stayed away, and the pier stood empty for thirty years. "
        "Today the boats carry people out to see the birds on the cliffs, and in the old ice house "
        "someone sells books. In winter, when the ferry does not run, the harbour still belongs to "
        "the families once again."
    ),
}


def reading() -> None:
    """Have the plugin write its count; the call itself fails and changes nothing."""
    try:
        os.sched_get_priority_max(MARK)
    except OSError:
        return
    raise SystemExit("the kernel knows the marker as a policy: choose another")


def measure(run: Callable[[], object], runs: int) -> None:
    """Two readings with nothing between them, then one after each run."""
    for _ in range(2):  # the first allocates what the others use again
        run()
    reading()
    reading()
    for _ in range(runs):
        run()
        reading()


def open_session(path: Path) -> ort.InferenceSession:
    """Open a graph on one thread: a bundle's as the runtime does, any other optimised as by default."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if path.is_dir():
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        path = path / "model.onnx"
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feed(session: ort.InferenceSession, length: int) -> dict[str, np.ndarray]:
    """One text of so many tokens. Which ones does not matter: all cost the same."""
    ids = np.arange(1000, 1000 + 7 * length, 7, dtype=np.int64)[None]
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {i.name: values.get(i.name, np.zeros_like(ids)) for i in session.get_inputs()}


def main() -> int:
    """Measure the graph, and the encoder where there is one."""
    path, runs, texts = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    order = []
    session = open_session(path)
    for name in texts:
        values = feed(session, LENGTHS[name])
        measure(lambda values=values: session.run(None, values), runs)  # type: ignore[misc]
        order.append({"what": "graph", "text": name, "tokens": LENGTHS[name]})
    if path.is_dir():
        from edge_mrl.encode.encoder import Encoder

        with Encoder.open(path, threads=1) as encoder:
            for name in texts:
                text = TEXTS[name]
                tokens = len(encoder.tokenize([text], kind=name)[0])
                measure(lambda n=name, t=text: encoder.encode([t], kind=n), runs)  # type: ignore[misc]
                order.append({"what": "encoder", "text": name, "tokens": tokens})
    print(json.dumps({"runs": runs, "order": order}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
