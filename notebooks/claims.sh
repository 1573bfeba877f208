# What claims.md needs, cheapest first; made by claims.py. Finished runs are skipped, others resume.
run() { python -m handwriting.run -m hydra/launcher=joblib hydra.launcher.n_jobs=2 "$@"; }

# about 0.05 hours
run experiment=claims/tta 'seed=range(10)'

# about 0.2 hours
run experiment=claims/adam 'seed=range(5)'
for seed in 0 1 2 3 4; do python -m handwriting.evaluate outputs/claims/adam/optim=adam,seed=$seed out=outputs/claims/adam/evaluation/time,seed=$seed; done

# about 0.2 hours
run experiment=claims/few_images 'seed=range(10)'

# about 0.2 hours
run experiment=claims/classics 'seed=range(5)'

# about 0.25 hours
run experiment=claims/duplicates 'seed=range(5)'

# about 0.25 hours
run experiment=claims/dropout 'seed=range(10)'

# about 0.25 hours
run experiment=claims/folds 'data.split_seed=range(10)'

# about 0.25 hours
run experiment=claims/stacking 'seed=range(5)'
for seed in 0 1 2 3 4; do python -m handwriting.evaluate outputs/claims/stacking/*seed=$seed ensemble=stack out=outputs/claims/stacking/evaluation/stack,seed=$seed; done

# about 0.25 hours
run experiment=notebook/dropout 'seed=range(5)'

# about 0.35 hours
run experiment=claims/decay 'seed=range(10)'

# about 0.35 hours
run experiment=claims/batch 'seed=range(10)'

# about 0.35 hours
run experiment=claims/sensitivity 'seed=range(5)'

# about 0.35 hours
run experiment=claims/ccnet 'seed=range(5)'

# about 0.35 hours
run experiment=notebook/augment 'seed=range(5)'

# about 0.4 hours
run experiment=claims/snapshots 'seed=range(5)'
for seed in 0 1 2 3 4; do python -m handwriting.evaluate outputs/claims/snapshots/scheduler=cyclic,seed=$seed out=outputs/claims/snapshots/evaluation/cycles,seed=$seed; done

# about 0.45 hours
run experiment=claims/street 'seed=range(5)'

# about 0.45 hours
run experiment=claims/depth 'seed=range(5)'

# about 0.45 hours
run experiment=claims/optimizers 'seed=range(10)'

# about 0.5 hours
run experiment=claims/weight_decay 'seed=range(5)'

# about 0.5 hours
run experiment=claims/networks 'seed=range(5)'

# about 1.2 hours
run experiment=claims/characters 'seed=range(5)'

python notebooks/claims.py outputs
