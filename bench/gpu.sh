#!/usr/bin/env bash
# bench/gpu.sh [ARGUMENT...]: builds Halo and its peers for this machine's NVIDIA GPU and measures them: which modes are exact there,
# throughput, the workloads W1 to W6. One table on standard output; arguments go on to `scripts/bench gpu`. Where there is no GPU, or
# no CUDA compiler, it says so and ends with 0, so that it can stand in any list of benchmarks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/local/cuda/bin

nothing() { echo "gpu: nothing is measured: $1"; exit 0; }

command -v nvidia-smi >/dev/null || nothing "no NVIDIA driver on this machine"
gpus=$(nvidia-smi -L 2>/dev/null || true)
[ -n "$gpus" ] || nothing "the NVIDIA driver finds no GPU"
command -v nvcc >/dev/null || nothing "there is a GPU, and no nvcc to build for it"
echo "gpu: $gpus" >&2

# Code for the GPUs that are here: minutes instead of most of an hour.
if [ -z "${CMAKE_ARGS:-}" ]; then
  architectures=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | tr -d . | sort -u | paste -sd';')
  export CMAKE_ARGS="-DCMAKE_CUDA_ARCHITECTURES=$architectures"
fi
scripts/build cuda all halo_benchmarks halo_peers >&2
exec scripts/bench gpu --build build/cuda "$@"
