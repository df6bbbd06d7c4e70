#!/usr/bin/env bash
# Minimum spanning trees of integer costs above 2^53 aren't minimal in scipy and igraph; they are in Higra
#
# Versions:  scipy 1.17.1, igraph 1.0.0, higra 0.6.13, networkx 3.6.1, numpy 2.4.6
# Expected:  costs of int64 (packed keys of cost and index, say) are compared as integers, or refused if they can't be.
# Behaviour: scipy and igraph turn them into float64 and then see a tie; scipy's tree has costs in float64, too. Higra and
#            networkx compare integers.
# Seen:      triangle, edges 01 and 02 cost 2^53 + 1 and 12 costs 2^53: scipy and igraph keep 01 and 02, 1 above the minimum
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet scipy==1.17.1 igraph==1.0.0 higra==0.6.13 networkx==3.6.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import higra
import igraph
import networkx
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

edges = np.array([[0, 1], [0, 2], [1, 2]])
cost = np.array([1, 1, 0]) + 2**53
totals = {}

tree = minimum_spanning_tree(csr_array((cost, edges.T), shape=(3, 3)))
totals["scipy"] = sum(int(cost[np.all(edges == pair, axis=1)][0]) for pair in np.argwhere(tree.toarray()))
chosen = igraph.Graph(n=3, edges=edges).spanning_tree(weights=cost.tolist(), return_tree=False)
totals["igraph"] = int(cost[chosen].sum())
graph = higra.UndirectedGraph(3)
graph.add_edges(edges[:, 0], edges[:, 1])
hierarchy, _ = higra.bpt_canonical(graph, cost)
totals["higra"] = int(cost[higra.get_attribute(hierarchy, "mst_edge_map")].sum())
graph = networkx.Graph()
graph.add_weighted_edges_from((*edge, c) for edge, c in zip(edges.tolist(), cost.tolist()))
chosen = networkx.minimum_spanning_tree(graph).edges(data="weight")
totals["networkx"] = sum(c for _, _, c in chosen)

least = 2**54 + 1
print("total cost above the minimum:", {name: total - least for name, total in totals.items()})
assert totals == {"scipy": least + 1, "igraph": least + 1, "higra": least, "networkx": least}
PY
