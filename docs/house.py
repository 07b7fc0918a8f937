"""Draw the packages of jaxnn and who imports whom: `python docs/house.py` writes docs/images/house.svg.

A room is a module or package of `jaxnn/`, an arrow an import between two rooms. FLOORS assigns each room its floor:
a room may import from lower floors only, which tests/test_house.py checks. `--check` fails if the picture is stale.
"""

import argparse
import ast
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxnn"
PICTURE = ROOT / "docs" / "images" / "house.svg"

# From the ground up: the title of a floor, its rooms, and what each holds. A new room is one line here.
FLOORS: list[tuple[str, dict[str, str]]] = [
    (
        "types and files",
        {
            "_typing": "Model, Target",
            "_arrays": "other libraries",
            "_precision": "at least float32",
            "_files": "atomic writes",
            "_runs": "folders of a run",
            "_advice": "ends of errors",
        },
    ),
    (
        "validation",
        {
            "_checks": "argument errors",
        },
    ),
    (
        "functions as data,\narrays",
        {
            "_engine": "jaxprs and rules",
            "_activation": "activations",
            "_keys": "random keys",
            "_progress": "progress bars",
            "_sharding": "meshes",
            "_outputs": "resumable files",
            "_repr": "short representations",
            "losses": "training losses",
            "plot": "matplotlib axes",
        },
    ),
    (
        "what a model is",
        {
            "_prior": "what inputs look like",
            "_model": "callable pytrees",
            "datasets": "images and labels",
        },
    ),
    (
        "reading and mapping\na model",
        {
            "_rewrite": "capture, intervene",
            "_for_cpu": "fast convolutions",
            "_operations": "tap_operations",
            "_map": "map_examples",
        },
    ),
    (
        "models, and methods\nfor any model",
        {
            "_network": "Network",
            "_adapters": "Flax to NumPy",
            "_summary": "summary",
            "_split": "split_at",
            "dreaming": "feature pictures",
            "attribution": "saliency to SHAP",
            "rules": "trees, rule lists",
            "attacks": "FGSM to square",
        },
    ),
    (
        "for a Network",
        {
            "_backquery": "backward queries",
            "weights": "weights as images",
            "_serialization": "save, load",
        },
    ),
    (
        "training, and\nthe first look",
        {
            "_training": "train, checkpoints",
            "_explain": "explain",
            "quality": "which to trust",
        },
    ),
    (
        "public names",
        {
            "__init__": "import jaxnn",
        },
    ),
]
FLOOR_OF = {
    room: floor for floor, (_, rooms) in enumerate(FLOORS) for room in rooms
}

Arrows = dict[str, set[str]]


def room_of(path: Path, package: Path = PACKAGE) -> str:
    """The room of a file: the first part of its path within the package."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imports(path: Path, package: Path = PACKAGE) -> Iterator[str]:
    """The dotted names within the package that a file imports, anywhere in it."""
    prefix = f"{package.name}."
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"{path} has a relative import, which is not read here"
                )
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            name.removeprefix(prefix) for name in names if name.startswith(prefix)
        )


def files(package: Path = PACKAGE) -> list[Path]:
    """The Python files of a package."""
    return sorted(package.rglob("*.py"))


def room_arrows(package: Path = PACKAGE) -> Arrows:
    """For each room the other rooms that it imports."""
    rooms = {room_of(path, package) for path in files(package)}
    arrows: Arrows = {room: set() for room in sorted(rooms)}
    for path in files(package):
        own = room_of(path, package)
        arrows[own] |= {
            name.split(".")[0] for name in imports(path, package)
        } & rooms - {own}
    return arrows


def module_arrows(package: Path = PACKAGE) -> Arrows:
    """For each module the other modules that it imports."""
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in files(package)
    }
    arrows: Arrows = {}
    for module, path in modules.items():
        names = list(imports(path, package))
        names = [
            name if name in modules else name.rpartition(".")[0] for name in names
        ]
        arrows[module] = set(names) & modules.keys() - {module}
    return arrows


def reachable(arrows: Arrows) -> Arrows:
    """For each node everything that a chain of arrows leads to."""
    closure = {node: set(targets) for node, targets in arrows.items()}
    for middle in closure:
        for node in closure:
            if middle in closure[node]:
                closure[node] |= closure[middle]
    return closure


def circles(arrows: Arrows) -> list[list[str]]:
    """The sets of nodes that import each other, directly or through others."""
    closure = reachable(arrows)
    groups = {
        tuple(sorted(other for other in closure[node] if node in closure[other]))
        for node in closure
        if node in closure[node]
    }
    return [list(group) for group in sorted(groups)]


def height(arrows: Arrows) -> int:
    """The number of rooms on the longest chain of arrows: the fewest floors that the rooms fit on."""
    closure = reachable(arrows)
    floors: dict[str, int] = {}
    for node in sorted(arrows, key=lambda node: len(closure[node])):
        floors[node] = 1 + max(
            (floors.get(target, 0) for target in arrows[node]), default=0
        )
    return max(floors.values())


def problems(package: Path = PACKAGE) -> list[str]:
    """Rooms without a floor, floors without a room, and imports that do not lead downwards; one message each."""
    arrows = room_arrows(package)
    messages = []
    for room in sorted(arrows.keys() - FLOOR_OF.keys()):
        lowest = 1 + max(
            (FLOOR_OF.get(target, 0) for target in arrows[room]), default=-1
        )
        title = (
            FLOORS[lowest][0].replace("\n", " ")
            if lowest < len(FLOORS)
            else "a new one"
        )
        messages.append(
            f"jaxnn/{room} has no floor: add `{room!r}: 'what it holds'` to FLOORS in docs/house.py, on floor {lowest}"
            f" ({title}) or higher, since it imports {', '.join(sorted(arrows[room])) or 'no other room'}; "
            f"then run `python docs/house.py`"
        )
    messages += [
        f"FLOORS in docs/house.py lists {room!r}, which is not in jaxnn/: remove its line"
        for room in sorted(FLOOR_OF.keys() - arrows.keys())
    ]
    for path in files(package):
        own = room_of(path, package)
        for name in imports(path, package):
            target = name.split(".")[0]
            if (
                target == own
                or not {own, target} <= FLOOR_OF.keys()
                or FLOOR_OF[target] < FLOOR_OF[own]
            ):
                continue
            messages.append(
                f"jaxnn/{path.relative_to(package)} imports jaxnn.{name}: {own} (floor {FLOOR_OF[own]}) may import "
                f"from lower floors only, and {target} is on floor {FLOOR_OF[target]}"
            )
    return messages


def summary(package: Path = PACKAGE) -> str:
    """The size of the house in one line."""
    arrows = room_arrows(package)
    upward = [
        (room, target)
        for room, targets in arrows.items()
        for target in targets
        if FLOOR_OF.get(target, -1) >= FLOOR_OF.get(room, len(FLOORS))
    ]
    return (
        f"{len(arrows)} rooms, {sum(map(len, arrows.values()))} arrows, {height(arrows)} floors, "
        f"{len(upward)} upward, {len(circles(arrows)) + len(circles(module_arrows(package)))} circles"
    )


# --- the picture ---------------------------------------------------------------------------------------------------

WIDTH, TITLES, ROOM, GAP, BOX, BAND = 1130, 150, 132, 24, 50, 100
COLORS = ["#e8eef4", "#f2f6fa"]
ROOF = 96
DRAWN = FLOORS[
    :-1
]  # the last floor, the public names, is the roof, whose arrows go to nearly every room


def essential(arrows: Arrows) -> list[tuple[str, str]]:
    """The arrows that no longer chain of arrows implies."""
    closure = reachable(arrows)
    return [
        (room, target)
        for room in sorted(arrows)
        for target in sorted(arrows[room])
        if not any(target in closure[other] for other in arrows[room] - {target})
    ]


def _top(floor: int) -> int:
    return ROOF + 8 + (len(DRAWN) - 1 - floor) * BAND


def _places() -> dict[str, tuple[float, float]]:
    """For each room the middle of its box."""
    places = {}
    for floor, (_, rooms) in enumerate(DRAWN):
        middle = TITLES + (WIDTH - TITLES) / 2
        start = middle - (len(rooms) * ROOM + (len(rooms) - 1) * GAP) / 2
        for i, room in enumerate(rooms):
            places[room] = (
                start + i * (ROOM + GAP) + ROOM / 2,
                _top(floor) + BAND / 2,
            )
    return places


def _gaps(floor: int, places: dict[str, tuple[float, float]]) -> list[float]:
    """Where an arrow can pass a floor without crossing a box."""
    middles = [places[room][0] for room in FLOORS[floor][1]]
    inner = [(left + right) / 2 for left, right in itertools.pairwise(middles)]
    reach = ROOM / 2 + GAP / 2
    return [middles[0] - reach, *inner, middles[-1] + reach]


def _ports(
    pairs: list[tuple[str, str]], places: dict[str, tuple[float, float]], end: int
) -> dict[tuple[str, str], float]:
    """Where each arrow leaves (end 0) or enters (end 1) the box of its room, spread along the edge."""
    ports = {}
    for room in places:
        mine = sorted(
            (pair for pair in pairs if pair[end] == room),
            key=lambda pair: (places[pair[1 - end]], pair),
        )
        for i, pair in enumerate(mine):
            ports[pair] = places[room][0] + ((i + 1) / (len(mine) + 1) - 0.5) * (
                ROOM - 20
            )
    return ports


def _paths(
    pairs: list[tuple[str, str]], places: dict[str, tuple[float, float]]
) -> Iterator[str]:
    """The curve of each arrow: through the gaps of the floors between, side by side with others there."""
    leave, enter = _ports(pairs, places, 0), _ports(pairs, places, 1)
    passing: dict[tuple[int, float], int] = {}
    for room, target in sorted(
        pairs, key=lambda pair: FLOOR_OF[pair[0]] - FLOOR_OF[pair[1]]
    ):
        x, y = leave[room, target], places[room][1] + BOX / 2
        end_x, end_y = enter[room, target], places[target][1] - BOX / 2 - 7
        path = f"M{x:.0f},{y:.0f}"
        for floor in range(FLOOR_OF[room] - 1, FLOOR_OF[target], -1):
            straight = x + (end_x - x) * (_top(floor) + BAND / 2 - y) / (end_y - y)
            gap = min(
                _gaps(floor, places), key=lambda gap: (abs(gap - straight), gap)
            )
            count = passing[floor, gap] = passing.get((floor, gap), 0) + 1
            next_x = gap + (count // 2) * (5 if count % 2 else -5)
            above, below = (
                _top(floor) + BAND / 2 - BOX / 2,
                _top(floor) + BAND / 2 + BOX / 2,
            )
            middle = (y + above) / 2
            path += f" C{x:.0f},{middle:.0f} {next_x:.0f},{middle:.0f} {next_x:.0f},{above:.0f} V{below:.0f}"
            x, y = next_x, below
        middle = (y + end_y) / 2
        yield f"{path} C{x:.0f},{middle:.0f} {end_x:.0f},{middle:.0f} {end_x:.0f},{end_y:.0f}"


def _text(x: float, y: float, text: str, style: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" {style}>{text}</text>'


def _head(bottom: float) -> list[str]:
    """The opening of the SVG, with the roof."""
    roof = (
        "__init__ exports the public names; experiments and your code use no others"
    )
    return [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 40}" font-family="system-ui, '
            'sans-serif" role="img" aria-labelledby="title">'
        ),
        '<title id="title">The modules and packages of jaxnn: each imports from lower floors only</title>',
        (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0,0.5 L8,4 L0,7.5 Z" fill="#5b7c99"/></marker></defs>'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
        f'<path d="M10,{ROOF + 8} L{WIDTH / 2:.0f},8 L{WIDTH - 10},{ROOF + 8} Z" fill="#b8cbdc"/>',
        _text(
            WIDTH / 2,
            ROOF - 34,
            "jaxnn",
            'font-size="24" font-weight="600" fill="#16324a"',
        ),
        _text(WIDTH / 2, ROOF - 13, roof, 'font-size="13" fill="#16324a"'),
    ]


def _floors() -> list[str]:
    """The bands of the floors, with their titles."""
    lines: list[str] = []
    for floor, (title, _) in enumerate(DRAWN):
        top = _top(floor)
        lines.append(
            f'<rect x="10" y="{top}" width="{WIDTH - 20}" height="{BAND}" fill="{COLORS[floor % 2]}"/>'
        )
        parts = title.split("\n")
        start = top + BAND / 2 + 5 - 9 * (len(parts) - 1)
        lines += [
            _text(
                24, start + 18 * i, part, 'font-size="14" fill="#45586a"', "start"
            )
            for i, part in enumerate(parts)
        ]
    return lines


def _rooms(
    places: dict[str, tuple[float, float]], arrows: dict[str, set[str]]
) -> list[str]:
    """The boxes of the rooms, with what they hold, and what they import as a tooltip."""
    lines: list[str] = []
    for room, (x, y) in places.items():
        holds = FLOORS[FLOOR_OF[room]][1][room]
        targets = ", ".join(sorted(arrows.get(room, ()))) or "no other room"
        color = "#ffffff" if room.startswith("_") else "#fff3dc"
        lines += [
            f"<g><title>{room} imports {targets}</title>",
            (
                f'<rect x="{x - ROOM / 2:.0f}" y="{y - BOX / 2:.0f}" width="{ROOM}" height="{BOX}" rx="7" '
                f'fill="{color}" stroke="#5b7c99"/>'
            ),
            _text(
                x, y - 3, room, 'font-size="15" font-weight="600" fill="#16324a"'
            ),
            _text(x, y + 15, holds, 'font-size="11.5" fill="#45586a"'),
            "</g>",
        ]
    return lines


def picture(package: Path = PACKAGE) -> str:
    """The house as SVG: floors from the ground up, rooms, and the arrows that no chain of others implies."""
    arrows = room_arrows(package)
    places = _places()
    pairs = [pair for pair in essential(arrows) if set(pair) <= places.keys()]
    bottom = _top(0) + BAND
    lines = [*_head(bottom), *_floors()]
    lines.append(
        '<g fill="none" stroke="#5b7c99" stroke-width="1.4" opacity="0.85">'
    )
    lines += [
        f'<path d="{path}" marker-end="url(#head)"/>'
        for path in _paths(pairs, places)
    ]
    lines.append("</g>")
    lines += _rooms(places, arrows)
    legend = (
        f"{summary(package)}. Public modules are tinted. "
        "Not drawn: arrows of __init__, and those that a chain of other arrows implies."
    )
    lines += [
        _text(WIDTH / 2, bottom + 25, legend, 'font-size="13" fill="#45586a"'),
        "</svg>",
        "",
    ]
    return "\n".join(lines)


def is_stale() -> bool:
    """Whether the picture differs from what the imports give."""
    return not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != picture()


def main() -> int:
    """Write or check the picture, and print the summary; the exit status is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="fail if the picture is stale; write nothing",
    )
    parser.add_argument(
        "--package",
        type=Path,
        help="count the rooms of another package folder; write nothing",
    )
    options = parser.parse_args()
    if options.package is not None:
        print(summary(options.package.resolve()))
        return 0
    messages = problems()
    if options.check:
        messages += (
            ["docs/images/house.svg is stale: run `python docs/house.py`"]
            if is_stale()
            else []
        )
    elif not messages:
        PICTURE.write_text(picture(), encoding="utf-8")
    print("\n".join([summary(), *messages]))
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main())
