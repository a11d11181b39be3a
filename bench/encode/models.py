"""The model files that bench/encode/compare.py's engines open, all made from the same weights.

Each is made once, by the peer's own tool in the peer's environment, into build/bench-encoder/models/NAME:
a folder of just what is needed to run. The ONNX and int8 files are shared by all who can open them.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.encode.engines import ONNX_FILES, OPENVINO_FILES
from bench.support.children import ROOT, ChildError, module
from bench.support.environments import OWN, PEERS, Environment, source_digest

__all__ = ["CACHE", "MODELS", "OFFLINE", "main", "prepare"]

CACHE = ROOT / "build" / "bench-encoder"
#: The texts by which edge-mrl's exporter calibrates; OpenVINO's static int8 gets the same.
CALIBRATION = ROOT / "export/edge_mrl_export/texts/data/calibration.txt"
#: No peer may ask for anything on the network.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
WEIGHTS = "model.safetensors"
#: Beside the weights or the graph; README and the like are not needed to run.
SMALL = (
    "1_Pooling",
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
TIMEOUT_S = 900
MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Model:
    """How a folder is made.

    Attributes:
        environment: Where (bench/support/environments.py).
        make: Gets the source, the folder of all models, and the empty folder to fill.
        needs: Other models that must be there.
    """

    environment: str
    make: Callable[[Path, Path, Path], None]
    needs: tuple[str, ...] = ()


def prepare(name: str, source: Path, ready: Mapping[str, Environment]) -> Path:
    """Make a model's folder, or take the one made before from the same weights in the same way.

    Args:
        name: A key of MODELS.
        source: Folder of the fp32 model.
        ready: Environments by name.

    Raises:
        ChildError: It cannot be made.
    """
    model = MODELS[name]
    for other in model.needs:
        prepare(other, source, ready)
    target = CACHE / "models" / name
    done = target.with_suffix(".key")
    key = _key(model, source)
    if done.exists() and done.read_text("utf-8") == key:
        return target
    environment = ready[model.environment]
    if environment.problem is not None:
        raise ChildError(environment.problem)
    print(f"make {name}", file=sys.stderr, flush=True)
    done.unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    _run(environment, [name, str(source), str(target.parent), str(target)])
    done.write_text(key, encoding="utf-8")
    return target


def _run(environment: Environment, arguments: list[str]) -> None:
    log = CACHE / "models" / f"{arguments[0]}.log"
    command = [str(environment.python), *module("bench.encode.models"), *arguments]
    try:
        with log.open("wb") as file:
            variables = {**os.environ, **OFFLINE}
            subprocess.run(
                command, check=True, stdout=file, stderr=file, timeout=TIMEOUT_S, env=variables
            )
    except subprocess.SubprocessError as error:
        lines = log.read_text("utf-8", errors="replace").strip().splitlines() or [str(error)]
        said = lines[-1].replace(str(ROOT), ".")[:MESSAGE_CHARS]
        raise ChildError(f"making {arguments[0]} failed: {said}") from error


def _key(model: Model, source: Path) -> str:
    """A hash of all that the files depend on."""
    parts = [
        *(PEERS[model.environment] if model.environment != OWN else [source_digest()]),
        inspect.getsource(model.make),
        repr((SMALL, ONNX_FILES, OPENVINO_FILES)),
        hashlib.sha256((source / WEIGHTS).read_bytes()).hexdigest(),
        hashlib.sha256(CALIBRATION.read_bytes()).hexdigest(),
        *(_key(MODELS[other], source) for other in model.needs),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _copy_small(source: Path, target: Path) -> None:
    for name in SMALL:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).exists():
            shutil.copy(source / name, target)


def _make_torch(source: Path, models: Path, target: Path) -> None:
    del models
    _copy_small(source, target)
    shutil.copy(source / WEIGHTS, target)


def _make_onnx(source: Path, models: Path, target: Path) -> None:
    del models
    from sentence_transformers import SentenceTransformer

    options = {"provider": "CPUExecutionProvider", "export": True}
    model = SentenceTransformer(str(source), device="cpu", backend="onnx", model_kwargs=options)
    scratch = target / "scratch"
    model.save_pretrained(str(scratch))
    _take(scratch, "onnx/model.onnx", target, ONNX_FILES["onnx"])
    _copy_small(source, target)


def _make_onnx_int8(source: Path, models: Path, target: Path) -> None:
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    options = {"provider": "CPUExecutionProvider", "file_name": ONNX_FILES["onnx"]}
    folder = str(models / "onnx")
    model = SentenceTransformer(folder, device="cpu", backend="onnx", model_kwargs=options)
    scratch = target / "scratch"
    # Its configurations for AVX512-VNNI and for ARM write the same bytes.
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(scratch))
    _take(scratch, "onnx/model_qint8_avx512_vnni.onnx", target, ONNX_FILES["onnx-int8"])
    _copy_small(source, target)


def _make_fused_int8(source: Path, models: Path, target: Path) -> None:
    """ONNX Runtime's own optimiser for transformers, then its own dynamic quantisation."""
    import json

    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    config = json.loads((source / "config.json").read_bytes())
    fused = optimize_model(
        str(models / "onnx" / ONNX_FILES["onnx"]),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
    )
    scratch = target / "fused.onnx"
    fused.save_model_to_file(str(scratch))
    quantize_dynamic(
        scratch,
        target / "model.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        # Types are not inferred through the fused operators.
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
    scratch.unlink()
    shutil.copy(source / "tokenizer.json", target)


def _make_openvino(source: Path, models: Path, target: Path) -> None:
    del models
    from sentence_transformers import SentenceTransformer

    options: dict[str, Any] = {"export": True}
    model = SentenceTransformer(str(source), device="cpu", backend="openvino", model_kwargs=options)
    scratch = target / "scratch"
    model.save_pretrained(str(scratch))
    _take_pair(scratch, "openvino_model", target, OPENVINO_FILES["openvino"])
    _copy_small(source, target)


def _make_openvino_int8(source: Path, models: Path, target: Path) -> None:
    import json

    from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model

    scratch = target / "scratch"
    data = scratch / "texts"
    data.mkdir(parents=True)
    lines = [line for line in CALIBRATION.read_text("utf-8").splitlines() if line.strip()]
    texts = "".join(json.dumps({"sentence": line}) + "\n" for line in lines)
    (data / "train.jsonl").write_text(texts, encoding="utf-8")
    options = {"file_name": OPENVINO_FILES["openvino"]}
    folder = str(models / "openvino")
    model = SentenceTransformer(folder, device="cpu", backend="openvino", model_kwargs=options)
    export_static_quantized_openvino_model(
        model,
        None,
        str(scratch / "model"),
        dataset_name=str(data),
        dataset_config_name="default",
        dataset_split="train",
        column_name="sentence",
    )
    stem = "openvino_model_qint8_quantized"
    _take_pair(scratch / "model", stem, target, OPENVINO_FILES["openvino-int8"], also=scratch)
    _copy_small(source, target)


def _make_static(source: Path, models: Path, target: Path) -> None:
    del models
    from model2vec.distill import distill

    distill(str(source), pca_dims=256).save_pretrained(str(target))
    (target / "README.md").unlink()


def _make_edge_mrl_static(source: Path, models: Path, target: Path) -> None:
    """A bundle of what model2vec runs."""
    del source
    from edge_mrl.cli import main as edge_mrl

    code = edge_mrl(["export", str(models / "static"), "-o", str(target), "--force", "--quiet"])
    if code:
        raise SystemExit(code)


def _make_product(source: Path, models: Path, target: Path) -> None:
    """An integer product by constant weights: of several sizes, the one that runs at the highest rate."""
    del source, models
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    rows, inner, columns = 1024, 512, 512
    weights = np.random.default_rng(1).integers(-127, 128, (inner, columns)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [rows, columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), target / "product.onnx")


def _take(scratch: Path, name: str, target: Path, new: str) -> None:
    """Move one file out of what a tool wrote, and drop the rest."""
    (target / new).parent.mkdir(parents=True, exist_ok=True)
    (scratch / name).replace(target / new)
    shutil.rmtree(scratch)


def _take_pair(
    scratch: Path, stem: str, target: Path, new: str, *, also: Path | None = None
) -> None:
    """The same for OpenVINO's two files."""
    (target / "openvino").mkdir()
    for suffix in (".xml", ".bin"):
        renamed = (target / "openvino" / new).with_suffix(suffix)
        (scratch / "openvino" / stem).with_suffix(suffix).replace(renamed)
    shutil.rmtree(also or scratch)


MODELS: dict[str, Model] = {
    "torch": Model("sentence-transformers", _make_torch),
    "onnx": Model("sentence-transformers-onnx", _make_onnx),
    "onnx-int8": Model("sentence-transformers-onnx", _make_onnx_int8, ("onnx",)),
    "fused-int8": Model("sentence-transformers-onnx", _make_fused_int8, ("onnx",)),
    "openvino": Model("sentence-transformers-openvino", _make_openvino),
    "openvino-int8": Model("openvino-quantize", _make_openvino_int8, ("openvino",)),
    "static": Model("model2vec-distill", _make_static),
    "edge-mrl-static": Model(OWN, _make_edge_mrl_static, ("static",)),
    "product": Model("sentence-transformers-onnx", _make_product),
}


def main() -> int:
    """Make one model, in the peer's environment: NAME SOURCE MODELS TARGET."""
    name, *paths = sys.argv[1:]
    MODELS[name].make(*map(Path, paths))
    return 0
