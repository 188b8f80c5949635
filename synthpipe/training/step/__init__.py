"""Parts of one training step: gradient, optimiser, average, and what is told of steps that were not finite."""
