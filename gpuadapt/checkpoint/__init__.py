"""Files of optimizers and of whole runs: one safetensors file, whole or not there."""
