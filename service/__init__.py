"""Everything outside the gang: specs, seeds, the stage store, Ray, Tune, MLflow, statistics, records, commands.

Importing it needs neither torch nor ray nor mlflow: a head node without them can plan, read and verify.
"""
