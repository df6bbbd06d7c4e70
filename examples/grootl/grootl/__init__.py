"""GrootL: a Mamba language model whose state space scans run along trees of tokens."""
