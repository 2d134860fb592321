"""How the kernels, and what is pasted into them, are compiled. Other Numba code of the process is not touched."""

# mypy: disable-error-code="no-untyped-call, no-untyped-def"

from __future__ import annotations

import gc
from typing import Any

from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

WIDE = '"prefer-vector-width"="512"'


class WideLower(Lower):
    """On Intel processors LLVM makes vectors of 256 bits where it could make 512: it is afraid for the clock, which
    arithmetic as dense as ours more than makes up for. Which features there are, the name of a kept kernel says.
    """

    def post_lower(self) -> None:
        super().post_lower()
        if "+avx512f" in self.context.codegen().magic_tuple()[2]:
            set.add(self.function.attributes, WIDE)  # llvmlite's own `add` knows no attribute that has a value


@register_pass(mutates_CFG=True, analysis_only=False)
class WideLowering(NativeLowering):
    _name = "lossmith_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return WideLower


class KernelCompiler(Compiler):
    def define_pipelines(self) -> list[Any]:
        pipelines: list[Any] = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [(WideLowering if p is NativeLowering else p, why) for p, why in pipeline.passes]
        return pipelines

    def compile_extra(self, function: Any) -> Any:
        """Without the garbage collector: Numba makes millions of small objects, and after every few thousand it would
        look through all of torch's, a sixth of the time. Numba's lock is held: one thread at a time comes here.
        """
        collects = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(function)
        finally:
            if collects:
                gc.enable()
