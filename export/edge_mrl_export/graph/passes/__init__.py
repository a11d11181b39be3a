"""Graph passes: each changes one thing, and states what it requires and what it ensures.

In the order in which an export runs them (``build.py``, then ``graph/lowering.py``). Both statements
are checked when a pass runs.

| Pass             | Runs   | Requires                          | Ensures                           |
|------------------|--------|-----------------------------------|-----------------------------------|
| FoldInputs       | always | input_ids, attention_mask, at     | exactly the inputs input_ids and  |
|                  |        | most token types and positions    | attention_mask                    |
| SelectRows       | fewer  | a constant table that input_ids   | each such table has one row for   |
|                  | tokens | is looked up in                   | each token that is kept           |
| TrimPositions    | always | nothing                           | no table of positions is longer   |
|                  |        |                                   | than the longest input            |
| AppendContract   | always | these inputs; first output: token | outputs coarse int8[texts, dim]   |
|                  |        | or text embeddings                | and full float32[texts, D]        |
| SplitFusions     | always | nothing                           | no SkipLayerNormalization, no     |
|                  |        |                                   | BiasGelu                          |
| ApproximateGelu  | int8   | nothing                           | no Gelu                           |
| QuantizeProducts | int8   | a plan for each product's input   | one MatMulIntegerToFloat for each |
|                  |        |                                   | planned product                   |
| QuantizeTables   | int8   | nothing                           | no large fp32 table               |
| PackProducts     | int4   | nothing                           | one MatMulNBits for each product  |
| PackTables       | int4   | nothing                           | no large fp32 table that divides  |
|                  |        |                                   | into blocks                       |
| ShortenNames     | always | nothing                           | no name twice; inputs and outputs |
|                  |        |                                   | keep their names                  |
| LowerVersions    | always | nothing                           | no version is named that the      |
|                  |        |                                   | graph does not need               |

ONNX Runtime's own optimiser runs before SplitFusions and before ShortenNames (``graph/optimizer.py``).
"""

from __future__ import annotations

__all__: list[str] = []
