"""A sweep trains a configuration with several settings and compares the results.

1. ``grid``: the keys and their values, and the combinations, each of which is a run.
2. ``proposals``: with Optuna, the next combination is proposed from the results so far.
3. ``jobs``: runs are trained in processes of their own, one for each device.
4. ``state``: what has been done is in the sweep folder's ``sweep.json``, from which a sweep resumes.
5. ``results``: the measures of finished runs, tables and charts.
6. ``run_sweep``: the call that does it all.
"""
