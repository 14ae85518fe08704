"""The one part that is compiled: the kernel that ranking stands on. All else is in pyproject.toml."""

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

# No contraction: with fused multiplications the same list could get other scores on another machine.
OPTIONS = ["-O3", "-ffp-contract=off", "-fno-math-errno"]

setup(
    ext_modules=[
        Pybind11Extension("models._kernel", ["models/kernel.cpp"], cxx_std=17, extra_compile_args=OPTIONS)
    ]
)
