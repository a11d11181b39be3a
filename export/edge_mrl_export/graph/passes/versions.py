"""The versions that a graph asks for, no newer than it needs."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

__all__ = ["LowerVersions"]

#: Newest version of ONNX operators, and the file format that came with it (ONNX, "Versioning").
_FORMATS = ((18, 8), (20, 9))


class LowerVersions(ir.passes.InPlacePass):
    """Ask for no more than the graph needs, so that older ONNX Runtimes open it.

    A runtime refuses a file that names a version that it does not know, of the format or of a set of
    operators, even if no node is of it; and ONNX Runtime names all sets that it knows.

    Requires: nothing.
    Ensures: no set of operators is named that no node is of, but ONNX's own; with opset 18 the file's
        format is 8.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = model.ir_version, dict(model.opset_imports)
        common.RemoveUnusedOpsetsPass()(model)
        opset = model.opset_imports[""]
        formats = [version for newest, version in _FORMATS if opset <= newest]
        model.ir_version = min([model.ir_version, *formats])
        after = model.ir_version, dict(model.opset_imports)
        return ir.passes.PassResult(model, modified=before != after)

    def ensures(self, model: ir.Model) -> None:
        used = {node.domain for node in ir.traversal.RecursiveGraphIterator(model.graph)}
        if unused := set(model.opset_imports) - used - {""}:
            raise ir.passes.PostconditionError(f"no node is of {', '.join(sorted(unused))}")
