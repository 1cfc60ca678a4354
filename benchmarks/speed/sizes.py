"""Parameters and multiply–adds of every network that can be cut out of AudioNTT2020.

python -m benchmarks.speed.sizes
"""

from __future__ import annotations

from unfused_ray.config import EncoderConfig, FrontEndConfig
from unfused_ray.models.cost import REFERENCE_PARAMETERS, cost_of
from unfused_ray.models.encoder import LAYERS


def main() -> None:
    """Print one row per network, as Markdown."""
    shapes = [EncoderConfig(cut=cut) for cut in LAYERS] + [EncoderConfig(width=1024)]
    front_end = FrontEndConfig()
    print("| ends with | width | parameters | fewer | M multiply–adds / s |\n|---|--:|--:|--:|--:|")
    for shape in shapes:
        count, work = cost_of(shape, front_end)
        fewer = 1 - count / REFERENCE_PARAMETERS
        print(f"| {shape.cut} | {shape.width} | {count:,} | {fewer:.1%} | {work / 1e6:.0f} |")


if __name__ == "__main__":
    main()
