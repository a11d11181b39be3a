"""What an ``.onnx`` file takes and gives: types, sizes, and which output is the embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.errors import UsageError, reason

__all__ = ["Output", "Signature", "choose_output", "read_signature"]

INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
TYPES: dict[str, type[np.generic]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
FLOATS = {"tensor(float)", "tensor(float16)", "tensor(double)"}
#: Names that exporters give to embeddings of tokens and of texts.
TOKENS = ("last_hidden_state", "token_embeddings")
TEXTS = (
    "sentence_embedding",
    "sentence_embeddings",
    "text_embeds",
    "text_embedding",
    "embedding",
    "embeddings",
)
#: Floats of the right shape that are no embeddings.
OTHERS = ("logits", "attentions", "pooler_output", "prediction", "scores")


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs of a graph.

    Attributes:
        types: The numpy type of each input, by name.
        texts: How many texts each call takes, where that is fixed; else None.
        tokens: How many tokens each text must have, where that is fixed; else None.
    """

    types: dict[str, type[np.generic]]
    texts: int | None
    tokens: int | None

    def padded(self, rows: NDArray[np.int64], value: int) -> NDArray[np.int64]:
        """Rows and columns added, up to the fixed sizes."""
        texts, tokens = rows.shape
        shape = (self.texts or texts, self.tokens or tokens)
        if shape == rows.shape:
            return rows
        if tokens > shape[1]:
            raise UsageError(f"the graph takes {shape[1]} tokens, not {tokens}")
        result = np.full(shape, value, np.int64)
        result[:texts, :tokens] = rows
        result[texts:] = result[0]  # rows of padding alone might give NaN
        return result


def read_signature(session: Any, name: str) -> Signature:
    """The inputs of an ONNX Runtime session.

    Args:
        session: An InferenceSession.
        name: The file, for messages.

    Raises:
        UsageError: There are other inputs than those of an encoder.
    """
    inputs = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    described = ", ".join(f"{n} {kind[7:-1]}{shape}" for n, (kind, shape) in inputs.items())
    if "input_ids" not in inputs or set(inputs) - INPUTS:
        raise UsageError(
            f"{name} has the inputs {described}; expected input_ids and at most "
            f"{', '.join(sorted(INPUTS))}"
        )
    if any(kind not in TYPES or len(shape) != 2 for kind, shape in inputs.values()):
        raise UsageError(
            f"{name} has the inputs {described}; expected numbers of shape [texts, tokens]"
        )

    def fixed(axis: int) -> int | None:
        sizes = {shape[axis] for _, shape in inputs.values() if isinstance(shape[axis], int)}
        return max(sizes) if sizes else None

    return Signature({n: TYPES[kind] for n, (kind, _) in inputs.items()}, fixed(0), fixed(1))


@dataclass(frozen=True, slots=True)
class Output:
    """The output that is taken.

    Attributes:
        name: Its name.
        rank: 3 for a vector for each token, 2 for one for each text.
        width: Dimensions of these vectors.
        note: Why it was taken, where there were others.
    """

    name: str
    rank: int
    width: int
    note: str


def choose_output(
    session: Any,
    signature: Signature,
    feeds: Callable[[NDArray[np.int64], NDArray[np.int64]], dict[str, NDArray[Any]]],
    *,
    wanted: str | None,
    pools: bool,
    name: str,
) -> Output:
    """The output with the embeddings, found by running the graph: declared shapes are often missing.

    Args:
        session: An InferenceSession.
        signature: Its inputs.
        feeds: Makes all inputs from ids and mask, int64[texts, tokens].
        wanted: The output that the user named, or None.
        pools: Whether a pooling is known, so that embeddings of tokens are to be preferred.
        name: The file, for messages.

    Raises:
        UsageError: No output, or not the one that was named, holds such embeddings.
    """
    shapes = _shapes(session, signature, feeds, name)
    listed = ", ".join(f"{n} {kind[7:-1]}{list(shape)}" for n, (kind, shape) in shapes.items())
    fitting = {
        n: shape
        for n, (kind, shape) in shapes.items()
        if kind in FLOATS and _fits(shape, signature)
    }
    if wanted is not None:
        if wanted not in fitting:
            raise UsageError(
                f"--output-name is {wanted}, but the outputs of {name} are {listed}; expected floats of "
                "shape [texts, tokens, width] or [texts, width]"
            )
        return Output(wanted, len(fitting[wanted]), fitting[wanted][-1], "")
    order = [*TOKENS, *TEXTS] if pools else [*TEXTS[:2], *TOKENS, *TEXTS]
    ranked = sorted(
        (n for n in fitting if not any(part in n.lower() for part in OTHERS)),
        key=lambda n: (
            pools and len(fitting[n]) == 2,
            order.index(n) if n in order else len(order),
            -len(fitting[n]),
        ),
    )
    if not ranked:
        raise UsageError(
            f"none of the outputs of {name} is known to hold embeddings: {listed}; name one with "
            "--output-name"
        )
    taken = ranked[0]
    others = [n for n in shapes if n != taken]
    note = (
        f"the output {taken} is taken; --output-name takes another of {', '.join(others)}"
        if others
        else ""
    )
    return Output(taken, len(fitting[taken]), fitting[taken][-1], note)


def _shapes(
    session: Any, signature: Signature, feeds: Callable[..., dict[str, NDArray[Any]]], name: str
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each output for a small input."""
    mask = np.ones((signature.texts or 3, min(signature.tokens or 5, 5)), np.int64)
    kinds = {output.name: output.type for output in session.get_outputs()}
    try:
        values = session.run(None, feeds(mask, mask))
    except Exception as error:  # ONNX Runtime's own errors share no narrower public base
        raise UsageError(f"{name} cannot be run: {reason(error)}") from error
    return {n: (kinds[n], np.shape(value)) for n, value in zip(kinds, values, strict=True)}


def _fits(shape: tuple[int, ...], signature: Signature) -> bool:
    """Whether a shape is [texts, tokens, width] or [texts, width]."""
    texts, tokens = signature.texts or 3, signature.tokens or 5
    if len(shape) not in (2, 3) or shape[0] != texts or shape[-1] < 2:
        return False
    if len(shape) == 3:
        return shape[1] == tokens
    return signature.tokens is not None or shape[1] != tokens  # a number for each token is none
