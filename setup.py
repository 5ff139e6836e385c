"""Builds the extensions `_core`, `_text` and `_late` of `vecdb._core`; the project's metadata is in
pyproject.toml.

One extension for every processor of an architecture: each instruction set has a translation unit of
its own, compiled with its own flags, and the best one is chosen at run time. Nothing is compiled for
the builder's processor, and floating point stays IEEE: no product and sum is fused but where a
kernel asks for it, so that a vector has the same code on every processor.

VECDB_SANITIZE=address,undefined or thread builds with sanitizers.
"""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("vecdb/_core")
COMMON = [
    "adopt", "audit", "codes", "crc", "dispatch", "graph", "memory", "overlay", "pages", "pool",
    "record", "search", "stored", "sweep", "veil", "writer", "kernels_scalar",
]  # fmt: skip
TEXT = [
    "text_analyzer", "text_audit", "text_builder", "text_merge", "text_search", "text_segment", "text_view",
    "text_writer",
]  # fmt: skip
X86_FLAGS = {
    "kernels_avx2": ["-mavx2", "-mfma", "-mf16c"],
    "kernels_avx512": [
        "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c",
        "-mprefer-vector-width=512",
    ],
}  # fmt: skip
ARM_FLAGS = {"kernels_neon": [], "kernels_dotprod": ["-march=armv8.2-a+dotprod"]}

MACHINE = platform.machine().lower()
ISA_FLAGS = (
    X86_FLAGS if MACHINE in ("x86_64", "amd64") else
    ARM_FLAGS if MACHINE in ("aarch64", "arm64") else {}
)  # fmt: skip
ALWAYS = ["-std=c++17", "-fvisibility=hidden", "-ffp-contract=off"]
FLAGS = [*ALWAYS, "-O3", "-fno-math-errno", "-g0"]
LINK = ["-Wl,-s"] if platform.system() == "Linux" else []
if os.environ.get("VECDB_SANITIZE"):
    wanted = "-fsanitize=" + os.environ["VECDB_SANITIZE"]
    FLAGS = [*ALWAYS, "-O1", "-g", "-fno-omit-frame-pointer", wanted]
    LINK = [wanted]
if platform.system() == "Darwin":  # one architecture: a Python for two would ask for both
    os.environ.setdefault("ARCHFLAGS", f"-arch {MACHINE}")


class Build(build_ext):
    """Gives each instruction set's unit its flags, and compiles units side by side."""

    def build_extension(self, ext):
        compile_one = self.compiler._compile

        def compile_unit(obj, source, extension, cc_args, extra, pp_opts):
            flags = ISA_FLAGS.get(Path(source).stem, [])
            compile_one(obj, source, extension, cc_args, list(extra or []) + flags, pp_opts)

        def compile_all(sources, output_dir=None, macros=None, include_dirs=None, debug=0,
                        extra_preargs=None, extra_postargs=None, depends=None):  # fmt: skip
            macros, objects, extra, pp_opts, build = self.compiler._setup_compile(
                output_dir, macros, include_dirs, sources, depends, extra_postargs
            )
            cc_args = self.compiler._get_cc_args(pp_opts, debug, extra_preargs)
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                jobs = [
                    pool.submit(compile_unit, obj, *build[obj][:1], build[obj][1], cc_args, extra,
                                pp_opts)
                    for obj in objects if obj in build
                ]  # fmt: skip
                for job in jobs:
                    job.result()
            return objects

        self.compiler.compile = compile_all
        super().build_extension(ext)


def extension(name, units):
    """An extension module of a `.pyx`, of these units, and of headers, which are named after it."""
    named = {"_text": ("text_", "unicode_"), "_late": ("late",)}
    others = tuple(prefix for prefixes in named.values() for prefix in prefixes)
    ours = [
        path for pattern in ("*.h", "*.inl", "*.pxi") for path in CORE.glob(pattern)
        if (path.name.startswith(named[name]) if name in named else not path.name.startswith(others))
    ]  # fmt: skip
    return Extension(
        f"vecdb._core.{name}",
        [str(CORE / f"{name}.pyx"), *(str(CORE / f"{unit}.cpp") for unit in units)],
        depends=[str(path) for path in ours],
        language="c++",
        extra_compile_args=FLAGS,
        extra_link_args=[*LINK, "-pthread"],
    )


setup(
    ext_modules=[
        extension("_core", [*COMMON, *ISA_FLAGS]), extension("_text", TEXT), extension("_late", ["late"]),
    ],
    cmdclass={"build_ext": Build},
)
