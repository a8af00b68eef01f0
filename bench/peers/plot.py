"""A picture of scripts/bench peers: how long every system takes beside Halo."""

import html
import math

# One hue for Halo, greys for what it is compared with; legible on light and dark pages.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.name { font-weight: 600 } .scale { fill: #57606a } .grid { stroke: #d0d7de }
.halo { fill: #0969da } .peer0 { fill: #57606a } .peer1 { fill: #8c959f } .peer2 { fill: #bfc5cc } .bound { stroke: #cf222e; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .scale { fill: #9198a1 } .grid { stroke: #30363d }
  .halo { fill: #4493f8 } .peer0 { fill: #b1bac4 } .peer1 { fill: #848d97 } .peer2 { fill: #565e67 } .bound { stroke: #ff7b72 }
}"""
LEFT, WIDTH, BAR, GAP = 200, 760, 14, 16  # pixels


def ratio_plot(records, title):
    """SVG: for each workload a bar for each system, its median over Halo's, on a logarithmic scale; a mark where the lower bound lies.
    `records` as `peers` writes them, each workload's Halo first."""
    workloads = {}
    for record in records:
        workloads.setdefault(record["workload"], []).append(record)
    ratios = [record["ratio_to_halo"] for record in records]
    bounds = {name: of[0]["lower_bound_s"] / of[0]["median_s"] for name, of in workloads.items() if of[0]["lower_bound_s"]}
    least = math.floor(math.log2(min([1, *ratios, *bounds.values()])))
    most = max(1, math.ceil(math.log2(max(ratios) * 1.05)))
    x = lambda ratio: LEFT + (math.log2(ratio) - least) / (most - least) * (WIDTH - LEFT - 60)
    parts, y = [], 56
    systems = [record["system"] for record in next(iter(workloads.values()))]
    classes = {system: "halo" if system == "Halo" else f"peer{number - 1}" for number, system in enumerate(systems)}
    for name, of in sorted(workloads.items()):
        top = y
        parts.append(f'<text class="name" x="0" y="{y + 12}">{html.escape(name)}</text>')
        for record in of:
            ratio = record["ratio_to_halo"]
            label = f"{record['median_s']:.1f} s" if record["system"] == "Halo" else f"{ratio:.2f}"
            parts.append(f'<rect class="{classes[record["system"]]}" x="{LEFT}" y="{y}" width="{max(1, x(ratio) - LEFT):.1f}" height="{BAR - 2}">'
                         f'<title>{html.escape(record["system"])}: {record["median_s"]:.2f} s</title></rect>'
                         f'<text x="{max(LEFT + 1, x(ratio)) + 5:.1f}" y="{y + BAR - 4}">{label}</text>')
            y += BAR
        if name in bounds:
            parts.append(f'<path class="bound" d="M{x(bounds[name]):.1f} {top - 3}V{y}"><title>lower bound</title></path>')
        y += GAP
    grid = "".join(f'<path class="grid" d="M{x(2.0 ** power):.1f} 44V{y - GAP + 4}"/>'
                   f'<text class="scale" x="{x(2.0 ** power):.1f}" y="{y + 4}" text-anchor="middle">{2.0 ** power:g}</text>'
                   for power in range(least, most + 1))
    legend, at = [], 0
    for system, kind in classes.items():
        legend.append(f'<rect class="{kind}" x="{at}" y="24" width="10" height="10"/><text x="{at + 14}" y="33">{html.escape(system)}</text>')
        at += 32 + 6.3 * len(system)
    height = y + 14
    legend.append(f'<path class="bound" d="M{at} 23v12"/><text x="{at + 6}" y="33">lower bound</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
            f'aria-label="{html.escape(title)}"><style>{STYLE}\n</style><text class="name" x="0" y="12">{html.escape(title)}</text>'
            f'{"".join(legend)}{grid}{"".join(parts)}</svg>\n')
