"""Training, evaluation, checkpoints and the folder of a run, all through accelerate."""
