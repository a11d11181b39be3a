"""The options of an export, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_mrl.codes import PLANES, code_bytes
from edge_mrl.errors import UsageError
from edge_mrl.heads import nested_sizes
from edge_mrl_export.source import Source

__all__ = ["FITTED_HEADS", "TARGETS", "TRACERS", "Recipe"]

#: Dimensions where none are asked for, by code. At equal bytes, dimensions beat bits: 256 dimensions of
#: int4 keep 4.7 points more of nDCG@10 than 128 of int8, on text that no fit has seen. 1-bit codes, and
#: 2-bit codes behind a random rotation, take all that the model has.
DEFAULT_DIMS = {"int8": 128, "int4": 256, "2bit": 256}
#: The code where neither code nor dimensions are asked for, and where dimensions alone are.
DEFAULT_CODE, CODE_OF_DIM = "int4", "int8"
PRECISIONS = ("int8", "int4", "fp32")
#: Processors, and whether int8 weights are stored unsigned for them. One graph is the best found for
#: ARM and for x86-64 with VNNI; without VNNI, uint8 times int8 saturates.
TARGETS = {"arm64": False, "x86-64-vnni": False, "x86-64": True}
#: Programs that trace a transformers model, see ``graph.tracers``.
TRACERS = ("auto", "torchscript", "dynamo", "optimum")
#: Heads that are fitted on text; beside them there are "auto", "prefix" and the name of a file.
FITTED_HEADS = ("pca", "rotation", "linear")
#: With fewer tokens, begin and end tokens leave no room for text.
FEWEST_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The options of one export.

    Attributes:
        dim: Dimensions of the coarse code. None for 256 (with int8, 128), for all of the model's if it
            has fewer or the code is 1bit, or for the size nearest below that it was trained for.
        precision: "int8", "int4" or "fp32".
        code: How a store keeps documents' codes: one of ``edge_mrl.codes.packing.CODE_KINDS``. None for
            int4, and for int8 if ``dim`` is given.
        target: Processor that an int8 network is made for, a key of TARGETS.
        coarse_only: Leave out the output ``full``.
        max_tokens: Longest input, in tokens; None for the model's own limit.
        corpus: The user's own text, for calibration, the head and pruning: a file or folder.
        prune_vocab: Tokens to keep in the vocabulary; None for all.
        pooling: Pooling modes, joined with "+", for an .onnx file without modules.json.
        graph_output: The output of an .onnx file that holds the embeddings; None to choose it.
        query_prompt: What is put before queries, or the name of a prompt that the model has; None for
            what sentence-transformers puts there.
        document_prompt: The same for documents.
        layer_norm: Whether a layer norm comes before the head; None to decide by the model's type.
        head: "auto", "prefix", one of FITTED_HEADS, or the name of a ``.npy`` file with float[D, dim].
        mrl_dims: Prefix sizes that the model was trained for; None to read them from its files.
        nested: Shorter prefix sizes that a head is fitted for as well; None for halves of ``dim``.
        pairs: Queries with documents that answer them, to fit a head to: a ``.jsonl`` or ``.tsv`` file.
        turn: Whether a head is rotated for codes of 1 or 2 bits, where there is enough text.
        tracer: What turns a transformers model into a graph, one of TRACERS.
        allow_low_fidelity: Write the bundle even if it is below a gate.
    """

    dim: int | None = None
    precision: str = "int8"
    code: str | None = None
    target: str = "arm64"
    coarse_only: bool = False
    max_tokens: int | None = None
    corpus: Path | None = None
    prune_vocab: int | None = None
    pooling: str | None = None
    graph_output: str | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    layer_norm: bool | None = None
    head: str = "auto"
    mrl_dims: tuple[int, ...] | None = None
    nested: tuple[int, ...] | None = None
    pairs: Path | None = None
    turn: bool = True
    tracer: str = "auto"
    allow_low_fidelity: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is {self.precision!r}, expected {', '.join(PRECISIONS)}")
        code_bytes(1, self.resolved_code)
        if self.target not in TARGETS:
            raise UsageError(f"target is {self.target!r}, expected {', '.join(TARGETS)}")
        if self.tracer not in TRACERS:
            raise UsageError(f"tracer is {self.tracer!r}, expected {', '.join(TRACERS)}")
        if self.dim is not None and self.dim < 1:
            raise UsageError(f"--dim is {self.dim}, expected at least 1")
        if self.max_tokens is not None and self.max_tokens < FEWEST_TOKENS:
            raise UsageError(
                f"--max-tokens is {self.max_tokens}, expected at least {FEWEST_TOKENS}"
            )
        if not self.turn and self.resolved_code not in PLANES:
            raise UsageError(
                f"--no-turn works with --code 2bit or 1bit; {self.resolved_code} codes are never rotated"
            )
        if self.prune_vocab is not None and self.corpus is None:
            raise UsageError("--prune-vocab needs --corpus: the text whose tokens are kept")

        self._check_head()

    def _check_head(self) -> None:
        """Raise UsageError if the options for the head contradict each other."""
        named = ("auto", "prefix", "random", *FITTED_HEADS)
        if self.head not in named and self.head_path is None:
            known = ", ".join(named)
            raise UsageError(f"--head is {self.head!r}, expected {known}, or a file NAME.npy")
        if self.head in FITTED_HEADS and self.corpus is None and self.pairs is None:
            raise UsageError(f"--head {self.head} needs --corpus: the text to fit it to")
        if self.pairs is not None and self.head not in ("auto", "linear"):
            raise UsageError(f"--pairs works with --head linear or auto, not with {self.head}")
        for name, sizes in (("--nested", self.nested), ("--mrl-dims", self.mrl_dims)):
            if sizes is not None and (not sizes or min(sizes) < 1):
                raise UsageError(f"{name} is {sizes}, expected sizes of at least 1")
        if self.nested is not None and self.head not in ("auto", *FITTED_HEADS):
            raise UsageError(
                f"--nested works with a head that is fitted, not with {self.head_name}"
            )

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that were given, by kind."""
        given = {"query": self.query_prompt, "document": self.document_prompt}
        return {kind: prompt for kind, prompt in given.items() if prompt is not None}

    @property
    def resolved_code(self) -> str:
        """How a store keeps documents' codes: one of ``edge_mrl.codes.packing.CODE_KINDS``."""
        if self.code is not None:
            return self.code
        return DEFAULT_CODE if self.dim is None else CODE_OF_DIM

    @property
    def name(self) -> str:
        """What is asked for, in a folder's name: "256-int4", "128" or "1bit"."""
        dim, code = self.dim, self.resolved_code
        if dim is None and self.head != "random":
            dim = DEFAULT_DIMS.get(code)
        parts = [str(dim)] if dim is not None else []
        return "-".join(parts + ([code] if code != "int8" or not parts else []))

    @property
    def head_path(self) -> Path | None:
        """The file that holds the head, if one is named."""
        return Path(self.head).expanduser() if self.head.endswith(".npy") else None

    @property
    def head_name(self) -> str:
        """The head as the user named it, without a path of this machine."""
        return self.head if self.head_path is None else self.head_path.name

    def check(self, source: Source) -> None:
        """Raise UsageError if the source cannot be exported with these options."""
        self.resolved_dim(source)
        self.resolved_max_tokens(source)
        self.resolved_nested(source)

    def resolved_dim(self, source: Source) -> int:
        """The code's dimensions for this source.

        Raises:
            UsageError: ``dim`` is larger than the model's vectors.
        """
        if self.dim is None:
            return self._default_dim(source)
        if self.dim > source.width:
            raise UsageError(
                f"--dim is {self.dim}, but {source.name} gives {source.width} dimensions: "
                f"choose 1 to {source.width}"
            )
        return self.dim

    def _default_dim(self, source: Source) -> int:
        wanted = DEFAULT_DIMS.get(self.resolved_code, source.width)
        if self.head == "random":
            wanted = source.width
        trained = source.mrl_dims if self.mrl_dims is None else self.mrl_dims
        sizes = [size for size in trained or () if size <= source.width]
        if self.resolved_code != "1bit" and sizes:
            below = [size for size in sizes if size <= wanted]
            return max(below) if below else min(sizes)
        return min(wanted, source.width)

    def resolved_nested(self, source: Source) -> tuple[int, ...]:
        """The prefix sizes that a head is fitted for, ascending; the last is the code's own.

        Raises:
            UsageError: A size is larger than the code.
        """
        dim = self.resolved_dim(source)
        if self.nested is None:
            return nested_sizes(dim)
        if max(self.nested) > dim:
            raise UsageError(
                f"--nested names {max(self.nested)} dimensions, but the code has {dim}: "
                f"name sizes up to {dim}"
            )
        return tuple(sorted({*self.nested, dim}))

    def resolved_layer_norm(self, source: Source) -> bool:
        """Whether a layer norm comes before the head."""
        return source.layer_norm if self.layer_norm is None else self.layer_norm

    def resolved_max_tokens(self, source: Source) -> int:
        """The longest input for this source.

        Raises:
            UsageError: ``max_tokens`` is more than the architecture's positions.
        """
        if self.max_tokens is None:
            return source.max_tokens
        if source.max_positions is not None and self.max_tokens > source.max_positions:
            raise UsageError(
                f"--max-tokens is {self.max_tokens}, but {source.name} has "
                f"{source.max_positions} positions"
            )
        return self.max_tokens
