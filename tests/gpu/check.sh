#!/usr/bin/env bash
# All checks of the GPU in at most 8 minutes, in the project's root: what breaks, then the figures.
#   tests/gpu/check.sh            tables, JSON and logs go to $OUT, or to gpu_out
# On a machine without a network, wheels that it lacks are installed from .whl, and data sets unpacked from .gpu.
set -uo pipefail
export OUT=${OUT:-gpu_out}
LOGS=$OUT/logs
mkdir -p "$LOGS"
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD
if [ -d .whl ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target /tmp/site .whl/*.whl >"$LOGS/pip.log" 2>&1
  export PYTHONPATH=/tmp/site:$PWD
fi
if [ -f .gpu/data.tar.xz ]; then
  mkdir -p /tmp/data && tar -xJf .gpu/data.tar.xz -C /tmp/data && export HANDWRITING_DATA=/tmp/data
fi
table=$OUT/table.txt
: >"$table"
part() { # part NAME SECONDS COMMAND...: run it, at most so long; note its exit code, time and last line
  local name=$1 most=$2 begun=$SECONDS
  shift 2
  timeout "$most" "$@" >"$LOGS/$name.log" 2>&1
  local code=$?
  printf '%-20s rc %-4s %4s s  %s\n' "$name" "$code" $((SECONDS - begun)) "$(grep -v '^ *$' "$LOGS/$name.log" | tail -n 1 | cut -c1-150)" | tee -a "$table"
}
run="python3 -m handwriting.run -m trainer.enable_progress_bar=false"
bench() { python3 tests/benchmarks --only gpu --rounds "${ROUNDS:-1}" --json 2>"$OUT/speed.txt" >"$OUT/speed.json"; }
export -f bench

part speed "${SPEED_S:-110}" bash -c bench
part study "${STUDY_S:-180}" $run hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-8}" compile=graph name=study \
  experiment=optimizers seed=0,1,2,3,4
part mnist_fast 40 $run experiment=mnist_fast compile=graph seed=0,1,2
part tests "${TESTS_S:-150}" python3 -m pytest -q -m gpu -n "${WORKERS:-12}" --dist worksteal -p no:cacheprovider tests/gpu
grep -E "^(FAILED|ERROR)|passed|failed" "$LOGS/tests.log" >>"$table"
for name in study mnist_fast; do
  printf '\n%s\n' "$name" >>"$table"
  sed -n '/^outputs/,$p' "$LOGS/$name.log" >>"$table"
done
cat "$OUT/speed.txt" "$table"
