#!/usr/bin/env bash
# scipy's minimum spanning tree drops edges that cost 0, which its other functions on the same graph take for edges
#
# Versions:  scipy 1.17.1, numpy 2.4.6
# Expected:  a sparse graph with a stored 0 has an edge there: connected_components, breadth_first_order and
#            dijkstra of the same module walk along it. Its minimum spanning tree should connect the vertices,
#            too.
# Behaviour: the tree does choose these edges, but comes back as a matrix without stored zeros, so they are
#            gone: where pictures are flat, which is where costs are 0, the tree is in pieces. No warning,
#            unlike the module's bipartite matching, which says that it removes explicit zeros.
# Seen:      3 vertices, costs 0, 1 and 2: 1 component, distances 0, 0, 1; tree with 1 edge instead of 2, in 2
#            components
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.6
"$folder/env/bin/python" -W error - <<'PY'
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, dijkstra, minimum_spanning_tree

graph = csr_array(([0.0, 1.0, 2.0], ([0, 1, 0], [1, 2, 2])), shape=(3, 3))
tree = minimum_spanning_tree(graph)
components = [connected_components(g, directed=False)[0] for g in (graph, tree)]
distances = dijkstra(graph, directed=False, indices=0).tolist()
print("stored entries:", graph.nnz, "in the graph,", tree.nnz, "in the tree; components:", *components)
print("distances from 0 in the graph:", distances, "order:", breadth_first_order(graph, 0, directed=False)[0].tolist())
assert distances == [0, 0, 1] and components == [1, 2] and tree.nnz == 1 and tree[1, 2] == 1
PY
