"""How a model counts positions, asked of the model itself and of transformers.

RoBERTa and its relatives count from behind the padding token's id, others from 0. No list of types says
which: the network is run, and what it looks up is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from edge_mrl.errors import UsageError, reason

__all__ = ["LONGEST_TRIED", "first_position", "longest_that_runs", "position_rows"]

#: Tokens of the two inputs whose positions are compared.
SHORT, LONG = 4, 8
#: With fewer tokens, begin and end tokens leave no room for text.
FEWEST_TOKENS = 4
#: Longer inputs are not tried: attention over 8,192 tokens takes gigabytes.
LONGEST_TRIED = 2048


def position_rows(network: torch.nn.Module, pad_id: int) -> tuple[int, int] | None:
    """The position of the first token, and how many tokens the table of positions serves.

    Args:
        network: A transformers model.
        pad_id: Id of the padding token, which is not counted.

    Returns:
        None for networks that look positions up in no table, such as those with rotary embeddings.
    """
    highest: dict[torch.nn.Embedding, list[int]] = {}
    for count in (SHORT, LONG):
        with _watched(network) as seen:
            _run(network, count, pad_id)
        for table, ids in seen.items():
            row = ids.reshape(-1)[:count]
            if len(row) == count and bool((row.diff() == 1).all()):
                highest.setdefault(table, []).append(int(row[-1]))
    for table, ends in highest.items():
        if len(ends) == 2 and ends[1] - ends[0] == LONG - SHORT:
            first = ends[0] - SHORT + 1
            return first, table.num_embeddings - first
    return None


@contextmanager
def _watched(network: torch.nn.Module) -> Iterator[dict[torch.nn.Embedding, torch.Tensor]]:
    """The last ids that each table of the network was asked for."""
    seen: dict[torch.nn.Embedding, torch.Tensor] = {}

    def look(table: torch.nn.Embedding, given: tuple[torch.Tensor, ...]) -> None:
        seen[table] = given[0].detach().clone()

    tables = [part for part in network.modules() if isinstance(part, torch.nn.Embedding)]
    hooks = [table.register_forward_pre_hook(look) for table in tables]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _run(network: torch.nn.Module, count: int, pad_id: int) -> None:
    """Run the network on some token other than padding, repeated."""
    ids = torch.full((1, count), 1 if pad_id == 0 else 0)
    with torch.inference_mode():
        network(input_ids=ids, attention_mask=torch.ones_like(ids))


def first_position(root: Path, name: str) -> int:
    """The position that a model's own library gives to the first token, where a graph asks for positions.

    A network of one layer with random weights is made as config.json says, and watched.

    Args:
        root: The folder with config.json.
        name: The graph, for messages.

    Raises:
        UsageError: transformers does not know this type of model.
    """
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(str(root), local_files_only=True)
        pad_id = int(config.pad_token_id or 0)
        config.num_hidden_layers, config.vocab_size = 1, pad_id + 2
        found = position_rows(AutoModel.from_config(config).eval(), pad_id)
    except Exception as error:  # whatever a configuration says, and transformers makes of it
        raise UsageError(
            f"{name} has the input position_ids, and transformers cannot say how this model counts "
            f"positions ({reason(error)}): put its config.json beside it, or export it without that input"
        ) from error
    return 0 if found is None else found[0]


def longest_that_runs(run: Callable[[int], Any], claimed: int) -> int:
    """The longest input that runs, up to what files claim.

    Args:
        run: Runs an input of so many tokens, or raises.
        claimed: The limit that files name, in tokens. Above LONGEST_TRIED it is taken as it is, if an
            input of that length runs.

    Raises:
        UsageError: Not even a few tokens run; the message has the reason.
    """
    why = ""

    def runs(tokens: int) -> bool:
        nonlocal why
        try:
            run(tokens)
        except Exception as error:  # noqa: BLE001 - libraries' errors share no narrower base
            why = reason(error)
            return False
        return True

    most = min(claimed, LONGEST_TRIED)
    if runs(most):
        return claimed
    low, high = FEWEST_TOKENS, most
    if not runs(low):
        raise UsageError(f"the model runs no input of {low} tokens: {why}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low
