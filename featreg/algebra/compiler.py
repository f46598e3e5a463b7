"""Compile kernels by what they need of numba, so that a first run waits less: 26 s of CPU for all of them became 15.

numba optimises every function by itself and makes machine code of it, and does both again in each function that calls it.
What only kernels call is a *part* here: left as it is for its kernels to optimise.  And of numba's passes those are left
out that look for what no kernel has.
"""

from functools import cache

from numba.core import typed_passes, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags
from numba.core.compiler_machinery import PassManager
from numba.core.types.functions import BaseFunction
from numba.core.typing import Context, Signature

_NEEDLESS = (
    untyped_passes.InlineClosureLikes,
    untyped_passes.DeadBranchPrune,  # of arguments that are None
    typed_passes.InlineOverloads,
    typed_passes.NopythonRewrites,  # of expressions over whole arrays
)


class KernelCompiler(CompilerBase):
    """numba's compiler without what kernels have no need of."""

    def __init__(self, typingctx, targetctx, library, args, return_type, flags, locals):
        flags = _FLAGS.setdefault(repr(flags), _Flags(flags))
        super().__init__(_typing_of(typingctx), targetctx, library, args, return_type, flags, locals)

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("kernel")
        for kind, purpose in DefaultPassBuilder.define_nopython_pipeline(self.state).passes:
            if kind not in _NEEDLESS:
                passes.add_pass(kind, purpose)
        passes.finalize()
        return [passes]


class PartCompiler(KernelCompiler):
    """The compiler of what only kernels call.  It is kept in no cache: each kernel's machine code has its parts in it."""

    def __init__(self, typingctx, targetctx, library, args, return_type, flags, locals):
        super().__init__(typingctx, targetctx, library or _Part(targetctx.codegen(), "part"), args, return_type, flags, locals)


class _Flags(Flags):
    """numba looks up functions by flags as well as types, and would hash and compare each of them every time."""

    def copy(self) -> "_Flags":
        return self

    def __hash__(self) -> int:
        return id(self)


class _Typing(Context):
    """numba's typing, which remembers what an operation on some types was found to be: numba asks up to ten templates for each + or [ ]."""

    def __init__(self, whole: Context):
        self.__dict__ = dict(whole.__dict__)  # its registries are this one's
        self._found = dict[tuple, Signature]()

    def resolve_function_type(self, func, args, kws):
        if not isinstance(func, BaseFunction) or kws:
            return super().resolve_function_type(func, args, kws)
        found = self._found.get((func, args))
        if found is None:
            found = self._found[func, args] = super().resolve_function_type(func, args, kws)
        return found


_FLAGS: dict[str, _Flags] = {}
_typing_of = cache(_Typing)


class _Part(JITCodeLibrary):
    """A function's code with that of all that it calls, for whoever links it."""

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """None: there is no machine code."""
        return 0

    @property
    def codegen(self) -> "_Part":
        return self

    def set_env(self, name: str, environment: object) -> None:
        """What numba sets in machine code."""
