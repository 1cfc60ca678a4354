"""Parameters and multiply–adds of every network that can be cut out of AudioNTT2020: the README's table.

python benchmarks/sizes.py
"""

from __future__ import annotations

import torch

from unfused_ray.config import EncoderConfig, FrontEndConfig
from unfused_ray.models.cost import REFERENCE_PARAMETERS, multiply_adds, num_parameters
from unfused_ray.models.encoder import LAYERS, AudioNTT2020


def main() -> None:
    """Print one row a network, as Markdown."""
    shapes = [EncoderConfig(cut=cut) for cut in LAYERS] + [EncoderConfig(width=1024)]
    front_end = FrontEndConfig()
    print("| ends with | width | parameters | fewer | M multiply–adds / s |\n|---|--:|--:|--:|--:|")
    for shape in shapes:
        with torch.device("meta"):
            encoder = AudioNTT2020(shape, front_end.num_mels)
        count = num_parameters(encoder)
        fewer = 1 - count / REFERENCE_PARAMETERS
        work = multiply_adds(encoder, front_end) / 1e6
        print(f"| {shape.cut} | {shape.width} | {count:,} | {fewer:.1%} | {work:.0f} |")


if __name__ == "__main__":
    main()
