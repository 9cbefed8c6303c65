"""The loops of CPU kernels: source files that Numba compiles behind a generated head.

`gpuadapt.kernels.cpu.compile.link` puts them together; `interface` says what a head offers.
They are not imported when gpuadapt runs.
"""
