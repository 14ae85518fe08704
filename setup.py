"""What is compiled: the kernel that ranking stands on, the lists of requests and answers, and the learning of vectors.

All else is in pyproject.toml.
"""

from glob import glob

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

# No contraction: with fused multiplications the same list could get other scores on another machine.
OPTIONS = ["-O3", "-ffp-contract=off", "-fno-math-errno"]

setup(
    ext_modules=[
        Pybind11Extension(
            name, [source], cxx_std=17, depends=glob("models/*.hpp"), extra_compile_args=OPTIONS
        )
        for name, source in {
            "models._kernel": "models/kernel.cpp",
            "serving._lists": "serving/lists.cpp",
            "models.training._skip_gram": "models/training/skip_gram.cpp",
        }.items()
    ]
)
