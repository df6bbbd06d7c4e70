"""GrootV: a vision backbone whose state space scans run along a tree that the image itself determines."""
