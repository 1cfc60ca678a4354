"""What sweeps vary: by name, a distribution of Optuna for each field of a distillation, named as in its --help."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

from unfused_ray.sweep.space import Space

_ALPHA_BETA: Space = {
    "method.alpha": FloatDistribution(0.0, 1.0),
    "method.beta": FloatDistribution(1e-3, 10.0, log=True),
}

SPACES: dict[str, Space] = {
    "alpha-beta": _ALPHA_BETA,
    "alpha-beta-clusters": {**_ALPHA_BETA, "labels.num_clusters": CategoricalDistribution((16, 32, 48, 64, 96))},
    "alpha-beta-rate": {**_ALPHA_BETA, "optimizer.lr": FloatDistribution(1e-4, 2e-3, log=True)},
    "alpha-beta-cut": {**_ALPHA_BETA, "method.cut": CategoricalDistribution(("block3", "fc1"))},
}
