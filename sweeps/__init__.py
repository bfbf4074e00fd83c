"""Values and entry scripts: recipes, sweeps, and the ``caddie`` command that joins them to the service."""
