# Makes pyproject.toml that of treescan-cu13, the same package with the CUDA backend: sed -i -f tools/treescan-cu13.sed pyproject.toml
s/^name = "treescan"$/name = "treescan-cu13"/
s/"treescan\[/"treescan-cu13[/
s/^\[tool\.scikit-build\]$/&\ncmake.define.TREESCAN_CUDA = "ON"/
