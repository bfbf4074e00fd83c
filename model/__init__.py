"""Everything a torchrun rank executes: network, optimiser, packing, scoring. Knows no Ray, MLflow or records."""
