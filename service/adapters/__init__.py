"""What touches the world: Ray, torchrun, MLflow, the file system. Only ``service.wiring`` imports from here."""
