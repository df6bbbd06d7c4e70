"""Draws the documentation's pictures with the library itself: `python tools/site/pictures.py` writes docs/pictures/.

Plain SVG, so that files stay small and the same trees give the same bytes: tests/test_docs.py compares them.
"""

import sys
from pathlib import Path

import torch
import treescan

FOLDER = Path(__file__).parent.parent.parent / "docs" / "pictures"
INK, PALE, TREE, HOT = "#37474f", "#b0bec5", "#00796b", "#e65100"


class Drawing:
    def __init__(self, width, height):
        self.size = width, height
        self.parts = [f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>']

    def text(self, x, y, words, size=13, colour=INK, anchor="middle", weight="normal"):
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{words}</text>'
        )

    def lines(self, pairs, colour, width):
        path = "".join(f"M{x1:g} {y1:g}L{x2:g} {y2:g}" for (x1, y1), (x2, y2) in pairs)
        self.parts.append(f'<path d="{path}" stroke="{colour}" stroke-width="{width:g}" stroke-linecap="round" fill="none"/>')

    def arc(self, x1, x2, y, colour):
        radius = abs(x2 - x1) / 2
        self.parts.append(
            f'<path d="M{x1:g} {y:g}A{radius:g} {0.8 * radius:g} 0 0 {int(x2 > x1)} {x2:g} {y:g}" '
            f'stroke="{colour}" stroke-width="2" fill="none"/>'
        )

    def circle(self, x, y, radius, fill, stroke="none"):
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{stroke}"/>')

    def frame(self, x, y, width, height):
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{height}" fill="none" stroke="{PALE}"/>')

    def pixels(self, x, y, side, colours):
        """Squares, those of one colour in one path."""
        places = {}
        for row, line in enumerate(colours):
            for column, colour in enumerate(line):
                places.setdefault(colour, []).append(f"M{x + side * column:g} {y + side * row:g}h{side}v{side}h-{side}z")
        self.parts += [f'<path d="{"".join(paths)}" fill="{colour}"/>' for colour, paths in sorted(places.items())]

    def svg(self):
        width, height = self.size
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="sans-serif">\n' + "\n".join(self.parts) + "\n</svg>\n"
        )


def scene(height, width):
    """A small picture, (1, 1, H, W) in [0, 1]: a bright disc before a ground that darkens, and a dark bar."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ground = 0.35 + 0.25 * row / height
    disc = (row - 0.45 * height) ** 2 + (column - 0.36 * width) ** 2 < (0.34 * height) ** 2
    bar = (column > 0.72 * width) & (column < 0.86 * width)
    texture = ((7 * row + 13 * column) % 11) / 11 * 0.06
    image = torch.where(disc, 0.92 - 0.1 * column / width, torch.where(bar, 0.12, ground)) + texture
    return image[None, None].float()


def grey(values):
    return [
        [f"#{level:02x}{level:02x}{level:02x}" for level in (17 * (15 * row.clamp(0, 1)).round().int()).tolist()]
        for row in values
    ]


def heat(values):
    """White to orange in 16 steps."""
    steps = (15 * values.clamp(0, 1)).round().int()
    return [
        [f"#{255 - level // 2:02x}{255 - 13 * level:02x}{255 - 17 * level:02x}" for level in row] for row in steps.tolist()
    ]


def graph_tree_order():
    height, width, side = 6, 7, 34
    image = scene(height, width)
    tree = treescan.build_tree(image, metric="l2")
    graph = treescan.grid_graph(height, width)
    cost = treescan.edge_weights(image, graph, "l2")[0]
    position = torch.empty_like(tree.order[0]).scatter_(
        0, tree.order[0].long(), torch.arange(height * width, dtype=torch.int32)
    )
    drawing = Drawing(860, 268)
    for panel, title in enumerate(
        ("a graph: cheap edges are thick", "its minimum spanning tree", "the order: parents first")
    ):
        left, top = 20 + 284 * panel, 40
        drawing.text(left + side * width / 2, 24, title)
        drawing.pixels(left, top, side, grey(image[0, 0]))

        def centre(vertex, left=left, top=top):
            return left + side * (vertex % width + 0.5), top + side * (vertex // width + 0.5)

        edges = tree.edges[0].tolist()
        if panel == 0:
            for cheap, thickness in ((0.002, 3.5), (0.02, 2), (9, 0.8)):
                dear = 0 if cheap == 0.002 else 0.002 if cheap == 0.02 else 0.02
                drawing.lines(
                    [
                        (centre(a), centre(b))
                        for (a, b), c in zip(graph.edge_index.tolist(), cost.tolist())
                        if dear <= c < cheap
                    ],
                    "#5c6bc0",
                    thickness,
                )
        else:
            drawing.lines([(centre(a), centre(b)) for a, b in edges], TREE, 3)
        for vertex in range(height * width):
            root = vertex == tree.root[0] and panel > 0
            x, y = centre(vertex)
            drawing.circle(
                x, y, 9 if panel == 2 else 4, HOT if root else "#fff" if panel == 2 else INK, TREE if panel == 2 else "none"
            )
            if panel == 2:
                drawing.text(x, y + 3.5, position[vertex].item(), 10, "#fff" if root else INK)
    return drawing


def three_scans():
    parent = torch.tensor([[0, 0, 0, 1, 1, 2]])
    places = [(130, 62), (75, 122), (195, 122), (40, 182), (110, 182), (195, 182)]
    x = torch.zeros(1, 1, 6)
    x[0, 0, 1] = 1
    tree = treescan.Tree.from_parents(parent)
    drawing = Drawing(860, 236)
    for panel, direction in enumerate(("up", "down", "both")):
        left = 20 + 284 * panel
        y = treescan.tree_scan(x, torch.full_like(x, 0.5), tree, direction=direction)[0, 0]
        drawing.text(
            left + 130, 26, {"up": "up: leaves to root", "down": "down: root to leaves", "both": "both: all pairs"}[direction]
        )
        at = [(left + a, b) for a, b in places]
        drawing.lines([(at[a], at[b]) for a, b in tree.edges[0].tolist()], TREE, 2.5)
        for vertex, (a, b) in enumerate(at):
            drawing.circle(a, b, 19, heat(y[vertex].reshape(1, 1) * 0.8)[0][0], INK)
            if vertex == 1:
                drawing.circle(a, b, 23, "none", INK)
            drawing.text(a, b + 4.5, f"{y[vertex].item():g}", 13)
        drawing.text(left + 130, 224, "x is 1 at the ringed vertex, all weights are 0.5", 11, "#607d8b")
    return drawing


def reach():
    height, width, side = 20, 26, 10
    image = scene(height, width)
    place = 8, 8
    impulse = torch.zeros(1, 1, height, width)
    impulse[0, 0, place[0], place[1]] = 1

    def along(tree):
        above = image.flatten(2).gather(2, tree.parent[:, None].clamp(min=0).long())
        weights = torch.exp(-((image.flatten(2) - above) / 0.12).square()).view_as(image)
        return treescan.tree_scan(impulse, weights, tree)[0, 0]

    # Rows one after the other, as a sequence model reads a picture.
    raster = treescan.Tree.from_parents((torch.arange(height * width) - 1).clamp(min=0)[None])
    drawing = Drawing(860, 252)
    panels = (
        ("a picture", grey(image[0, 0])),
        ("what reaches the ring along its tree", heat(along(treescan.build_tree(image, metric="l2")))),
        ("along its rows", heat(along(raster))),
    )
    for panel, (title, colours) in enumerate(panels):
        left = 20 + 280 * panel
        drawing.text(left + side * width / 2, 24, title)
        drawing.pixels(left, 38, side, colours)
        drawing.frame(left, 38, side * width, side * height)
        drawing.circle(left + side * (place[1] + 0.5), 38 + side * (place[0] + 0.5), 6, "none", "#1a237e")
    return drawing


def tokens():
    values = [0.1, 0.9, 0.2, 0.15, 0.8, 0.85, 0.25, 0.95, 0.1, 0.9]
    features = torch.tensor([[values]])
    count = len(values)
    rows = (
        ("chain_graph: each token hangs on the one before", treescan.build_tree(features, "chain").parent[0]),
        ("causal_tree: on the nearest of three before", treescan.causal_tree(features, 3, "l2").parent[0]),
        (
            "token_graph: the minimum spanning tree, in both directions of time",
            treescan.build_tree(features, "tokens", metric="l2").parent[0],
        ),
    )
    drawing = Drawing(640, 396)
    for number, (title, parent) in enumerate(rows):
        y = 110 + 126 * number
        drawing.text(24, y - 92, title, 13, INK, "start")
        for token, above in enumerate(parent.tolist()):
            if above != token:
                drawing.arc(60 + 56 * min(above, token), 60 + 56 * max(above, token), y - 14, HOT if above > token else TREE)
        for token in range(count):
            drawing.circle(60 + 56 * token, y, 12, grey(torch.tensor([[values[token]]]))[0][0], INK)
    return drawing


def forest():
    height, width, side = 6, 10, 30
    image = scene(height, width)
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[0, :, 6] = False
    mask[0, 4:, :3] = False
    tree = treescan.build_tree(image, metric="l2", mask=mask)
    drawing = Drawing(340, 220)
    drawing.pixels(20, 20, side, grey(image[0, 0]))

    def centre(vertex):
        return 20 + side * (vertex % width + 0.5), 20 + side * (vertex // width + 0.5)

    parent = tree.parent[0].tolist()
    drawing.lines([(centre(above), centre(v)) for v, above in enumerate(parent) if above >= 0 and above != v], TREE, 3)
    for vertex, above in enumerate(parent):
        x, y = centre(vertex)
        if above < 0:
            drawing.lines([((x - 5, y - 5), (x + 5, y + 5)), ((x - 5, y + 5), (x + 5, y - 5))], "#c62828", 2)
        else:
            drawing.circle(x, y, 7 if above == vertex else 4, HOT if above == vertex else INK)
    return drawing


PICTURES = {
    "graph-tree-order": graph_tree_order,
    "three-scans": three_scans,
    "reach": reach,
    "tokens": tokens,
    "forest": forest,
}


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw().svg())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
