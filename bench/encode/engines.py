"""The encoders that bench/encode/compare.py compares, each behind the same four methods.

A class runs in its peer's environment: the peer and numpy are all it may import, and only in ``load``,
``open`` and after. Each is used as its own documentation says, with its own defaults, and told how many
threads it has.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ENGINES", "ONNX_FILES", "Engine"]

#: The graph in each folder that bench/encode/models.py makes.
ONNX_FILES = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_qint8_avx512_vnni.onnx"}
OPENVINO_FILES = {"openvino": "openvino_model.xml", "openvino-int8": "openvino_model_int8.xml"}
#: Sizes of which the best is looked for, where an engine takes one.
BATCHES = (1, 4, 8, 16, 32)
MOST_TOKENS = 256


class Engine:
    """An encoder under test.

    Attributes:
        environment: Where it runs (bench/support/environments.py).
        model: What it opens, by name (bench/encode/models.py); None for the bundle that is given.
        batches: Batch sizes to try; () if it takes none.
        default_batch: Its own.
        static: Whether a token has the same vector everywhere, which is no transformer's work.

    Args:
        path: The model's folder.
        threads: How many it may use.
    """

    environment: ClassVar[str]
    model: ClassVar[str | None] = None
    batches: ClassVar[tuple[int, ...]] = ()
    default_batch: ClassVar[int | None] = None
    static: ClassVar[bool] = False

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads

    def load(self) -> None:
        """Import the peer."""
        raise NotImplementedError

    def open(self) -> None:
        """Make ready to encode."""
        raise NotImplementedError

    def documents(self, texts: list[str], batch: int | None) -> NDArray[np.float32]:
        """float32[n, D]: vectors of texts, in order.

        Args:
            texts: Any number.
            batch: Texts at a time; None for the engine's own way.
        """
        raise NotImplementedError

    def query(self, text: str) -> NDArray[np.float32]:
        """float32[D]: the vector of one query."""
        vector: NDArray[np.float32] = self.documents([text], None)[0]
        return vector


class EdgeMrl(Engine):
    """edge-mrl with a bundle."""

    environment = "edge-mrl-runtime"
    low_memory: ClassVar[bool] = False

    def load(self) -> None:
        self._edge_mrl: Any = importlib.import_module("edge_mrl")

    def open(self) -> None:
        self._encoder = self._edge_mrl.Encoder.open(
            self.path, threads=self.threads, low_memory=self.low_memory
        )

    def documents(self, texts: list[str], batch: int | None) -> NDArray[np.float32]:
        del batch  # it has a budget of tokens
        return self._vectors(self._encoder.encode(texts))

    def query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self._vectors(self._encoder.encode([text], kind="query"))[0]
        return vector

    @staticmethod
    def _vectors(encoding: Any) -> NDArray[np.float32]:
        """Full vectors; codes from a bundle that has no others."""
        found: NDArray[np.float32] = (
            encoding.coarse.astype("float32") if encoding.full is None else encoding.full
        )
        return found

    def stream(self, texts: Iterator[str]) -> Iterator[int]:
        """Encode texts without end in bounded memory; counts as they are done."""
        for chunk in self._encoder.stream(texts):
            yield len(chunk)


class EdgeMrlLowMemory(EdgeMrl):
    low_memory = True


class EdgeMrlStatic(EdgeMrl):
    """With a bundle of the static model that model2vec runs."""

    model = "edge-mrl-static"
    static = True


class SentenceTransformers(Engine):
    """sentence-transformers on one of its backends."""

    environment = "sentence-transformers"
    model = "torch"
    batches = BATCHES
    default_batch = 32
    backend: ClassVar[str] = "torch"

    def load(self) -> None:
        self._package: Any = importlib.import_module("sentence_transformers")

    def open(self) -> None:
        importlib.import_module("torch").set_num_threads(self.threads)
        self._model = self._package.SentenceTransformer(
            str(self.path), device="cpu", backend=self.backend, model_kwargs=self.options()
        )

    def options(self) -> dict[str, Any]:
        """What the backend is told."""
        return {}

    def documents(self, texts: list[str], batch: int | None) -> NDArray[np.float32]:
        size = self.default_batch if batch is None else batch
        found: NDArray[np.float32] = self._model.encode(
            texts, batch_size=size, show_progress_bar=False
        )
        return found


class SentenceTransformersOnnx(SentenceTransformers):
    environment = "sentence-transformers-onnx"
    model = "onnx"
    backend = "onnx"

    def options(self) -> dict[str, Any]:
        assert self.model is not None
        return {
            "provider": "CPUExecutionProvider",
            "file_name": ONNX_FILES[self.model],
            "session_options": _session_options(self.threads),
        }


class SentenceTransformersOnnxInt8(SentenceTransformersOnnx):
    model = "onnx-int8"


class SentenceTransformersOpenVino(SentenceTransformers):
    environment = "sentence-transformers-openvino"
    model = "openvino"
    backend = "openvino"

    def options(self) -> dict[str, Any]:
        assert self.model is not None
        return {
            "file_name": OPENVINO_FILES[self.model],
            "ov_config": {"INFERENCE_NUM_THREADS": self.threads},
        }


class SentenceTransformersOpenVinoInt8(SentenceTransformersOpenVino):
    model = "openvino-int8"


class FastEmbed(Engine):
    """fastembed with a model of its user's."""

    environment = "fastembed"
    model = "onnx"
    batches = BATCHES
    default_batch = 256

    def load(self) -> None:
        self._package: Any = importlib.import_module("fastembed")

    def open(self) -> None:
        description: Any = importlib.import_module("fastembed.common.model_description")
        name = "local/all-MiniLM-L6-v2"
        assert self.model is not None
        self._package.TextEmbedding.add_custom_model(
            model=name,
            pooling=description.PoolingType.MEAN,
            normalization=True,
            sources=description.ModelSource(hf=name),
            dim=384,
            model_file=ONNX_FILES[self.model],
        )
        self._model = self._package.TextEmbedding(
            name, threads=self.threads, specific_model_path=str(self.path)
        )

    def documents(self, texts: list[str], batch: int | None) -> NDArray[np.float32]:
        import numpy as np

        size = self.default_batch if batch is None else batch
        return np.stack(list(self._model.embed(texts, batch_size=size)))

    def query(self, text: str) -> NDArray[np.float32]:
        found: NDArray[np.float32] = next(iter(self._model.query_embed(text)))
        return found


class FastEmbedInt8(FastEmbed):
    model = "onnx-int8"


class LightEmbed(Engine):
    """light-embed with a local folder. It has no option for threads: the CPUs it may use limit them."""

    environment = "light-embed"
    model = "onnx"
    batches = BATCHES
    default_batch = 32

    def load(self) -> None:
        self._package: Any = importlib.import_module("light_embed")

    def open(self) -> None:
        assert self.model is not None
        config = {
            "onnx_file": ONNX_FILES[self.model],
            "pooling_config_path": "1_Pooling",
            "normalize": True,
        }
        self._model = self._package.TextEmbedding(str(self.path), device="cpu", model_config=config)

    def documents(self, texts: list[str], batch: int | None) -> NDArray[np.float32]:
        size = self.default_batch if batch is None else batch
        found: NDArray[np.float32] = self._model.encode(texts, batch_size=size)
        return found


class LightEmbedInt8(LightEmbed):
    model = "onnx-int8"


class OptimumInt8(Engine):
    """optimum's model for ONNX Runtime, pooled by hand, in the order given, as its guide does."""

    environment = "sentence-transformers-onnx"
    model = "onnx-int8"
    batches = BATCHES
    default_batch = 32

    def load(self) -> None:
        self._optimum: Any = importlib.import_module("optimum.onnxruntime")
        self._transformers: Any = importlib.import_module("transformers")

    def open(self) -> None:
        assert self.model is not None
        folder, _, name = ONNX_FILES[self.model].partition("/")
        self._tokenizer = self._transformers.AutoTokenizer.from_pretrained(str(self.path))
        self._model = self._optimum.ORTModelForFeatureExtraction.from_pretrained(
            str(self.path),
            subfolder=folder,
            file_name=name,
            provider="CPUExecutionProvider",
            session_options=_session_options(self.threads),
        )

    def documents(self, texts: list[str], batch: int | None) -> NDArray[np.float32]:
        import numpy as np

        size = self.default_batch if batch is None else batch
        parts = [self._batch(texts[i : i + size]) for i in range(0, len(texts), size)]
        return np.concatenate(parts)

    def _batch(self, texts: list[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="np"
        )
        states = self._model(**tokens).last_hidden_state
        return _pooled(states, tokens["attention_mask"])


class HandLoop(Engine):
    """What a user who knows how writes: the fused int8 graph, texts sorted by length, batches of 8."""

    environment = "onnxruntime"
    model = "fused-int8"
    batches = BATCHES
    default_batch = 8

    def load(self) -> None:
        self._tokenizers: Any = importlib.import_module("tokenizers")
        importlib.import_module("onnxruntime")

    def open(self) -> None:
        import onnxruntime as ort

        self._tokenizer = self._tokenizers.Tokenizer.from_file(str(self.path / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._session = ort.InferenceSession(
            str(self.path / "model.onnx"),
            _session_options(self.threads),
            providers=["CPUExecutionProvider"],
        )
        self._inputs = [entry.name for entry in self._session.get_inputs()]

    def documents(self, texts: list[str], batch: int | None) -> NDArray[np.float32]:
        import numpy as np

        size = self.default_batch if batch is None else batch
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        vectors = np.empty((len(rows), 384), np.float32)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            vectors[chosen] = self._batch([rows[i] for i in chosen])
        return vectors

    def _batch(self, rows: Sequence[list[int]]) -> NDArray[np.float32]:
        import numpy as np

        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = values
            mask[row, : len(values)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        return _pooled(states, mask)


class Model2Vec(Engine):
    """model2vec with 256 dimensions distilled from the same weights."""

    environment = "model2vec"
    model = "static"
    static = True

    def load(self) -> None:
        self._package: Any = importlib.import_module("model2vec")

    def open(self) -> None:
        self._model = self._package.StaticModel.from_pretrained(self.path)

    def documents(self, texts: list[str], batch: int | None) -> NDArray[np.float32]:
        del batch  # its own is far above what matters
        found: NDArray[np.float32] = self._model.encode(texts)
        return found


def _session_options(threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return options


def _pooled(states: Any, mask: Any) -> NDArray[np.float32]:
    """float32[n, D]: the mean over the tokens of float32[n, t, D] that count, of unit length."""
    import numpy as np

    weights = mask[:, :, None].astype(np.float32)
    means = (states * weights).sum(axis=1) / weights.sum(axis=1)
    found: NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return found


ENGINES: dict[str, type[Engine]] = {
    "edge-mrl": EdgeMrl,
    "edge-mrl, low memory": EdgeMrlLowMemory,
    "edge-mrl, static": EdgeMrlStatic,
    "sentence-transformers, torch": SentenceTransformers,
    "sentence-transformers, ONNX": SentenceTransformersOnnx,
    "sentence-transformers, ONNX int8": SentenceTransformersOnnxInt8,
    "sentence-transformers, OpenVINO": SentenceTransformersOpenVino,
    "sentence-transformers, OpenVINO int8": SentenceTransformersOpenVinoInt8,
    "fastembed": FastEmbed,
    "fastembed, int8": FastEmbedInt8,
    "optimum, int8": OptimumInt8,
    "light-embed": LightEmbed,
    "light-embed, int8": LightEmbedInt8,
    "hand loop, fused int8": HandLoop,
    "model2vec": Model2Vec,
}
