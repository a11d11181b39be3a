"""What the user asked of an export, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_mrl.errors import UsageError
from edge_mrl_export.source import Source

__all__ = ["DEFAULT_DIM", "PRECISIONS", "TARGETS", "Recipe"]

DEFAULT_DIM = 128
PRECISIONS = ("int8", "int4", "fp32")
#: Processors, and whether int8 weights are stored unsigned for them. One graph is the best found for
#: ARM and for x86-64 with VNNI; without VNNI, uint8 times int8 saturates.
TARGETS = {"arm64": False, "x86-64-vnni": False, "x86-64": True}
#: Beginning and end marks leave no room for text below this.
FEWEST_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The choices behind one bundle.

    Attributes:
        dim: Dimensions of the coarse code; None for 128, or the model's own if that is smaller.
        precision: "int8", "int4" or "fp32".
        target: Processor that int8 products are made for, a key of TARGETS.
        coarse_only: Leave out the output ``full``.
        max_tokens: Longest input; None for the model's own limit.
        corpus: The user's own text, for calibration and pruning: a file or folder.
        prune_vocab: Tokens to keep in the vocabulary; None for all.
        pooling: Pooling modes, joined with "+", for an .onnx file that comes without any.
        layer_norm: Layer norm before the cut; None to go by the model's type.
        allow_low_fidelity: Write the bundle even below a gate.
    """

    dim: int | None = None
    precision: str = "int8"
    target: str = "arm64"
    coarse_only: bool = False
    max_tokens: int | None = None
    corpus: Path | None = None
    prune_vocab: int | None = None
    pooling: str | None = None
    layer_norm: bool | None = None
    allow_low_fidelity: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is {self.precision!r}, expected {', '.join(PRECISIONS)}")
        if self.target not in TARGETS:
            raise UsageError(f"target is {self.target!r}, expected {', '.join(TARGETS)}")
        if self.dim is not None and self.dim < 1:
            raise UsageError(f"--dim is {self.dim}, expected at least 1")
        if self.max_tokens is not None and self.max_tokens < FEWEST_TOKENS:
            raise UsageError(
                f"--max-tokens is {self.max_tokens}, expected at least {FEWEST_TOKENS}"
            )
        if self.prune_vocab is not None and self.corpus is None:
            raise UsageError("--prune-vocab needs --corpus: the text whose tokens are to be kept")

    def check(self, source: Source) -> None:
        """Raise UsageError if the source cannot be exported so."""
        self.resolved_dim(source)
        self.resolved_max_tokens(source)

    def resolved_dim(self, source: Source) -> int:
        """The code's dimensions for this source.

        Raises:
            UsageError: More than the model has.
        """
        if self.dim is None:
            return min(DEFAULT_DIM, source.width)
        if self.dim > source.width:
            raise UsageError(
                f"--dim is {self.dim}, but {source.name} gives {source.width} dimensions: "
                f"choose 1 to {source.width}"
            )
        return self.dim

    def resolved_max_tokens(self, source: Source) -> int:
        """The longest input for this source.

        Raises:
            UsageError: More than the architecture has positions for.
        """
        if self.max_tokens is None:
            return source.max_tokens
        if source.max_positions is not None and self.max_tokens > source.max_positions:
            raise UsageError(
                f"--max-tokens is {self.max_tokens}, but {source.name} has "
                f"{source.max_positions} positions"
            )
        return self.max_tokens
